"""What the rows of an earlier process say to the one that goes on with its recording: rows in, state out. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from mexc_pipeline.exchange.channels import DEAL, DEPTH
from mexc_pipeline.exchange.checks import CONNECTED, FILLED, REPEATED
from mexc_pipeline.exchange.deadletters import meant
from mexc_pipeline.exchange.depth import REMEMBERED, span
from mexc_pipeline.exchange.holes import Unfinished, unfinished
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.exchange.rest import version_of
from mexc_pipeline.exchange.trades import is_trade
from mexc_pipeline.rows import Mt, Row

MOST_DEALS = 2 * REMEMBERED
"""Deal frames that are looked at, at most: what was known when one of the later half came is known again then."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """What a recording goes on from: the book's version after what an earlier process recorded, 0 where that is not
    known, the gaps it did not finish repairing, and its newest deals; see
    :class:`~mexc_pipeline.exchange.checks.Checks`."""

    last_version: int = 0
    unfinished: tuple[Unfinished, ...] = ()
    deals: tuple[tuple[int, bytes], ...] = ()


class _Named(msgspec.Struct, gc=False):
    channel: str


def last_version(symbol: str, depth: Iterable[Row], dead: Iterable[Row]) -> int | None:
    """The book's version after the newest frame of incremental depth among these depth frames and dead letters; 0 where
    that does not tell, None where there is none: full depth may be recorded beside it."""
    frames = [*(row for row in dead if meant(row.m, symbol) == DEPTH), *depth]
    for row in sorted(frames, key=lambda row: row.seq, reverse=True):
        m = content(row.m)
        if _channel(m) == DEPTH:
            covered = span(m)
            return covered.last if covered is not None else 0
    return None


def deal_frames(symbol: str, deals: Iterable[Row], dead: Iterable[Row], most: int) -> list[Row]:
    """The newest ``most`` of these deal frames in order, also those that are dead letters for nothing but their
    ``ts``."""
    return sorted([*deals, *(row for row in dead if meant(row.m, symbol) == DEAL)])[-most:]


def in_place(frames: Iterable[Row], repaired: Iterable[Row], events: Iterable[Row]) -> list[tuple[int, bytes]]:
    """Deal frames as (``mt``, text), oldest first, with the trades among them that were fetched, and the events that
    tell of repeated and missing deals."""
    told = (row for row in events if row.m.startswith((CONNECTED, REPEATED, FILLED)))
    fetched = (row for row in repaired if is_trade(content(row.m)))
    found = sorted([*frames, *fetched, *told])
    return [(row.mt, row.m if row.mt == Mt.EVENT else content(row.m)) for row in found]


def versions(repaired: Iterable[bytes]) -> list[int]:
    """The versions that these repaired rows brought."""
    return [version for m in repaired if (version := _version(m)) is not None]


def interrupted(events: Iterable[bytes], fetched: Iterable[int]) -> list[Unfinished]:
    """The gaps that these events, oldest first, begin and do not end; ``fetched``: :func:`versions` that came."""
    return unfinished(DEPTH, events, fetched)


def _version(m: bytes) -> int | None:
    try:
        return version_of(content(m))
    except ValueError:  # of another shape than those that can be told apart
        return None


def _channel(m: bytes) -> str:
    try:
        return msgspec.json.decode(m, type=_Named).channel
    except (msgspec.MsgspecError, RecursionError):  # of another shape than those that can be told apart
        return ""
