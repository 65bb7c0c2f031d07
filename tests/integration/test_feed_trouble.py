"""What the network and the exchange can do to a feed, with its patience shortened."""

from __future__ import annotations

import base64
import fcntl
import gzip
import itertools
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline import config, health
from mexc_pipeline.backoff import Backoff
from mexc_pipeline.egress import dial as dial_module
from mexc_pipeline.exchange import protocol, silence
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.feed import attempts, feed, reading, turns, watch
from mexc_pipeline.feed import session as module
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.feed.feed import Feed
from mexc_pipeline.feed.link import READ_AHEAD
from mexc_pipeline.rows import Frame
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from support.collecting import wanted
from support.gathering import Gathered
from support.peers import Serve, dripping, free_port, greet, saying, serving, silent
from support.waiting import until


class Rig:
    """A feed on its thread; what it hands over is kept."""

    def __init__(self, url: str, attempts: Attempts | None = None, **exchange: str) -> None:
        settings = config.parse("", None)
        self.got: list[Frame] = []
        self.blocked = threading.Event()
        self.blocked.set()
        where = config.ExchangeTable(websocket=url, **exchange)
        self.feed = Feed(settings.symbols[0], where, Gathered(self._sink), attempts=attempts)
        self.thread = threading.Thread(target=self.feed.run)

    def _sink(self, batch: list[Frame]) -> None:
        self.blocked.wait(30)
        self.got += batch

    def events(self, *names: str) -> list[dict[str, Any]]:
        found = [json.loads(f.m) for f in self.got if f.mt == 5]
        return [e for e in found if not names or e["event"] in names]

    def event(self, name: str, count: int = 1, timeout_s: float = 40.0) -> dict[str, Any]:
        until(lambda: len(self.events(name)) >= count, timeout_s, f"event {name}")
        return self.events(name)[count - 1]

    def frames(self) -> list[tuple[int, bytes]]:
        return [(f.mt, f.m) for f in self.got if f.mt != 5]

    def stop(self) -> None:
        self.blocked.set()
        self.feed.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@contextmanager
