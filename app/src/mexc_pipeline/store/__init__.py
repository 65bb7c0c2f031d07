"""The store: loads the spool into ClickHouse for live queries and proves that what it loaded is what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mexc_pipeline.config import Config


def main(config: Config, parent_fd: int | None = None) -> int:
    """Run the store process; see :func:`mexc_pipeline.store.service.main`."""
    from mexc_pipeline.store.service import main as run

    return run(config, parent_fd)
