"""Numbers as the exchange spells them, turned into exact columns.

The wire has trailing zeros, exponents, whole numbers where a decimal is expected and tails of thirty zeros (observed
on the wire, 2026-09): text goes straight to a decimal, never through a binary float. A number of at most 38 digits
before the point and 38 behind it is read exactly, however it is spelled; of any other its reader says so.

Arrow is only ever given text that surely fits: its own casts take 140 nines for -1 (pyarrow 26).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PRICE = pa.decimal128(19, 12)
VOLUME = pa.decimal128(18, 6)
"""Contracts. The product of a price and a volume is a decimal128(38, 18), the widest there is."""
WIDE = pa.decimal128(38, 18)
"""Everything else: turnovers, rates, open interest."""
WIDEST = pa.decimal256(76, 38)
"""Holds every number that is read at all."""
MOST_DIGITS = 38
"""Before the point, and as many behind it."""

FIRST_MS, END_MS = 10**12, 10**13
"""A time of 13 digits is one in milliseconds; of any other the unit is not known."""

NULL = msgspec.Raw(b"null")
"""What a field holds that is not there; the object itself tells it from a null that was sent."""
_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?")
_MOST_EXPONENT_DIGITS = 6
_ANY = Context(prec=1000)
_SHORT = 20
"""Characters: so many digits, and eighteen more behind the point, are below 2^127."""
_PLAIN_FLOAT = r"^-?[0-9]{1,30}(\.[0-9]{1,30})?$"
_NONE = pa.scalar(None, pa.string())


class NotExactError(ValueError):
    """A value that is no number, or has no exact place in a column; the text says which."""


class NotNumbers(Exception):  # noqa: N818 -- carries positions to its only caller
    """Positions of values that cannot be read, and why the first of them cannot."""

    def __init__(self, positions: list[int], why: str) -> None:
        super().__init__(positions, why)
        self.positions = positions
        self.why = why


def exact(raw: bytes | msgspec.Raw) -> Decimal | None:
    """A raw JSON number, or one in quotes, as it is; None for null. NotExactError for anything else."""
    text = _text(raw)
    if text is None:
        return None
    found = _parts(text)
    sign, whole, behind, exponent = found
    digits = (whole + behind).lstrip("0")
    power = exponent - len(behind)
    short = digits.rstrip("0")
    if not short:
        return Decimal(0)
    power += len(digits) - len(short)
    if len(short) + power > MOST_DIGITS or -power > MOST_DIGITS:
        raise NotExactError(f"{_shown(text)} has more than {MOST_DIGITS} digits before or behind the point")
    if power > 0:
        short, power = short + "0" * power, 0
    return Decimal(f"{sign}{short}E{power}")


def column(raws: Sequence[msgspec.Raw], kind: Any, *, floats: bool = False) -> Any:
    """An Arrow column from raw JSON values; null where the value is null or absent.

    Its type is ``kind`` (a decimal, or int64) where every value fits it exactly, else the decimal that holds them all;
    with ``floats``, float64 in place of decimals. NotNumbers where some cannot be read so.
    """
    target = pa.float64() if floats and pa.types.is_decimal(kind) else kind
    values = [bytes(raw) for raw in raws]
    texts = _strings(values)
    texts = pc.replace_with_mask(texts, pc.equal(texts, "null"), _NONE)
    if _short(texts):
        try:
            return texts.cast(target)
        except pa.ArrowInvalid:
            pass  # one of them is to be looked at, then
    plain = pc.match_substring_regex(texts, _pattern(target))
    odd = pc.indices_nonzero(pc.invert(pc.fill_null(plain, True))).to_pylist()
    if not odd:
        return texts.cast(target)
    found: dict[int, Any] = {}
    wrong: list[int] = []
    why = ""
    for n in odd:
        try:
            found[n] = _one(values[n], target)
        except NotExactError as error:
            wrong.append(n)
            why = why or str(error)
    if wrong:
        raise NotNumbers(wrong, why)
    if not pa.types.is_decimal(target):
        listed = texts.filter(pc.fill_null(plain, True)).cast(target).to_pylist()
        rest = iter(listed)
        return pa.array([found[n] if n in found else next(rest) for n in range(len(values))], target)
    spelled = {n: None if value is None else format(value, "f") for n, value in found.items()}
    mask = pa.array([n in found for n in range(len(values))])
    texts = pc.replace_with_mask(texts, mask, pa.array([spelled[n] for n in odd], pa.string()))
    wide = _wide(kind, [value for value in found.values() if value is not None])
    if wide == WIDEST:  # Arrow casts no text to it
        return pa.array([None if text is None else Decimal(text) for text in texts.to_pylist()], WIDEST)
    return texts.cast(wide)


def decimals(values: Sequence[Decimal | None], kind: Any) -> Any:
    """An Arrow column of these numbers: ``kind`` where all fit it exactly, else the decimal that holds them."""
    plain = [None if value is None else Decimal(format(_ANY.normalize(value), "f")) for value in values]
    return pa.array(plain, _wide(kind, [value for value in plain if value is not None]))


def is_ms(value: Decimal | int) -> bool:
    """Whether a whole number is a time in Unix milliseconds, by the rule for the ``ts`` of frames."""
    return FIRST_MS <= value < END_MS


def times(values: Any) -> tuple[Any, int]:
    """An int64 column as timestamp[ms, UTC], null where it holds no time in milliseconds, and how many such are."""
    bounds = pc.min_max(values).as_py()
    odd = 0
    if bounds["min"] is not None and not FIRST_MS <= bounds["min"] <= bounds["max"] < END_MS:
        told = pc.and_(pc.greater_equal(values, FIRST_MS), pc.less(values, END_MS))
        odd = len(values) - values.null_count - (pc.sum(told).as_py() or 0)
        values = pc.if_else(told, values, pa.scalar(None, pa.int64()))
    return values.cast(pa.timestamp("ms", "UTC")), odd


def unified(tables: Sequence[Any]) -> list[Any]:
    """The tables with columns of the same types: of decimals, one that holds them all."""
    schema = tables[0].schema
    for at, name in enumerate(schema.names):
        kinds = {table.schema.field(name).type for table in tables}
        if len(kinds) > 1:
            schema = schema.set(at, pa.field(name, _widest(kinds)))
    return [table if table.schema == schema else _as(table, schema) for table in tables]


def _as(table: Any, schema: Any) -> Any:
    columns = []
    for field in schema:
        held = table.column(field.name)
        columns.append(held if held.type == field.type else pa.array(held.to_pylist(), field.type))
    return pa.table(columns, schema=schema)


def _strings(values: Sequence[bytes]) -> Any:
    try:
        return pa.array(values, pa.string())
    except pa.ArrowInvalid:  # not UTF-8 in what JSON decoding does not look at
        return pa.array([value.decode(errors="replace") for value in values], pa.string())


def _short(texts: Any) -> bool:
    """Whether all are so short and without exponents that a cast cannot go beyond 128 bits unnoticed."""
    if (pc.max(pc.binary_length(texts)).as_py() or 0) > _SHORT:
        return False
    letters = np.frombuffer(texts.buffers()[2] or b"", np.uint8) | ord(" ")
    return not (letters == ord("e")).any()


def _one(value: bytes, target: Any) -> Any:
    """One value that is not plainly of the target's form."""
    if pa.types.is_floating(target):
        text = _text(value)
        if text is None:
            return None
        _parts(text)
        number = float(text)
        if math.isinf(number):
            raise NotExactError(f"{_shown(text)} is too large for a float")
        return number
    number_ = exact(value)
    if number_ is None or pa.types.is_decimal(target):
        return number_
    if number_ != int(number_) or not -(2**63) <= number_ < 2**63:
        raise NotExactError(f"{_shown(value.decode(errors='replace'))} is no whole number of 64 bits")
    return int(number_)


