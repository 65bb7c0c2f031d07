"""Versions the socket did not bring: noticed, fetched over REST, or given up, and said so."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline import config
from mexc_pipeline.exchange import recovery
from mexc_pipeline.exchange.depth import span
from mexc_pipeline.feed import repair
from mexc_pipeline.feed.feed import Feed
from mexc_pipeline.rows import Frame
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from support.collecting import collecting, site_of
from support.gathering import Gathered
from support.spooled import Stored, check, named, read_segments
from support.waiting import until


class Rig:
    """A feed of incremental depth on its thread; what it hands over is kept."""

    def __init__(self, sim: Simulator, depth: str = "merged") -> None:
        settings = config.parse(f'[channels]\nticker = false\ndepth = "{depth}"\n', None)
        exchange = config.ExchangeTable(websocket=sim.ws_url, rest=sim.rest_url)
        self.sim = sim
        self.got: list[Frame] = []
        self.feed = Feed(settings.symbols[0], exchange, Gathered(self.got.extend))
        self.thread = threading.Thread(target=self.feed.run)

    def events(self, *names: str) -> list[dict[str, Any]]:
        found = [json.loads(f.m) for f in list(self.got) if f.mt == 5]
        return [e for e in found if not names or e["event"] in names]

    def event(self, name: str, count: int = 1) -> dict[str, Any]:
        until(lambda: len(self.events(name)) >= count, 40, f"event {name}")
        return self.events(name)[count - 1]

    def frames(self, mt: int = 3) -> list[bytes]:
        return [f.m for f in list(self.got) if f.mt == mt]

    def stop(self) -> None:
        self.feed.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@contextmanager
def feeding(sim: Simulator, depth: str = "merged") -> Iterator[Rig]:
    rig = Rig(sim, depth)
    rig.thread.start()
    try:
        yield rig
    finally:
        rig.stop()


def repaired_versions(rig: Rig) -> list[int]:
    return [json.loads(m)["version"] for m in rig.frames(6)]


def covered(rig: Rig) -> set[int]:
    """Versions that live and repaired rows cover."""
    found = set(repaired_versions(rig))
    for m in rig.frames():
        versions = span(m)
        assert versions is not None
        found |= set(range(versions.first, versions.last + 1))
    return found


def check_whole(rig: Rig) -> None:
    """Assert that no version is missing from the first frame to the last."""
    found = covered(rig)
    assert found == set(range(min(found), max(found) + 1))


@pytest.mark.parametrize("depth", ["merged", "each"])
def test_a_gap_is_noticed_and_repaired_with_the_exchanges_own_bytes(depth: str) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim, feeding(sim, depth) as rig:
        rig.event("snapshot")
        sim.inject(Fault("version_gap", count=3, channel="depth"))
        gap = rig.event("gap")
        repaired = rig.event("repaired")
        rig.stop()
        assert gap["count"] == gap["to"] - gap["from"] + 1 > 0
        assert sum(g["count"] for g in rig.events("gap")) == sum(r["count"] for r in rig.events("repaired"))
        assert (repaired["from"], repaired["to"]) == (gap["from"], gap["to"])
        assert not rig.events("unrepaired")
        check_whole(rig)
        book = sim._exchange.feeds["BTC_USDT"]
        sent = {c.version: book.renderer.commit_data(c).encode() for c in tuple(book.market.book.commits())}
        assert rig.frames(6)
        for m in rig.frames(6):
            assert m == sent[json.loads(m)["version"]]
        at = next(n for n, f in enumerate(rig.got) if f.m.startswith(b'{"event":"gap"'))
        revealing = span(rig.got[at + 1].m)
        assert revealing is not None
        assert revealing.first == gap["to"] + 1, "the gap stands before the frame that shows it"


@pytest.mark.parametrize("value", ["missing", "null", "zero"])
def test_frames_without_begin_and_end_cost_a_repair_but_no_version(value: str) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim, feeding(sim) as rig:
        rig.event("snapshot")
        sim.inject(Fault("begin_end", count=4, value=value))
        rig.event("repaired", 3)
        rig.stop()
        assert not rig.events("unrepaired")
        check_whole(rig)


def test_lagging_commits_are_waited_for() -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim, feeding(sim) as rig:
        rig.event("snapshot")
        sim.inject(Fault("rest_lag", value="300", seconds=20))
        sim.inject(Fault("version_gap"))
        gap, repaired = rig.event("gap"), rig.event("repaired")
        assert (gap["from"], gap["to"]) == (repaired["from"], repaired["to"])
        assert sum("depth_commits" in r.target for r in sim.requests) >= 2
        rig.stop()
        check_whole(rig)


def test_throttling_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "THROTTLED_S", 0.7)
    with Simulator(SimulatorConfig(rate=40)) as sim, feeding(sim) as rig:
        rig.event("snapshot")
        sim.inject(Fault("rest_510"))
        sim.inject(Fault("version_gap"))
        rig.event("gap")
        until(lambda: sum("depth_commits" in r.target for r in sim.requests) >= 2, 20, "two requests")
        asked = [r.time_ns for r in sim.requests if "depth_commits" in r.target]
        assert asked[1] - asked[0] >= 0.7e9, "no sooner than the window ends"
        assert "510" in str(rig.feed.status()["gaps"]["trouble"])
        sim.clear_faults()
        rig.event("repaired")
        assert rig.feed.status()["gaps"] == {
            "seen": len(rig.events("gap")),
            "open": 0,
            "trouble": None,
            "no_book": None,
        }
        rig.stop()
        check_whole(rig)


def test_what_cannot_be_had_is_given_up_and_a_new_book_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MOST_TRIES", 3)
    with Simulator(SimulatorConfig(rate=40)) as sim, feeding(sim) as rig:
        rig.event("snapshot")
        sim.inject(Fault("rest_403"))
        sim.inject(Fault("version_gap"))
        gap, lost = rig.event("gap"), rig.event("unrepaired")
        assert (lost["from"], lost["to"], lost["reason"]) == (gap["from"], gap["to"], "HTTP 403")
        sim.clear_faults()
        assert rig.event("snapshot", 2)["version"] >= gap["to"]


@pytest.mark.parametrize("fault", ["rest_403", "rest_510"])
def test_a_book_is_not_given_up_while_the_connection_goes_on(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """A REST that is away for longer than all tries take would cost the books of a whole period."""
    monkeypatch.setattr(recovery, "MOST_TRIES", 2)
    monkeypatch.setattr(recovery, "BOOK_S", 0.2)
    monkeypatch.setattr(repair, "THROTTLED_S", 0.2)
    with Simulator(SimulatorConfig(rate=40, faults=(Fault(fault),))) as sim, feeding(sim) as rig:
        until(lambda: rig.feed.status()["gaps"]["no_book"], 40, "the word that there is no book")
        newest = rig.feed.reading.checks.newest
        sim.clear_faults()
        until(lambda: any(s["version"] >= newest for s in rig.events("snapshot")), 40, "a book to build on")
        until(lambda: rig.feed.status()["gaps"]["no_book"] is None, 5, "the word that there is one")
        assert len(rig.events("connected")) == 1


def test_versions_that_cannot_be_read_are_said_and_what_was_missing_meanwhile_is_a_gap() -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim, feeding(sim) as rig:
        rig.event("snapshot")
        shape = "drop=data.version;drop=data.begin;drop=data.end"
        sim.inject(Fault("shape", channel="depth", value=shape))
        assert rig.event("unversioned")["channel"] == "push.depth"
        until(lambda: rig.feed.status()["unversioned"].get("push.depth", 0) >= 10, 5, "the word of it")
        sim.inject(Fault("version_gap", channel="depth"))
        sim.clear_faults()
        gap, repaired = rig.event("gap"), rig.event("repaired")
        until(lambda: rig.feed.status()["unversioned"] == {}, 5, "the word that they can be read")
        assert (repaired["from"], repaired["to"]) == (gap["from"], gap["to"])
        assert gap["count"] > 10


def test_versions_that_left_the_exchanges_window_are_given_up_at_once() -> None:
    with Simulator(SimulatorConfig(rate=40, commit_rate=200)) as sim, feeding(sim) as rig:
        rig.event("snapshot")
        sim.inject(Fault("rest_slow", delay=3.0, seconds=60))  # longer than a thousand versions last
        sim.inject(Fault("version_gap"))
        gap, lost = rig.event("gap"), rig.event("unrepaired")
        assert (lost["from"], lost["to"]) == (gap["from"], gap["to"])
        assert lost["reason"] == "no longer among the exchange's commits"
        assert sum("depth_commits" in r.target for r in sim.requests) == 1


def test_every_connection_begins_with_a_book_and_what_was_missed_is_a_gap() -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim, feeding(sim) as rig:
        first = rig.event("snapshot")
        sim.inject(Fault("refuse_connect", seconds=0.5))  # the next one comes at once, and might miss nothing
        sim.inject(Fault("reset"))
        rig.event("disconnected")
        second = rig.event("snapshot", 2)
        gap = rig.event("gap")
        assert gap["after"] == "reconnect"
        rig.event("repaired")
        assert second["version"] > first["version"]
        check_whole(rig)
        rig.stop()
        view = sim.book("BTC_USDT", second["version"])
        assert len(second["book"]["asks"]) == len(view.asks), "the snapshot is whole"


def test_a_book_that_lags_behind_the_socket_is_asked_for_again() -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        opening = sim.version("BTC_USDT")
        sim.wait_for(lambda s: s.version("BTC_USDT") > opening + 400)
        sim.inject(Fault("rest_lag", value="400", seconds=20))
        with feeding(sim) as rig:
            snapshot = rig.event("snapshot")
            versions = span(rig.frames()[0])
            assert versions is not None
            assert snapshot["version"] >= versions.first - 1
            assert sum("/depth/" in r.target for r in sim.requests) >= 2


def test_stopping_says_what_was_not_repaired() -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim, feeding(sim) as rig:
        rig.event("snapshot")
        sim.inject(Fault("rest_403"))
        sim.inject(Fault("version_gap"))
        gap = rig.event("gap")
        rig.stop()
        lost = rig.events("unrepaired")[0]
        assert (lost["from"], lost["to"], lost["reason"]) == (gap["from"], gap["to"], "stopped")
        assert rig.events()[-2]["event"] == "disconnected"


def test_a_feed_that_is_held_says_so_last_asks_for_nothing_and_goes_on_when_told() -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim, feeding(sim) as rig:
        rig.event("snapshot")
        sim.inject(Fault("rest_403"))
        sim.inject(Fault("version_gap"))
        gap = rig.event("gap")
        rig.feed.hold("spool full")
        assert rig.event("stopped")["reason"] == "spool full"
        assert [e["event"] for e in rig.events()[-3:]] == ["disconnected", "unrepaired", "stopped"]
        assert (rig.events()[-3]["code"], rig.events()[-3]["reason"]) == (1000, "spool full")
        lost = rig.event("unrepaired")
        assert (lost["from"], lost["to"], lost["reason"]) == (gap["from"], gap["to"], "spool full")
        assert rig.feed.status()["state"] == "stopped: spool full"
        sim.clear_faults()
        stopped, asked, beat = len(rig.got), len(sim.requests), rig.feed.beat
        until(lambda: rig.feed.beat > beat, 10, "a sign of life")
        assert (len(rig.got), len(sim.requests), len(sim.connections)) == (stopped, asked, 1)
        rig.feed.resume()
        missed = rig.event("gap", 2)
        assert (missed["from"] > gap["to"], missed["after"]) == (True, "reconnect")
        rig.event("repaired")
        rig.feed.hold("again")
        rig.feed.hold("at the end")
        rig.event("stopped", 2)
        rig.stop()
        assert [e["event"] for e in rig.events()[-2:]] == ["disconnected", "stopped"]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_is_missing_across_a_restart_is_a_gap_and_is_fetched(tmp_path: Path, end: str) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        site = site_of(tmp_path, sim, extra='[channels]\ndepth = "merged"')
        with collecting(site) as btc:
            btc.event("snapshot")
            btc.stop() if end == "stop" else btc.kill()
        last = max(v.last for r in site.rows() if r.mt == 3 and (v := span(r.m)))
        with collecting(site) as btc:
            gap = btc.event("gap")
            repaired = btc.event("repaired")
            btc.event("snapshot", count=2)
            assert btc.stop() == 0
        assert (gap["from"], gap["after"]) == (last + 1, "restart")
        assert (repaired["from"], repaired["to"]) == (gap["from"], gap["to"])
        rows = check(site.spool())
        held = {v for r in rows if r.mt in (3, 6) and (s := span(_frame(r))) for v in range(s.first, s.last + 1)}
        assert held == set(range(min(held), max(held) + 1))


def test_a_repair_that_a_kill_interrupted_is_taken_up_again(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        site = site_of(tmp_path, sim, extra='[channels]\ndepth = "merged"')
        with collecting(site) as btc:
            btc.event("snapshot")
            sim.inject(Fault("rest_lag", value="300", seconds=60))  # the commits that are missing do not come
            sim.inject(Fault("version_gap", count=3, channel="depth"))
            gap = btc.event("gap")
            until(lambda: any("depth_commits" in r.target for r in sim.requests), 20, "a try to repair it")
            btc.kill()
        assert not named(site.rows(), "repaired")
        assert not named(site.rows(), "unrepaired")
        sim.clear_faults()
        with collecting(site) as btc:
            repaired = btc.event("repaired", count=2)
            assert btc.stop() == 0
        rows = check(site.spool())
        assert (gap["from"], gap["to"]) in [(r["from"], r["to"]) for r in named(rows, "repaired")], repaired
        assert not named(rows, "unrepaired")
        held = [v for r in rows if r.mt in (3, 6) and (s := span(_frame(r))) for v in range(s.first, s.last + 1)]
        assert sorted(held) == list(range(min(held), max(held) + 1)), "each version once"


def _frame(row: Stored) -> bytes:
    """A repaired row's commit as the socket would have sent it."""
    return b'{"data":%s}' % row.m if row.mt == 6 else row.m


