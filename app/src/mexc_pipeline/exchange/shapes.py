"""What this version expects of the exchange, as data: the fields of every push and every REST answer, with their types.

Sources: the official futures WebSocket page (2026-04) for what exists; frames as captured on the wire in 2024 to 2026
for names, types and key order, which differ from the page (funding's ``rate``, ids and ``cts`` of deals as text, deals
as a list since 2025-08-21, ``begin`` and ``end`` of merged depth seen absent, null and 0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mexc_pipeline.exchange.rest import too_many_values

MOST_DEEP = 20
"""Levels of nesting that are looked at; real frames have five."""


class SpelledNumber(str):
    """A JSON number as it is spelled."""

    __slots__ = ()


class Seen(NamedTuple):
    """One value of a frame: where it stands (lists are gone into and written ``[]``), its kind, and itself."""

    path: str
    kind: str
    value: Any


def parse(text: bytes | str) -> Any:
    """JSON with every number as it is spelled. Raises ValueError and RecursionError for what is none, ValueError for
    more values than are read of an answer."""
    if (said := too_many_values(text if isinstance(text, bytes) else text.encode())) is not None:
        raise ValueError(said)
    return json.loads(text, parse_int=SpelledNumber, parse_float=SpelledNumber, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def walk(value: Any, path: str = "", deep: int = MOST_DEEP) -> Iterator[Seen]:
    """Go through every value within ``value``, itself first, down to ``deep`` levels below it. A list inside of a list
    is of the kind ``row of N``: levels are."""
    yield Seen(path, _kind(value, path), value)
    if not deep:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from walk(inner, f"{path}.{name}" if path else name, deep - 1)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, f"{path}[]", deep - 1)


def _kind(value: Any, path: str) -> str:
    if isinstance(value, SpelledNumber):
        return "number"
    if isinstance(value, list):
        return f"row of {len(value)}" if path.endswith("[]") else "list"
    if value is None:
        return "null"
    return {bool: "boolean", str: "text", dict: "object"}[type(value)]


@dataclass(frozen=True)
class Shape:
    """Fields of a frame or an answer by path; kinds as :func:`walk` names them.

    ``required`` ones stand in every object they belong to; ``open``: further fields are no news. ``quiet_s``: seconds
    after which a listed contract that trades has pushed one (the longest silence seen, with room), None where silence
    says nothing.
    """

    required: Mapping[str, frozenset[str]]
    optional: Mapping[str, frozenset[str]] = field(default_factory=dict)
    open: bool = False
    quiet_s: float | None = None

    @property
    def fields(self) -> Mapping[str, frozenset[str]]:
        """All fields by path, required ones or not, with their kinds."""
        return {**self.required, **self.optional}


_FIELD = re.compile(r"(\S+?)(\?)? (\S+)")


def _shape(text: str, *, quiet_s: float | None = None, more: bool = False) -> Shape:
    """From lines such as ``data.i? number|text``; ``_`` in a kind is a blank, ``?`` marks what may be absent."""
    required: dict[str, frozenset[str]] = {}
    optional: dict[str, frozenset[str]] = {}
    for line in filter(None, (line.strip() for line in text.split(";"))):
        found = _FIELD.fullmatch(line)
        assert found is not None, line
        kinds = frozenset(found[3].replace("_", " ").split("|"))
        (optional if found[2] else required)[found[1]] = kinds
    return Shape(required, optional, more, quiet_s)


_PUSH = "symbol text; channel text; ts number; "
_LEVELS = (
    "data object; data.asks list; data.bids list; data.asks[]? row_of_3; data.bids[]? row_of_3; "
    "data.asks[][]? number; data.bids[][]? number; data.version number; data.cts? number; "
)
_DEAL = "p number; v number; T number; O number; M number; t number; "


def _inside(fields: str, prefix: str) -> str:
    return "".join(f"{prefix}.{part.strip()}; " for part in fields.split(";") if part.strip())


PUSHES: Mapping[str, Shape] = {
    "push.ticker": _shape(
        _PUSH
        + "data object; "
        + _inside(
            "symbol text; lastPrice number; riseFallRate number; fairPrice number; indexPrice number; volume24 number;"
            "amount24 number; maxBidPrice number; minAskPrice number; lower24Price number; high24Price number;"
            "timestamp number; bid1 number; ask1 number; holdVol number; riseFallValue number; fundingRate number;"
            "zone? text; riseFallRates? list; riseFallRates[]? number; riseFallRatesOfTimezone? list;"
            "riseFallRatesOfTimezone[]? number; contractId? number",
            "data",
        ),
        quiet_s=30,
    ),
    "push.deal": _shape(
        _PUSH + "data list; data[]? object; " + _inside(_DEAL + "i? number|text; cts? number|text", "data[]")
    ),
    "push.depth": _shape(_PUSH + _LEVELS + "data.begin? number|null; data.end? number|null", quiet_s=30),
    "push.depth.full": _shape(_PUSH + _LEVELS, quiet_s=30),
    "push.index.price": _shape(_PUSH + "data object; data.symbol text; data.price number"),
    "push.fair.price": _shape(_PUSH + "data object; data.symbol text; data.price number"),
    "push.funding.rate": _shape(_PUSH + "data object; data.symbol text; data.rate number; data.nextSettleTime number"),
    "push.kline": _shape(
        _PUSH
        + "data object; "
        + _inside(
            "symbol text; interval text; t number; o number; h number; l number; c number; a number; q number;"
            "ro? number; rh? number; rl? number; rc? number",
            "data",
        )
    ),
    "push.contract": _shape("channel text; ts? number; symbol? text; data object", more=True),
}
"""By channel."""

_ANSWER = "success boolean; code number; "
ANSWERS: Mapping[str, Shape] = {
    "ping": _shape(_ANSWER + "data number"),
    "detail": _shape(
        _ANSWER + "data object; data.symbol text; data.contractSize number; data.priceScale number; data.state number",
        more=True,
    ),
    "depth": _shape(
        _ANSWER
        + _LEVELS.replace("data.cts? number", "data.cts? number|null").replace(
            "data.version", "data.timestamp? number; data.version"
        )
    ),
    "depth_commits": _shape(
        _ANSWER
        + "data list; data[]? object; "
        + _inside(
            "version number; cts? number|null; asks list; bids list; asks[]? row_of_3; bids[]? row_of_3;"
            "asks[][]? number; bids[][]? number",
            "data[]",
        )
    ),
    "deals": _shape(
        _ANSWER + "data list; data[]? object; " + _inside(_DEAL + "i? number|text; cts? number|text", "data[]")
    ),
    "kline": _shape(
        _ANSWER
        + "data object; "
        + "".join(f"data.{name} list; data.{name}[]? number; " for name in ("time", "vol", "amount"))
        + "".join(f"data.{name} list; data.{name}[]? number; " for name in ("open", "high", "low", "close"))
        + "".join(f"data.real{n}? list; data.real{n}[]? number; " for n in ("Open", "High", "Low", "Close"))
    ),
    "funding_rate": _shape(
        _ANSWER + "data object; data.symbol text; data.fundingRate number; data.nextSettleTime number", more=True
    ),
}
"""By the last fixed part of the path below ``/api/v1/contract/``."""

FITS = 38
"""Digits that a number may have before the point, and as many behind it, to be read exactly."""
_SPELLED = re.compile(r"-?(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?")


def extent(number: str) -> int:
    """Digits before the point or behind it, whichever are more, as if the number were spelled without an exponent;
    zeros that say nothing do not count."""
    found = _SPELLED.fullmatch(number)
    assert found is not None, number
    whole, behind, exponent = found[1], found[2] or "", found[3] or "0"
    digits = (whole + behind).lstrip("0")
    short = digits.rstrip("0")
    if not short:
        return 1
    if len(exponent) > 9:
        return 10**9  # whatever else: it fits nowhere, and must not be calculated with
    power = int(exponent) - len(behind) + len(digits) - len(short)
    return max(len(short) + power, -power, 1)
