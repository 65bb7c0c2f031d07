"""Numbers as the exchange spells them, turned into exact columns.

The wire has trailing zeros, exponents, whole numbers where a decimal is expected and tails of thirty zeros (observed
on the wire, 2026-09): text goes straight to a decimal, never through a binary float.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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
_NUMBER = re.compile(rb'"?-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"?')


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
    texts = [bytes(raw) for raw in raws]
    try:
        return pa.array(texts, pa.string()).cast(target)
    except pa.ArrowInvalid:
        return _carefully(texts, target)


def _carefully(texts: Sequence[bytes], target: Any) -> Any:
    """The same where some values are null, in quotes, not numbers, or do not fit."""
    wrong = [n for n, text in enumerate(texts) if text != b"null" and not _NUMBER.fullmatch(text)]
    if wrong:
        raise NotNumbers(wrong)
    plain = pa.array([None if text == b"null" else text.strip(b'"') for text in texts], pa.string())
    try:
        if pa.types.is_integer(target):  # 12.0 and 1.2E+1 are whole numbers too
            return plain.cast(WIDE).cast(target)
        return plain.cast(target)
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


def milliseconds(raws: Iterable[msgspec.Raw]) -> Any:
    """A ``timestamp[ms, UTC]`` column from Unix milliseconds given as numbers or text."""
    return pc.cast(column(raws, pa.int64()), pa.timestamp("ms", "UTC"))
