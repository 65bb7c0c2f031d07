"""Deal frames decoded by Arrow's JSON reader, many at a time and without a Python object for each trade.

It answers only where every frame has the shape that the exchange sends today; anything else, down to a price that is no
number, is left to :mod:`mexc_pipeline.read.decode`, which looks at each frame. Where both answer, they answer the same.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from mexc_pipeline.read.numbers import PRICE, VOLUME

AT_ONCE = 32_768
"""Frames in one call: some 25 MB with what the reader builds of them."""
_BLOCK = 16 << 20
_DIGITS = pa.decimal128(18, 0)
"""Whole numbers, with quotes (``cts`` of deals, observed on the wire, 2026-09) or without."""
_LATEST_MS = 2**53
_TAIL = "0" * 8
_TAILED = r'("[A-Za-z0-9_]+":-?[0-9]+\.[0-9])([0-9]*?)0{8,}([,}])'
"""A number with a tail of zeros (thirty of them, observed on the wire, 2026-09), which the reader counts as digits."""
_LONG = r'[A-Za-z0-9_]":\s*-?([0-9.]{20}|[0-9.]{11,}[eE]|[0-9.]+[eE][+-]?[0-9]{2})'
"""Numbers that the reader might take for others: beyond 128 bits it counts from the start again (pyarrow 26)."""
_DIGIT = np.isin(np.arange(256), list(b"0123456789."))
_CODES = ("T", "O", "M")


def deals(frames: Any, *, floats: bool) -> tuple[Any, Any] | None:
    """Trades of a string array of deal frames, or None where one of them is of another shape.

    Returns how many trades each frame has, and a struct array of all trades in order: ``p``, ``v`` (decimals, or
    doubles), ``t``, ``cts`` int64 milliseconds, ``T``, ``O``, ``M`` int8, ``i`` string.
    """
    short = _without_tails(frames)
    documents = _one_per_line(short)
    if documents is None or (_doubtful(documents) and pc.any(pc.match_substring_regex(short, _LONG)).as_py()):
        return None
    deal = pa.struct(
        [
            ("p", pa.float64() if floats else PRICE),
            ("v", pa.float64() if floats else VOLUME),
            ("t", pa.int64()),
            *((code, pa.int8()) for code in _CODES),
            ("i", pa.string()),
            ("cts", _DIGITS),
        ]
    )
    schema = pa.schema([("frame", pa.struct([("data", pa.list_(deal))]))])
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(documents),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=_BLOCK),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        lists = pc.struct_field(table.column("frame").combine_chunks(), "data")
        if len(lists) != len(frames) or lists.null_count:
            return None
        trades = lists.flatten()
        columns = {name: pc.struct_field(trades, name) for name in deal.names}
        columns["cts"] = columns["cts"].cast(pa.int64())
    except pa.ArrowInvalid:  # another shape: not for this module to judge
        return None
    if any(columns[name].null_count for name in ("p", "v", "t")) or not _in_range(columns):
        return None
    return pc.list_value_length(lists), pa.StructArray.from_arrays(list(columns.values()), list(columns))


def _doubtful(text: Any) -> bool:
    """Whether any of it may be a number of :data:`_LONG`; many times faster than looking for it."""
    characters = np.frombuffer(text, np.uint8)
    run = digit = _DIGIT[characters]
    for step in (1, 2, 4, 8, 4):  # digits in a row: 2, 4, 8, 16, 20
        run = run[:-step] & run[step:]
    exponent = digit[:-1] & ((characters[1:] | ord(" ")) == ord("e"))
    return bool(run.any() or exponent.any())


def _without_tails(frames: Any) -> Any:
    """The frames with numbers' long tails of zeros left out. What the pattern finds is a key and its value, never part
    of a string: its first quote could only close one if no letter followed, and where there are escapes, by which alone
    a string could hold a quote, the frames are refused anyway."""
    tailed = pc.match_substring(frames, _TAIL)
    if not pc.any(tailed).as_py():
        return frames
    short = pc.replace_substring_regex(frames.filter(tailed), _TAILED, r"\1\2\3")
    return pc.replace_with_mask(frames, tailed, short)


def _one_per_line(frames: Any) -> Any:
    """Each frame inside an object of its own: a frame that is no whole JSON value cannot run into the next."""
    large = pa.large_string()
    before, after, nothing = (pa.scalar(text, large) for text in ('{"frame":', "}\n", ""))
    whole = pc.binary_join_element_wise(before, frames.cast(large), after, nothing)
    if not len(whole) or whole.null_count:
        return None
    text = whole.buffers()[2]
    # Escapes stand for other characters: a number spelled with them is left to the other decoder.
    return None if (np.frombuffer(text, np.uint8) == ord("\\")).any() else text


def _in_range(columns: dict[str, Any]) -> bool:
    """Also that decimals fit their type: the JSON reader takes 10000000 for a decimal of 19 digits, 12 of them behind
    the point (pyarrow 26)."""
    bounds = {name: pc.min_max(column).as_py() for name, column in columns.items() if name != "i"}
    for name, (lowest, highest) in ((name, (b["min"], b["max"])) for name, b in bounds.items() if b["min"] is not None):
        kind = columns[name].type
        if pa.types.is_floating(kind) and not math.isfinite(lowest + highest):
            return False
        if pa.types.is_decimal(kind):
            limit = Decimal(10) ** (kind.precision - kind.scale)
            if not -limit < lowest <= highest < limit:
                return False
        elif pa.types.is_integer(kind) and not 0 <= lowest <= highest <= _LATEST_MS:
            return False
    return True
