"""A probe's bundle as something that can be played: what was sent for each subscription, and when. Pure.

The file is JSON, one record a line (gzip or not); the first line is `{"bundle":1,…}`, and records are told apart by
their keys: `opened`, `refused`, `unreached`, `sent`, `text` or `base64` (frames), `closed`, `rest`, `full`. Times
(`at`) are ms since the probe began. The program that writes it documents every key.
"""

from __future__ import annotations

import base64
import io
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import msgspec

from mexc_pipeline.errors import ConfigError
from mexc_pipeline.paths import regular
from mexc_pipeline.simulator.shapes import PACKINGS
from mexc_pipeline.simulator.wire import BREACHES

FORMAT = 1
MOST_BYTES = 66 << 20
"""Of an unpacked bundle: a probe writes 64 MiB, and a line that says so at its beginning and its end."""
MOST_LINES = 600_000
"""A probe counts every line as if it were 128 bytes longer than it is."""
MOST_HEAD = 1 << 20
MOST_HEADERS = 1 << 20
_MOST_MS = 1e12
_PIECE = 4096
TEXT, BINARY = 1, 2

_TIME = re.compile(rb'("(?:ts|cts|ct|t|timestamp)":"?)(\d{19}|\d{16}|\d{13}|\d{10})(?!\d)')
_REST_TIME = re.compile(rb'("data":)(\d{13})(?!\d)')
_VERSION = re.compile(rb'("(?:version|begin|end)":"?)([1-9]\d{0,18})(?!\d)')
_ID = re.compile(rb'("i":"?)([1-9]\d{0,18})(?!\d)')
"""What has more digits than 64 bits hold is no count that goes on."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_CHANNEL = re.compile(rb'"channel":"([^"]*)"')
_UNIT = {10: 1_000, 13: 1, 16: 1_000, 19: 1_000_000}


class RecordedFrame(NamedTuple):
    """One frame: ms after the request it belongs to, opcode, what is inside, and how that is packed, if it is."""

    after: float
    opcode: int
    inside: bytes
    packed: str

    def bytes(self) -> bytes:
        """The payload as it was on the wire."""
        return PACKINGS[self.packed](self.inside) if self.packed else self.inside


class RecordedEnd(NamedTuple):
    """How the exchange ended a connection: ms after it was made, close code (1006: without a close frame), reason; or
    what it sent that could not be read on."""

    after: float
    code: int
    reason: str
    breach: str


class Refusal(NamedTuple):
    """What a handshake got in place of an upgrade."""

    status: int
    headers: dict[str, str]
    body: bytes


class RecordedAnswer(NamedTuple):
    """What REST answered: status, headers, body."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Track:
    """What one subscription brought on one connection. `seconds`: how long the probe listened to it."""

    symbol: str
    topic: str
    conn: int
    begin: float
    frames: list[RecordedFrame] = field(default_factory=list)
    """Acknowledgement and pushes; the connection's other frames are with its first subscription."""
    seconds: float = 0.0
    end: RecordedEnd | None = None
    """Set for the connection's first subscription."""


@dataclass
class Bundle:
    """A whole bundle. `base`: the exchange's time (ms) when the probe began, None where no frame tells."""

    symbols: list[str]
    tracks: dict[tuple[str, str], list[Track]]
    pongs: list[list[RecordedFrame]]
    """For each ping that had time to be answered: what it got, `after` counted from the ping."""
    handshakes: list[Refusal | None]
    """In order; None: it went well."""
    answers: dict[str, list[RecordedAnswer]]
    base: float | None


@dataclass
class _Conn:
    symbol: str
    opened: float
    tracks: dict[str, Track] = field(default_factory=dict)
    pings: list[float] = field(default_factory=list)
    pongs: list[list[RecordedFrame]] = field(default_factory=list)
    closed: RecordedEnd | None = None
    """``after``: of the probe's time."""
    ours: bool = False
    last: float = 0.0


class _Record(msgspec.Struct):
    """Any record: which one it is, its keys tell. Of the right types and within bounds, or it is none."""

    at: Annotated[float, msgspec.Meta(ge=0, le=_MOST_MS)] = 0.0
    conn: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = -1
    opened: str | None = None
    refused: str | None = None
    unreached: str | None = None
    sent: str | None = None
    text: str | None = None
    base64: str | None = None
    closed: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    rest: str | None = None
    full: bool = False
    opcode: Annotated[int, msgspec.Meta(ge=0, le=15)] | None = None
    packed: str = ""
    reason: str = ""
    ours: bool = False
    breach: str = ""
    status: Annotated[int, msgspec.Meta(ge=1, le=999)] | None = None
    headers: msgspec.Raw = msgspec.Raw(b"{}")
    body: str = ""


class _Format(msgspec.Struct):
    bundle: int


class _Head(msgspec.Struct):
    symbols: Annotated[list[str], msgspec.Meta(min_length=1)]


