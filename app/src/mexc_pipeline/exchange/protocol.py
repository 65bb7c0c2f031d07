"""Requests to the futures socket, and the classification of what it sends.

Sources: the official futures WebSocket page (2026-04) and update log for methods and parameters; public captures of
2025 and 2026 for what the wire really carries (acks that name no symbol, deals as lists, two pongs for one ping).
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple

import msgspec

from mexc_pipeline.exchange.channels import CONTRACT, ack_of, acknowledged, channel_of, is_answer
from mexc_pipeline.exchange.options import Channels, index_symbol
from mexc_pipeline.rows import Mt, is_utf8, wrap
from mexc_pipeline.text import clean

MAX_CLASSIFIED = 1_048_576
"""Bytes up to which a frame can be anything but a dead letter."""
MAX_STORED = 64 << 20
"""Bytes of the largest frame that is read at all."""

PING = b'{"method":"ping"}'
TEXT, BINARY = 1, 2
_MOST_MEMBERS = 16
"""Of one gzip stream: each costs a copy of what follows it."""
Packing = Literal["gzip", "zlib", "deflate"]
_LAST_BLOCK = b"\x01\x00\x00\xff\xff"
"""An empty stored block that is the last of a deflate stream."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One channel of one symbol: what asks for it, what confirms it and what it delivers."""

    channel: str
    """``push.…`` as in the frames."""
    ack: str
    """``rs.sub.…``; it names no symbol."""
    request: bytes
    mt: Mt
    symbol: str | None
    """The symbol that its frames name; None: any or none."""


def request(topic: str, symbol: str | None, **param: object) -> bytes:
    """The text that asks for a topic of a symbol, or for one that has none."""
    if symbol is None:
        return msgspec.json.encode({"method": f"sub.{topic}", "gzip": False})
    return msgspec.json.encode({"method": f"sub.{topic}", "param": {"symbol": symbol, **param}, "gzip": False})


def subscriptions(symbol: str, channels: Channels) -> tuple[Subscription, ...]:
    """The subscriptions that are to be asked for. ``each`` sends ``compress:false``: every update by itself instead of
    merged ones."""
    wanted: list[Subscription] = []

    def add(topic: str, mt: Mt, of: str | None = symbol, **param: object) -> None:
        wanted.append(Subscription(channel_of(topic), ack_of(topic), request(topic, of, **param), mt, of))

    if channels.ticker:
        add("ticker", Mt.TICKER)
    if channels.deal == "merged":
        add("deal", Mt.DEAL)
    elif channels.deal == "each":
        add("deal", Mt.DEAL, compress=False)
    for way in channels.depths:
        if way.startswith("full"):
            add("depth.full", Mt.DEPTH, limit=int(way.removeprefix("full")))
        elif way == "merged":
            add("depth", Mt.DEPTH)
        else:
            add("depth", Mt.DEPTH, compress=False)
    if channels.funding:
        add("funding.rate", Mt.FUNDING)
    if channels.index_price:
        add("index.price", Mt.INDEX_PRICE, index_symbol(symbol))
    if channels.fair_price:
        add("fair.price", Mt.FAIR_PRICE)
    if channels.kline != "off":
        add("kline", Mt.KLINE, interval=channels.kline)
    if channels.contract:
        add("contract", Mt.CONTRACT, None)
    for method in channels.extra:
        topic = method.removeprefix("sub.")
        asked = request(topic, symbol)
        wanted.append(Subscription(channel_of(topic), ack_of(topic), asked, Mt.OTHER, None))
    return tuple(wanted)


class Control(Enum):
    """Control frames: they are acted on, and not stored unless they hold more than such a frame has to say."""

    PONG = "pong"
    ACK = "ack"
    CLIENT_ID = "clientId"


class Classified(NamedTuple):
    """What a frame is: a control frame, or a row's ``mt``, ``ts`` (Unix ms or None) and ``m``.

    ``channel`` is the frame's own, None where it has none; ``answer`` is the text of an ``rs.…`` answer; ``text`` is
    what a compressed frame holds, None where ``m`` says it itself.
    """

    control: Control | None
    mt: Mt
    ts: int | None
    m: bytes
    channel: str | None
    answer: str | None = None
    text: bytes | None = None


BARE = 256
"""Bytes of the longest control frame that is not stored; those seen have 40 to 110 (2026-09)."""


class _Push(msgspec.Struct, gc=False):
    """What nearly every frame has, and all that is looked at in it."""

    channel: str
    symbol: str
    ts: int