def _text(raw: bytes | msgspec.Raw) -> str | None:
    """The number's spelling, without quotes around it; None for null."""
    value = bytes(raw)
    if value == b"null":
        return None
    text = value.decode(errors="replace")
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text


def _parts(text: str) -> tuple[str, str, str, int]:
    """Sign, digits before and behind the point, and exponent."""
    found = _NUMBER.fullmatch(text)
    if found is None or not text.isascii():
        raise NotExactError(f"{_shown(text)} is no number")
    sign, whole, behind, exponent = found.groups()
    if exponent is not None and len(exponent.lstrip("+-").lstrip("0")) > _MOST_EXPONENT_DIGITS:
        raise NotExactError(f"{_shown(text)} has an exponent beyond all measure")
    return sign, whole, behind or "", int(exponent or 0)


def _shown(text: str) -> str:
    return text if len(text) <= 50 else f"{text[:40]}… ({len(text)} characters)"


def _pattern(target: Any) -> str:
    """What text surely fits the type, as Arrow casts it."""
    if pa.types.is_floating(target):
        return _PLAIN_FLOAT
    if pa.types.is_integer(target):
        return "^-?[0-9]{1,18}$"
    return f"^-?[0-9]{{1,{target.precision - target.scale}}}(\\.[0-9]{{1,{target.scale}}})?$"


def _wide(kind: Any, values: Sequence[Decimal]) -> Any:
    """The narrowest of the kind, a decimal128 and the widest that holds the values and what else fits the kind."""
    before, behind = kind.precision - kind.scale, kind.scale
    for value in values:
        _, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        before = max(before, len(digits) + exponent)
        behind = max(behind, -exponent)
    if (before, behind) == (kind.precision - kind.scale, kind.scale):
        return kind
    return pa.decimal128(38, behind) if before + behind <= 38 else WIDEST


def _widest(kinds: set[Any]) -> Any:
    before = max(kind.precision - kind.scale for kind in kinds)
    behind = max(kind.scale for kind in kinds)
    return pa.decimal128(38, behind) if before + behind <= 38 else WIDEST
