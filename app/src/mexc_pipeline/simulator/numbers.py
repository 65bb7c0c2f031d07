"""Prices as integers of a stated scale, and the many ways the exchange spells them.

Nothing here is ever a binary float: a price is `units`, an integer count of 10**-scale.
"""

from __future__ import annotations

from decimal import Decimal
from random import Random


def spell(units: int, scale: int) -> str:
    """Return `units` * 10**-scale as the shortest plain decimal: no exponent, no trailing zero."""
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(units), 10**scale)
    if not part:
        return f"{sign}{whole}" if whole else "0"
    return f"{sign}{whole}." + f"{part:0{scale}d}".rstrip("0")


def respell(text: str, rng: Random) -> str:
    """Spell a plain decimal another way with the same value.

    The three ways were observed on the wire (2024-11 to 2026-09): trailing zeros (`0.080100`),
    an exponent (`7.548E+4`, only where the number ends in zeros), a tail of thirty zeros.
    """
    way = rng.random()
    if way < 0.04:
        return text + ("" if "." in text else ".") + "0" * 30
    if "." in text:
        return text + "0" * rng.randint(1, 2)
    if len(text) > 1 and text.endswith("0") and text.isdigit():
        digits = text.rstrip("0")
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{digits[0]}{fraction}E+{len(text) - 1}"
    return text


def to_decimal(units: int, scale: int) -> Decimal:
    """Return `units` * 10**-scale exactly."""
    return Decimal(units).scaleb(-scale)