def test_full_depth_that_goes_back_and_repeated_deals_are_flagged() -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim, feeding(sim, "full20") as rig:
        rig.event("subscribed", 2)
        until(lambda: len(rig.frames()) > 2)
        sim.inject(Fault("version_back", channel="depth.full"))
        sim.inject(Fault("duplicate", channel="deal"))
        regressed, repeated = rig.event("regressed"), rig.event("repeated")
        assert regressed["channel"] == "push.depth.full"
        assert regressed["from"] > regressed["to"]
        assert repeated["channel"] == "push.deal"
        assert repeated["count"] >= len(repeated["ids"]) >= 1
        assert rig.feed.status()["gaps"] is None
        assert not any("depth" in r.target for r in sim.requests)


def test_every_segment_has_a_book_that_its_own_frames_go_on_from(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        site = site_of(tmp_path, sim, period="4s", extra='[channels]\ndepth = "merged"')
        with collecting(site) as btc:
            until(lambda: len(read_segments(site.spool())) >= 4, 60, "three edges")
            btc.event("snapshot", count=4)
            assert btc.stop() == 0
        check(site.spool())
        segments = read_segments(site.spool())
        for segment in segments[1:-1]:  # the first and the last may be too short
            snapshot = named(segment.rows, "snapshot")[-1]  # one asked for before the edge may come after it
            spans = [v for row in segment.rows if row.mt == 3 and (v := span(row.m))]
            assert spans[0].first - 1 <= snapshot["version"]
            assert any(v.first <= snapshot["version"] + 1 <= v.last + 1 for v in spans)
        taken = [len(named(segment.rows, "snapshot")) for segment in segments]
        assert sum(taken) <= len(segments) + 1, "one for each segment, and one for the connection"


def came_again(sim: Simulator, rows: list[Stored]) -> int:
    """How many deals the simulator had sent before, by its own log: by their id, or without one against what it had
    sent before their connection. The rows say no more than how far the recorder came on each connection."""
    taken: list[list[bytes]] = []
    for row in rows:
        if row.m.startswith(b'{"event":"connected"'):
            taken.append([])
        elif row.mt == 2:
            taken[-1].append(row.m)
    known: set[str] = set()
    count = 0
    for number, got in enumerate(taken, 1):
        sent = [f.payload for f in sim.sent_on(number) if b'"push.deal"' in f.payload][: len(got)]
        assert got == sent
        earlier = known.copy()
        for m in sent:
            for deal in json.loads(m)["data"]:
                key = deal["i"] if "i" in deal else json.dumps([deal[name] for name in "tpvT"])
                count += key in (known if "i" in deal else earlier)
                known.add(key)
    return count


@pytest.mark.parametrize("ids", [True, False])
def test_deals_sent_again_after_a_reconnect_and_after_a_restart_are_said(tmp_path: Path, ids: bool) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        if not ids:
            sim.inject(Fault("shape", channel="deal", value="drop=data.i"))
        sim.inject(Fault("resend_deals", value="1000"))
        site = site_of(tmp_path, sim)
        with collecting(site) as btc:
            btc.wait(lambda s: s["rows"]["d"] >= 25)
            sim.inject(Fault("abort"))
            btc.event("repeated")
            assert btc.stop() == 0
        before = named(site.rows(), "repeated")
        assert sum(said["count"] for said in before) == came_again(sim, site.rows())
        with collecting(site) as btc:
            restarted = btc.event("repeated", count=len(before) + 1)
            assert btc.stop() == 0
        assert sum(said["count"] for said in named(site.rows(), "repeated")) == came_again(sim, site.rows())
    for said in (before[0], restarted):
        assert said["channel"] == "push.deal"
        assert said["count"] >= 1
        assert bool(said["ids"]) == ids


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.timeout(300)
def test_deals_sent_again_are_said_whole_also_where_kills_came_first(tmp_path: Path, ids: bool) -> None:
    """Killed at random moments of the seconds in which they come, with the period's edges among them."""
    rng = random.Random(20261126)
    with Simulator(SimulatorConfig(rate=200)) as sim:
        if not ids:
            sim.inject(Fault("shape", channel="deal", value="drop=data.i"))
        sim.inject(Fault("resend_deals", value="500"))
        site = site_of(tmp_path, sim, period="2s")
        with collecting(site) as btc:
            btc.wait(lambda s: s["rows"]["d"] >= 400)
        left = 0
        for _ in range(5):
            with collecting(site) as btc:
                least = rng.randint(1, 600)
                btc.wait(lambda s, least=least: s["rows"]["d"] >= least)  # type: ignore[misc]
            rows = site.rows()
            left += came_again(sim, rows) > sum(said["count"] for said in named(rows, "repeated"))
        assert left, "no kill was early enough to prove anything"
        with collecting(site) as btc:
            btc.live(100)
            assert btc.stop() == 0
        rows = check(site.spool())
        said = sum(event["count"] for event in named(rows, "repeated"))
        assert said == came_again(sim, rows) > 1000
