"""The record of what was sent on each connection, in memory and in files, for tests to compare with.

File format (one file per connection, `conn-000001.log`; all integers little-endian): the magic
`MEXCSIM1`, then records of `u32 length` (of what follows), `u8 type`, body. Types and bodies:

- 1 opened: `u32 connection, i64 time_ns, peer address as UTF-8`
- 2 frame sent whole, 3 frame the connection broke inside of:
  `i64 time_ns, u8 opcode, u8 symbol length, symbol, payload`
- 4 ended: `i64 time_ns, reason as UTF-8`
- 5 pool frame (flat-out mode), numbered from 0 by order: body as type 2
- 6 pool run: `i64 time_ns, u64 first, u64 count`: frames first..first+count-1, each modulo pool size

All times are Unix nanoseconds. A file cut short by a crash is read up to its last whole record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAGIC = b"MEXCSIM1"
TEXT, BINARY = 1, 2
_HEAD = struct.Struct("<IB")
_FRAME = struct.Struct("<qBB")
_RUN = struct.Struct("<qQQ")
_OPEN = struct.Struct("<Iq")
_TIME = struct.Struct("<q")
_OPENED, _WHOLE, _BROKEN, _ENDED, _POOL, _POOL_RUN = range(1, 7)


class SentFrame(NamedTuple):
    """One data frame in the order of sending.

    `opcode` 1 text, 2 binary. `whole` is False where the connection broke inside this frame: the
    client may have any part of it; `payload` is then what was meant to be sent. A whole frame was
    handed to the operating system; after a reset the client may still lack the last of them.
    """

    conn: int
    time_ns: int
    opcode: int
    symbol: str
    payload: bytes
    whole: bool


@dataclass
class ConnectionInfo:
    """One WebSocket connection, numbered from 1; times in Unix nanoseconds; peer is `address:port`.

    `end` says why it ended: `reset`, `reset, all acknowledged`, `abort`, `close`, `heartbeat`, `half frame`, `garbage`,
    `backlog`, `simulator stopped`, or `client (code)` where the client or the network ended it.
    """

    number: int
    peer: str
    opened_ns: int
    user_agent: str = ""
    closed_ns: int | None = None
    end: str = ""


class PoolFrame(NamedTuple):
    """A frame rendered in advance for flat-out sending."""

    symbol: str
    payload: bytes


@dataclass(frozen=True)
class _Run:
    time_ns: int
    first: int
    count: int


class ConnectionLog:
    """What one connection was sent. Written by the simulator's loop only; may be read from any thread."""

    def __init__(self, conn: int, peer: str, time_ns: int, keep: bool, folder: Path | None) -> None:
        self._conn = conn
        self._keep = keep
        self._entries: list[SentFrame | _Run] = []
        self._pool: Sequence[PoolFrame] = ()
        self._file: BinaryIO | None = None
        if folder is not None:
            self._file = (folder / f"conn-{conn:06d}.log").open("wb")
            self._file.write(MAGIC)
            self._record(_OPENED, _OPEN.pack(conn, time_ns) + peer.encode())

    def frame(self, time_ns: int, opcode: int, symbol: str, payload: bytes, whole: bool = True) -> None:
        """Record one frame."""
        if self._keep:
            self._entries.append(SentFrame(self._conn, time_ns, opcode, symbol, payload, whole))
        if self._file is not None:
            self._record(_WHOLE if whole else _BROKEN, _body(time_ns, opcode, symbol, payload))

    def pool(self, frames: Sequence[PoolFrame]) -> None:
        """Name the frames that later runs refer to; at most once."""
        self._pool = frames
        for frame in frames if self._file is not None else ():
            self._record(_POOL, _body(0, TEXT, frame.symbol, frame.payload))

    def run(self, time_ns: int, first: int, count: int) -> None:
        """Record `count` consecutive pool frames, the first being number `first` modulo pool size."""
        if self._keep:
            self._entries.append(_Run(time_ns, first, count))
        if self._file is not None:
            self._record(_POOL_RUN, _RUN.pack(time_ns, first, count))

    def frames(self) -> Iterator[SentFrame]:
        """Iterate over what has been recorded so far."""
        for entry in tuple(self._entries):
            if isinstance(entry, SentFrame):
                yield entry
            else:
                yield from _expand(self._conn, entry, self._pool)

    def flush(self) -> None:
        """Hand what is recorded to the operating system."""
        if self._file is not None:
            self._file.flush()

    def end(self, time_ns: int, reason: str) -> None:
        """Record the connection's end and close the file."""
        if self._file is not None:
            self._record(_ENDED, _TIME.pack(time_ns) + reason.encode())
            self._file.close()
            self._file = None

    def _record(self, kind: int, body: bytes) -> None:
        assert self._file is not None
        self._file.write(_HEAD.pack(len(body) + 1, kind) + body)


def _body(time_ns: int, opcode: int, symbol: str, payload: bytes) -> bytes:
    name = symbol.encode()
    return _FRAME.pack(time_ns, opcode, len(name)) + name + payload


def _expand(conn: int, run: _Run, pool: Sequence[PoolFrame]) -> Iterator[SentFrame]:
    for number in range(run.first, run.first + run.count):
        frame = pool[number % len(pool)]
        yield SentFrame(conn, run.time_ns, TEXT, frame.symbol, frame.payload, True)


def _records(path: Path | str) -> Iterator[tuple[int, bytes]]:
    """Iterate over (type, body) of the whole records of a file."""
    with Path(path).open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} is not a simulator's sent log")
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, kind = _HEAD.unpack(head)
            body = file.read(length - 1)
            if len(body) < length - 1:
                return
            yield kind, body


def read_sent_log(path: Path | str) -> Iterator[SentFrame]:
    """Iterate over the frames of one connection's log file, in the order of sending.

    Raises ValueError where the file is not such a log; a record cut off at the end is left out.
    """
    conn, pool = 0, list[PoolFrame]()
    for kind, body in _records(path):
        if kind == _OPENED:
            conn = _OPEN.unpack_from(body)[0]
        elif kind in (_WHOLE, _BROKEN, _POOL):
            time_ns, opcode, size = _FRAME.unpack_from(body)
            symbol = body[_FRAME.size : _FRAME.size + size].decode()
            payload = body[_FRAME.size + size :]
            if kind == _POOL:
                pool.append(PoolFrame(symbol, payload))
            else:
                yield SentFrame(conn, time_ns, opcode, symbol, payload, kind == _WHOLE)
        elif kind == _POOL_RUN:
            yield from _expand(conn, _Run(*_RUN.unpack(body)), pool)
        elif kind != _ENDED:
            raise ValueError(f"{path} holds an unknown record type {kind}")


def read_connection(path: Path | str) -> ConnectionInfo:
    """Return whose log file this is and how the connection ended (`closed_ns` None: the log breaks off)."""
    info: ConnectionInfo | None = None
    for kind, body in _records(path):
        if kind == _OPENED:
            conn, opened_ns = _OPEN.unpack_from(body)
            info = ConnectionInfo(conn, body[_OPEN.size :].decode(), opened_ns)
        elif kind == _ENDED and info is not None:
            info.closed_ns, info.end = _TIME.unpack_from(body)[0], body[_TIME.size :].decode()
    if info is None:
        raise ValueError(f"{path} does not say which connection it is of")
    return info
