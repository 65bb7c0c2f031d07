"""What a user's statement may be, judged in the engine's own words.

The engine parses the text, which is given to it as a value, and says what it understood (:func:`asked`): one statement,
without comments, names and strings written in one way only. That is what is judged here and what then runs, under
``readonly = 1`` and, in the embedded engine, as a role without any right to files or other hosts. What is left to
refuse here is what ClickHouse takes for reading and needs no right for: ``INTO OUTFILE``, ``KILL QUERY``, and the
functions that read a file or this process, or ask another host.
"""

from __future__ import annotations

import re

from mexc_pipeline.errors import UserError
from mexc_pipeline.store.engine import quote

_READING = ("SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN")
_REACHING = frozenset(
    [
        "file",
        "python",
        "arrowstream",
        "eval",
        "hascolumnintable",
        "aiclassify",
        "aiembed",
        "aiextract",
        "aifilter",
        "aigenerate",
        "airedact",
        "aisimilarity",
        "aitranslate",
    ]
)
"""Functions that need no right: in the embedded engine ``file`` reads any file, ``Python`` and ``arrowstream`` objects
of this process; ``eval`` runs a text that was not judged; ``ai…`` and, on a server, ``hasColumnInTable`` ask any
host."""
_NO_CALL = frozenset({"IN", "AND", "OR", "NOT", "AS", "FROM", "JOIN", "ON", "USING", "BY", "SELECT", "WHERE", "HAVING"})
_TOKEN = re.compile(
    r"(?P<string>'(?:[^'\\]|\\.)*')|(?P<word>`(?:[^`\\]|\\.)*`|[A-Za-z_][A-Za-z0-9_]*)|[0-9][0-9A-Za-z_.]*|\S",
    re.DOTALL,
)
_LEADING = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|\Z)|/\*(?:(?!/\*).)*?\*/)*", re.DOTALL)


def asked(sql: str) -> str:
    """The statement that makes the engine say what it understands ``sql`` to be. UserError where it is not text."""
    if any(ord(char) < 32 and char not in "\t\n\r" for char in sql) or not _is_utf8(sql):
        raise UserError("query: control characters and broken text are not allowed")
    return f"SELECT formatQuerySingleLine({quote(sql)})"


def opening(sql: str) -> None:
    """Judge the first word alone, for servers that cannot say what they understand (before 23.1). UserError where it is
    not one of reading."""
    word = re.match(r"\w*", sql[_LEADING.match(sql).end() :])[0]  # type: ignore[union-attr,index]  # both match nothing
    if word.upper() not in _READING:
        raise UserError(f"query: only reading is allowed ({', '.join(_READING)}), not {word.upper() or 'this'}")


def check(understood: str) -> str:
    """``understood`` again. UserError where it does more than read the database."""
    tokens = [(str(match.lastgroup or "sign"), match[0]) for match in _TOKEN.finditer(understood)]
    opening(understood)
    calls: list[bool] = []
    """For each bracket that is open: whether it holds the arguments of a function."""
    for n, (kind, text) in enumerate(tokens):
        before, after = tokens[n - 1] if n else ("", ""), tokens[n + 1] if n + 1 < len(tokens) else ("", "")
        if text in ("(", "["):
            is_call = before[1] == ")" or (before[0] == "word" and before[1] not in _NO_CALL)
            calls.append(text == "(" and is_call and after[1] not in ("SELECT", "WITH"))
        elif text in (")", "]") and calls:
            calls.pop()
        elif text in ("'", "`"):
            raise UserError("query: a quotation mark without its other half")
        elif (text, after[1]) in (("INTO", "OUTFILE"), ("PARALLEL", "WITH")):
            raise UserError(f"query: {text} {after[1]} is not allowed")
        elif text == "FORMAT" and after[0] == "word" and tokens[n + 2 : n + 3] in ([], [("word", "SETTINGS")]):
            raise UserError("query: FORMAT is not allowed")
        elif kind == "word" and text.strip("`").lower() in _REACHING and before[1] != ".":
            if after[1] == "(" or before[1] == "APPLY":
                raise UserError(f"query: {text} reaches outside the database and is not allowed")
            if calls and calls[-1]:
                raise UserError(f"query: in a function's arguments, write the table's name before {text}")
    return understood


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