def feeding(url: str, attempts: Attempts | None = None, **exchange: str) -> Iterator[Rig]:
    rig = Rig(url, attempts, **exchange)
    rig.thread.start()
    try:
        yield rig
    finally:
        rig.stop()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second in place of ten: the same steps, sooner."""
    monkeypatch.setattr(module, "HANDSHAKE_S", 0.4)
    monkeypatch.setattr(module, "TICK_S", 0.05)
    monkeypatch.setattr(feed, "TICK_S", 0.05)
    monkeypatch.setattr(module, "GOODBYE_S", 2.0)
    monkeypatch.setattr(dial_module, "CONNECT_S", 0.4)
    monkeypatch.setattr(turns, "Backoff", lambda rng: Backoff(rng, first_s=0.2, most_s=0.4))


def test_pauses_between_tries_grow_and_nothing_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "Backoff", lambda rng: Backoff(rng, first_s=0.1, most_s=30))
    with serving(saying(b"")) as server, feeding(f"ws://127.0.0.1:{server.port}/edge") as rig:
        began = time.monotonic()
        rig.event("disconnected", 4)
        took = time.monotonic() - began
        assert took >= 0.05 + 0.1 + 0.2, "three pauses of at least half of 0.1, 0.2 and 0.4 s"
        assert server.accepted <= 5
        assert rig.feed.state.reconnects >= 3


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:%d/edge\r\n\r\n"


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (silent, "not done within 0.4 s"),
        (dripping(b"HTTP/1.1 101 X\r\nA: b\r\n"), "not done within 0.4 s"),
        (saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), "HTTP 403"),
        (saying(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!"), "HTTP 404"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "HTTP 200"),
        (saying(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), ""),
        (saying(b"HTTP/1.1 101 Swit"), ""),
        (saying(b"\xff\x00\x01garbage\r\n\r\n"), ""),
        (saying(b""), ""),
    ],
    ids=["silent", "drip", "403", "404", "200", "no accept key", "half", "garbage", "closes"],
)  # fmt: skip
def test_a_handshake_that_fails_is_recorded_and_tried_again(server: Serve, reason: str) -> None:
    with serving(server) as far, feeding(f"ws://127.0.0.1:{far.port}/edge") as rig:
        first = rig.event("disconnected")
        assert reason in first["reason"]
        assert first["reason"]
        rig.event("disconnected", 2)
        assert 2 <= far.accepted <= 3
        assert not rig.events("connected")
        assert rig.feed.status()["state"] == "connecting"


def test_what_was_answered_in_place_of_a_handshake_is_recorded_and_said() -> None:
    page = b"<html>\r\n<h1>Just a moment\x1b[2J</h1>" + b"x" * 400
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page
    with serving(saying(answer)) as far, feeding(f"ws://127.0.0.1:{far.port}/edge") as rig:
        first = rig.event("disconnected")
        assert (first["status"], first["body"]) == (200, first["body"])
        assert first["body"].startswith("<html>\\r\\n<h1>Just a moment\\x1b[2J</h1>xx")
        assert len(first["body"]) == 200
        assert rig.feed.status()["refusal"]["status"] == 200
        assert "Just a moment" in rig.feed.status()["refusal"]["said"]


@pytest.mark.parametrize("status", [429, 503, 403])
def test_the_patience_that_is_asked_for_is_kept_by_all_of_an_address(status: int, tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(symbols=("BTC_USDT", "ETH_USDT"))) as sim:
        sim.inject(Fault("refuse_handshake", value=str(status), headers="Retry-After: 3", payload=b"later"))
        with feeding(sim.ws_url, attempts=Attempts(tmp_path / "direct")) as one:
            first = one.event("disconnected")
            assert (first["status"], first["retry_after_s"], first["body"]) == (status, 3, "later")
            until(lambda: one.feed.status()["waits"], 5, "said that it waits")
            assert f"HTTP {status}" in one.feed.status()["waits"]["why"]
            with feeding(sim.ws_url, attempts=Attempts(tmp_path / "direct")) as two:
                sim.clear_faults()
                two.event("subscribed", 3)
                one.event("subscribed", 3)
                assert not two.events("disconnected"), "it did not have to find out for itself"
                assert one.feed.status()["refusal"] is None
                assert one.feed.status()["waits"] is None
        (refused,) = [r for r in sim.requests if r.status == status]
        assert min(c.opened_ns for c in sim.connections) - refused.time_ns >= 2.9e9


def test_sessions_that_end_are_followed_by_the_next_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither they nor the attempts that follow them count: the others of the address have used up all they may."""
    monkeypatch.setattr(turns, "Backoff", lambda rng: Backoff(rng, first_s=6.0, most_s=6.0))
    others = Attempts(tmp_path / "direct")

    def may_try() -> bool:
        return others.wait_s("another host", free=False)[0] == 0

    assert [may_try() for _ in range(attempts.MOST - 1)] == [True] * (attempts.MOST - 1)
    with Simulator(SimulatorConfig(rate=100, faults=(Fault("session_limit", value="4"),))) as sim:
        with feeding(sim.ws_url, attempts=Attempts(tmp_path / "direct")) as rig:
            rig.event("connected")
            assert not may_try()
            until(may_try, 4, "the attempt of a session that lasts to count no more")
            rig.event("subscribed", 15)
            assert not may_try()
        assert len(sim.connections) >= 4
        assert longest_pause(sim) < 3.0, "no pause was made"
        assert rig.frames() == wanted(sim.sent)


def test_a_channel_that_never_delivers_is_told_also_where_no_session_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exchange ends each connection long before the channel could be given up."""
    monkeypatch.setattr(silence, "OTHERS", silence.SilenceBounds(2.0, 2.0, 2.0))
    monkeypatch.setattr(turns, "Backoff", lambda rng: Backoff(rng, first_s=0.1, most_s=0.1))
    faults = (Fault("session_limit", value="1"), Fault("retired", channel="ticker"))
    with Simulator(SimulatorConfig(rate=100, faults=faults)) as sim, feeding(sim.ws_url) as rig:
        found: list[health.HealthFault] = []

        def told() -> bool:
            found[:] = health.of_symbol(rig.feed.status()).reasons
            return any(reason.kind is health.Kind.CHANNEL for reason in found)

        until(told, 30, "the fault")
        assert [reason.text.partition(":")[0] for reason in found] == ["push.ticker"]
        assert not rig.events("given_up")
        assert len(sim.connections) >= 3


@pytest.mark.parametrize("why", ["another process holds the file", "the disk stands still"])
def test_frames_never_wait_for_the_file_of_attempts(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the first of a connection, nor those three seconds later, when its attempt is given back."""
    path, lock, released = tmp_path / "direct", attempts._lock, threading.Event()
    rig = Rig("ws://127.0.0.1:9")
    with path.open("wb") as file, Simulator(SimulatorConfig(rate=200)) as sim:

        def dial(*to: Any, **how: Any) -> Any:
            """By now the attempt is counted: the file is in use, or its disk slow, from here on."""
            if why == "the disk stands still":
                monkeypatch.setattr(attempts, "_lock", lambda fd: (released.wait(60), lock(fd)))
            else:
                monkeypatch.setattr(attempts, "LOCK_S", 60.0)
                fcntl.flock(file, fcntl.LOCK_EX)
            return dial_module.dial(*to, **how)

        rig.feed = Feed(
            config.parse("", None).symbols[0],
            config.ExchangeTable(websocket=sim.ws_url),
            Gathered(rig._sink),
            dialler=dial,
            attempts=Attempts(path),
        )
        rig.thread = threading.Thread(target=rig.feed.run)
        rig.thread.start()
        try:
            until(rig.frames, 30, "the first frames")
            until(lambda: rig.feed.turns.kept, 30, "a session that lasts")
            seen = len(rig.frames())
            until(lambda: len(rig.frames()) > seen, 30, "frames after that")
            assert json.loads(path.read_bytes())["attempts"], "not given back as long as the file is not to be had"
            fcntl.flock(file, fcntl.LOCK_UN)
            released.set()
            until(lambda: json.loads(path.read_bytes() or b"{}").get("attempts") == [], 30, "the attempt given back")
        finally:
            released.set()
            rig.stop()


