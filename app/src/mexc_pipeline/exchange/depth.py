"""Whether depth and deals go on where they stopped: versions of the book, and ids of deals. Pure.

Rule and shapes: official futures WebSocket page (2026-04) and observed on the wire (2026-09): a merged frame covers
the versions ``begin`` to ``end`` and ``version`` equals ``end``; an unmerged one has ``version`` alone; ``begin`` and
``end`` have been seen missing, null and 0. Full-depth versions and deal ids are looked up in the text of the frame:
decoding it would cost more than everything else that is done with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import deque
from typing import NamedTuple

import msgspec

from mexc_pipeline.exchange.trades import Alike, trade_of

STALE_FRAMES = 10
"""So many stale frames in a row within a connection mean a version reset, not that some came late. Taking them for one
when they are not costs a new book, which is asked for at once; the other way round costs the book."""
MAX_VERSION = 2**63 - 1
REMEMBERED = 4096
"""Deals kept for comparison: at least so many, at most twice as many."""
LONGEST_KEY = 64
"""Bytes of what a deal is known by; of more only a digest is kept."""
LONGEST_SAID = 2 << 10
"""Bytes of a frame that is held for what each of its deals says; those of a longer one contradict none."""
RETAINED = 64
"""Newest frames of deals that are held whole, and first ones after a doubt."""
LONGEST_RETAINED = 16 << 10
"""Bytes of such a frame; one of more leaves its place empty."""
_WITHOUT_ID = b"\0"
"""How the keys of deals without an id begin."""


class Span(NamedTuple):
    """Versions of the book that a frame covers, both ends included."""

    first: int
    last: int


class MissingVersions(NamedTuple):
    """Versions that no frame covered, both ends included."""

    first: int
    last: int


class LowerVersion(NamedTuple):
    """A version below one that was there before. ``is_reset``: the exchange counts from there on."""

    seen: int
    got: int
    is_reset: bool = False


class _Versions(msgspec.Struct, gc=False):
    version: int | str | None = None
    begin: int | str | None = None
    end: int | str | None = None


class _DepthFrame(msgspec.Struct, gc=False):
    data: _Versions


_decode = msgspec.json.Decoder(_DepthFrame).decode  # not lax: that would take 12.99999999999999999 for 13


def whole(value: int | str | None) -> int | None:
    """The integer that a field holds, which may be spelled as text. ValueError for other text."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) < 20):
            raise ValueError(f"{value[:40]!r} is no whole number")
        return int(value)
    return value


def span(m: bytes) -> Span | None:
    """The versions a ``push.depth`` frame covers; None where it does not say so in numbers."""
    try:
        data = _decode(m).data
        version, begin, end = (whole(value) for value in (data.version, data.begin, data.end))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    last = end or version
    if not last or not 0 < last <= MAX_VERSION:
        return None
    first = begin or version or last
    return Span(min(first, last), last) if first > 0 else None


class Incremental:
    """Continuity of one symbol's incremental depth, also from connection to connection and process to process."""

    def __init__(self, last: int = 0) -> None:
        self.last = last
        """Newest version seen, 0 before the first."""
        self._stale = 0

    def frame(self, covered: Span, *, first_of_connection: bool = False) -> MissingVersions | LowerVersion | None:
        """What is wrong with a frame that comes next. A stale or repeated frame alone is nothing.

        A connection that begins below what was seen before it is a version reset: nothing says that its versions will
        ever meet the earlier ones, and where they do all the same nothing is missing between.
        """
        first, last = covered
        seen = self.last
        if last <= seen:
            self._stale += 1
            if not (first_of_connection and last < seen) and self._stale < STALE_FRAMES:
                return None
            self._stale = 0
            self.last = last
            return LowerVersion(seen, last, is_reset=True)
        self._stale = 0
        self.last = last
        return MissingVersions(seen + 1, first - 1) if seen and first > seen + 1 else None


class FullDepth:
    """Versions of one symbol's full depth; frames of the same version are allowed."""

    def __init__(self) -> None:
        self._last = 0
        self.read = True
        """Whether the newest frame said its version."""

    def frame(self, m: bytes, *, first_of_connection: bool = False) -> LowerVersion | None:
        """Whether the frame's version lies before that of the frame before it."""
        at = m.rfind(b'"version":')
        text = m[at + 10 : m.find(b'},"channel":', at)]
        version = int(text) if at >= 0 and text.isdigit() and len(text) < 19 else 0
        if version == 0:  # not the last key of the frame's data, as it always was: look properly
            covered = span(m)
            if covered is None:
                self.read = False
                return None
            version = covered.last
        self.read = True
        seen, self._last = self._last, version
        return LowerVersion(seen, version, is_reset=first_of_connection) if version < seen else None


