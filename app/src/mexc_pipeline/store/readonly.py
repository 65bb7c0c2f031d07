"""What a user's statement may be, judged by what the engine parses.

The engine is given the text as a value and says what it understood: one statement, without comments
(:func:`judged`). That statement in brackets, where the grammar has neither ``INTO OUTFILE`` nor anything that changes
something, it then shows as a tree, and every node must be of a kind, and every function of a name, known to read the
database alone. What is not known is refused, whatever a later engine adds. What passes runs under ``readonly = 1`` and,
in the embedded engine, as a role without any right to files or other hosts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files

from mexc_pipeline.errors import ConfigError
from mexc_pipeline.store.engine import SYNTAX_ERROR, RefusedError, quote

_READING = ("SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN")
_NAME = r"(?:`[^`\\]+`|\w+)"
_SHOWING = re.compile(
    r"SHOW (?:FULL )?(?:TABLES|COLUMNS|DATABASES|FUNCTIONS|SETTINGS|PROCESSLIST)"
    rf"(?: FROM {_NAME}){{0,2}}(?: (?:NOT )?I?LIKE '(?:[^'\\]|\\.)*')?(?: LIMIT \d+)?"
    rf"|(?:SHOW CREATE|EXISTS) (?:TABLE|VIEW|DATABASE) {_NAME}(?:\.{_NAME})?",
    re.ASCII,
)
"""Statements that have no part in which anything else could stand; they cannot stand in brackets."""
_DESCRIBING = "DESCRIBE TABLE "
_KINDS = frozenset(
    {
        "ArrayJoin",
        "Asterisk",
        "ColumnsExceptTransformer",
        "ColumnsListMatcher",
        "ColumnsRegexpMatcher",
        "ColumnsReplaceTransformer",
        "ColumnsReplaceTransformer::Replacement",
        "ColumnsTransformerList",
        "ExpressionList",
        "Function",
        "Identifier",
        "InterpolateElement",
        "Literal",
        "OrderByElement",
        "QualifiedAsterisk",
        "QualifiedColumnsListMatcher",
        "QualifiedColumnsRegexpMatcher",
        "SampleRatio",
        "SelectIntersectExceptQuery",
        "SelectQuery",
        "SelectWithUnionQuery",
        "Subquery",
        "TableExpression",
        "TableIdentifier",
        "TableJoin",
        "TablesInSelectQuery",
        "TablesInSelectQueryElement",
        "WindowDefinition",
        "WindowListElement",
        "WithElement",
    }
)
"""Nodes that show every function below them. ``ColumnsApplyTransformer`` does not, and ``Set`` holds settings."""
_SUFFIXES = re.compile(
    "(?:argmax|argmin|array|distinct|foreach|if|map|merge|null|ordefault|ornull|resample|simplestate|state|tuple)$"
)
"""What may follow the name of an aggregate function, any number of times."""
_TAKES_FUNCTIONS = re.compile("(?:array|map)(?!$|element$)")
"""How the functions begin that call a function by its name alone, ``arrayMap(lower, …)``. No others do."""
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")
_LEADING = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|\Z)|/\*(?:(?!/\*).)*?\*/)*", re.DOTALL)


def judged(sql: str, ask: Callable[[str], list[str]]) -> str:
    """The statement to run for ``sql``, by what the engine says: ``ask`` gives the one column of its answer.
    ConfigError where it does more than read the database; else what ``ask`` raises."""
    (understood,) = ask(asked(sql))
    opening(understood)
    if _SHOWING.fullmatch(understood):
        return understood
    in_brackets = understood
    if understood.startswith(_DESCRIBING):
        in_brackets = f"SELECT * FROM {understood.removeprefix(_DESCRIBING)}"
    try:
        tree = ask(f"EXPLAIN AST SELECT * FROM ({in_brackets})")
    except RefusedError as error:
        if error.code != SYNTAX_ERROR:
            raise
        raise ConfigError(
            f"query: more than reading, as INTO OUTFILE or FORMAT are, is not allowed: {error}"
        ) from error
    if doubtful := check(line for text in tree for line in text.split("\n")):
        names = ", ".join(map(quote, sorted(doubtful)))
        if functions := ask(f"SELECT name FROM system.functions WHERE lower(name) IN ({names})"):
            raise ConfigError(
                f"query: beside functions that take functions, write the table's name before {functions[0]}"
            )
    return understood


def asked(sql: str) -> str:
    """The statement that makes the engine say what it understands ``sql`` to be. ConfigError where it is not text."""
    _require_text(sql)
    return f"SELECT formatQuerySingleLine({quote(sql)})"


def opening(sql: str) -> None:
    """Raise ConfigError where the first word is not one of reading."""
    word = re.match(r"\w*", sql[_LEADING.match(sql).end() :])[0]  # type: ignore[union-attr,index]  # both match nothing
    if word.upper() not in _READING:
        raise ConfigError(f"query: only reading is allowed ({', '.join(_READING)}), not {word.upper() or 'this'}")


def judged_by_words(sql: str) -> str:
    """The statement to run for ``sql`` by servers that cannot say what they understand (before 23.1). ConfigError where
    it does not open as one of reading, or spells the one function that reaches another host without any right. All else
    is left to ``readonly = 1``, under which such a server has no function for files."""
    _require_text(sql)
    opening(sql)
    spelled = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), sql).replace("\\", "")
    if "hascolumnintable" in f"{sql} {spelled}".lower():
        raise ConfigError("query: hasColumnInTable reaches outside the database and is not allowed")
    return sql.strip().rstrip(";")


def check(tree: Iterable[str]) -> set[str]:
    """Judge a statement by the lines of its tree. What a name or a text adds to them can only be refused: it makes no
    line go away. ConfigError where there is more in it than is known to read the database alone. Returns what may be a
    function by where it stands, though nothing calls it, and is not known."""
    names: set[str] = set()
    takes_functions = False
    for line in filter(str.strip, tree):
        kind, _, rest = line.strip().partition(" ")
        name = rest.partition(" ")[0].lower()
        if kind not in _KINDS:
            what = "APPLY" if kind == "ColumnsApplyTransformer" else "SETTINGS" if kind == "Set" else repr(kind[:50])
            raise ConfigError(f"query: {what} is not allowed: it cannot be told that it only reads the database")
        if kind == "Function":
            if not _is_known(name):
                raise ConfigError(f"query: {name[:50]} is not among the functions known to read the database alone")
            takes_functions |= bool(_TAKES_FUNCTIONS.match(name))
        elif kind == "Identifier" and not _is_known(name):
            names.add(name)
    return names if takes_functions else set()


def _is_known(name: str) -> bool:
    known = known_functions()
    while name not in known:
        shorter = _SUFFIXES.sub("", name)
        if shorter == name:
            return False
        name = shorter
    return True


@cache
def known_functions() -> frozenset[str]:
    """Functions, table functions among them, that read nothing but what they are given and the database; in lower case,
    as some may be written in any."""
    lines = (files(__package__) / "functions.txt").read_text().splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _require_text(sql: str) -> None:
    if any(ord(char) < 32 and char not in "\t\n\r" for char in sql) or not _is_utf8(sql):
        raise ConfigError("query: control characters and broken text are not allowed")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