def longest_pause(sim: Simulator) -> float:
    """Seconds from a connection's end to the next at the most."""
    return max(b.opened_ns - (a.closed_ns or 0) for a, b in itertools.pairwise(sim.connections)) / 1e9


def test_sessions_that_end_at_once_are_no_more_than_twenty_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each delivers something, so that the next follows without a pause; but they count."""
    monkeypatch.setattr(turns, "Backoff", lambda rng: Backoff(rng, first_s=8.0, most_s=8.0))

    def brief(rig: Rig) -> int:
        return len(rig.events("connected"))

    with (
        Simulator(SimulatorConfig(rate=400)) as sim,
        feeding(sim.ws_url, attempts=Attempts(tmp_path / "direct")) as rig,
    ):
        for n in range(1, attempts.MOST + 1):
            until(lambda n=n: brief(rig) == n and rig.got[-1].mt in (1, 2, 3), 20, "frames of it")  # type: ignore[misc]
            sim.inject(Fault("abort", conn=n))
        until(lambda: rig.feed.status()["waits"], 10, "no more")
        assert "20 attempts" in rig.feed.status()["waits"]["why"]
        assert brief(rig) == attempts.MOST
        assert longest_pause(sim) < 3.0, "no pause was made"


def test_pauses_that_have_grown_begin_anew_after_a_session_that_delivered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turns, "Backoff", lambda rng: Backoff(rng, first_s=0.1, most_s=30))

    def pauses() -> list[float]:
        return [r.__dict__["fields"]["retry_s"] for r in caplog.records if r.message == "disconnected"]

    port = free_port()
    with feeding(f"ws://127.0.0.1:{port}/edge") as rig:
        rig.event("disconnected", 5)
        with Simulator(SimulatorConfig(port=port, rate=100)):
            until(rig.frames, 20, "frames")
            grown = pauses()
        until(lambda: len(pauses()) >= len(grown) + 4, 20, "the port to be closed again")
    assert grown[-1] >= 0.8, "half of 0.1 s doubled four times"
    assert pauses()[len(grown)] == 0.0, "one retry at once"
    again = pauses()[len(grown) + 1 :]
    assert again[0] <= 0.1
    assert again[2] > again[0]


def test_a_redirect_is_not_followed() -> None:
    with (
        serving(silent) as trap,
        serving(saying(REDIRECT % trap.port)) as far,
        feeding(f"ws://127.0.0.1:{far.port}/edge") as rig,
    ):
        second = rig.event("disconnected", 2)
        assert f"redirect to ws://127.0.0.1:{trap.port}/edge, which is not followed" in second["reason"]
        assert (second["status"], second["location"]) == (302, f"ws://127.0.0.1:{trap.port}/edge")
        assert trap.accepted == 0


def test_a_closed_port_is_tried_until_it_opens() -> None:
    port = free_port()
    with feeding(f"ws://127.0.0.1:{port}/edge") as rig:
        assert "refused" in rig.event("disconnected", 2)["reason"]
        with Simulator(SimulatorConfig(port=port)):
            rig.event("subscribed", 3)
            assert rig.feed.status()["state"] == "live"
        rig.event("disconnected", len(rig.events("disconnected")) + 1)
        assert rig.feed.status()["connected_since_ns"] is None


@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        (Fault("reset"), 1006, "reset by peer"),
        (Fault("abort"), 1006, "Connection to remote host was lost"),
        (Fault("close", value="1001"), 1001, ""),
        (Fault("close_notice"), 1005, "closed by the exchange"),
        (Fault("garbage"), 1006, "rsv is not implemented"),
        (Fault("half", value="fin"), 1006, "Connection to remote host was lost"),
        (Fault("half", value="reset"), 1006, "reset by peer"),
    ],
    ids=lambda v: f"{v.kind} {v.value}" if isinstance(v, Fault) else "",
)
def test_a_connection_that_ends_is_recorded_and_made_again(fault: Fault, code: int, reason: str) -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim, feeding(sim.ws_url) as rig:
        rig.event("subscribed", 3)
        sim.inject(fault)
        end = rig.event("disconnected")
        assert end["code"] == code
        assert reason in end["reason"]
        rig.event("subscribed", 6)
        rig.stop()
        first, second = wanted(sim.sent_on(1)), wanted(sim.sent_on(2))
        got = rig.frames()
        # A reset throws away what the client's system had not handed over; after bytes that are no frame, nothing that
        # still comes can be told apart.
        if fault.kind in ("reset", "half", "garbage"):
            assert got[-len(second) :] == second
            head = got[: len(got) - len(second)]
            assert head == first[: len(head)]
        else:
            assert got == first + second
        assert rig.feed.state.reconnects == 1


def test_data_confirms_where_no_ack_comes() -> None:
    with Simulator(SimulatorConfig(rate=100, faults=(Fault("no_ack"),))) as sim:
        sim.wait_for(lambda s: bool(s._exchange.board))
        with feeding(sim.ws_url) as rig:
            rig.event("subscribed", 3)
            assert {(e["channel"], e["by"]) for e in rig.events("subscribed")} == {
                ("push.ticker", "data"), ("push.deal", "data"), ("push.depth.full", "data"),
            }  # fmt: skip


def test_who_neither_acks_nor_delivers_is_asked_again_then_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CONFIRM_S", 0.3)
    with Simulator(SimulatorConfig(faults=(Fault("stall"),))) as sim:
        sim.wait_for(lambda s: bool(s._exchange.board))
        with feeding(sim.ws_url) as rig:
            reason = rig.event("disconnected")["reason"]
            assert "neither confirmed nor delivered" in reason
            assert rig.events("stalled")[0]["reason"] == reason
            asked = [m.data for m in sim.received if m.conn == 1 and "sub." in str(m.data)]
            assert sorted(asked) == sorted(2 * asked[:3]), "each asked for twice"


@pytest.mark.parametrize("how", ["silent", "ack", "sub.depth.full has ended", "param error"])
def test_a_channel_that_is_retired_is_given_up_and_the_others_flow_on(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "CONFIRM_S", 0.3)
    monkeypatch.setattr(watch, "AGAIN_S", 0.5)
    if how == "ack":  # only its pace tells that it is away; the others' is left alone, whatever the machine does
        short = silence.SilenceBounds(0.6, 0.6, 0.6)
        monkeypatch.setattr(watch, "bounds", lambda c: short if c == "push.depth.full" else silence.bounds(c))
    retired = Fault("retired", channel="depth.full", value=how)
    with Simulator(SimulatorConfig(rate=200, faults=(retired,))) as sim:
        sim.wait_for(lambda s: bool(s._exchange.board))
        with feeding(sim.ws_url) as rig:
            given_up = rig.event("given_up")
            assert given_up["channel"] == "push.depth.full"
            status = rig.feed.status()["channels"]["push.depth.full"]
            assert status["given_up"] == given_up["reason"]
            assert how in given_up["reason"] if " " in how else True
            (logged,) = [r for r in caplog.records if r.message == "channel given up"]
            fields = {"symbol": rig.feed.reading.symbol.id, "channel": "push.depth.full", "why": given_up["reason"]}
            assert (logged.levelname, logged.__dict__["fields"]) == ("ERROR", fields)
            last = len(sim.connections)

            def asked() -> int:
                return sum("depth.full" in str(m.data) for m in sim.received if m.conn == last)

            before = asked()
            until(lambda: asked() >= before + 2, 40, "asked for again, and again")
            sim.clear_faults()
            back = rig.event("resumed")
            assert back["channel"] == "push.depth.full"
            until(lambda: any(f.mt == 3 for f in rig.got), 40, "depth")
            rig.stop()
            assert len(sim.connections) == last <= 2, "at most one connection was left for its sake"
            assert [e["code"] for e in rig.events("disconnected")] == [1000] * last
            assert rig.frames() == wanted(sim.sent), "nothing of the others is lost, also where one was left"
            if " " in how:
                assert last == 1


@pytest.mark.parametrize("packing", ["gzip", "zlib", "deflate", "binary"])
def test_frames_that_come_packed_are_understood_and_cut_nothing(packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acks, pongs and errors alike; what is binary and not compressed stays a dead letter, and is life all the same."""
    monkeypatch.setattr(watch, "CONFIRM_S", 0.3)
    with Simulator(SimulatorConfig(rate=200, faults=(Fault("shape", value=packing),))) as sim:
        sim.wait_for(lambda s: bool(s._exchange.board))
        with feeding(sim.ws_url, ping_interval="5s") as rig:
            rig.event("subscribed", 3)
            sim.inject(Fault("rs_error", value="a word"))
            until(lambda: len(rig.frames()) > 300, 40, "frames")
            rig.stop()
            assert len(sim.connections) == 1
            assert rig.frames() == wanted(sim.sent)
            assert not rig.events("gap", "regressed", "stalled", "given_up")
            assert {mt for mt, _ in rig.frames()} == ({4} if packing == "binary" else {1, 2, 3, 4})
            assert rig.feed.state.exchange_said == "a word"
            assert all('"gzip":false' in str(m.data) for m in sim.received if "sub." in str(m.data))


