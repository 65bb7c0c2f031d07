"""Frames rendered in advance and sent as fast as the client reads, or at a steady pace.

The mix is that of a busy contract: 4 full depth, 1 ticker, 5 deals. Frames repeat once the pool is
used up, so deal ids and versions repeat: this is for measuring, not for judging content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from mexc_pipeline.simulator import wire
from mexc_pipeline.simulator.config import FlatOut
from mexc_pipeline.simulator.frames import SymbolFeed, channel_of
from mexc_pipeline.simulator.sentlog import PoolFrame
from mexc_pipeline.simulator.session import Session

MIX = ("depth.full", "deal", "depth.full", "deal", "ticker", "deal", "depth.full", "deal", "depth.full", "deal")
PIECE = 256 * 1024
"""Bytes handed to the socket at a time when nothing limits the pace."""

_STEP = 0.002


def render_pool(feed: SymbolFeed, streams: Iterable[str], size: int, seconds: float, now_ms: int) -> list[PoolFrame]:
    """Render `size` frames of the subscribed streams in the mix's shares; the feed's market moves on.

    Incremental depth takes the place of full depth where that is what was subscribed to. Other
    channels are too rare to be flooded with: without one of the mix the pool is empty.
    `seconds`: market time from one frame to the next.
    """
    by_channel = {channel_of(stream): stream for stream in sorted(streams)}
    if "depth" in by_channel:
        by_channel.setdefault("depth.full", by_channel["depth"])
    order = [by_channel[channel] for channel in MIX if channel in by_channel]
    if not order:
        return []
    waiting: dict[str, list[bytes]] = {stream: [] for stream in order}
    pool: list[PoolFrame] = []
    while len(pool) < size:
        stream = order[len(pool) % len(order)]
        while not waiting[stream]:
            for push in feed.tick(seconds, now_ms, [stream]):
                waiting[stream].append(push.payload)
        pool.append(PoolFrame(feed.spec.symbol, waiting[stream].pop(0)))
    return pool


class Flood:
    """Sends a pool to one session until the limit; owns its position in the pool."""

    def __init__(self, pool: list[PoolFrame], settings: FlatOut, clock_ns: Callable[[], int]) -> None:
        self._pool = pool
        self._settings = settings
        self._clock_ns = clock_ns
        self.sent = 0
        ends = [0]
        encoded = [wire.encode(wire.OP_TEXT, frame.payload) for frame in pool]
        for frame in encoded:
            ends.append(ends[-1] + len(frame))
        self._ends = ends
        self._bytes = memoryview(b"".join(encoded))

    async def run(self, session: Session) -> None:
        """Flood until `frames` or `seconds` is reached or the connection ends."""
        session.log.pool(self._pool)
        loop = asyncio.get_running_loop()
        settings, begin = self._settings, loop.time()
        per_piece = max(1, PIECE * len(self._pool) // len(self._bytes))
        while session.open:
            elapsed = loop.time() - begin
            if settings.seconds is not None and elapsed >= settings.seconds:
                return
            count = per_piece
            if settings.rate is not None:
                count = min(count, int(elapsed * settings.rate) - self.sent)
            if settings.frames is not None:
                count = min(count, settings.frames - self.sent)
                if self.sent >= settings.frames:
                    return
            if count <= 0:
                await asyncio.sleep(_STEP)
                continue
            if not await self._send(session, count):
                return
            await asyncio.sleep(0)

    async def _send(self, session: Session, count: int) -> bool:
        """Send up to `count` frames without wrapping around; whole frames the client got are logged."""
        if not await session.drained():  # a pong may be under way: the log keeps the order of the wire
            return False
        first = self.sent % len(self._pool)
        count = min(count, len(self._pool) - first)
        session.write_piece(self._bytes[self._ends[first] : self._ends[first + count]])
        if not await session.drained():
            return False
        session.log.run(self._clock_ns(), self.sent, count)
        self.sent += count
        return True
