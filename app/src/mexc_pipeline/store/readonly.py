"""What a user's statement may be before the engine sees it.

The engine itself refuses writes (``readonly = 1``). That leaves what ClickHouse counts as reading: ``INTO OUTFILE``,
functions that reach files and other hosts, ``KILL QUERY``. These are refused here, by words outside of literals. The
scanner refuses whatever it could misread (letters outside ASCII, ``$``, ``#``), so nothing hides behind a quote.
"""

from __future__ import annotations

import re

from mexc_pipeline.errors import UserError

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*|/\*.*?\*/)
    | (?P<string>'(?:[^'\\]|\\.|'')*')
    | (?P<quoted>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<number>[0-9][0-9A-Za-z_.]*)
    | (?P<sign>[-+*/%=<>!.,:;()\[\]{}?|@^~&])
    """,
    re.VERBOSE | re.DOTALL,
)
_FIRST = ("SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN")
_FORBIDDEN_WORDS = frozenset({"OUTFILE", "FORMAT", "INFILE"})
_REACHING = frozenset(
    re.findall(
        r"\w+",
        """
    arrowflight arrowstream azureblobstorage azureblobstoragecluster bigquery catboostpool cluster clusterallreplicas
    cosn deltalake deltalakeazure deltalakeazurecluster deltalakecluster deltalakelocal deltalakes3 deltalakes3cluster
    dictionary eval executable file filecluster filesystem format fuzzjson fuzzquery gcs hdfs hdfscluster hive hudi
    hudicluster iceberg icebergazure icebergazurecluster icebergcluster iceberghdfs iceberghdfscluster iceberglocal
    iceberglocalcluster icebergs3 icebergs3cluster input jdbc loop mongodb mysql odbc oss paimon paimonazure
    paimonazurecluster paimoncluster paimonhdfs paimonhdfscluster paimonlocal paimons3 paimons3cluster postgresql
    prometheusquery prometheusqueryrange python redis remote remotesecure s3 s3cluster shardbyhash sqlite url
    urlcluster ytsaurus
        """,
    )
)


def check(sql: str) -> str:
    """The statement without a trailing semicolon. UserError where it is not one read-only statement."""
    tokens = _scan(sql)
    while tokens and tokens[-1] == ("sign", ";"):
        tokens.pop()
    if not tokens:
        raise UserError("query: there is no statement")
    if ("sign", ";") in tokens:
        raise UserError("query: one statement at a time")
    kind, first = tokens[0]
    opening = next((text for kind, text in tokens if (kind, text) != ("sign", "(")), first).upper()
    if opening not in _FIRST:
        raise UserError(f"query: only reading is allowed ({', '.join(_FIRST)}), not {opening}")
    for position, (kind, text) in enumerate(tokens):
        following = tokens[position + 1] if position + 1 < len(tokens) else ("", "")
        called = following == ("sign", "(")
        if kind == "word" and text.upper() in _FORBIDDEN_WORDS and not called:
            raise UserError(f"query: {text.upper()} is not allowed")
        name = re.sub(r"\W", "", text).lower() if kind in ("word", "quoted") else ""
        if called and name in _REACHING:
            raise UserError(f"query: {name}() reaches outside the database and is not allowed")
        if kind == "quoted" and "\\" in text:
            raise UserError("query: escapes in quoted names are not allowed")
    return re.sub(r"[;\s]+\Z", "", sql)


def _scan(sql: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        if match is None:
            raise UserError(f"query: {sql[position]!r} is not allowed outside of quotes")
        kind = str(match.lastgroup)
        if kind != "space":
            found.append((kind, match[0]))
        position = match.end()
    return found