class _Request(msgspec.Struct):
    method: str


_record = msgspec.json.Decoder(_Record).decode
_format = msgspec.json.Decoder(_Format).decode
_head = msgspec.json.Decoder(_Head).decode
_request = msgspec.json.Decoder(_Request).decode
_headers = msgspec.json.Decoder(dict[str, str]).decode
_WRONG = (msgspec.MsgspecError, ValueError, LookupError, RecursionError)


def read_bundle(path: Path) -> Bundle:
    """Read and arrange a bundle. Raises ConfigError naming the file, and the line that cannot be read."""
    lines = io.BytesIO(_text(path))
    first = lines.readline(MOST_HEAD)
    try:
        written = _format(first).bundle
        symbols = _head(first).symbols if written == FORMAT else []
    except _WRONG as error:
        raise ConfigError(f"{path} is not a bundle of `probe --save`") from error
    if not symbols:
        raise ConfigError(f"{path}: a bundle of format {written}; this version knows {FORMAT}")
    arranging = _Arranging(symbols)
    for number, line in enumerate(lines, 2):
        if number > MOST_LINES:
            raise ConfigError(f"{path}: longer than {MOST_LINES:,} lines; no bundle of `probe --save` is")
        if not line.strip():
            continue
        try:
            arranging.take(_record(line))
        except _WRONG as error:
            raise ConfigError(f"{path}: line {number} is no record of a bundle: {str(error)[:200]}") from error
    bundle = arranging.done()
    if not bundle.handshakes:
        raise ConfigError(f"{path}: that probe never reached the exchange, so there is nothing to imitate")
    return bundle


def _text(path: Path) -> bytes:
    """What a bundle says, unpacked; of a probe that was killed, as far as it came. ConfigError where that is more than
    one can have."""
    text = b""
    try:
        with open(path, "rb", opener=regular) as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            text = _unpacked(file) if packed else file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except zlib.error as error:
        raise ConfigError(f"{path}: a gzip file that cannot be read") from error
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{path}: longer than {MOST_BYTES >> 20} MiB; no bundle of `probe --save` is")
    return text


def _unpacked(file: BinaryIO) -> bytes:
    """All members of a gzip file; no more than a byte beyond what a bundle can have."""
    stream, text, left = zlib.decompressobj(31), io.BytesIO(), MOST_BYTES + 1
    while left > 0 and (piece := file.read(_PIECE)):
        while left > 0 and piece:
            if stream.eof:
                stream = zlib.decompressobj(31)
            left -= text.write(stream.decompress(piece, left))
            piece = stream.unused_data
    return text.getvalue()


