"""Whether depth and deals go on where they stopped: versions of the book, and ids of deals. Pure.

Rule and shapes: official futures WebSocket page (2026-04) and observed on the wire (2026-09): a merged frame covers
the versions ``begin`` to ``end`` and ``version`` equals ``end``; an unmerged one has ``version`` alone; ``begin`` and
``end`` have been seen missing, null and 0. Full-depth versions and deal ids are looked up in the text of the frame:
decoding it would cost more than everything else that is done with it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

STALE_FRAMES = 100
"""So many stale frames in a row mean that the exchange counts anew, not that some came late."""
REMEMBERED = 4096
"""Deal ids kept for comparison: at least so many, at most twice as many."""


class Span(NamedTuple):
    """Versions of the book that a frame covers, both ends included."""

    first: int
    last: int


class Gap(NamedTuple):
    """Versions that no frame covered, both ends included."""

    first: int
    last: int


class Regressed(NamedTuple):
    """A version below one that was there before. ``anew``: the exchange counts from there on."""

    seen: int
    got: int
    anew: bool = False


class _Versions(msgspec.Struct, gc=False):
    version: int | None = None
    begin: int | None = None
    end: int | None = None


class _DepthFrame(msgspec.Struct, gc=False):
    data: _Versions


_decode = msgspec.json.Decoder(_DepthFrame, strict=False).decode


def span(m: bytes) -> Span | None:
    """The versions a ``push.depth`` frame covers; None where it does not say so in numbers."""
    try:
        data = _decode(m).data
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    last = data.end or data.version
    if not last or last < 0:
        return None
    first = data.begin or data.version or last
    return Span(min(first, last), last) if first > 0 else None


class Incremental:
    """Continuity of one symbol's incremental depth, also from connection to connection and process to process."""

    def __init__(self, last: int = 0) -> None:
        self.last = last
        """Newest version seen, 0 before the first."""
        self._stale = 0

    def frame(self, covered: Span) -> Gap | Regressed | None:
        """What is wrong with a frame that comes next. A stale or repeated frame alone is nothing."""
        first, last = covered
        seen = self.last
        if last <= seen:
            self._stale += 1
            if self._stale < STALE_FRAMES:
                return None
            self._stale = 0
            self.last = last
            return Regressed(seen, last, anew=True)
        self._stale = 0
        self.last = last
        return Gap(seen + 1, first - 1) if seen and first > seen + 1 else None


class FullDepth:
    """Versions of one symbol's full depth; frames of the same version are allowed."""

    def __init__(self) -> None:
        self._last = 0

    def frame(self, m: bytes) -> Regressed | None:
        """Whether the frame's version lies before that of the frame before it."""
        at = m.rfind(b'"version":')
        try:
            version = int(m[at + 10 : m.find(b"}", at)])
        except ValueError:  # not the last key of its object, as it always was: look properly
            covered = span(m)
            if covered is None:
                return None
            version = covered.last
        seen, self._last = self._last, version
        return Regressed(seen, version) if version < seen else None


class Deals:
    """Ids of one symbol's deals; frames without ids (before 2026) say nothing."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._most = remembered
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    def frame(self, m: bytes) -> list[str] | None:
        """Ids in this frame that were there before; None where there are none."""
        repeated: list[str] | None = None
        new, old = self._new, self._old
        for piece in m.split(b'"i":')[1:]:
            number = piece.split(b",", 1)[0].strip(b'"}] ')
            if number not in new and number not in old:
                new.add(number)
            elif number.isdigit():  # null is no id
                repeated = repeated or []
                repeated.append(number.decode())
        if len(new) >= self._most:
            self._old, self._new = new, set()
        return repeated
