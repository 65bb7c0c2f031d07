"""Gathers what a probe saw, record by record. Pure; what it means is judged elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from mexc_pipeline.events import Connected, Stopped, Subscribed
from mexc_pipeline.exchange.channels import (
    CONTRACT,
    DEAL,
    DEPTH,
    FULL_DEPTH,
    INDEX_PRICE,
    KLINE,
    ROW_TYPES,
    TICKER,
    acknowledged,
    channel_of,
    is_answer,
    topic_of,
)
from mexc_pipeline.exchange.contracts import contract_size
from mexc_pipeline.exchange.deadletters import reason
from mexc_pipeline.exchange.depth import Deals, span
from mexc_pipeline.exchange.options import index_symbol
from mexc_pipeline.exchange.protocol import BINARY, TEXT, Classifier, Control, control_of, decompressed, packing_of
from mexc_pipeline.exchange.rest import RestRefusedError, endpoint, read_klines, short_path
from mexc_pipeline.exchange.shapes import SpelledNumber, extent, parse, walk
from mexc_pipeline.exchange.times import WITHIN, Standing
from mexc_pipeline.ledger.evidence import SizeEvidence, evidence
from mexc_pipeline.ledger.minutes import Minutes
from mexc_pipeline.probe.records import (
    Answered,
    Closed,
    Opened,
    Received,
    Record,
    Refused,
    Sent,
    Unanswered,
    Unreached,
)
from mexc_pipeline.rows import Mt, is_utf8

LOOKED_AT = 5_000
"""Frames of a channel whose every field is looked at; the rest is counted, timed and checked for continuity."""
APART_MS = 2_000
"""Where there was no connection for so long, a channel's silence is not its own."""
MOST_DELAYS = 100_000
"""Of a channel: the first ones."""
MOST_NAMES = 200
"""Different names (of fields, channels, symbols, answers) that are told apart; what comes after is ``(others)``."""
MOST_NAME = 300
_OTHERS = "(others)"
_CHECKED = {DEAL: Mt.DEAL, TICKER: Mt.TICKER, DEPTH: Mt.DEPTH, FULL_DEPTH: Mt.DEPTH, KLINE: Mt.KLINE}
_CONNECTED = Connected(egress="", peer="", local="", url="").m
_SUBSCRIBED = Subscribed(channel=DEAL, by="ack").m
_STOPPED = Stopped().m
_UNITS = {10: "s", 13: "ms", 16: "us", 19: "ns"}


def count(counter: Counter[str], name: str) -> None:
    """Count what an exchange named, within bounds on memory."""
    short = name[:MOST_NAME]
    counter[short if short in counter or len(counter) < MOST_NAMES else _OTHERS] += 1


class Fields:
    """How often each field was there, and of what kind."""

    def __init__(self) -> None:
        self.looked = 0
        self.objects: Counter[str] = Counter()
        self.kinds: dict[str, Counter[str]] = {}
        self.spellings: Counter[str] = Counter()
        self.longest: tuple[int, str] = (0, "")
        """Digits of the longest number before or behind its point, and where it stood."""

    def add(self, value: Any) -> None:
        """Take a whole frame or answer, as :func:`parse` read it."""
        self.looked += 1
        for path, kind, inner in walk(value):
            if path not in self.kinds and len(self.kinds) >= MOST_NAMES:
                path = _OTHERS
            self.kinds.setdefault(path, Counter())[kind] += 1
            if kind == "object":
                self.objects[path] += 1
            elif kind == "number":
                self._number(inner, path)

    def _number(self, number: SpelledNumber, path: str) -> None:
        mantissa, _, power = number.lower().partition("e")
        _, point, rest = mantissa.partition(".")
        if power:
            self.spellings["exponent"] += 1
        elif not point:
            self.spellings["integer"] += 1
        else:
            self.spellings["trailing zeros" if rest.endswith("0") else "decimal"] += 1
        digits = extent(number)
        if digits > self.longest[0]:
            self.longest = digits, path


