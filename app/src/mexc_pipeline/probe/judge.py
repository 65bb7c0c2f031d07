"""What was seen beside what is expected: findings, figures and a verdict. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import unquote

from mexc_pipeline.exchange.answers import is_unlisted
from mexc_pipeline.exchange.channels import DEAL, DEPTH, FULL_DEPTH, TICKER
from mexc_pipeline.exchange.protocol import MAX_STORED
from mexc_pipeline.exchange.rest import THROTTLED, endpoint, read_listing, refusal, too_many_values
from mexc_pipeline.exchange.shapes import ANSWERS, FITS, PUSHES, Shape, parse
from mexc_pipeline.exchange.silence import may_rest
from mexc_pipeline.exchange.times import MAY_BE_OLD, Between, persists, wrong
from mexc_pipeline.probe.observe import Channel, Connection, Fields, Observer
from mexc_pipeline.probe.records import Answered, Refused, Unreached
from mexc_pipeline.text import clean, duration

PATIENCE_MS = 2_000
"""An acknowledgement or a pong that has not come by then was not on its way (usual: 100 to 500 ms)."""
CLOCK_MS = 5_000
"""A difference of the clocks from which on times of rows are not to be trusted."""

_UNITS = {"us": "in microseconds", "ns": "in nanoseconds", "s": "in seconds", "zero": "0"}
_ADVICE = {
    FULL_DEPTH: 'set [channels] depth = "merged" until a version for it is out',
    DEPTH: 'set [channels] depth = "full20" until a version for it is out',
    DEAL: "trades are not recorded as things stand",
    TICKER: "tickers are not recorded as things stand",
}
_BREACHES: dict[str, str] = {
    "rules": "what came is no frame (reserved bits), so where the next one begins is not clear",
    "size": f"a frame of more than {MAX_STORED >> 20} MiB began to come",
}
Kind = Literal["different", "richer"]


@dataclass(frozen=True, slots=True)
class Deviation:
    """One thing that is not as expected, in one line; ``richer`` is an addition and breaks nothing."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """A channel in figures. ``delay_ms``: median and 99th percentile, None where not known; ``configured``: it counts
    for the verdict."""

    channel: str
    configured: bool
    asked: int
    acked: int
    frames: int
    ts: dict[str, int]
    delay_ms: tuple[float, float] | None
    fields_seen: int
    fields_expected: int
    new_fields: list[str]
    spellings: dict[str, int]
    """How its numbers are written, and how many are written so."""
    longest_number: int
    """Digits of the longest one before or behind its point."""
    versions: str


@dataclass(frozen=True, slots=True)
class RestFigures:
    """One answer of REST: HTTP status (None: no answer came), ms, and what it said in a few words."""

    path: str
    status: int | None
    took_ms: float | None
    said: str


@dataclass(frozen=True, slots=True)
class CandleFigures:
    """Whole minutes of a symbol by what their candles are made of: ``all`` trades, those ``without_self_trades``, or
    ``neither``."""

    all: int
    without_self_trades: int
    neither: int


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """Everything that a probe found."""

    websocket: str
    rest: str
    egress: str
    symbols: tuple[str, ...]
    seconds: float
    reached: bool
    interrupted: bool
    frames: int
    channels: list[ChannelFigures]
    answers: list[RestFigures]
    connections: list[str]
    pings: int
    pongs: int
    pong_ms: float | None
    clock_ahead_ms: float | None
    spellings: dict[str, int]
    longest_number: int
    notes: list[str]
    findings: list[Deviation]
    candles: dict[str, CandleFigures]
    """By symbol, where a whole minute was heard."""
    unsaved: str | None = None
    """Why the bundle is not whole; says nothing of the exchange."""

    @property
    def verdict(self) -> str:
        """``as expected``, ``richer``, ``different`` or ``not reached``."""
        if not self.reached:
            return "not reached"
        kinds = {finding.kind for finding in self.findings}
        return "different" if "different" in kinds else "richer" if kinds else "as expected"

    @property
    def ok(self) -> bool:
        """Whether this version can record what the exchange sends."""
        return self.verdict in ("as expected", "richer")

    @property
    def why_not_reached(self) -> str:
        """Why the exchange was not reached, in one line; empty where it was."""
        return "" if self.reached or not self.findings else self.findings[0].text

    def lines(self) -> list[str]:
        """The report for a person, in lines of at most 80 columns."""
        from mexc_pipeline.probe.render import lines  # it is built on this module

        return lines(self)

    def to_json(self) -> dict[str, Any]:
        """The answer of ``--json``."""
        return {"verdict": self.verdict, "ok": self.ok, **asdict(self)}


def judge(
    seen: Observer, websocket: str, rest: str, egress: str, symbols: Sequence[str], seconds: float, interrupted: bool
) -> ProbeReport:
    """Compare what was seen with what is expected. ``seconds`` is how long was listened."""
    judged = _Judge(seen)
    judged.everything()
    pings = sum(len(c.pings) for c in seen.connections.values())
    trips = sorted(trip for c in seen.connections.values() for trip in c.round_trips)
    spellings: Counter[str] = Counter()
    for channel in seen.channels.values():
        spellings.update(channel.fields.spellings)
    return ProbeReport(
        websocket=clean(websocket),
        rest=clean(rest),
        egress=egress,
        symbols=tuple(symbols),
        seconds=round(seconds, 1),
        reached=bool(seen.connections),
        interrupted=interrupted,
        frames=seen.frames,
        channels=[
            _figures(channel, channel_set is seen.channels)
            for channel_set in (seen.channels, seen.spare)
            for channel in channel_set.values()
        ],
        answers=judged.answers,
        connections=[_life(c, seen.last_at) for c in seen.connections.values()],
        pings=pings,
        pongs=sum(c.pongs for c in seen.connections.values()),
        pong_ms=round(trips[len(trips) // 2], 1) if trips else None,
        clock_ahead_ms=_clock(seen.ahead)[0] if seen.ahead else None,
        spellings=dict(spellings),
        longest_number=max((c.fields.longest[0] for c in seen.channels.values()), default=0),
        notes=judged.notes,
        findings=judged.findings,
        candles=judged.candles,
    )


class _Judge:
    """Collects findings, the gravest kind of thing first: connection, channels, frames, heartbeat, REST."""

    def __init__(self, seen: Observer) -> None:
        self.seen = seen
        self.findings: list[Deviation] = []
        self.notes: list[str] = []
        self.answers: list[RestFigures] = []
        self.candles: dict[str, CandleFigures] = {}
        self._unlisted = self._not_listed()
        self._asked = {symbol for channel in seen.channels.values() for symbol in channel.asked}
        self._unheard = {symbol for symbol in self._asked - set(self._unlisted) if self._nothing_of(symbol)}

    def everything(self) -> None:
        self._connections()
        self._absent()
        self._silence()
        for channel in self.seen.channels.values():
            self._subscription(channel)
            self._frames(channel)
            self._continuity(channel)
        self._strange_frames()
        self._heartbeat()
        self._clocks()
        self._candles()
        self._rest()

    def _different(self, text: str) -> None:
        self._add("different", text)

    def _richer(self, text: str) -> None:
        self._add("richer", text)

    def _add(self, kind: Kind, text: str) -> None:
        finding = Deviation(kind, clean(text))
        if finding not in self.findings:
            self.findings.append(finding)

    def _note(self, text: str) -> None:
        if (cleaned := clean(text)) not in self.notes:
            self.notes.append(cleaned)

    # Connection

    def _connections(self) -> None:
        for failed in self.seen.unreached:
            self._not_served(f"connection: {failed.reason}{what_worked(failed.reason)}", self._passed_over(failed))
        for status, over in dict.fromkeys((r.status, self._passed_over(r)) for r in self.seen.refused):
            same = [r for r in self.seen.refused if (r.status, self._passed_over(r)) == (status, over)]
            named = [
                f"{name} {same[0].headers[name]}" for name in ("location", "retry-after") if name in same[0].headers
            ]
            body = clean(same[0].body.strip(), 200)
            self._not_served(
                f"handshake: HTTP {status} in place of the upgrade, {_times(len(same))}"
                + (f" ({', '.join(named)})" if named else "")
                + (f": {body}" if body else ""),
                over,
            )
        closed = [c for c in self.seen.connections.values() if c.closed is not None]
        for breach, what in _BREACHES.items():
            broken = [(c.closed.at - c.opened) / 1000 for c in closed if c.closed and c.closed.breach == breach]
            if broken:
                self._different(
                    f"connection: cut after {_span(broken)} s, {_times(len(broken))}: {what}; the recorder cuts it too"
                )
        ended = [c for c in closed if c.closed and not c.closed.ours and not c.closed.breach]
        for code in dict.fromkeys(c.closed.code for c in ended if c.closed):
            same_code = [c for c in ended if c.closed and c.closed.code == code]
            lives = [(c.closed.at - c.opened) / 1000 for c in same_code if c.closed]
            first = same_code[0].closed
            said = f", {first.reason!r}" if first and first.reason else ""
            self._different(
                f"connection: ended by the exchange after {_span(lives)} s, {_times(len(lives))} (code {code}{said}); "
                "expected to stay"
            )

    def _passed_over(self, failed: Unreached | Refused) -> bool:
        """Whether a later address of the list took the connection: the list is there for that."""
        return failed.conn in self.seen.connections

    def _not_served(self, text: str, passed_over: bool) -> None:
        if passed_over:
            self._note(f"{text}; another address of [exchange] websocket was used")
        else:
            self._different(text)

    # Symbols

    def _not_listed(self) -> dict[str, str]:
        """Symbols that the exchange says it does not have, and of which nothing came; what it said."""
        found = {}
        for answer in self.seen.answers:
            if endpoint(answer.path) == "detail":
                symbol = _of_detail(answer.path)
                listing = read_listing(symbol, answer.status, answer.body)
                if listing.verdict == "unlisted" and not self._flows(symbol):
                    found[symbol] = listing.said
        return found

    def _flows(self, symbol: str) -> bool:
        return any(channel.frames[symbol] for channel in self.seen.channels.values())

    def _nothing_of(self, symbol: str) -> bool:
        """Whether not one channel was acknowledged or delivered, in a time in which they should have been."""
        acked = any(symbol in channel.acked for channel in self.seen.channels.values())
        return not acked and not self._flows(symbol) and self._waited(symbol) * 1000 >= PATIENCE_MS

    def _waited(self, symbol: str) -> float:
        """Seconds from the first request of the symbol's connections to the end of the last."""
        asked = [c.asked[symbol] for c in self.seen.channels.values() if symbol in c.asked]
        return max(0.0, self._until(symbol) - min(asked, default=0.0)) / 1000

    def _absent(self) -> None:
        """Where nothing at all answers for a symbol, that is one line: it says nothing of single channels."""
        for symbol, said in self._unlisted.items():
            self._different(f"{symbol}: the exchange has no such contract ({said}); look at how its name is written")
        for symbol in sorted(self._unheard):
            self._different(f"{symbol}: no channel acknowledged and no frame in {self._waited(symbol):.0f} s")

    # Channels

    def _silence(self) -> None:
        """Nothing at all is not as expected, however short the probe: there is nothing to judge by."""
        if not self.seen.connections or any(channel.frames for channel in self.seen.channels.values()):
            return
        rest = self._asked - set(self._unlisted) - self._unheard
        if rest or not self._asked:
            waited = max(map(self._waited, rest), default=self.seen.last_at / 1000)
            self._different(f"no market frame on any configured channel in {waited:.0f} s")

    def _subscription(self, channel: Channel) -> None:
        name, advice = channel.name, _ADVICE.get(channel.name, "")
        shape = PUSHES.get(name)
        for symbol in channel.asked:
            if symbol in self._unlisted or symbol in self._unheard:
                continue
            waited = self._waited(symbol)
            if symbol not in channel.acked:
                if channel.frames[symbol]:
                    self._different(f"{name}: delivered, but not acknowledged; it is recorded all the same")
                elif waited * 1000 >= PATIENCE_MS:
                    self._different(
                        f"{name}: not acknowledged and no frame in {waited:.0f} s for {symbol}"
                        + (f"; {advice}" if advice else "")
                    )
                else:
                    self._note(f"{name}: {waited:.1f} s are too short to judge an acknowledgement")
            elif channel.frames[symbol]:
                rest = channel.rest(symbol, self._until(symbol)) / 1000
                if shape is not None and shape.quiet_s is not None and rest >= shape.quiet_s:
                    self._different(f"{name}: no frame for {rest:.0f} s for {symbol}, after others had come")
            else:
                if shape is not None and shape.quiet_s is not None and waited >= shape.quiet_s:
                    self._different(f"{name}: acknowledged, but no frame in {waited:.0f} s for {symbol}")
                else:
                    self._note(f"{name}: no frame for {symbol}, so nothing to judge")
        for symbol, count in channel.foreign.items():
            self._different(f"{name}: {count} frames of {symbol}, which was not asked for")

    def _until(self, symbol: str) -> float:
        ends = [
            c.closed.at if c.closed else self.seen.last_at
            for c in self.seen.connections.values()
            if c.symbol == symbol and not c.spare
        ]
        return max(ends, default=0.0)

    def _frames(self, channel: Channel) -> None:
        total, name = channel.frames.total(), channel.name
        if not total:
            return
        shape = PUSHES.get(name)
        for unit, count in channel.ts.items():
            if unit == "absent" and (shape is None or "ts" not in shape.required):
                continue
            if unit != "ms":
                self._different(f"{name}: ts is {_UNITS.get(unit, unit)} in {count} of {total}; expected milliseconds")
        self._shape(name, channel.fields, shape)
        self._times(channel)
        if dead := channel.dead.total():
            why = ", ".join(channel.dead)
            self._different(f"{name}: {dead} of {total} would be recorded as dead letters ({why})")

    def _times(self, channel: Channel) -> None:
        """What the exchange's times say, by its own clock as far as that is known."""
        name = channel.name
        for path, units in channel.units.items():
            for unit, count in units.items():
                if unit != "ms":
                    said = _UNITS.get(unit, unit)
                    self._different(f"{name}: {path} is {said} in {count} of {units.total()}; expected milliseconds")
        if may_rest(name):
            return
        if channel.stood_s:
            self._different(f"{name}: ts stood still for {duration(channel.stood_s)} while frames came")
        if len(self.seen.ahead) < 2:
            return
        ahead, doubt = _clock(self.seen.ahead)
        for path, delays in channel.within.items():
            late = [Between(delay - ahead - doubt, delay - ahead + doubt).late_ms(0) for delay in delays]
            may_be_old = path.rpartition(".")[2] in MAY_BE_OLD
            off = sorted(ms for ms in late if wrong(ms) is not None and not (may_be_old and ms > 0))
            if persists(len(off), len(late)):
                middle = off[len(off) // 2]
                way = "behind" if middle > 0 else "ahead of"
                self._different(
                    f"{name}: {path} is {duration(abs(middle) / 1000)} {way} the exchange's clock "
                    f"in {len(off)} of {len(late)}"
                )

    def _shape(self, name: str, fields: Fields, shape: Shape | None) -> None:
        if shape is None:
            return
        for text in missing(fields, shape):
            self._different(f"{name}: {text}")
        for text in wrong_kinds(fields, shape):
            self._different(f"{name}: {text}")
        for path in new_fields(fields, shape):
            kinds = " or ".join(fields.kinds[path])
            self._richer(f"{name}: {path} is new ({kinds})")
        digits, where = fields.longest
        if digits > FITS:
            self._different(
                f"{name}: {where} has a number of {digits} digits before or behind its point; "
                f"up to {FITS} can be read exactly"
            )

    def _continuity(self, channel: Channel) -> None:
        name = channel.name
        if channel.gaps:
            self._different(f"{name}: {channel.missing} versions missing in {channel.gaps} gaps on one connection")
        if channel.back:
            self._different(f"{name}: versions went back, {_times(channel.back)}")
        if channel.resets:
            self._different(f"{name}: versions began lower after a new connection, {_times(channel.resets)}")
        if channel.repeated:
            self._different(f"{name}: {channel.repeated} trades came twice on one connection")
        if channel.again:
            self._different(f"{name}: {channel.again} trades came again after a new connection")

    def _strange_frames(self) -> None:
        seen = self.seen
        for packing, count in seen.packed.items():
            said = packing if packing == "binary" else f"compressed ({packing})"
            self._different(f"frames: {count} of {seen.frames} are {said}; expected is text")
        for what, count in seen.unreadable.items():
            self._different(f"frames: {count} of {seen.frames} are {what}")
        for said, count in seen.said.items():
            if is_unlisted(said) and any(f"[{symbol}]" in said for symbol in self._unlisted):
                continue  # that is said already
            self._different(f"the exchange says {said!r}, {_times(count)}")
        for name, count in seen.strangers.items():
            self._richer(f"{name}: {count} frames of a channel that was not asked for")

    # Heartbeat, clock, REST

    def _heartbeat(self) -> None:
        due = pongs = more = 0
        for connection in self.seen.connections.values():
            end = connection.closed.at if connection.closed else self.seen.last_at
            due += sum(end - at >= PATIENCE_MS for at in connection.pings)
            pongs += min(connection.pongs, len(connection.pings))
            more += max(0, connection.pongs - len(connection.pings))
        if pongs < due:
            said = f"{_counted(due, 'ping')}, {_counted(pongs, 'pong')}"
            self._different(f"heartbeat: {said}; the recorder reconnects where none come")
        if more:
            self._richer(f"heartbeat: {_counted(more, 'pong')} more than pings")
        for unit, count in self.seen.pong_data.items():
            if unit != "ms":
                self._different(
                    f"heartbeat: data is {_UNITS.get(unit, unit)} in {_counted(count, 'pong')}; expected milliseconds"
                )

    def _clocks(self) -> None:
        if len(self.seen.ahead) < 2:
            return
        ahead, doubt = _clock(self.seen.ahead)
        if abs(ahead) > CLOCK_MS + doubt:
            side = "ahead of" if ahead > 0 else "behind"
            self._different(
                f"clock: this machine is {abs(ahead) / 1000:.1f} s {side} the exchange "
                f"({len(self.seen.ahead)} answers); set it before recording"
            )

    def _candles(self) -> None:
        """What candles are made of is documented nowhere, so that nothing of it is expected: it is told."""
        for symbol, minutes in self.seen.minutes.items():
            known = [minute for minute in minutes.result() if minute.verdict != "unknown"]
            if not known:
                continue
            rules = Counter(minute.rule for minute in known)
            found = CandleFigures(rules["all"], rules["without self-trades"], rules[None])
            self.candles[symbol] = found
            wrong = Counter(field for minute in known if minute.rule is None for field in minute.why.split(", "))
            self._note(
                f"candles: of {_counted(len(known), 'whole minute')} of {symbol} {found.all} are made of all trades, "
                f"{found.without_self_trades} of those without self-trades, {found.neither} of neither"
                + (f" ({', '.join(wrong)})" if wrong else "")
            )

    def _rest(self) -> None:
        for failed in self.seen.unanswered:
            self.answers.append(RestFigures(clean(failed.path), None, None, "no answer"))
        for why in dict.fromkeys(failed.reason for failed in self.seen.unanswered):
            paths = dict.fromkeys(endpoint(failed.path) for failed in self.seen.unanswered if failed.reason == why)
            self._different(f"REST {', '.join(paths)}: {why}{what_worked(why)}")
        for answer in self.seen.answers:
            said = self._answer(answer)
            packed = answer.headers.get("content-encoding", "")
            self.answers.append(
                RestFigures(
                    clean(unquote(answer.path)),
                    answer.status,
                    round(answer.took, 1),
                    clean(said + f", {packed}" * bool(packed)),
                )
            )

    def _answer(self, answer: Answered) -> str:
        """Judge one answer; what to say of it in a few words."""
        name = endpoint(answer.path)
        if answer.status != 200:
            kind = answer.headers.get("content-type", "no type")
            patience = f", retry-after {after}" if (after := answer.headers.get("retry-after")) else ""
            self._different(f"REST {name}: HTTP {answer.status} ({kind}{patience})")
            return kind
        if (said := too_many_values(answer.body)) is not None:
            self._different(f"REST {name}: {said}")
            return said
        try:
            value = parse(answer.body)
        except (ValueError, RecursionError):
            self._different(f"REST {name}: HTTP 200 with what is not JSON ({answer.headers.get('content-type', '')})")
            return "not JSON"
        if isinstance(value, dict) and value.get("code") == str(THROTTLED):
            served = any(
                endpoint(other.path) == name and other is not answer and _succeeds(other) for other in self.seen.answers
            )
            if not served:
                self._different(f"REST {name}: code {THROTTLED}, too many requests, each time")
            return f"code {THROTTLED}"
        if name == "detail":
            return self._listing(answer, value)
        if not isinstance(value, dict) or value.get("success") is not True:
            said = "no object"
            if isinstance(value, dict):
                said = refusal(value.get("code"), value.get("message") or value.get("msg"))
            if self._unlisted.keys().isdisjoint(_words(answer.path)):
                self._different(f"REST {name}: {said}")
            return said
        self._rest_shape(name, value)
        return "as expected"

    def _listing(self, answer: Answered, value: Any) -> str:
        symbol = _of_detail(answer.path)
        listing = read_listing(symbol, answer.status, answer.body)
        if listing.verdict != "listed":
            if symbol not in self._unlisted:
                self._different(
                    f"REST detail: {symbol} is not said to be listed ({listing.said})"
                    + ("; the socket delivers it all the same" if self._flows(symbol) else "")
                )
            return listing.said
        data = value["data"]
        if isinstance(data, list):
            value = {**value, "data": next(c for c in data if isinstance(c, dict) and c.get("symbol") == symbol)}
        self._rest_shape("detail", value)
        return f"lists {symbol}"

    def _rest_shape(self, name: str, value: Any) -> None:
        fields = Fields()
        fields.add(value)
        self._shape(f"REST {name}", fields, ANSWERS.get(name))


def what_worked(reason: str) -> str:
    """What a failed connection got right before it failed, by the step its reason names."""
    for step, before in (("handshake", "the connection stood"), ("TLS with", "name and TCP were fine")):
        if step in reason:
            return f" ({before})"
    return ""


def _words(path: str) -> list[str]:
    return re.split(r"[/?=&]", unquote(path))


def _of_detail(path: str) -> str:
    """The symbol that the contract's details were asked of."""
    return unquote(path.rpartition("=")[2])


def missing(fields: Fields, shape: Shape) -> Iterator[str]:
    """Required fields that are not in every object they belong to."""
    for path in shape.required:
        owner = path.rpartition(".")[0]
        there, objects = sum(fields.kinds.get(path, {}).values()), fields.objects[owner]
        if there < objects:
            yield f"{path} is missing in {objects - there} of {objects}"


def wrong_kinds(fields: Fields, shape: Shape) -> Iterator[str]:
    """Fields of a kind that is not expected."""
    for path, allowed in shape.fields.items():
        found = fields.kinds.get(path, Counter())
        for kind, count in found.items():
            if kind not in allowed:
                yield f"{path} is {kind} in {count} of {found.total()}; expected is {' or '.join(sorted(allowed))}"


def new_fields(fields: Fields, shape: Shape) -> list[str]:
    """Fields that are not expected, where the object they stand in is; what is inside of a new one is not listed."""
    if shape.open:
        return []
    owners = {path for path, kinds in shape.fields.items() if "object" in kinds} | {""}
    return [
        path
        for path in fields.kinds
        if path and path not in shape.fields and path.rpartition(".")[0] in owners and not path.endswith("[]")
    ]


def _figures(channel: Channel, configured: bool) -> ChannelFigures:
    shape = PUSHES.get(channel.name)
    delays = sorted(channel.delays)
    versions = "-"
    if channel.versions:
        wrong = [f"{channel.gaps} gaps"] * bool(channel.gaps) + [f"{channel.back} back"] * bool(channel.back)
        wrong += ["anew"] * bool(channel.resets)
        versions = ", ".join(wrong) or "continuous"
    return ChannelFigures(
        channel=channel.name,
        configured=configured,
        asked=len(channel.asked),
        acked=len(channel.acked),
        frames=channel.frames.total(),
        ts={clean(unit): count for unit, count in channel.ts.items()},
        delay_ms=(round(_at(delays, 0.5), 1), round(_at(delays, 0.99), 1)) if delays else None,
        fields_seen=sum(path in channel.fields.kinds for path in shape.required) if shape else 0,
        fields_expected=len(shape.required) if shape else 0,
        new_fields=[clean(path, 100) for path in new_fields(channel.fields, shape)] if shape else [],
        spellings=dict(channel.fields.spellings),
        longest_number=channel.fields.longest[0],
        versions=versions,
    )


def _life(connection: Connection, last_at: float) -> str:
    end, how = last_at, "still open"
    if connection.closed is not None:
        end = connection.closed.at
        how = "ended by us" if connection.closed.ours else f"ended by the exchange, code {connection.closed.code}"
        if what := _BREACHES.get(connection.closed.breach):
            how = f"cut: {what}"
    what = "channels not configured" if connection.spare else "configured channels"
    return f"{connection.symbol}, {what}: {(end - connection.opened) / 1000:.1f} s, {how}"


def _succeeds(answer: Answered) -> bool:
    return answer.status == 200 and b'"code":%d' % THROTTLED not in answer.body


def _clock(ahead: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The middle of all comparisons, and its doubt; ms."""
    ordered = sorted(ahead)
    return tuple(round(figure, 1) for figure in ordered[len(ordered) // 2])  # type: ignore[return-value]  # of two


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def _span(lives: Sequence[float]) -> str:
    shortest, longest = f"{min(lives):.0f}", f"{max(lives):.0f}"
    return shortest if shortest == longest else f"{shortest} to {longest}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