def test_an_answer_to_nothing_of_ours_refuses_no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CONFIRM_S", 0.5)
    with Simulator(SimulatorConfig(rate=100, faults=(Fault("retired", channel="deal"),))) as sim:
        sim.wait_for(lambda s: bool(s._exchange.board))
        with feeding(sim.ws_url) as rig:
            rig.event("subscribed", 2)
            sim.inject(Fault("frame", value='{"channel":"rs.unsub.kline","data":"success","ts":1789498336785}'))
            until(lambda: rig.feed.state.exchange_said, 10, "said")
            assert rig.feed.state.exchange_said == "rs.unsub.kline: success"
            assert "neither confirmed nor delivered" in rig.event("given_up")["reason"]


def _another(channel: str) -> str:
    return json.dumps({"symbol": "ETH_USDT", "data": {}, "channel": channel, "ts": 1789498336785})


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (_another("push.ticker"), "push.ticker of another symbol or none"),
        ('{"data":{},"channel":"push.ticker","ts":1789498336785}', "push.ticker of another symbol or none"),
        (_another("push.ticker.v2"), "push.ticker.v2"),
        ('{"symbol":"BTC_USDT","data":{},"channel":"push.ticker.v2"}', "push.ticker.v2"),
    ],
)
def test_only_a_channels_own_frames_show_that_it_delivers(
    frame: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else comes is counted by name, and is no sign of life of the channel: it is given up in its time."""
    short = silence.SilenceBounds(0.6, 0.6, 0.6)
    monkeypatch.setattr(watch, "bounds", lambda c: short if c == "push.ticker" else silence.bounds(c))
    faults = (Fault("retired", channel="ticker", value="ack"), Fault("frame", value=frame, every=0.1))
    with Simulator(SimulatorConfig(rate=200, faults=faults)) as sim:
        sim.wait_for(lambda s: bool(s._exchange.board))
        with feeding(sim.ws_url) as rig:
            assert rig.event("given_up")["channel"] == "push.ticker"
            status = rig.feed.status()
            assert status["channels"]["push.ticker"]["age_s"] is None
            assert status["unasked"][name]["count"] > 3
            assert set(status["unasked"]) == {name}
            rig.stop()
            assert rig.frames() == wanted(sim.sent)


@pytest.mark.parametrize("words", ["ok", "SUCCESS", "", "subscribed"])
def test_an_ack_in_other_words_is_said_and_data_confirm(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CONFIRM_S", 0.3)
    faults = (
        Fault("no_ack"),
        *(Fault("frame", value=f'{{"channel":"rs.sub.{c}","data":"{words}"}}') for c in ("ticker", "deal")),
        Fault("retired", channel="deal"),
    )
    with Simulator(SimulatorConfig(rate=200)) as sim:
        for fault in faults:
            if fault.kind != "frame":
                sim.inject(fault)
        with feeding(sim.ws_url) as rig:
            rig.event("connected")
            sim.wait_for(lambda s: len(s.received) >= 3)
            for fault in faults:
                if fault.kind == "frame":
                    sim.inject(fault)
            until(lambda: rig.feed.state.exchange_said, 10, "said")
            rig.event("subscribed", 2)
            until(lambda: "answered" in rig.feed.status()["channels"]["push.deal"], 10, "the words")
            frames = len(rig.frames())
            until(lambda: len(rig.frames()) > frames + 200, 40, "frames")
            assert rig.feed.state.exchange_said == f"rs.sub.deal: {words or 'nothing'}"
            assert not rig.events("given_up", "stalled", "disconnected"), "the usual pace of deals is minutes"
            assert rig.feed.status()["channels"]["push.deal"]["confirmed"] == "none"


def test_a_silent_channel_is_asked_for_again_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "OTHERS", silence.SilenceBounds(1.0, 1.0, 1.0))
    with Simulator(SimulatorConfig(rate=200)) as sim, feeding(sim.ws_url) as rig:
        rig.event("subscribed", 3)
        sim.inject(Fault("stall", channel="ticker", value="resubscribe"))
        stalled = rig.event("stalled")
        assert stalled["channel"] == "push.ticker"
        assert stalled["age_s"] >= 1
        seen = sum(f.mt == 1 for f in rig.got)
        until(lambda: sum(f.mt == 1 for f in rig.got) > seen, 40, "tickers again")
        assert len(sim.connections) == 1
        assert not rig.events("disconnected")


def test_a_channel_that_stays_silent_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "OTHERS", silence.SilenceBounds(0.5, 0.5, 0.5))
    with Simulator(SimulatorConfig(rate=200)) as sim, feeding(sim.ws_url) as rig:
        rig.event("subscribed", 3)
        sim.inject(Fault("stall", channel="depth.full", conn=1))
        end = rig.event("disconnected")
        assert "push.depth.full silent" in end["reason"]
        assert [e.get("channel") for e in rig.events("stalled")][:1] == ["push.depth.full"]
        rig.event("subscribed", 6)


def test_a_market_that_delivers_rarely_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame each second where silence counts from 0.3 s on; each frame used to begin the patience anew."""
    monkeypatch.setattr(silence, "OTHERS", silence.SilenceBounds(0.15, 0.15, 0.15))
    monkeypatch.setattr(silence, "DEAL", silence.SilenceBounds(0.15, 0.15, 0.15))
    monkeypatch.setattr(watch, "QUIET_S", 0.5)
    monkeypatch.setattr(watch, "LEAVE_S", 1000.0)
    with Simulator(SimulatorConfig(rate=1)) as sim, feeding(sim.ws_url) as rig:
        until(lambda: len(rig.frames()) >= 15, 40, "frames")
        assert len(sim.connections) <= 7, "after 0.5, 1, 2, 4 and 8 s at the earliest"
        assert rig.events("stalled")


def test_a_market_that_rests_keeps_its_connection_where_pongs_are_retired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", -1.0)  # two seconds between pings less one
    with Simulator(SimulatorConfig(rate=0.5, faults=(Fault("no_pong"),))) as sim:
        with feeding(sim.ws_url, ping_interval="2s") as rig:
            until(lambda: len(rig.frames()) >= 5, 40, "frames")
            assert not rig.events("disconnected")
        assert len(sim.connections) == 1


def test_a_frozen_connection_is_noticed_by_its_missing_pongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", -1.0)  # two seconds between pings less one
    with Simulator(SimulatorConfig(rate=100)) as sim, feeding(sim.ws_url, ping_interval="2s") as rig:
        rig.event("subscribed", 3)
        sim.inject(Fault("stall", conn=1))
        assert "no frame for 1 s" in rig.event("disconnected")["reason"]
        rig.event("subscribed", 6)


def test_double_pongs_large_and_fragmented_frames_pass() -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim, feeding(sim.ws_url) as rig:
        rig.event("subscribed", 3)
        for fault in (
            Fault("double_pong"), Fault("client_id"), Fault("extra_pong"), Fault("ws_ping"),
            Fault("fragmented", count=5),
            Fault("huge", size=1_048_576), Fault("huge", size=9_000_000), Fault("duplicate", count=3),
        ):  # fmt: skip
            sim.inject(fault)
        until(lambda: any(len(m) == 9_000_000 for _, m in rig.frames()), 40, "the large frame")
        rig.stop()
        assert rig.frames() == wanted(sim.sent)
        assert [mt for mt, m in rig.frames() if len(m) == 1_048_576] == [1]
        assert [mt for mt, m in rig.frames() if len(m) == 9_000_000] == [4]
        assert len(sim.connections) == 1


def test_a_frame_too_large_to_be_kept_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STORED", 1 << 20)
    assert protocol.MAX_STORED == 64 << 20
    with Simulator(SimulatorConfig(rate=50)) as sim, feeding(sim.ws_url) as rig:
        rig.event("subscribed", 3)
        sim.inject(Fault("huge", size=40 << 20))
        end = rig.event("disconnected")
        assert end["code"] == 1009
        assert "larger than what is kept" in end["reason"]
        rig.event("subscribed", 6)


def test_a_slow_disk_slows_reading_down_and_loses_nothing() -> None:
    with Simulator(SimulatorConfig(rate=300)) as sim, feeding(sim.ws_url) as rig:
        rig.event("subscribed", 3)
        rig.blocked.clear()
        sent = len(sim.sent)
        sim.wait_for(lambda s: len(s.sent) > sent + 200, 40)
        rig.blocked.set()
        until(lambda: len(rig.frames()) > sent + 200, 40)
        rig.stop()
        assert rig.frames() == wanted(sim.sent)
        assert rig.feed.state.reconnects == 0


def test_steps_of_the_clock_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim, feeding(sim.ws_url) as rig:
        rig.event("subscribed", 3)
        real = time.time_ns
        step = itertools.chain([-3_600_000, 7_200_000])

        class Clock:
            """The time module with another wall clock."""

            offset_ns = 0

            def __getattr__(self, name: str) -> Any:
                return getattr(time, name)

            def time_ns(self) -> int:
                return real() + self.offset_ns

        clock = Clock()
        for part in (feed, module, reading):
            monkeypatch.setattr(part, "time", clock)
        for n, ms in enumerate(step, 1):
            clock.offset_ns += ms * 10**6
            assert abs(rig.event("clock", n)["step_ms"] - ms) < 100
        assert not rig.events("disconnected")


def test_stop_waits_for_the_exchanges_goodbye_and_keeps_what_comes_before_it() -> None:
    with Simulator(SimulatorConfig(rate=500)) as sim, feeding(sim.ws_url) as rig:
        rig.event("subscribed", 3)
        rig.stop()
        assert rig.frames() == wanted(sim.sent)
        assert rig.events()[-1] == {"event": "disconnected", "code": 1000, "reason": "stopped"}
        sim.wait_for(lambda s: not s.open_connections)
        assert "1000" in sim.connections[0].end


def test_an_exchange_that_takes_nothing_cannot_keep_us_from_reading() -> None:
    """Each answer to a ping waited for room that never came, and what had been read waited with it."""

    def unread(client: socket.socket, over: threading.Event) -> None:
        greet(client)
        while not over.wait(0.0002):
            client.sendall(b"\x89\x7d" + bytes(125) + b"\x81\x02{}")

    def small(*asked: Any) -> dial_module.Dialled:
        dialled = dial_module.dial(*asked)
        dialled.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        dialled.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        return dialled

    settings = config.parse("", None)
    got: list[Frame] = []
    with serving(unread) as far:
        far._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)  # those it accepts have it too
        where = config.ExchangeTable(websocket=f"ws://127.0.0.1:{far.port}/edge")
        feed = Feed(settings.symbols[0], where, Gathered(got.extend), small)
        thread = threading.Thread(target=feed.run)
        thread.start()
        try:
            until(lambda: any(b"does not take what is sent to it" in f.m for f in got if f.mt == 5), 30)
        finally:
            feed.stop()
            thread.join(10)
    assert not thread.is_alive()
    assert any(f.mt == 4 for f in got)