@dataclass
class Channel:
    """One channel on all connections that asked for it. Counters by symbol unless said otherwise."""

    name: str
    asked: dict[str, float] = field(default_factory=dict)
    """Symbol to ``at`` of the first request."""
    acked: set[str] = field(default_factory=set)
    frames: Counter[str] = field(default_factory=Counter)
    newest: dict[str, float] = field(default_factory=dict)
    """``at`` of the newest frame, or of the request on a connection that came long after it."""
    rests: dict[str, float] = field(default_factory=dict)
    """The longest time from one frame to the next, ms."""
    foreign: Counter[str] = field(default_factory=Counter)
    """Frames that name another symbol than that of their connection, by what they name."""
    ts: Counter[str] = field(default_factory=Counter)
    """Frames by what their ``ts`` is: ``ms``, ``us``, ``ns``, ``s``, ``zero``, ``text``, ``null``, ``absent`` …"""
    delays: list[float] = field(default_factory=list)
    """ms, the difference of the clocks included."""
    within: dict[str, list[float]] = field(default_factory=dict)
    """The same of the times that are judged, but for the first frame of each connection, which may be old: of ``ts``
    itself, and of the times within ``data``, by their paths."""
    units: dict[str, Counter[str]] = field(default_factory=dict)
    """What the times within ``data`` are, as :attr:`ts`."""
    standing: dict[str, Standing] = field(default_factory=dict)
    stood_s: float = 0.0
    """For how long frames came with one and the same ``ts``, where that is too long."""
    dead: Counter[str] = field(default_factory=Counter)
    """Frames that the recorder would keep as dead letters, by reason."""
    fields: Fields = field(default_factory=Fields)
    gaps: int = 0
    missing: int = 0
    """Versions within the gaps."""
    back: int = 0
    resets: int = 0
    """Times a connection's versions began below those of the connection before it."""
    versions: int = 0
    repeated: int = 0
    """Trades that came again on the same connection."""
    again: int = 0
    """Trades that came again on a later connection."""

    def rest(self, symbol: str, until: float) -> float:
        """The longest rest up to then."""
        longest = max(self.rests.get(symbol, 0.0), until - self.newest.get(symbol, until))
        self.rests[symbol] = longest
        return longest


@dataclass
class Connection:
    """One connection; its times are ms since the probe began."""

    symbol: str
    spare: bool
    opened: float
    closed: Closed | None = None
    pings: list[float] = field(default_factory=list)
    pongs: int = 0
    round_trips: list[float] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    """Channels that have brought a version or a trade on this connection."""
    timed: set[str] = field(default_factory=set)
    """Channels that have brought a frame on this connection."""


