"""Reads the tables of records (what each row table holds, which files are logged) and sets a damaged one apart.

What they say of the present is in the spool and in the files, so that an empty one in their place is filled again.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from mexc_pipeline.store.engine import Engine, RefusedError, is_damage

log = logging.getLogger("mexc_pipeline.store")


def read(engine: Engine, table: str, sql: str) -> list[tuple[Any, ...]]:
    """The rows of ``sql``, which reads ``table`` alone.

    Raises EngineError. Where two tries find the table damaged, it is first set apart: schema's next ``apply``, as every
    new connection of a loader does, makes another.
    """
    try:
        return engine.select(sql)
    except RefusedError as error:
        if not is_damage(error):
            raise
    try:
        return engine.select(sql)
    except RefusedError as error:
        if is_damage(error):
            set_apart(engine, table, f"cannot be read: {error}")
        raise


def set_apart(engine: Engine, table: str, why: str) -> None:
    """Rename a table of records to ``<table>_damaged_<time>``. Raises EngineError."""
    aside = f"{table}_damaged_{datetime.now(UTC).strftime('%Y%m%d%H%M%S')}"
    engine.execute(f"RENAME TABLE {table} TO {aside}")
    log.error(
        "table of records is damaged and set apart; what the spool tells of it is filled in again",
        extra={"fields": {"table": table, "as": aside, "error": why}},
    )
