"""Brings an engine's tables up to date from the numbered files in ``sql/``."""

from __future__ import annotations

import re
import time
from importlib import resources

from mexc_pipeline.store import records
from mexc_pipeline.store.engine import Engine, RefusedError, quote

_FILE = re.compile(r"(\d{3})_\w+\.sql")
_CREATES = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")
_ADDS = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+) (\S+)")
_COLUMN = re.compile(r"^  (\w+) +(.+?),?$", re.MULTILINE)


def files() -> list[tuple[int, str, list[str]]]:
    """The files in order, each as (version, file name, statements)."""
    found = []
    for entry in resources.files(__package__).joinpath("sql").iterdir():
        if match := _FILE.fullmatch(entry.name):
            found.append((int(match[1]), entry.name, statements(entry.read_text(encoding="utf-8"))))
    return sorted(found)


def statements(text: str) -> list[str]:
    """The statements of a file: comments start with ``--``, a statement ends with ``;`` at the end of a line."""
    code = "\n".join(line.partition("--")[0].rstrip() for line in text.splitlines())
    return [s.strip() for s in re.split(r";\s*(?:\n|$)", code) if s.strip()]


def apply(engine: Engine) -> list[str]:
    """Apply what has not been applied here yet, and again what made a table, or a column of one, that is gone; a table
    with other columns is set apart. Returns the names of those files. Raises EngineError."""
    (version, name, first), *rest = files()
    _set_others_apart(engine)
    for statement in first:
        _make(engine, statement)
    known = {row[0] for row in records.read(engine, "schema_versions", "SELECT version FROM schema_versions")}
    applied = []
    for version, name, parts in rest:
        there = _there(engine)
        lacking = [statement for statement in parts if not set(_made(statement)) <= there]
        if version in known and not lacking:
            continue
        for statement in lacking:
            _make(engine, statement)
        if version not in known:
            columns = [("version", "UInt32"), ("file", "String"), ("at", "DateTime('UTC')")]
            engine.insert("schema_versions", columns, [(version, name, int(time.time()))])
        applied.append(name)
    return applied


def _make(engine: Engine, statement: str) -> None:
    """Others apply the files at the same time, in other threads and from other stores on one server: what is refused
    because they were first is done."""
    try:
        engine.execute(statement)
    except RefusedError:
        if not set(_made(statement)) <= _there(engine):
            raise


def _made(statement: str) -> list[tuple[str, str]]:
    """The (table, column) that a statement adds; the column is empty where it makes the table."""
    added = [(table, column) for table, column, _ in _ADDS.findall(statement)]
    return added or [(table, "") for table in _CREATES.findall(statement)]


def _there(engine: Engine) -> set[tuple[str, str]]:
    """Tables of records and their columns as :func:`_made` names them."""
    found: set[tuple[str, str]] = set()
    for table, column in engine.select(
        f"SELECT table, name FROM system.columns WHERE database = currentDatabase() AND table IN ({_names()})"
    ):
        found |= {(table, ""), (table, column)}
    return found


def _names() -> str:
    return ", ".join(map(quote, columns()))


def columns() -> dict[str, set[tuple[str, str]]]:
    """The columns of each table that the files create, each as (name, type)."""
    made = ((_CREATES.match(statement), statement) for _, _, parts in files() for statement in parts)
    return {match[1]: set(_COLUMN.findall(statement)) for match, statement in made if match is not None}


def added() -> list[tuple[str, str, str]]:
    """The columns that later files add to those tables, each as (table, name, type)."""
    return [column for _, _, parts in files() for statement in parts for column in _ADDS.findall(statement)]


def _set_others_apart(engine: Engine) -> None:
    """What has a table's name and lacks its columns takes none of its rows: with it nothing would ever go on."""
    found: dict[str, set[tuple[str, str]]] = {}
    for table, name, kind in engine.select(
        f"SELECT table, name, type FROM system.columns WHERE database = currentDatabase() AND table IN ({_names()})"
    ):
        found.setdefault(table, set()).add((name, kind))
    for table, wanted in columns().items():
        has = found.get(table)
        if has is None:
            continue
        lacking = {name for name, _ in wanted - has}
        lacking |= {c for of, c, kind in added() if of == table and (c, kind) not in has and c in dict(has)}
        if lacking:
            named = ", ".join(sorted(lacking))
            records.set_apart(engine, table, f"columns that are missing or of another type: {named}")
