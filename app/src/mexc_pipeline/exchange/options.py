"""What may be asked of MEXC: which channels in which variants, and what its contracts are called. Pure."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from mexc_pipeline.exchange.channels import ROW_TYPES, channel_of

Deal = Literal["merged", "each", "off"]
Depth = Literal["full5", "full10", "full20", "full50", "merged", "each", "off"]
Interval = Literal[
    "Min1", "Min5", "Min15", "Min30", "Min60", "Hour4", "Hour8", "Day1", "Week1", "Month1", "off"
]  # official futures WebSocket page, 2026-04
_METHOD = re.compile(r"sub((?:\.[a-z][a-z0-9]{0,30}){1,4})")


class Channels(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The table ``[channels]`` of the configuration; ``off`` and False leave a channel out. ``merged``: the exchange
    may put several deals or changes into one frame; ``each``: one a frame; ``fullN``: the best N levels of each side,
    whole."""

    ticker: bool = True
    """Whether the ticker is recorded."""
    deal: Deal = "merged"
    """How trades come: ``merged``, ``each`` or ``off``."""
    depth: Depth | tuple[Depth, ...] = "full20"
    """How the book comes: ``full5``, ``full10``, ``full20``, ``full50``, ``merged``, ``each`` or ``off``; a list of a
    ``fullN`` and ``merged`` or ``each`` has both."""
    funding: bool = False
    """Whether the funding rate is recorded."""
    index_price: bool = False
    """Whether the index price is recorded."""
    fair_price: bool = False
    """Whether the fair price, by which positions are marked, is recorded."""
    kline: Interval = "off"
    """The interval of the exchange's own candles, ``Min1`` to ``Month1``, or ``off``."""
    contract: bool = False
    """Whether changes of contracts' specifications are recorded as they are pushed."""
    extra: tuple[str, ...] = ()
    """Further subscriptions by the exchange's name of their method, such as ``sub.depth.step``."""

    @property
    def depths(self) -> tuple[Depth, ...]:
        """The ways in which the book comes, ``off`` left out."""
        chosen = (self.depth,) if isinstance(self.depth, str) else self.depth
        return tuple(way for way in chosen if way != "off")

    @property
    def fault(self) -> tuple[str, str] | None:
        """What cannot be had: the key, and one line of why; None where all can."""
        full = [way for way in self.depths if way.startswith("full")]
        if len(full) > 1 or len(self.depths) - len(full) > 1:
            return "depth", f"{', '.join(self.depths)}: of fullN only one, and beside it only one of merged and each"
        for n, method in enumerate(self.extra):
            found = _METHOD.fullmatch(method)
            if found is None:
                return "extra", f"{method!r} is no method such as 'sub.depth.step'"
            if channel_of(found[1][1:]) in ROW_TYPES:
                return "extra", f"{method} has a key of its own in [channels]"
            if method in self.extra[:n]:
                return "extra", f"{method} is there twice"
        prices = self.ticker or self.funding or self.index_price or self.fair_price
        if prices or self.deal != "off" or self.depths or self.kline != "off" or self.extra:
            return None
        return "", "all are off" if not self.contract else "only contract is on, which says nothing of a market"


def is_name(text: str) -> bool:
    """Whether the exchange may have a contract of that name: ``BASE_QUOTE``, the base of letters and digits of any
    script without lower case."""
    base, _, quote = text.partition("_")
    good_base = 1 <= len(base) <= 32 and base.isalnum() and base == base.upper()
    return good_base and re.fullmatch(r"[A-Z0-9]{1,20}", quote) is not None


def index_symbol(name: str) -> str:
    """The symbol whose index price is a contract's: that of the linear contract for an inverse one (official futures
    WebSocket page, 2026-04)."""
    return f"{name}T" if name.endswith("_USD") else name


def short_name(name: str) -> str:
    """What people call a contract: ``btc`` for ``BTC_USDT``, ``btcusdc`` for ``BTC_USDC``."""
    base, _, quote = name.partition("_")
    return (base if quote == "USDT" else base + quote).lower()
