"""One thread that gathers while somebody watches, and hands the newest to everybody who does."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mexc_pipeline.dashboard.view import Rates, frames_of, page_of
from mexc_pipeline.errors import UserError
from mexc_pipeline.overview import FileSystem
from mexc_pipeline.text import json_line

log = logging.getLogger("mexc_pipeline.dashboard")

PACE_S = 1.0
"""From the beginning of one gathering to that of the next, at least."""
REST_S = 0.25
"""From the end of one to the beginning of the next, however long they take."""
KEEP_S = 5.0
"""Without news for so long whoever watches is told that we are still there: if he is not, his place is free."""
VIEWERS = 64
"""Who watches at a time; each is a thread and a connection."""
GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""The head of a compressed stream; the packed bodies of any publications may follow."""

Gathered = tuple[Mapping[str, Any], Mapping[str, FileSystem]]


class TooManyViewersError(UserError):
    """All places of those who watch are taken."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What was gathered at a moment. ``body`` is an event of a stream as every viewer is sent it, ``packed`` the same
    compressed by itself, so that it is done once for all."""

    number: int
    found: Mapping[str, Any]
    body: bytes
    packed: bytes


class Publisher:
    """Gathers at most once in :data:`PACE_S` however many watch, and not at all while nobody does. Nothing is kept
    for those who come later."""

    def __init__(self, gather: Callable[[], Gathered]) -> None:
        self._gather = gather
        self._changed = threading.Condition()
        self._newest: Publication | None = None
        self._viewers = 0
        self._number = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    @contextmanager
    def watching(self) -> Iterator[Viewer]:
        """Watch meanwhile. TooManyViewersError where too many do."""
        with self._changed:
            if self._viewers >= VIEWERS:
                raise TooManyViewersError(f"{VIEWERS} watch already; close one of their pages")
            self._viewers += 1
            self._changed.notify_all()
        try:
            yield Viewer(self)
        finally:
            with self._changed:
                self._viewers -= 1
                if not self._viewers:
                    self._newest = None

    def close(self) -> None:
        """Let everybody who watches go. What is being gathered is not waited for."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether there will be no publications any more."""
        return self._is_closed

    def after(self, number: int) -> Publication | None:
        """The newest publication, once it is newer than that; None where there is none within :data:`KEEP_S`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._is_newer(number), KEEP_S)
            return self._newest if self._is_newer(number) else None

    def _is_newer(self, number: int) -> bool:
        return self._newest is not None and self._newest.number > number

    def _run(self) -> None:
        rates = Rates()
        while self._is_wanted():
            began = time.monotonic()
            try:
                self._publish(rates, began)
            except Exception:
                # Whoever watches is told by having no news; the next attempt may do better.
                log.exception("cannot gather")
                self._newest = None  # it is older than it looks to somebody who comes now
            with self._changed:  # also where those who watch come and go
                self._changed.wait_for(lambda: self._is_closed, max(REST_S, began + PACE_S - time.monotonic()))

    def _is_wanted(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._viewers)
            return not self._is_closed

    def _publish(self, rates: Rates, began: float) -> None:
        found, disks = self._gather()
        taken = {symbol["id"]: rates.add(symbol["id"], began, frames_of(symbol)) for symbol in found["symbols"]}
        number = self._number + 1
        publication = published(number, found, page_of(found, disks, taken, number=number, at=time.time()))
        with self._changed:
            self._number = number
            self._newest = publication if self._viewers else None
            self._changed.notify_all()


class Viewer:
    """Somebody who watches, in a thread of his own."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._seen = 0

    def next(self) -> Publication | None:
        """The newest that this one has not seen, once there is one; None where there was none for :data:`KEEP_S`, or
        will be none any more."""
        found = self._publisher.after(self._seen)
        if found is not None:
            self._seen = found.number
        return found


def published(number: int, found: Mapping[str, Any], page: Mapping[str, Any]) -> Publication:
    """A page as it is sent."""
    body = f"event: now\ndata: {json_line(page)}\n\n".encode()
    return Publication(number, found, body, packed(body))


def packed(body: bytes) -> bytes:
    """A piece of a compressed stream that refers to no other piece, and does not end the stream."""
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return squeeze.compress(body) + squeeze.flush(zlib.Z_FULL_FLUSH)