class _Deal(msgspec.Struct, gc=False):
    i: msgspec.Raw = msgspec.Raw(b"null")
    t: msgspec.Raw = msgspec.Raw(b"")
    p: msgspec.Raw = msgspec.Raw(b"")
    v: msgspec.Raw = msgspec.Raw(b"")
    T: msgspec.Raw = msgspec.Raw(b"")

    @property
    def key(self) -> bytes:
        """What it is known by; empty where it has no id."""
        text = bytes(self.i)
        return b"" if text == b"null" else _short(text.strip(b'"'))


class _DealFrame(msgspec.Struct, gc=False):
    data: list[_Deal] | _Deal


class Doubt:
    """A stretch of which it is to be found out whether all its deals came. Frames as they came, b"" for one that was
    too long to be held: ``before`` it, ``between`` where it was interrupted, and the ``first`` after it. ``apart``: it
    lies between connections alone."""

    def __init__(self, before: tuple[bytes, ...], connection: bool) -> None:
        self.before = before
        self.between: list[bytes] = []
        self.first: list[bytes] = []
        self.apart = connection

    def go_on(self, came: tuple[bytes, ...], connection: bool) -> None:
        """There is a further one before this one is settled; ``came``: the newest frames."""
        room = len(self.between) + len(came) <= RETAINED and len(came) < RETAINED
        held = set(map(id, (*self.before, *self.between)))  # of before a doubt within the connection
        self.between = [*self.between, *(m for m in came if not m or id(m) not in held)] if room else [b""]
        self.first = []
        self.apart = self.apart and connection


_odd = re.compile(rb'"i":[^"0-9]').search
"""Whether a frame has an id that is neither text nor a number and nothing but that."""
_decode_deals = msgspec.json.Decoder(_DealFrame).decode


