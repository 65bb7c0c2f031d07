"""What may be asked of MEXC: which channels in which variants, and what its contracts are called. Pure."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

Deal = Literal["merged", "each", "off"]
Depth = Literal["full5", "full10", "full20", "merged", "each", "off"]


class Channels(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The table ``[channels]`` of the configuration; ``off`` and False leave a channel out. ``merged``: the exchange
    may put several deals or changes into one frame; ``each``: one a frame; ``fullN``: the best N levels of each side,
    whole."""

    ticker: bool = True
    """Whether the ticker is recorded."""
    deal: Deal = "merged"
    """How trades come: ``merged``, ``each`` or ``off``."""
    depth: Depth = "full20"
    """How the book comes: ``full5``, ``full10``, ``full20``, ``merged``, ``each`` or ``off``."""


def is_name(text: str) -> bool:
    """Whether the exchange may have a contract of that name: ``BASE_QUOTE``, the base of letters and digits of any
    script without lower case."""
    base, _, quote = text.partition("_")
    good_base = 1 <= len(base) <= 32 and base.isalnum() and base == base.upper()
    return good_base and re.fullmatch(r"[A-Z0-9]{1,20}", quote) is not None


def short_name(name: str) -> str:
    """What people call a contract: ``btc`` for ``BTC_USDT``, ``btcusdc`` for ``BTC_USDC``."""
    base, _, quote = name.partition("_")
    return (base if quote == "USDT" else base + quote).lower()
