"""The real frames that came with the package (fixtures/README.md), found by channel."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def frames() -> tuple[bytes, ...]:
    """Return every real frame, byte for byte, in file order."""
    text = files("mexc_pipeline.simulator").joinpath("fixtures/mexc-futures-frames.jsonl").read_bytes()
    return tuple(text.splitlines())


@cache
def of_channel(channel: str) -> tuple[bytes, ...]:
    """Return the real frames of one channel, such as `push.kline`."""
    return tuple(frame for frame in frames() if json.loads(frame)["channel"] == channel)


def parse(frame: bytes) -> Any:
    """Decode JSON with every number that is not an integer as an exact Decimal, keys in wire order."""
    return json.loads(frame, parse_float=Decimal)
