"""Why a frame is a dead letter, and how many of them are too many. Pure.

The rule by which frames are told apart is :class:`~mexc_pipeline.exchange.protocol.Classifier`'s; here a frame that it
kept as a dead letter is looked at again, by the collector as it arrives and by readers in the files, and named alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec

from mexc_pipeline.exchange.channels import CONTRACT, INDEX_PRICE, ROW_TYPES, is_answer, is_push
from mexc_pipeline.exchange.options import index_symbol
from mexc_pipeline.exchange.protocol import (
    BINARY,
    MAX_CLASSIFIED,
    TEXT,
    control_of,
    is_of_contract,
    opcode_wrapped,
    text_of,
    unwrap,
)
from mexc_pipeline.rows import MT_NAMES, Mt, is_utf8
from mexc_pipeline.text import clean

TYPES = {channel: MT_NAMES[mt] for channel, mt in ROW_TYPES.items()}
"""The type of row that a frame of each channel is."""
NOT_LOOKED_AT = "not looked at"
"""The reason of those that were counted alone."""
SHARE = 0.01
"""Dead letters among all frames (dead letters included) from which on something is wrong, not odd."""
LEAST = 10
"""Fewer are never judged: a channel refused or an answer in words is a handful."""


class Reason(StrEnum):
    """What kept a frame from being a row of its channel; the first that holds, in this order."""

    NO_MESSAGE = "no message"
    """A frame of an opcode that is not defined, or fragments of a message without a beginning or an end."""
    BINARY = "binary"
    NOT_UTF8 = "not UTF-8"
    TOO_LARGE = "too large"
    NOT_JSON = "not JSON"
    NOT_OBJECT = "not an object"
    ANSWER = "answer"
    """An ``rs.…`` answer that is no confirmation, such as ``rs.error``."""
    CHANNEL = "channel"
    """None, or none that was subscribed."""
    SYMBOL = "symbol"
    """None, or not the one that was subscribed; where any or none will do, it is no text."""
    TS = "ts"
    """Nothing else is wrong with it: no 13 digits, so that it is not known to be milliseconds."""
    NONE = "none"
    """Nothing is wrong with it by today's rule, as in files of another version."""


_WRAPPED_AS = {TEXT: Reason.NOT_UTF8, BINARY: Reason.BINARY}


class _Envelope(msgspec.Struct, gc=False):
    channel: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    symbol: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Looked(NamedTuple):
    """What is wrong with a dead letter; where it is one of a subscribed channel, that channel, and the type of row that
    it would be but for its ``ts`` or ``symbol``."""

    why: Reason
    channel: str | None = None
    kind: str | None = None


_envelope = msgspec.json.Decoder(_Envelope).decode
_any = msgspec.json.Decoder(msgspec.Raw).decode


def reason(m: bytes, symbol: str, channels: Collection[str] | None = None) -> Reason:
    """Why a dead letter of that symbol's recording is one. ``channels``: those that were subscribed; None: any
    ``push.…``."""
    return _look(m, symbol, channels).why


def meant(m: bytes, symbol: str, channels: Collection[str] | None = None) -> str | None:
    """The channel of a dead letter whose only fault is its ``ts``; None for any other.

    Its data are as good as any other's: they are checked, repaired and read like the channel's own, with ``rx`` for
    the time that its ``ts`` does not tell.
    """
    found = _look(m, symbol, channels)
    return found.channel if found.why in (Reason.TS, Reason.NONE) else None


class Sign(NamedTuple):
    """What a dead letter shows of what the exchange delivers: ``channel``, a subscribed one whose own data it is;
    ``unasked``, in words, what it is of that nobody asked for. Both None: it is an answer, or does not tell."""

    channel: str | None
    unasked: str | None


def sign(channel: str | None, m: bytes, symbol: str, subscribed: Collection[str]) -> Sign:
    """What a frame shows that was just received and made a dead letter, by its ``channel`` and ``m``."""
    if channel is None:
        return Sign(None, None)
    if channel not in subscribed:
        told = control_of(channel) is not None or is_answer(channel)
        return Sign(None, None if told else clean(channel, 60))
    own = meant(m, symbol, subscribed) == channel
    return Sign(channel, None) if own else Sign(None, f"{channel} of another symbol or none")


@dataclass(slots=True)
class Letters:
    """Counts of dead letters: by what is wrong with them, and by the type of row that they would be but for their
    ``ts`` or ``symbol``."""

    reasons: Counter[str] = field(default_factory=Counter)
    meant: Counter[str] = field(default_factory=Counter)

    def add(self, m: bytes, symbol: str, channels: Collection[str] | None = None) -> None:
        """Count a dead letter of that symbol's recording; ``channels`` as for :func:`reason`."""
        found = _look(m, symbol, channels)
        self.reasons[found.why.value] += 1
        if found.kind is not None:
            self.meant[found.kind] += 1

    def uncounted(self, count: int) -> None:
        """Count so many that were not looked at."""
        if count:
            self.reasons[NOT_LOOKED_AT] += count

    def update(self, others: Letters) -> None:
        """Add the counts of others."""
        self.reasons.update(others.reasons)
        self.meant.update(others.meant)


def too_many(dead: int, frames: int) -> bool:
    """Whether so many dead letters among so many frames (dead letters included) are a fault."""
    return dead >= LEAST and dead >= frames * SHARE


def _look(m: bytes, symbol: str, channels: Collection[str] | None) -> _Looked:
    if len(m) > 2 * MAX_CLASSIFIED and (opcode := opcode_wrapped(m)) is not None:
        return _Looked(_WRAPPED_AS.get(opcode, Reason.NO_MESSAGE))  # to unpack it would take its size again
    wrapped = unwrap(m)
    if wrapped is not None:
        why = _WRAPPED_AS.get(wrapped[0], Reason.NO_MESSAGE)
        text = text_of(*wrapped)
        if text is None or not is_utf8(text):
            return _Looked(why)
        m = text
    if len(m) > MAX_CLASSIFIED:
        return _Looked(Reason.TOO_LARGE)
    try:
        envelope = _envelope(m)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return _Looked(_no_object(m))
    channel = _text(envelope.channel)
    if channel is not None and is_answer(channel):
        return _Looked(Reason.ANSWER)
    if channel is None or not (is_push(channel) if channels is None else channel in channels):
        return _Looked(Reason.CHANNEL)
    is_other = channel not in TYPES and channels is not None
    kind = MT_NAMES[Mt.OTHER] if is_other else TYPES.get(channel)
    name = _text(envelope.symbol)
    if channel == CONTRACT or is_other:  # its symbol may be any, or none
        given = envelope.symbol
        is_ours = name is not None or isinstance(given, msgspec.UnsetType) or bytes(given) == b"null"
        if channel == CONTRACT and not is_of_contract(symbol, name, envelope.data):
            kind = MT_NAMES[Mt.OTHER]
    else:
        is_ours = name == (index_symbol(symbol) if channel == INDEX_PRICE else symbol)
    if not is_ours:
        return _Looked(Reason.SYMBOL, channel, kind)
    ts = envelope.ts
    good = isinstance(ts, msgspec.UnsetType) or (len(bytes(ts)) == 13 and bytes(ts).isdigit())
    return _Looked(Reason.NONE if good else Reason.TS, channel, kind)


def _no_object(m: bytes) -> Reason:
    try:
        _any(m)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return Reason.NOT_JSON
    return Reason.NOT_OBJECT


def _text(raw: msgspec.Raw | msgspec.UnsetType) -> str | None:
    if isinstance(raw, msgspec.UnsetType):
        return None
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.MsgspecError:  # of another type
        return None