class _Envelope(msgspec.Struct, gc=False):
    channel: str | msgspec.UnsetType = msgspec.UNSET
    symbol: str | msgspec.UnsetType | None = msgspec.UNSET
    ts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _LooseEnvelope(msgspec.Struct, gc=False):
    """For frames whose ``channel`` or ``symbol`` is of a wrong type: their ``ts`` still counts."""

    ts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Classifier:
    """Tells what each frame of one symbol's connection is. Never raises: what it cannot read is a dead letter."""

    def __init__(self, symbol: str, wanted: tuple[Subscription, ...]) -> None:
        self._symbol = symbol
        self._mts = {s.channel: s.mt for s in wanted if s.symbol == symbol}
        self._others = {s.channel: s for s in wanted if s.symbol != symbol}
        self._decode_push = msgspec.json.Decoder(_Push).decode
        self._decode = msgspec.json.Decoder(_Envelope).decode
        self._decode_loose = msgspec.json.Decoder(_LooseEnvelope).decode

    def classify(self, opcode: int, payload: bytes) -> Classified:
        """What a frame is, by its opcode and whole payload: 1 is text, 2 binary; any other is what is no message, so a
        dead letter."""
        if opcode != TEXT or not is_utf8(payload):
            return self._unpack(opcode, payload)
        return self._text_frame(payload)

    def _unpack(self, opcode: int, payload: bytes) -> Classified:
        """What is not plain text: known by the text that it holds, where it is compressed, and stored as it came."""
        if opcode not in (TEXT, BINARY):
            return Classified(None, Mt.DEAD_LETTER, None, wrap(opcode, payload), None)
        text = decompressed(payload)
        if text is None or not is_utf8(text):
            # Not compressed, so that it is a dead letter whatever it says; that it says something is a sign of life.
            channel = self._text_frame(payload).channel if is_utf8(payload) else None
            return Classified(None, Mt.DEAD_LETTER, None, wrap(opcode, payload), channel)
        found = self._text_frame(text)
        return found if found.mt is Mt.EVENT else found._replace(m=wrap(opcode, payload), text=text)

    def _text_frame(self, payload: bytes) -> Classified:
        if len(payload) > MAX_CLASSIFIED:
            return Classified(None, Mt.DEAD_LETTER, self._loose_ts(payload), _as_text(payload), None)
        try:
            push = self._decode_push(payload)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return self._look_closely(payload)
        mt = self._mts.get(push.channel)
        if mt is not None and push.symbol == self._symbol and 10**12 <= push.ts < 10**13:
            return Classified(None, mt, push.ts, payload, push.channel)
        return self._look_closely(payload)

    def _look_closely(self, payload: bytes) -> Classified:
        """What is not plainly a push of this symbol."""
        try:
            envelope = self._decode(payload)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return Classified(None, Mt.DEAD_LETTER, self._loose_ts(payload), _as_text(payload), None)
        channel = envelope.channel if isinstance(envelope.channel, str) else None
        raw_ts = envelope.ts
        ts: int | None = None
        good_ts = True
        if isinstance(raw_ts, msgspec.Raw):
            text = bytes(raw_ts)
            good_ts = len(text) == 13 and text.isdigit()
            if good_ts:
                ts = int(text)
        if channel is not None:
            mt = self._row_type(channel, envelope) if good_ts else None
            if mt is not None:
                return Classified(None, mt, ts, payload, channel)
            control = control_of(channel)
            if control is not None:
                kept = Mt.EVENT if _is_bare(payload) else Mt.DEAD_LETTER
                answer = _text(envelope.data) if control is Control.ACK else None
                return Classified(control, kept, ts, payload, channel, answer)
        answer = _text(envelope.data) or channel if channel is not None and is_answer(channel) else None
        return Classified(None, Mt.DEAD_LETTER, ts, _as_text(payload), channel, answer)

    def _row_type(self, channel: str, envelope: _Envelope) -> Mt | None:
        """What a frame of that channel is; None where its symbol is not the one that was subscribed."""
        if (mt := self._mts.get(channel)) is not None:
            return mt if envelope.symbol == self._symbol else None
        subscribed = self._others.get(channel)
        if subscribed is None:
            return None
        if subscribed.symbol is not None:
            return subscribed.mt if envelope.symbol == subscribed.symbol else None
        if channel == CONTRACT and not is_of_contract(self._symbol, envelope.symbol, envelope.data):
            return Mt.OTHER
        return subscribed.mt

    def _loose_ts(self, payload: bytes) -> int | None:
        try:
            raw = self._decode_loose(payload).ts
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return None
        text = bytes(raw) if isinstance(raw, msgspec.Raw) else b""
        return int(text) if len(text) == 13 and text.isdigit() else None


class _Contract(msgspec.Struct, gc=False):
    symbol: str


_decode_contract = msgspec.json.Decoder(_Contract).decode
_decode_contracts = msgspec.json.Decoder(list[msgspec.Raw]).decode


def is_of_contract(name: str, symbol: object, data: object) -> bool:
    """Whether a ``push.contract`` has the specification of the contract ``name``: by its ``symbol`` where that is text,
    else by the one in its ``data``, an object or a list of them, as JSON."""
    if isinstance(symbol, str):
        return symbol == name
    if not isinstance(data, msgspec.Raw):
        return False
    try:
        objects = _decode_contracts(data)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        objects = [data]
    return any(_contract_in(one) == name for one in objects)


def _contract_in(data: msgspec.Raw) -> str | None:
    try:
        return _decode_contract(data).symbol
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def control_of(channel: str) -> Control | None:
    """What kind of control frame names that ``channel``; None for any other frame."""
    if channel == "pong":
        return Control.PONG
    if acknowledged(channel) is not None:
        return Control.ACK
    return Control.CLIENT_ID if channel == "clientId" else None


