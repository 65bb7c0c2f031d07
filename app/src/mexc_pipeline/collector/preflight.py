"""Asks the exchange, before or beside recording, whether it lists a symbol."""

from __future__ import annotations

from mexc_pipeline import config
from mexc_pipeline.egress.dial import Dial, EgressError
from mexc_pipeline.egress.http import Rest
from mexc_pipeline.exchange.rest import Listing, detail_path, read_listing

ANSWER_S = 5.0

__all__ = ["Listing", "ask_listing"]


def ask_listing(settings: config.Config, symbol: config.Symbol, dialler: Dial) -> Listing:
    """Ask over the symbol's own egress; ``unknown`` where no answer came within 5 s of being connected."""
    try:
        answer = Rest(symbol.egress, settings.exchange, dialler).get(detail_path(symbol.name), ANSWER_S)
    except EgressError as error:
        return Listing("unknown", str(error))
    return read_listing(symbol.name, answer.status, answer.body)
