"""An id names one symbol of the exchange: everything that is kept under it (folder, tables, files) is of that one."""

from __future__ import annotations

from pathlib import Path

from mexc_pipeline.errors import ConfigError
from mexc_pipeline.spool.segment import in_order


def check_label(folder: Path, symbol_id: str, symbol: str) -> None:
    """ConfigError where the spool folder of that id holds segments of another symbol than ``symbol``."""
    for segment in reversed(in_order(folder).readable):
        refuse_other(symbol_id, symbol, segment.symbol)


def refuse_other(symbol_id: str, symbol: str, there: str) -> None:
    """ConfigError where what is ``there`` under that id is of another symbol; empty where that is not known."""
    if there not in ("", symbol):
        raise ConfigError(
            f"id {symbol_id!r} holds what was recorded of {there}, so {symbol} needs an id of its own: "
            f'set [symbol.{symbol}] id = "…"'
        )
