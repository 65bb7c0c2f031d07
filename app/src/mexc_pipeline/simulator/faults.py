"""Faults as data: what goes wrong, when, for which connection, symbol and channel; and which are on now.

A fault is written as `at=12.5 conn=* symbol=BTC_USDT kind=reset`; `KINDS` lists what can go wrong.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from mexc_pipeline.errors import ConfigError
from mexc_pipeline.simulator import frames
from mexc_pipeline.simulator.shapes import parse_shape


class Effect(Enum):
    """How a kind of fault works."""

    SEND = "sent at once on every matching connection, `count` times"
    NEXT = "changes the next `count` matching frames"
    CONNECTION = "ends every matching connection at once"
    WINDOW = "holds for `for` seconds, or until cleared"
    LISTENER = "the port behaves so for `for` seconds (default 5)"
    MARKET = "happens to the market itself, `count` times"


KINDS: dict[str, tuple[Effect, str]] = {
    "bad_json": (Effect.SEND, "a frame that breaks off in the middle of its JSON"),
    "not_object": (Effect.SEND, "JSON that is not an object"),
    "unknown_channel": (Effect.SEND, "a push on a channel nobody knows"),
    "foreign_symbol": (Effect.SEND, "a ticker of a symbol the connection did not subscribe to"),
    "invalid_utf8": (Effect.SEND, "a text frame that is not UTF-8"),
    "huge": (Effect.SEND, "a valid ticker of `size` bytes (default 2 MiB)"),
    "ts_null": (Effect.SEND, "a ticker whose ts is null"),
    "ts_type": (Effect.SEND, "a ticker whose ts is of the wrong type; value=string|float|short|bool"),
    "ts_missing": (Effect.SEND, "a ticker without ts"),
    "empty": (Effect.SEND, "a text frame of no bytes"),
    "rs_error": (Effect.SEND, "an rs.error; value is its text"),
    "binary": (Effect.SEND, "a binary frame"),
    "client_id": (Effect.SEND, "a clientId control frame, as a sister venue sends"),
    "extra_pong": (Effect.SEND, "a pong nobody asked for"),
    "frame": (Effect.SEND, "the frame given as `value`, of `opcode` (default 1, text)"),
    "ws_ping": (Effect.SEND, "a WebSocket ping control frame"),
    "drop": (Effect.NEXT, "not sent; for depth a version gap"),
    "version_gap": (Effect.NEXT, "a depth frame that is not sent, so that versions are missing"),
    "version_back": (Effect.NEXT, "sent with a version that goes back by 1000"),
    "duplicate": (Effect.NEXT, "sent twice"),
    "begin_end": (Effect.NEXT, "merged depth with begin and end value=missing|null|zero"),
    "fragmented": (Effect.NEXT, "sent as three WebSocket fragments"),
    "half": (Effect.NEXT, "half of it sent, then the connection ends; value=fin|reset"),
    "double_pong": (Effect.NEXT, "a ping answered by two pongs"),
    "big_tickers": (Effect.NEXT, "push.tickers padded with more rows to `size` bytes (default 2 MiB)"),
    "reset": (Effect.CONNECTION, "TCP reset; value=acked: once the client's system has acknowledged all that was sent"),
    "abort": (Effect.CONNECTION, "TCP end without a close frame (clients see 1006)"),
    "close": (Effect.CONNECTION, "close frame with value as code (default 1001), without notice"),
    "close_notice": (Effect.CONNECTION, "the rs.error heartbeat notice, then a close frame without code"),
    "reset_versions": (Effect.CONNECTION, "the book's versions go on from `value` (default 1000), REST too, and every "
                   "matching connection ends as by abort"),
    "garbage": (Effect.CONNECTION, "bytes that are neither WebSocket nor TLS, then the end"),
    "stall": (Effect.WINDOW, "nothing more is sent (of `channel` only, if given); "
              "value=lose|hold|resubscribe: frames are lost (default), held, or lost until a resubscribe"),
    "retired": (Effect.WINDOW, "`channel` is no longer served: subscriptions are value=silent (default) not answered, "
              "ack confirmed, or answered by an rs.error of the text given; nothing of it is sent"),
    "session_limit": (Effect.WINDOW, "connections are closed (code 1001) value seconds after they were made"),
    "no_ack": (Effect.WINDOW, "subscriptions work but are not acknowledged"),
    "slow_ack": (Effect.WINDOW, "acks come `delay` seconds late (default 2)"),
    "no_pong": (Effect.WINDOW, "pings are not answered"),
    "shape": (Effect.WINDOW, "frames of another shape: value=steps joined by semicolons, listed below; several "
              "apply one after another (channel=control: acks, pongs, errors)"),
    "old_prices": (Effect.WINDOW, "a subscription to the index or fair price begins with one of value (default 600) "
                   "seconds before, with its ts of then"),
    "resend_deals": (Effect.WINDOW, "a subscription to deals begins with the newest value (default 50) frames that "
                     "were sent of them before"),
    "burst": (Effect.WINDOW, "the market runs value times as fast (default 10)"),
    "refuse_handshake": (Effect.WINDOW, "HTTP status value (default 403) in place of the upgrade, with "
              "`headers` such as 'Retry-After: 5; Location: /other'"),
    "detail": (Effect.WINDOW, "REST answers a question for a contract's details by "
              "value=1001 (default)|510|empty|missing|html|garbage"),
    "rest_403": (Effect.WINDOW, "REST answers an HTML page with status 403"),
    "rest_510": (Effect.WINDOW, "REST answers code 510 inside status 200"),
    "rest_lag": (Effect.WINDOW, "REST is value versions behind (default 200), commits and trades too"),
    "rest_stale": (Effect.WINDOW, "every REST book, and the newest trade it shows, is older than the one before"),
    "rest_gzip": (Effect.WINDOW, "REST answers are compressed, whatever was asked for"),
    "rest_byte": (Effect.WINDOW, "REST books and changes hold a byte that is not UTF-8"),
    "candles": (Effect.WINDOW, "REST answers a question for candles by "
                "value=510 (default)|429|none|empty|missing|short|html|garbage"),
    "rest_slow": (Effect.WINDOW, "REST answers `delay` seconds late (default 2)"),
    "contract_change": (Effect.MARKET, "the specification of `symbol` (default: of any) changes, in REST too, and is "
                        "pushed to whoever subscribed to contracts"),
    "refuse_connect": (Effect.LISTENER, "the port is closed"),
    "mute": (Effect.LISTENER, "TCP is accepted, then nothing is said"),
    "tls_failure": (Effect.LISTENER, "TCP is accepted, then answered by bytes that are not TLS, and closed"),
}  # fmt: skip

CHOICES: dict[str, tuple[str, ...]] = {
    "ts_type": ("string", "float", "short", "bool"),
    "begin_end": ("missing", "null", "zero"),
    "half": ("fin", "reset"),
    "reset": ("acked",),
    "stall": ("lose", "hold", "resubscribe"),
    "refuse_handshake": ("200", "302", "403", "404", "429", "500", "503"),
    "detail": ("1001", "510", "empty", "missing", "html", "garbage"),
    "candles": ("510", "429", "none", "empty", "missing", "short", "html", "garbage"),
}
CHANNELS = (*frames.CHANNELS, *frames.UNLINKED, "control")
"""What `channel` may name; `control` are acks, pongs and errors."""
_OF_NO_CONNECTION = ("refuse_handshake", "detail", "candles", "contract_change")
"""Besides those of REST and of the listener."""
_INTEGER_VALUES = ("close", "rest_lag", "burst", "session_limit", "reset_versions", "resend_deals", "old_prices")


@dataclass(frozen=True)
class Fault:
    """One fault. None for `conn`, `symbol`, `channel` means any.

    `at`: seconds after the simulator's start (ignored by `inject`). `seconds`: how long a window
    lasts, None until cleared. `every`: seconds between repetitions, None for once. `payload` and
    `opcode` serve kind `frame`, the former where the bytes do not fit into `value`. `headers`: of a
    refused handshake, separated by semicolons; `payload` is its body then.
    """

    kind: str
    at: float = 0.0
    conn: int | None = None
    symbol: str | None = None
    channel: str | None = None
    seconds: float | None = None
    count: int = 1
    every: float | None = None
    delay: float = 2.0
    size: int = 2 * 1024 * 1024
    value: str = ""
    payload: bytes = b""
    opcode: int = 1
    headers: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"fault kind {self.kind!r} is unknown; known are {', '.join(KINDS)}")
        if self.channel is not None and self.channel not in CHANNELS:
            raise ConfigError(
                f"fault {self.kind}: channel {self.channel!r} is unknown; known are {', '.join(CHANNELS)}"
            )
        is_of_none = self.kind in _OF_NO_CONNECTION or self.kind.startswith("rest_") or self.effect is Effect.LISTENER
        if self.conn is not None and is_of_none:
            raise ConfigError(f"fault {self.kind} concerns no connection of its own: leave conn= out")
        choices = CHOICES.get(self.kind, ())
        if self.value and choices and self.value not in choices:
            raise ConfigError(
                f"fault {self.kind} takes value={'|'.join(choices)}, not {self.value!r}"
            )  # fmt: skip
        if self.value and self.kind in _INTEGER_VALUES and not re.fullmatch(r"[0-9]{1,18}", self.value):
            raise ConfigError(f"fault {self.kind} takes a whole number as value, not {self.value!r}")
        if self.value and self.kind == "close" and not 1000 <= int(self.value) <= 4999:
            raise ConfigError(f"fault close takes a close code from 1000 to 4999 as value, not {self.value!r}")
        if not 0 <= self.opcode <= 15:
            raise ConfigError(f"fault {self.kind} takes an opcode from 0 to 15, not {self.opcode}")
        if self.kind == "shape":
            parse_shape(self.value)

    @property
    def effect(self) -> Effect:
        """How a fault of its kind works."""
        return KINDS[self.kind][0]

    def matches(self, conn: int | None, symbol: str | None, channel: str | None) -> bool:
        """Whether this fault concerns a frame or connection; None on either side matches anything."""
        return (
            (self.conn is None or conn is None or self.conn == conn)
            and (self.symbol is None or symbol is None or self.symbol == symbol)
            and (self.channel is None or channel is None or self.channel == channel)
        )


_PARSERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "kind": ("kind", str),
    "at": ("at", float),
    "conn": ("conn", int),
    "symbol": ("symbol", str),
    "channel": ("channel", str),
    "for": ("seconds", float),
    "count": ("count", int),
    "every": ("every", float),
    "delay": ("delay", float),
    "size": ("size", int),
    "value": ("value", str),
    "opcode": ("opcode", int),
    "headers": ("headers", str),
}


def parse_fault(text: str) -> Fault:
    """Parse `key=value` pairs separated by spaces (quotes as in a shell); `*` means any.

    Raises ConfigError naming the key and what is allowed.
    """
    fields: dict[str, object] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"fault {text!r}: {error}") from error
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in _PARSERS:
            raise ConfigError(f"fault {text!r}: {word!r} is not one of {'=, '.join(_PARSERS)}=")
        name, parser = _PARSERS[key]
        if value == "*" and key in ("conn", "symbol", "channel"):
            continue
        try:
            fields[name] = parser(value)
        except ValueError as error:
            raise ConfigError(f"fault {text!r}: {key} takes a number, not {value!r}") from error
        if isinstance(number := fields[name], int | float) and number < 0:
            raise ConfigError(f"fault {text!r}: {key} must not be negative")
    if "kind" not in fields:
        raise ConfigError(f"fault {text!r} has no kind=; known are {', '.join(KINDS)}")
    return Fault(**fields)  # type: ignore[arg-type]  # names and types come from _PARSERS


@dataclass
class _Active:
    fault: Fault
    until: float | None
    remaining: int


@dataclass
class FaultBoard:
    """The faults that are on now: windows by their end on a monotonic clock, changes by how many are left."""

    _active: list[_Active] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self._active)

    def add(self, fault: Fault, now: float) -> None:
        """Put a fault on; what it lasts begins at `now` (monotonic s)."""
        until = None if fault.seconds is None or fault.effect is Effect.NEXT else now + fault.seconds
        self._active.append(_Active(fault, until, fault.count))

    def clear(self) -> None:
        """Take every fault off."""
        self._active.clear()

    def expire(self, now: float) -> None:
        """Forget windows that have ended."""
        self._active = [a for a in self._active if a.until is None or a.until > now]

    def holding(
        self, kind: str, now: float, conn: int | None = None, symbol: str | None = None, channel: str | None = None
    ) -> Fault | None:
        """Return the first window of that kind that is open and matches."""
        return next(self.all_holding(kind, now, conn, symbol, channel), None)

    def all_holding(
        self, kind: str, now: float, conn: int | None = None, symbol: str | None = None, channel: str | None = None
    ) -> Iterator[Fault]:
        """Iterate over the windows of that kind that are open and match, in the order they began."""
        for active in self._active:
            still_on = active.until is None or active.until > now
            if still_on and active.fault.kind == kind and active.fault.matches(conn, symbol, channel):
                yield active.fault

    def take(
        self, kind: str, conn: int | None = None, symbol: str | None = None, channel: str | None = None
    ) -> Fault | None:
        """Use up one of the changes of that kind still to be made to a matching frame."""
        for active in self._active:
            if active.fault.kind == kind and active.fault.matches(conn, symbol, channel):
                active.remaining -= 1
                if active.remaining <= 0:
                    self._active.remove(active)
                return active.fault
        return None

    def resubscribed(self, conn: int, symbol: str, channel: str) -> None:
        """End the stalls that last only until the client subscribes again."""
        self._active = [
            a
            for a in self._active
            if not (
                a.fault.kind == "stall" and a.fault.value == "resubscribe" and a.fault.matches(conn, symbol, channel)
            )
        ]
