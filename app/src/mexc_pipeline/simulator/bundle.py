"""A probe's bundle as something that can be played: what was sent for each subscription, and when. Pure.

The file is JSON, one record a line (gzip or not); the first line is `{"bundle":1,…}`, and records are told apart by
their keys: `opened`, `refused`, `unreached`, `sent`, `text` or `base64` (frames), `closed`, `rest`, `full`. Times
(`at`) are ms since the probe began. The program that writes it documents every key.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mexc_pipeline.errors import ConfigError
from mexc_pipeline.simulator.shapes import PACKINGS
from mexc_pipeline.simulator.wire import BREACHES

FORMAT = 1
MOST_BYTES = 256 << 20
"""Of an unpacked bundle; written ones are smaller by far."""
TEXT, BINARY = 1, 2

_TIME = re.compile(rb'("(?:ts|cts|ct|t|timestamp)":"?)(\d{19}|\d{16}|\d{13}|\d{10})(?!\d)')
_REST_TIME = re.compile(rb'("data":)(\d{13})(?!\d)')
_VERSION = re.compile(rb'("(?:version|begin|end)":"?)([1-9]\d*)')
_ID = re.compile(rb'("i":"?)([1-9]\d*)')
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


def read_bundle(path: Path) -> Bundle:
    """Read and arrange a bundle. Raises ConfigError naming the file, and the line that cannot be read."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            stream = zlib.decompressobj(31)
            raw = stream.decompress(raw, MOST_BYTES)
            if stream.unconsumed_tail:
                raise ConfigError(f"{path}: longer than {MOST_BYTES >> 20} MiB")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except zlib.error as error:
        raise ConfigError(f"{path}: a gzip file that cannot be read") from error
    lines = raw.split(b"\n")
    try:
        head = json.loads(lines[0])
        known = head["bundle"] == FORMAT
        symbols = [str(symbol) for symbol in head["symbols"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is not a bundle of `probe --save`") from error
    if not known:
        raise ConfigError(f"{path}: a bundle of format {head['bundle']!r}; this version knows {FORMAT}")
    arranging = _Arranging(symbols)
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            try:
                arranging.take(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                raise ConfigError(f"{path}: line {number} is no record of a bundle") from error
    bundle = arranging.done()
    if not bundle.handshakes:
        raise ConfigError(f"{path}: that probe never reached the exchange, so there is nothing to imitate")
    return bundle


class _Arranging:
    """Puts records, in order, where they belong."""

    def __init__(self, symbols: list[str]) -> None:
        self._conns: dict[int, _Conn] = {}
        self._handshakes: list[tuple[float, Refusal | None]] = []
        self._answers: dict[str, list[RecordedAnswer]] = {}
        self._bases: list[float] = []
        self._symbols = symbols

    def take(self, record: dict[str, Any]) -> None:
        if "full" in record or "unreached" in record:
            return
        at = float(record["at"])
        if "rest" in record:
            if "status" in record:
                answer = RecordedAnswer(int(record["status"]), dict(record["headers"]), _inside(record))
                self._answers.setdefault(str(record["rest"]), []).append(answer)
            return
        number = int(record["conn"])
        if "refused" in record:
            refusal = Refusal(int(record["status"]), dict(record["headers"]), str(record["body"]).encode())
            self._handshakes.append((at, refusal))
            return
        if "opened" in record:
            self._conns[number] = _Conn(str(record["opened"]), at, last=at)
            self._handshakes.append((at, None))
            return
        conn = self._conns[number]
        conn.last = at
        if "sent" in record:
            self._sent(conn, number, at, json.loads(record["sent"]))
        elif "closed" in record:
            breach = str(record.get("breach", ""))
            if breach and breach not in BREACHES:
                raise ValueError(record)
            conn.closed = RecordedEnd(at, int(record["closed"]), str(record["reason"]), breach)
            conn.ours = bool(record["ours"]) and not breach
        else:
            packed = str(record.get("packed", ""))
            opcode = int(record.get("opcode", BINARY if packed else TEXT))
            if (packed and packed not in PACKINGS) or not 0 <= opcode <= 15:
                raise ValueError(record)
            self._frame(conn, at, RecordedFrame(at, opcode, _inside(record), packed))

    def _sent(self, conn: _Conn, number: int, at: float, request: dict[str, Any]) -> None:
        method = str(request["method"])
        if method == "ping":
            conn.pings.append(at)
            conn.pongs.append([])
        elif method.startswith("sub."):
            topic = method.removeprefix("sub.")
            conn.tracks.setdefault(topic, Track(conn.symbol, topic, number, at))

    def _frame(self, conn: _Conn, at: float, frame: RecordedFrame) -> None:
        found = _CHANNEL.findall(frame.inside)
        channel = found[-1].decode(errors="replace") if found else ""
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


def _inside(record: dict[str, Any]) -> bytes:
    if "text" in record:
        return str(record["text"]).encode(errors="surrogatepass")
    return base64.b64decode(record["base64"], validate=True)


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
        self._ranges = [
            [int(found[2]) for frame in track.frames for found in pattern.finditer(frame.inside)] for track in tracks
        ]
        self._playing = -1
        self._shift = 0

    def begin(self, track: int) -> int:
        """The shift for a pass of that track that begins now."""
        before, self._playing = self._playing, track
        if before >= track and self._ranges[track] and self._ranges[before]:
            self._shift = max(0, self._shift + max(self._ranges[before]) - min(self._ranges[track]) + 1)
        return self._shift

    @property
    def shift(self) -> int:
        """The shift of the newest pass."""
        return self._shift
