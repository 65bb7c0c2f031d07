"""Brings an engine's tables up to date from the numbered files in ``sql/``."""

from __future__ import annotations

import re
import time
from importlib import resources

from mexc_pipeline.store import records
from mexc_pipeline.store.engine import Engine, quote

_FILE = re.compile(r"(\d{3})_\w+\.sql")
_CREATES = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")
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
    """Apply what has not been applied here yet, and again what made a table that is gone or has other columns, which is
    set apart; returns the names of those files. Raises EngineError."""
    (version, name, first), *rest = files()
    _set_others_apart(engine)
    for statement in first:
        engine.execute(statement)
    known = {row[0] for row in records.read(engine, "schema_versions", "SELECT version FROM schema_versions")}
    there = {row[0] for row in engine.select("SELECT name FROM system.tables WHERE database = currentDatabase()")}
    applied = []
    for version, name, parts in rest:
        made = {table for statement in parts for table in _CREATES.findall(statement)}
        if version in known and made <= there:
            continue
        for statement in parts:
            engine.execute(statement)
        if version not in known:
            columns = [("version", "UInt32"), ("file", "String"), ("at", "DateTime('UTC')")]
            engine.insert("schema_versions", columns, [(version, name, int(time.time()))])
        applied.append(name)
    return applied


def columns() -> dict[str, set[tuple[str, str]]]:
    """The columns of each table that the files create, each as (name, type)."""
    made = ((_CREATES.match(statement), statement) for _, _, parts in files() for statement in parts)
    return {match[1]: set(_COLUMN.findall(statement)) for match, statement in made if match is not None}


def _set_others_apart(engine: Engine) -> None:
    """What has a table's name and lacks its columns takes none of its rows: with it nothing would ever go on."""
    found: dict[str, set[tuple[str, str]]] = {}
    for table, name, kind in engine.select(
        "SELECT table, name, type FROM system.columns WHERE database = currentDatabase()"
        f" AND table IN ({', '.join(map(quote, columns()))})"
    ):
        found.setdefault(table, set()).add((name, kind))
    for table, wanted in columns().items():
        if table in found and (lacking := wanted - found[table]):
            named = ", ".join(sorted(name for name, _ in lacking))
            records.set_apart(engine, table, f"columns that are missing or of another type: {named}")