def test_what_came_of_a_message_that_was_cut_off_is_kept() -> None:
    def cutting(client: socket.socket, over: threading.Event) -> None:
        greet(client)
        client.sendall(b"\x81\x02{}\x01\x05first\x89\x00\x00\x06second")
        client.shutdown(socket.SHUT_WR)
        over.wait(20)

    with serving(cutting) as server, feeding(f"ws://127.0.0.1:{server.port}/edge") as rig:
        rig.event("disconnected")
        whole = [m for _, m in rig.frames()]
    assert whole[:2] == [b"{}", b'{"base64":"%s","opcode":0}' % base64.b64encode(b"firstsecond")]


def test_frames_compressed_unasked_are_recorded() -> None:
    """The connection was ended for each of them, and so was the next."""
    texts = [b'{"symbol":"BTC_USDT","channel":"push.ticker","data":{"n":%d},"ts":1795000000000}' % n for n in range(50)]

    def compressing(client: socket.socket, over: threading.Event) -> None:
        greet(client, b"HTTP/1.1 103 Early Hints\r\n\r\n")
        for text in texts:
            stream = zlib.compressobj(wbits=-15)
            packed = (stream.compress(text) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
            assert len(packed) < 126
            client.sendall(bytes([0xC1, len(packed)]) + packed)
        over.wait(60)

    with serving(compressing) as far, feeding(f"ws://127.0.0.1:{far.port}/edge") as rig:
        until(lambda: len(rig.frames()) == len(texts), 30)
        assert [(mt, content(m)) for mt, m in rig.frames()] == [(1, text) for text in texts]
        assert not rig.events("disconnected")


def test_what_takes_long_to_look_at_does_not_wait_for_the_rest_of_its_read() -> None:
    """Forty frames of a kilobyte that hold a megabyte each came to the disk after a quarter of a second."""
    text = b'{"symbol":"BTC_USDT","channel":"push.ticker","data":"%s","ts":1795000000000}' % (b"x" * 1_000_000)
    packed = gzip.compress(text)
    frames = 50
    once = b"\x82\x7e" + len(packed).to_bytes(2) + packed
    assert frames * len(once) < READ_AHEAD

    def compressing(client: socket.socket, over: threading.Event) -> None:
        greet(client)
        client.sendall(b"".join([once] * frames))
        over.wait(60)

    batches: list[list[Frame]] = []
    settings = config.parse("", None)
    with serving(compressing) as far:
        where = config.ExchangeTable(websocket=f"ws://127.0.0.1:{far.port}/edge")
        feed = Feed(settings.symbols[0], where, Gathered(batches.append))
        thread = threading.Thread(target=feed.run)
        thread.start()
        try:
            until(lambda: sum(f.mt == 1 for batch in batches for f in batch) == frames, 30)
        finally:
            feed.stop()
            thread.join(10)
    waited = [stamps[-2] - stamps[0] for batch in batches if len(stamps := [f.rx for f in batch if f.mt == 1]) > 1]
    assert max(waited, default=0) < 50e6, "all but the last, which may have taken the whole time itself"


def test_frames_that_break_the_rules_are_kept_and_end_nothing() -> None:
    """Each of them ended the connection, and so did the next."""
    ticker = b'{"symbol":"BTC_USDT","channel":"push.ticker","data":{},"ts":1795000000000}'
    odd = [bytes([0x80 | opcode, 3]) + b"odd" for opcode in (0, 3, 7, 11, 15)]

    def breaking(client: socket.socket, over: threading.Event) -> None:
        greet(client)
        for one in odd:
            client.sendall(one + b"\x01\x03par" + bytes([0x81, len(ticker)]) + ticker + b"\x09\x01?")
        over.wait(60)

    with serving(breaking) as far, feeding(f"ws://127.0.0.1:{far.port}/edge") as rig:
        until(lambda: sum(mt == 1 for mt, _ in rig.frames()) == len(odd), 30)
        kept = [protocol.unwrap(m) for mt, m in rig.frames() if mt == 4]
        assert kept == [each for opcode in (0, 3, 7, 11, 15) for each in ((opcode, b"odd"), (0, b"par"))]
        assert not rig.events("disconnected")


def test_stop_does_not_wait_for_an_exchange_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GOODBYE_S", 0.3)

    def deaf(client: socket.socket, over: threading.Event) -> None:
        greet(client)
        over.wait(60)

    with serving(deaf) as far, feeding(f"ws://127.0.0.1:{far.port}/edge") as rig:
        rig.event("connected")
        began = time.monotonic()
        rig.stop()
        assert time.monotonic() - began < 2


def test_a_network_that_is_back_is_noticed_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """After minutes without one the pause was up to 30 s, and the attempts that had reached nobody used up those that
    all symbols of the host have."""
    monkeypatch.setattr(turns, "Backoff", lambda rng: Backoff(rng, first_s=60))
    monkeypatch.setattr(turns, "UNREACHED_S", 0.02)
    tries = itertools.count()

    def unplugged(*asked: Any) -> dial_module.Dialled:
        if next(tries) < 2 * attempts.MOST:
            raise dial_module.UnreachedError("connect to exchange: Network is unreachable")
        return dial_module.dial(*asked)

    settings = config.parse("", None)
    got: list[Frame] = []
    with Simulator(SimulatorConfig(rate=100)) as sim:
        feed = Feed(settings.symbols[0], config.ExchangeTable(websocket=sim.ws_url), Gathered(got.extend), unplugged)
        thread = threading.Thread(target=feed.run)
        thread.start()
        try:
            until(lambda: any(f.mt == 1 for f in got), 30, "a frame")
        finally:
            feed.stop()
            thread.join(10)
    assert next(tries) == 2 * attempts.MOST + 1


def test_whatever_the_sink_raises_nothing_of_the_network_ends_the_feed() -> None:
    """An error nobody foresaw is logged, recorded and survived."""
    settings = config.parse("", None)
    calls = itertools.count()
    got: list[Frame] = []

    def broken(*_: object) -> Any:
        if next(calls) < 2:
            raise ZeroDivisionError("surprise")
        raise OSError(101, "Network is unreachable")

    feed = Feed(settings.symbols[0], config.ExchangeTable(), Gathered(got.extend), broken)
    thread = threading.Thread(target=feed.run)
    thread.start()
    probe: Callable[[], bool] = lambda: any(b"unreachable" in f.m for f in got)  # noqa: E731
    until(probe, 40)
    feed.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert json.loads(got[0].m)["reason"] == "ZeroDivisionError: surprise"