def _is_bare(payload: bytes) -> bool:
    """Whether a control frame, which is JSON, can hold no data of the market: it is short and has the keys of such
    frames alone, each of them once and with one word."""
    if len(payload) > BARE:
        return False
    try:
        pairs = json.loads(payload.decode(), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return False  # what is passed over need not be JSON
    keys = [key for key, _ in pairs]
    return len(set(keys)) == len(keys) and all(
        key in _CONTROL_KEYS and not isinstance(value, list) for key, value in pairs
    )


_CONTROL_KEYS = ("channel", "data", "ts")
"""Of acks, pongs and client ids (wire, 2026-09)."""


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all that stands in it: a dict would keep the last of several values of a key."""


WRAPPED = b'{"base64":"'
"""How ``m`` begins where :func:`~mexc_pipeline.rows.wrap` made it."""
_WRAPPED_END = re.compile(rb'","opcode":(\d|1[0-5])\}')


def opcode_wrapped(m: bytes) -> int | None:
    """The opcode where ``m`` is of the form that :func:`~mexc_pipeline.rows.wrap` makes, whatever stands there for the
    base64; else None."""
    if not m.startswith(WRAPPED):
        return None
    end = _WRAPPED_END.fullmatch(m, m.find(b'"', len(WRAPPED)))
    return None if end is None else int(end[1])


def unwrap(m: bytes) -> tuple[int, bytes] | None:
    """Opcode and payload of what :func:`~mexc_pipeline.rows.wrap` made; None for any other ``m``."""
    opcode = opcode_wrapped(m)
    if opcode is None:
        return None
    try:
        return opcode, base64.b64decode(m[len(WRAPPED) : m.find(b'"', len(WRAPPED))], validate=True)
    except ValueError:
        return None


def _as_text(payload: bytes) -> bytes:
    """How a dead letter that is text is stored: as it came, unless it would be read as another frame."""
    return payload if opcode_wrapped(payload) is None else wrap(TEXT, payload)


def content(m: bytes) -> bytes:
    """The text of a stored frame, whatever way it came: ``m`` itself, or what its compressed payload holds; the payload
    where that is not compressed."""
    wrapped = unwrap(m)
    return m if wrapped is None else text_of(*wrapped) or wrapped[1]


def text_of(opcode: int, payload: bytes) -> bytes | None:
    """What a frame holds that is stored by its base64: text of its own, or what is compressed in it; else None."""
    if opcode == TEXT and is_utf8(payload):
        return payload
    return decompressed(payload) if opcode in (TEXT, BINARY) else None


def packing_of(payload: bytes) -> Packing:
    """How a payload is packed, if it is, by its first bytes."""
    if payload[:2] == b"\x1f\x8b":
        return "gzip"
    if len(payload) > 2 and payload[0] & 0x0F == 8 and int.from_bytes(payload[:2], "big") % 31 == 0:
        return "zlib"
    return "deflate"


def decompressed(payload: bytes, most: int = MAX_CLASSIFIED) -> bytes | None:
    """The text that a whole gzip, zlib or raw deflate stream holds (a raw one may end with a flushed block instead of a
    last one, as those of the WebSocket extension do, RFC 7692); None for anything else and for more than ``most``
    bytes."""
    if len(payload) > most:
        return None
    match packing_of(payload):
        case "gzip":
            readings = [(31, payload)]
        case "zlib":
            readings = [(15, payload)]
        case _:
            readings = [(-15, payload + end) for end in (b"", _LAST_BLOCK, b"\x00\x00\xff\xff" + _LAST_BLOCK)]
    return next((text for text in (_inflated(data, wbits, most) for wbits, data in readings) if text), None)


def _inflated(data: bytes, wbits: int, most: int) -> bytes | None:
    whole = b""
    for _ in range(_MOST_MEMBERS):
        stream = zlib.decompressobj(wbits)
        try:
            whole += stream.decompress(data, most + 1 - len(whole))
        except zlib.error:
            return None
        if len(whole) > most or not stream.eof or (stream.unused_data and wbits != 31):
            return None
        data = stream.unused_data  # gzip: the next of several members
        if not data:
            return whole
    return None


class _Pong(msgspec.Struct, gc=False):
    data: int | str | None = None


_decode_pong = msgspec.json.Decoder(_Pong).decode


def pong_ms(m: bytes, ts: int | None = None) -> int | None:
    """The exchange's time (Unix ms) in a pong: its ``ts``, or the ``data`` of one without; None where it has none."""
    if ts is not None:
        return ts
    try:
        data = _decode_pong(m).data
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    text = str(data)
    return int(text) if len(text) == 13 and text.isascii() and text.isdigit() else None


def _text(data: object) -> str | None:
    """The ``data`` of an answer as one short line."""
    if not isinstance(data, msgspec.Raw):
        return None
    try:
        return clean(msgspec.json.decode(data), 200)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # also where only its text goes too deep
        return None
