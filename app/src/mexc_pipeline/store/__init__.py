"""The store: loads the spool into ClickHouse for live queries and proves that what it loaded is what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mexc_pipeline.config import Config


def main(config: Config, parent_fd: int | None = None) -> int:
    """Run the store process; see :func:`mexc_pipeline.store.service.main`."""
    from mexc_pipeline.store.service import main as run

    return run(config, parent_fd)


def query(config: Config, sql: str, max_rows: int) -> dict[str, Any]:
    """Answer one statement while no store runs; see :func:`mexc_pipeline.store.service.query`."""
    from mexc_pipeline.store.service import query as ask

    return ask(config, sql, max_rows)