class _Arranging:
    """Puts records, in order, where they belong."""

    def __init__(self, symbols: list[str]) -> None:
        self._conns: dict[int, _Conn] = {}
        self._handshakes: list[tuple[float, Refusal | None]] = []
        self._answers: dict[str, list[RecordedAnswer]] = {}
        self._bases: list[float] = []
        self._symbols = symbols

    def take(self, record: _Record) -> None:
        """Put one where it belongs. ValueError or LookupError where it fits nowhere."""
        at = record.at
        if record.full or record.unreached is not None:
            return
        if record.rest is not None:
            if record.status is not None:
                answer = RecordedAnswer(record.status, _sendable(record.headers), _inside(record))
                self._answers.setdefault(record.rest, []).append(answer)
            return
        if record.refused is not None:
            if record.status is None:
                raise ValueError("no status")
            refusal = Refusal(record.status, _sendable(record.headers), record.body.encode())
            self._handshakes.append((at, refusal))
            return
        if record.opened is not None:
            self._conns[record.conn] = _Conn(record.opened, at, last=at)
            self._handshakes.append((at, None))
            return
        conn = self._conns.get(record.conn)
        if conn is None:
            raise ValueError(f"no connection {record.conn} was opened")
        conn.last = at
        if record.sent is not None:
            self._sent(conn, record.conn, at, _request(record.sent).method)
        elif record.closed is not None:
            if record.breach and record.breach not in BREACHES:
                raise ValueError(f"breach {record.breach!r} is not known")
            conn.closed = RecordedEnd(at, record.closed, record.reason, record.breach)
            conn.ours = record.ours and not record.breach
        else:
            if record.packed and record.packed not in PACKINGS:
                raise ValueError(f"packed {record.packed!r} is not known")
            opcode = record.opcode if record.opcode is not None else BINARY if record.packed else TEXT
            self._frame(conn, at, RecordedFrame(at, opcode, _inside(record), record.packed))

    def _sent(self, conn: _Conn, number: int, at: float, method: str) -> None:
        if method == "ping":
            conn.pings.append(at)
            conn.pongs.append([])
        elif method.startswith("sub."):
            topic = method.removeprefix("sub.")
            conn.tracks.setdefault(topic, Track(conn.symbol, topic, number, at))

    def _frame(self, conn: _Conn, at: float, frame: RecordedFrame) -> None:
        channel = ""
        for found in _CHANNEL.finditer(frame.inside):
            channel = found[1].decode(errors="replace")
        if channel == "pong" and conn.pings:
            conn.pongs[-1].append(frame._replace(after=at - conn.pings[-1]))
            return
        for unit in _TIME.finditer(frame.inside):
            if unit[1].startswith(b'"ts"'):
                self._bases.append(_ms(unit[2]) - at)
        topic = channel.removeprefix("rs.sub.").removeprefix("push.")
        track = conn.tracks.get(topic) or next(iter(conn.tracks.values()), None)
        if track is not None:
            track.frames.append(frame._replace(after=max(0.0, at - track.begin)))

    def done(self) -> Bundle:
        tracks: dict[tuple[str, str], list[Track]] = {}
        pongs: list[list[RecordedFrame]] = []
        for _, conn in sorted(self._conns.items(), key=lambda item: item[1].opened):
            end = conn.closed.after if conn.closed else conn.last
            for first, track in enumerate(conn.tracks.values()):
                track.seconds = max(0.001, (end - track.begin) / 1000)
                if not first and conn.closed and not conn.ours:
                    track.end = conn.closed._replace(after=end - conn.opened)
                tracks.setdefault((track.symbol, track.topic), []).append(track)
            pongs += [pong for ping, pong in zip(conn.pings, conn.pongs, strict=True) if pong or end - ping >= 2_000]
        handshakes = [outcome for _, outcome in sorted(self._handshakes, key=lambda pair: pair[0])]
        # The frame that was on its way for the shortest time tells best; a few may hold any time at all.
        base = sorted(self._bases)[-1 - len(self._bases) // 20] if self._bases else None
        return Bundle(self._symbols, tracks, pongs, handshakes, self._answers, base)


def _inside(record: _Record) -> bytes:
    if record.text is not None:
        return record.text.encode()
    if record.base64 is None:
        raise ValueError("it says nothing")
    return base64.b64decode(record.base64, validate=True)


def _sendable(said: msgspec.Raw) -> dict[str, str]:
    """Headers as they can be sent: one that went over several lines, as HTTP once allowed, is one line."""
    if len(bytes(said)) > MOST_HEADERS:
        raise ValueError("longer headers than HTTP has")
    return {name: _CONTROL.sub(" ", value).strip() for name, value in _headers(said).items()}


def _ms(digits: bytes) -> float:
    number, size = int(digits), len(digits)
    return number * 1_000 if size == 10 else number / _UNIT[size]


class Shift(NamedTuple):
    """By how much times (ms), versions of the book and ids of trades are further on than in the bundle."""

    ms: int
    versions: int = 0
    ids: int = 0


def advanced(inside: bytes, shift: Shift, rest: bool = False) -> bytes:
    """A frame (or a REST answer) as it would be sent now: spelling, order and fields as they were.

    Numbers that hold a time keep their unit; 0 stays 0.
    """

    def time(found: re.Match[bytes]) -> bytes:
        size = len(found[2])
        by = shift.ms // 1_000 if size == 10 else shift.ms * _UNIT[size]
        return found[1] + b"%0*d" % (size, int(found[2]) + by)

    inside = _TIME.sub(time, inside)
    if rest or b'"pong"' in inside:
        inside = _REST_TIME.sub(time, inside)
    if shift.versions:
        inside = _VERSION.sub(lambda found: found[1] + b"%d" % (int(found[2]) + shift.versions), inside)
    if shift.ids:
        inside = _ID.sub(lambda found: found[1] + b"%d" % (int(found[2]) + shift.ids), inside)
    return inside


class Counting:
    """How far versions or ids of one symbol and topic have come, so that a stream that is played over and over goes on
    as the exchange's does. Owns the shift."""

    def __init__(self, tracks: list[Track], versions: bool) -> None:
        pattern = _VERSION if versions else _ID
        self._ranges = [_range(track, pattern) for track in tracks]
        self._playing = -1
        self._shift = 0

    def begin(self, track: int) -> int:
        """The shift for a pass of that track that begins now."""
        before, self._playing = self._playing, track
        last, first = self._ranges[before], self._ranges[track]
        if before >= track and last and first:
            self._shift = max(0, self._shift + last[1] - first[0] + 1)
        return self._shift

    @property
    def shift(self) -> int:
        """The shift of the newest pass."""
        return self._shift


def _range(track: Track, pattern: re.Pattern[bytes]) -> tuple[int, int] | None:
    """The least and the greatest number of a track; None where it has none."""
    least = greatest = None
    for frame in track.frames:
        for found in pattern.finditer(frame.inside):
            number = int(found[2])
            least = number if least is None else min(least, number)
            greatest = number if greatest is None else max(greatest, number)
    return None if least is None or greatest is None else (least, greatest)