class Observer:
    """Owns what was seen. ``classifiers``: by symbol, what the recorder would use. ``start_ms``: Unix ms of ``at`` 0,
    None where it is not known (a bundle): there are no delays then."""

    def __init__(self, classifiers: Mapping[str, Classifier], start_ms: float | None) -> None:
        self._classifiers = classifiers
        self._start_ms = start_ms
        self.connections: dict[int, Connection] = {}
        self.channels: dict[str, Channel] = {}
        self.spare: dict[str, Channel] = {}
        """Channels that are not configured."""
        self.refused: list[Refused] = []
        self.unreached: list[Unreached] = []
        self.answers: list[Answered] = []
        self.unanswered: list[Unanswered] = []
        self.frames = 0
        self.packed: Counter[str] = Counter()
        """Frames that are not plain text, by what they are."""
        self.unreadable: Counter[str] = Counter()
        self.strangers: Counter[str] = Counter()
        """Frames of channels nobody asked for."""
        self.said: Counter[str] = Counter()
        self.pong_data: Counter[str] = Counter()
        self.ahead: list[tuple[float, float]] = []
        """How far our clock is ahead of the exchange's, and by how much that may be wrong; both in ms."""
        self.last_at = 0.0
        self.minutes: dict[str, Minutes] = {}
        """By symbol: its trades against the candles that were pushed, and those that REST gave."""
        self._versions: dict[tuple[str, str], int] = {}
        self._deals: dict[str, Deals] = {}

    def see(self, record: Record) -> None:
        """Take the next record of its connection."""
        self.last_at = max(self.last_at, record.at)
        match record:
            case Opened(at, conn, symbol, spare):
                self.connections[conn] = Connection(symbol, spare, at)
                self._check(symbol, Mt.EVENT, _CONNECTED, not spare)
            case Refused():
                self.refused.append(record)
            case Unreached():
                self.unreached.append(record)
            case Sent(at, conn, text):
                self._sent(self.connections[conn], at, text)
            case Received():
                self._received(self.connections[record.conn], record)
            case Closed(_, conn):
                self.connections[conn].closed = record
                self._check(self.connections[conn].symbol, Mt.EVENT, _STOPPED, not self.connections[conn].spare)
            case Answered():
                self.answers.append(record)
                self._candles_of(record)
                self._clock_of_ping(record)
            case Unanswered():
                self.unanswered.append(record)

    def _check(self, symbol: str, mt: Mt, m: bytes, wanted: bool = True, ts: int = 0) -> None:
        """Have it counted for the comparison of trades and candles."""
        if wanted:
            self.minutes.setdefault(symbol, Minutes(symbol)).take(evidence(symbol, 0, ts, mt, m))

    def _candles_of(self, answer: Answered) -> None:
        name, _, rest = short_path(answer.path).partition("/")
        if endpoint(answer.path) == "detail":
            symbol, size = answer.path.rpartition("symbol=")[2], contract_size(answer.body)
            if size is not None:
                self.minutes.setdefault(symbol, Minutes(symbol)).take(SizeEvidence(size))
        elif name == "kline":
            try:
                self._check(rest.partition("?")[0], Mt.REPAIRED, read_klines(answer.status, answer.body))
            except RestRefusedError:
                return  # said where answers are judged

    def _channel(self, connection: Connection, name: str) -> Channel:
        return (self.spare if connection.spare else self.channels).setdefault(name, Channel(name))

    def _sent(self, connection: Connection, at: float, text: str) -> None:
        method = str(json.loads(text)["method"])
        if method == "ping":
            connection.pings.append(at)
        elif method.startswith("sub."):
            topic = method.removeprefix("sub.")
            connection.topics.add(topic)
            channel = self._channel(connection, channel_of(topic))
            channel.asked.setdefault(connection.symbol, at)
            self._asked_again(channel, connection.symbol, at)

    def _asked_again(self, channel: Channel, symbol: str, at: float) -> None:
        """A channel is silent only while there is a connection."""
        ends = [c.closed.at for c in self.connections.values() if c.symbol == symbol and not c.spare and c.closed]
        if symbol in channel.newest and ends and at - max(ends) > APART_MS:
            channel.rest(symbol, max(ends))
            channel.newest[symbol] = at

    # Frames

    def _received(self, connection: Connection, record: Received) -> None:
        self.frames += 1
        if record.opcode not in (TEXT, BINARY):
            self.unreadable["no message: of an undefined opcode, or fragments without a beginning or an end"] += 1
            return
        text, packing = unpack(record.opcode, record.payload)
        if packing:
            self.packed[packing] += 1
        elif record.opcode == TEXT and not is_utf8(text):
            self.unreadable["not UTF-8"] += 1
            return
        try:
            value = parse(text)
        except (ValueError, RecursionError):
            self.unreadable["not JSON"] += 1
            return
        if not isinstance(value, dict):
            self.unreadable["not an object"] += 1
            return
        name = value.get("channel")
        if not isinstance(name, str):
            self.unreadable["without a channel"] += 1
        elif (control := control_of(name)) is Control.PONG:
            self._pong(connection, record.at, value)
        elif control is Control.CLIENT_ID:
            pass  # a sister venue sends it, and clients of this one expect it
        elif is_answer(name):
            topic = acknowledged(name)
            if value.get("data") == "success" and topic is not None and topic in connection.topics:
                self._channel(connection, channel_of(topic)).acked.add(connection.symbol)
                self._check(connection.symbol, Mt.EVENT, _SUBSCRIBED, topic == topic_of(DEAL) and not connection.spare)
            else:
                count(self.said, f"{name}: {str(value.get('data'))[:MOST_NAME]}")
        elif topic_of(name) not in connection.topics:
            count(self.strangers, name)
        else:
            self._push(self._channel(connection, name), connection, record, value, text)

    def _push(
        self, channel: Channel, connection: Connection, record: Received, value: dict[str, Any], text: bytes
    ) -> None:
        symbol = connection.symbol
        expected = index_symbol(symbol) if channel.name == INDEX_PRICE else symbol
        named = value.get("symbol", expected)
        if named != expected and channel.name in ROW_TYPES and channel.name != CONTRACT:
            count(channel.foreign, str(named))
            return
        channel.frames[symbol] += 1
        channel.rest(symbol, record.at)
        channel.newest[symbol] = record.at
        unit = ts_unit(value)
        count(channel.ts, unit)
        if unit == "ms" and self._start_ms is not None and len(channel.delays) < MOST_DELAYS:
            channel.delays.append(self._start_ms + record.at - int(value["ts"]))
        if channel.name in connection.timed:
            self._times(channel, symbol, record.at, value)
        connection.timed.add(channel.name)
        if channel.fields.looked < LOOKED_AT:
            channel.fields.add(value)
        if not connection.spare:
            self._classify(channel, connection.symbol, record)
        if (mt := _CHECKED.get(channel.name)) is not None and (not connection.spare or mt is Mt.KLINE):
            self._check(connection.symbol, mt, text, ts=int(value["ts"]) if unit == "ms" else 0)
        if channel.name in (DEPTH, FULL_DEPTH):
            self._version(channel, connection, text)
        elif channel.name == DEAL:
            self._trades(channel, connection, text)

    def _times(self, channel: Channel, symbol: str, at: float, frame: Mapping[str, Any]) -> None:
        if ts_unit(frame) == "ms":
            ts, standing = int(frame["ts"]), channel.standing.setdefault(symbol, Standing())
            if standing.saw(ts, at / 1000):
                channel.stood_s = max(channel.stood_s, at / 1000 - standing.since)
            self._delay(channel, "ts", at, ts)
        data = frame.get("data")
        objects: list[Any] = data if isinstance(data, list) else [data]
        for one in filter(lambda one: isinstance(one, dict), objects):
            for name in WITHIN.get(channel.name, ()):
                if isinstance(text := one.get(name), str):  # a number as it is spelled, or text
                    path = f"data[].{name}" if isinstance(data, list) else f"data.{name}"
                    text = _plain(text)
                    unit = _unit(SpelledNumber(text))
                    count(channel.units.setdefault(path, Counter()), unit)
                    if unit == "ms":
                        self._delay(channel, path, at, int(text))

    def _delay(self, channel: Channel, path: str, at: float, time_ms: int) -> None:
        delays = channel.within.setdefault(path, [])
        if self._start_ms is not None and len(delays) < MOST_DELAYS:
            delays.append(self._start_ms + at - time_ms)

    def _classify(self, channel: Channel, symbol: str, record: Received) -> None:
        classifier = self._classifiers.get(symbol)
        if classifier is not None:
            found = classifier.classify(record.opcode, record.payload)
            if found.control is None and found.mt == Mt.DEAD_LETTER:
                channel.dead[str(reason(found.m, symbol, self.channels))] += 1

    def _version(self, channel: Channel, connection: Connection, text: bytes) -> None:
        covered = span(text)
        if covered is None:
            return
        channel.versions += 1
        key = connection.symbol, channel.name
        last = self._versions.get(key)
        first_here = channel.name not in connection.begun
        connection.begun.add(channel.name)
        self._versions[key] = covered.last
        if last is None:
            return
        if covered.last < last:
            if first_here:
                channel.resets += 1
            else:
                channel.back += 1
        elif channel.name == DEPTH and not first_here and covered.first > last + 1:
            channel.gaps += 1
            channel.missing += covered.first - last - 1

    def _trades(self, channel: Channel, connection: Connection, text: bytes) -> None:
        deals = self._deals.setdefault(connection.symbol, Deals())
        again = len(deals.frame(text) or ())
        earlier = any(
            other.symbol == connection.symbol and not other.spare and channel.name in other.begun
            for other in self.connections.values()
            if other is not connection
        )
        if again and earlier:
            channel.again += again
        else:
            channel.repeated += again
        connection.begun.add(channel.name)

    # Heartbeat and clock

    def _pong(self, connection: Connection, at: float, value: dict[str, Any]) -> None:
        data = value.get("data")
        unit = _unit(data)
        count(self.pong_data, unit)
        connection.pongs += 1
        if connection.pongs > len(connection.pings):
            return
        took = at - connection.pings[connection.pongs - 1]
        connection.round_trips.append(took)
        if unit == "ms":
            self._clock(at, took, int(data))  # type: ignore[arg-type]  # a number of 13 digits

    def _clock_of_ping(self, answer: Answered) -> None:
        if answer.path.endswith("/ping") and answer.status == 200:
            try:
                value = parse(answer.body)
            except (ValueError, RecursionError):
                return
            data = value.get("data") if isinstance(value, dict) else None
            if _unit(data) == "ms":
                self._clock(answer.at, answer.took, int(data))  # type: ignore[arg-type]  # a number of 13 digits

    def _clock(self, at: float, took: float, theirs: int) -> None:
        if self._start_ms is not None:
            self.ahead.append((self._start_ms + at - took / 2 - theirs, took / 2))


