"""Numbers as the exchange spells them, turned into exact columns.

The wire has trailing zeros, exponents, whole numbers where a decimal is expected and tails of thirty zeros (observed
on the wire, 2026-09): text goes straight to a decimal, never through a binary float.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

PRICE = pa.decimal128(19, 12)
VOLUME = pa.decimal128(18, 6)
"""Contracts. The product of a price and a volume is a decimal128(38, 18), the widest there is."""
WIDE = pa.decimal128(38, 18)
"""Everything else: turnovers, rates, open interest."""

NULL = msgspec.Raw(b"null")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_NONE = pa.scalar(None, pa.string())


class NotNumbers(Exception):  # noqa: N818 -- carries positions to its only caller
    """Positions of values that are neither numbers nor null."""

    def __init__(self, positions: list[int]) -> None:
        super().__init__(positions)
        self.positions = positions


def column(raws: Iterable[msgspec.Raw], kind: Any, *, floats: bool = False) -> Any:
    """An Arrow column of that type (or float64) from raw JSON values; null where the value is null or absent.

    NotNumbers where some are no numbers. ValueError where one does not fit the type exactly, naming it.
    """
    target = pa.float64() if floats and pa.types.is_decimal(kind) else kind
    texts = pa.array([bytes(raw) for raw in raws], pa.string())
    try:
        return texts.cast(target)
    except pa.ArrowInvalid:
        plain = pc.ascii_trim(pc.replace_with_mask(texts, pc.equal(texts, "null"), _NONE), characters='"')
    try:
        return plain.cast(target)
    except pa.ArrowInvalid:
        return _carefully(plain, target)


def _carefully(plain: Any, target: Any) -> Any:
    """The same where some are not numbers, do not fit, or are whole numbers spelled as decimals."""
    wrong = [n for n, text in enumerate(plain.to_pylist()) if text is not None and not _NUMBER.fullmatch(text)]
    if wrong:
        raise NotNumbers(wrong)
    try:
        return plain.cast(WIDE).cast(target) if pa.types.is_integer(target) else plain.cast(target)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{_first_unfit(plain, target)} does not fit {target} exactly; floats=True reads it"
        ) from error


def _first_unfit(values: Any, target: Any) -> str:
    for value in values:
        try:
            value.cast(target)
        except pa.ArrowInvalid:
            return str(value)
    return "a value"
