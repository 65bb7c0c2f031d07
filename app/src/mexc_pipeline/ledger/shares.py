"""How many minutes agree with the exchange's candles, differ from them and are unknown, and the text by which a file's
metadata say so. Pure."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

_MINUTE_NS = 60_000_000_000
RULE = 1
"""Grows whenever the same rows may get another verdict: what a file says of its minutes is by the rule of its time."""


class Shares(NamedTuple):
    """How many minutes agree, differ, and are unknown."""

    agree: int = 0
    differ: int = 0
    unknown: int = 0


class _Text(msgspec.Struct):
    agree: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    differ: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    unknown: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    rule: int


_decode = msgspec.json.Decoder(_Text).decode
_encode = msgspec.json.Encoder().encode


def to_text(shares: Shares) -> str:
    """The shares as a file's metadata have them."""
    return _encode(_Text(*shares, RULE)).decode()


def from_text(text: str | None) -> Shares | None:
    """What :func:`to_text` gave, by whatever rule; None for anything else."""
    found = _read(text)
    return None if found is None else Shares(found.agree, found.differ, found.unknown)


def is_told(text: str, shares: Shares | None) -> bool:
    """Whether a file's metadata say these shares, or others by another rule."""
    found = _read(text)
    return found is not None and (found.rule != RULE or shares == (found.agree, found.differ, found.unknown))


def _read(text: str | None) -> _Text | None:
    try:
        return _decode(text or "")
    except (msgspec.MsgspecError, RecursionError):
        return None


def whole(start_ns: int, end_ns: int) -> int:
    """How many minutes begin and end within a stretch (Unix ns)."""
    return max(0, end_ns // _MINUTE_NS - -(-start_ns // _MINUTE_NS))