_MOST_DIGITS = 25
"""No time has more, in whatever unit, and arithmetic on so many is exact."""


def unpack(opcode: int, payload: bytes) -> tuple[bytes, str]:
    """What is inside of a frame, and how it was packed (nothing for plain text)."""
    if opcode == TEXT and is_utf8(payload):
        return payload, ""
    text = decompressed(payload)
    if text is None:
        return payload, "binary" if opcode != TEXT else ""
    return text, packing_of(payload)


def ts_unit(frame: Mapping[str, Any]) -> str:
    """What a frame's ``ts`` is; see :attr:`Channel.ts`."""
    return _unit(frame["ts"]) if "ts" in frame else "absent"


def _plain(spelled: str) -> str:
    """A whole number without exponent and point, as it is read; anything else as it is."""
    try:
        number = Decimal(spelled) if len(spelled) <= _MOST_DIGITS else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number.adjusted() > _MOST_DIGITS or number % 1:
        return spelled
    return f"{number:.0f}"


def _unit(value: Any) -> str:
    if isinstance(value, SpelledNumber):
        if value == "0":
            return "zero"
        return _UNITS.get(len(value), f"a number of {len(value)} digits") if value.isdigit() else "no whole number"
    if value is None:
        return "null"
    return {str: "text", bool: "boolean"}.get(type(value), "no number")
