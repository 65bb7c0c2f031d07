"""Whether readers find in a frame what they need and what its channel has always had, told without them. Pure.

``read`` needs Arrow and decides for files; a recording asks this about its newest frames. Tests hold the two together:
what is said here to be illegible, readers leave out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Raw

from mexc_pipeline.exchange.channels import DEPTH, FULL_DEPTH, ROW_TYPES
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.exchange.shapes import ANSWERS, FITS, PUSHES, Shape, extent
from mexc_pipeline.rows import Mt

_NULL = Raw(b"null")
_NUMBER = re.compile(rb'("?)(-?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,6})?)\1')
_SHOWN = 40
_SHOWN_FIELDS = 3
_SIDES = ("asks", "bids")
_BUY_OR_SELL = (b"1", b"2", b'"1"', b'"2"')
_INSTEAD = {"rate": "fundingRate"}
"""What readers take where a field is not there: REST's name of it."""


class _Always:
    """The fields that every object of a channel has had: ``numbers`` and ``others``."""

    def __init__(self, shape: Shape) -> None:
        kinds = {
            path.rpartition(".")[2]: kinds
            for path, kinds in shape.required.items()
            if re.fullmatch(r"data(\[\])?\.\w+", path) and path != "data.symbol"  # the frame names it as well
        }
        self.numbers = [name for name, kind in kinds.items() if "number" in kind]
        self.others = [name for name, kind in kinds.items() if "text" in kind]


_PUSHED: Mapping[Mt, _Always] = {
    ROW_TYPES[channel]: _Always(shape)
    for channel, shape in PUSHES.items()
    if channel != DEPTH and ROW_TYPES[channel] != Mt.CONTRACT
}
_CONTRACT = _Always(ANSWERS["detail"])
JUDGED = frozenset({*_PUSHED, Mt.CONTRACT})
"""Types of rows of which something is said here."""

_Fields = dict[str, Raw]


class _Frame(msgspec.Struct, gc=False):
    data: list[_Fields] | _Fields


class _Channel(msgspec.Struct, gc=False):
    channel: str


_frame = msgspec.json.Decoder(_Frame).decode
_fields = msgspec.json.Decoder(_Fields).decode
_channel = msgspec.json.Decoder(_Channel).decode
_side = msgspec.json.Decoder(list[list[Raw]] | None).decode
_id = msgspec.json.Decoder(int | str | None).decode


def wrong_with(mt: int, m: bytes) -> str | None:
    """What is wrong with a frame of a :data:`JUDGED` type, so that it completes "the newest frames of a type …"; None
    where it is as it always was."""
    if (why := illegible(mt, m)) is not None:
        return f"cannot be read: {why}"
    return lacking_in_words(mt, m)


def lacking_in_words(mt: int, m: bytes) -> str | None:
    """What a legible frame of a :data:`JUDGED` type lacks, as :func:`wrong_with` says it; None where it lacks
    nothing."""
    if not (names := lacking(mt, m)):
        return None
    more = f" and {len(names) - _SHOWN_FIELDS} more" if len(names) > _SHOWN_FIELDS else ""
    return f"have no {', '.join(names[:_SHOWN_FIELDS])}{more}, as they always had: readers have null"


def illegible(mt: int, m: bytes) -> str | None:
    """Why readers leave out a frame of a :data:`JUDGED` type, None where nothing is seen to be wrong with it. Of
    incremental depth nothing is said: who follows its versions says when they cannot be read."""
    try:
        return next(_wrong(mt, content(m)), None)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        return str(error) if isinstance(error, msgspec.MsgspecError) else "nested too deep, or no text"


def lacking(mt: int, m: bytes) -> list[str]:
    """Fields that are not there or are null in a frame of a :data:`JUDGED` type although its channel has always had
    them. A book may lack one side, not both; a push of a contract may be of the fields alone that changed. Of what has
    no fields at all nothing: that is :func:`illegible`, or incremental depth that cannot be followed."""
    try:
        text = content(m)
        if mt == Mt.CONTRACT:
            fields = _fields(text)
            return [] if "data" in fields else _absent(fields, _CONTRACT)
        objects = _objects(mt, text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return []
    if mt == Mt.DEPTH:
        return [*_SIDES] if all(_is_null(data, side) for data in objects for side in _SIDES) else []
    if mt == Mt.DEAL and any(bytes(deal.get("T", _NULL)) not in _BUY_OR_SELL for deal in objects):
        return ["T of 1 or 2"]
    return next(filter(None, (_absent(data, _PUSHED[Mt(mt)]) for data in objects)), [])


def _absent(fields: _Fields, always: _Always) -> list[str]:
    return [name for name in [*always.numbers, *always.others] if _is_null(fields, name)]


def _is_null(fields: _Fields, name: str) -> bool:
    return fields.get(name, fields.get(_INSTEAD.get(name, ""), _NULL)) == _NULL


def _objects(mt: int, text: bytes) -> list[_Fields]:
    """The objects in a frame's data: of deals and contracts there may be several."""
    data = _frame(text).data
    if isinstance(data, list) and mt not in (Mt.DEAL, Mt.CONTRACT):
        raise msgspec.ValidationError("Expected `object`, got `array` - at `$.data`")
    return data if isinstance(data, list) else [data]


def _wrong(mt: int, text: bytes) -> Iterator[str]:
    if mt == Mt.CONTRACT:
        fields = _fields(text)
        for contract in _objects(mt, text) if "data" in fields else [fields]:
            yield from _numbers(contract, _CONTRACT.numbers)
        return
    if mt == Mt.DEPTH and _channel(text).channel != FULL_DEPTH:
        return
    for data in _objects(mt, text):
        if mt == Mt.DEAL:
            _id(data.get("i", _NULL))
            yield from (f"no {name}" for name in ("p", "v", "t") if name not in data)
        elif mt == Mt.DEPTH:
            if data.get("version", _NULL) == _NULL:
                yield "no version"
            yield from _levels(data)
        yield from _numbers(data, _PUSHED[Mt(mt)].numbers)


def _levels(book: _Fields) -> Iterator[str]:
    for level in [level for side in _SIDES for level in _side(book.get(side, _NULL)) or ()]:
        if len(level) < 2:
            yield "a level without price and volume"
        yield from _numbers(dict(zip(("price", "volume"), level, strict=False)), ("price", "volume"))


def _numbers(fields: _Fields, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        value = bytes(fields.get(name, _NULL))
        if value == b"null":
            continue
        found = _NUMBER.fullmatch(value)
        if found is None or extent(found[2].decode()) > FITS:
            yield f"{name}: {value[:_SHOWN].decode(errors='replace')} is no number that can be read"