class Deals:
    """Which of one symbol's deals came before, also in an earlier connection or process, and what came last.

    Deals are known by their id, as long as no two of those that are remembered share one. Otherwise, and where they
    have none (before 2026), by time, price, volume and side, and only against what came before the present connection:
    within one, two deals may well agree in all of that. Memory is bounded by ``remembered``, whatever the frames hold.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._most = remembered
        self._new: dict[bytes, bytes] = {}
        """The frame that brought each deal, by what it is known by; b"" where it is not held."""
        self._old: dict[bytes, bytes] = {}
        self._earlier: frozenset[bytes] = frozenset()
        self._shared = 0
        """How often deals are still to be forgotten until none is left that shares its id with another one."""
        self._fetched: dict[bytes, bytes] = {}
        """Trades that were fetched, by REST's ids, which need not be the socket's."""
        self.newest: deque[bytes] = deque(maxlen=RETAINED)
        """The newest frames of the present connection, oldest first: a frame is there once all its deals are known."""
        self._last: tuple[bytes, ...] = ()
        self._starting = False
        self.doubt: Doubt | None = None
        """Whether all came that there was, where that is to be found out; never before the first deal."""
        self.fetched: list[bytes] = []
        """Trades that were fetched over REST and stand behind the doubt."""

    def connected(self) -> None:
        """What came until now came before the connection of the frames to come."""
        self._earlier = frozenset(key for part in (self._old, self._new) for key in part if key[:1] == _WITHOUT_ID)

    def in_doubt(self, *, connection: bool = False) -> None:
        """Deals may be missing before the next frame: between two connections, or within one."""
        came = tuple(self.newest)
        self._last = came or self._last
        if self.doubt is not None:
            self.doubt.go_on(came, connection)
        elif self._last:
            self.doubt, self.fetched = Doubt(self._last, connection), []
        if connection:
            self.newest.clear()
        self._starting = self.doubt is not None

    def settled(self) -> None:
        """What was in doubt is no more."""
        self.doubt = None
        self._starting = False

    @property
    def unique(self) -> bool:
        """Whether each id that is remembered is that of one deal."""
        return not self._shared

    def knows(self, key: bytes) -> bool:
        """Whether the deal of that id came, or was fetched."""
        return key in self._new or key in self._old or key in self._fetched

    def alike(self, key: bytes) -> Alike | None:
        """Time, price, volume and side of the deal of that id that the socket brought; None where that is not known."""
        came = self._brought(key)
        return None if came is None else next(iter(_alikes(came, key)), None)

    def fetch(self, key: bytes | None, m: bytes) -> None:
        """A deal was fetched over REST."""
        if key is not None:
            if len(self._fetched) >= 2 * self._most:
                del self._fetched[next(iter(self._fetched))]
            self._fetched[key] = b'{"data":%b}' % m
        if len(self.fetched) < REMEMBERED:
            self.fetched.append(m)

    @property
    def keys(self) -> frozenset[bytes]:
        """The ids of the newest deals that came; for any thread."""
        return frozenset(self._old) | frozenset(self._new)

    def frame(self, m: bytes) -> list[str] | None:
        """Ids of the deals in this frame that were there before, "" for one known without; None where there are
        none."""
        pieces = m.split(b'"i":')
        if len(pieces) == 1 or self._shared or _odd(m):
            return self._look_properly(m)
        found: list[str] | None = None
        new, old, fetched = self._new, self._old, self._fetched
        said = m if len(m) <= LONGEST_SAID else b""
        for piece in pieces[1:]:
            key = piece.split(b",", 1)[0].strip(b'"}] ')
            if len(key) > LONGEST_KEY:
                key = _short(key)
            if key not in new and key not in old and key not in fetched:
                new[key] = said
            elif ((came := new.get(key) or old.get(key)) is not said and came == said) or self._comes_again(key, said):
                found = found or []
                found.append(key.decode(errors="replace"))
        if len(new) >= self._most:
            self._forget()
        self.newest.append(m if len(m) <= LONGEST_RETAINED else b"")
        if self._starting:
            self._start(found)
        return found

    def _look_properly(self, m: bytes) -> list[str] | None:
        try:
            data = _decode_deals(m).data
        except (msgspec.MsgspecError, RecursionError):
            return None  # not known to be deals
        repeated: list[str] = []
        said = m if len(m) <= LONGEST_SAID else b""
        for deal in data if isinstance(data, list) else [data]:
            key = deal.key
            again = bool(key) and self._comes_again(key, said)
            if key and not self._shared:
                repeated += [key.decode(errors="replace")] if again else []
                continue
            known = _WITHOUT_ID + _short(b"|".join((deal.t, deal.p, deal.v, deal.T)))
            if known in self._earlier:
                repeated.append("")
            self._new[known] = b""
        if len(self._new) >= self._most:
            self._forget()
        self.newest.append(m if len(m) <= LONGEST_RETAINED else b"")
        if self._starting:
            self._start(repeated)
        return repeated or None

    def _comes_again(self, key: bytes, m: bytes) -> bool:
        """Take note of a deal in a frame; whether the same one, by its id and by what it says, was there before."""
        came = self._brought(key)
        if came is not None:
            again = len(_alikes(came, key) | _alikes(m, key)) < 2
            if not again:
                self._shared = 2
            return again
        self._new[key] = m
        fetched = self._fetched.get(key)
        return fetched is not None and len(_alikes(fetched, key) | _alikes(m, key)) < 2

    def _brought(self, key: bytes) -> bytes | None:
        m = self._new.get(key)
        return self._old.get(key) if m is None else m

    def _start(self, repeated: list[str] | None) -> None:
        """The newest frame is one of the first after a doubt began. What comes again says nothing of what is
        missing."""
        doubt = self.doubt  # which another thread may settle at any time
        if doubt is not None and not repeated:
            doubt.first.append(self.newest[-1])
        self._starting = doubt is not None and len(doubt.first) < RETAINED

    def _forget(self) -> None:
        self._old, self._new = self._new, {}
        self._shared = max(0, self._shared - 1)


def _short(key: bytes) -> bytes:
    return key if len(key) <= LONGEST_KEY else hashlib.sha256(key).hexdigest().encode()


def _alikes(m: bytes, key: bytes) -> set[Alike]:
    """What the deals of that id in a frame say, as far as they can be read, however it is spelled."""
    try:
        data = _decode_deals(m).data
    except (msgspec.MsgspecError, RecursionError):
        return set()
    found: set[Alike] = set()
    for deal in data if isinstance(data, list) else [data]:
        if deal.key == key:
            with contextlib.suppress(ValueError):
                found.add(trade_of(b'{"t":%b,"p":%b,"v":%b,"T":%b}' % (deal.t, deal.p, deal.v, deal.T)).alike)
    return found
