"""The supervisor's decisions: when to start again, what to answer for, what counts as proven."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.config import Config, parse
from mexc_pipeline.exchange.deadletters import Letters
from mexc_pipeline.periods import SECOND_NS
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.run.account import Closing, Periods, dead_letters, line_of, totals
from mexc_pipeline.run.children import LONG_S, Child, Keeper, Lifeline, how_it_ended
from mexc_pipeline.run.demo import settings
from mexc_pipeline.run.display import age, plain_line
from mexc_pipeline.run.supervisor import Stop, Supervisor, lock_holder
from mexc_pipeline.run.table import closing_json, closing_text
from mexc_pipeline.run.watch import Rate, View, store_text, view_of
from mexc_pipeline.spool.lifecycle import mark_exported, remove, seal_left_open
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.segment import SegmentInfo, info
from mexc_pipeline.spool.walk import segments
from mexc_pipeline.spool.writer import Spool
from support.spools import configure

T0 = 1_790_000_000 * SECOND_NS


def _config(tmp_path: Path) -> Config:
    folders = f'data_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"\n'
    text = f'symbols = ["BTC_USDT", "ETH_USDT"]\n{folders}period = "10s"'
    return parse(text, None)


def _record(config: Config, rx: int, kinds: list[Mt], m: bytes = b'{"event":"started"}', symbol: str = "btc") -> None:
    (config.spool_dir / symbol).mkdir(parents=True, exist_ok=True)
    spool = Spool(config.spool_dir / symbol, symbol, f"{symbol.upper()}_USDT", config.period)
    spool.append([Frame(rx + i, None, kind, m) for i, kind in enumerate(kinds)])
    spool.close()


def _export_all(config: Config, symbol: str = "btc") -> list[SegmentInfo]:
    """Close and mark exported as export would, without a file."""
    folder = config.spool_dir / symbol
    seal_left_open(folder, T0 + 3600 * SECOND_NS)
    found = []
    for _, path in segments(folder):
        segment = info(path)
        if segment.state == "closed":
            mark_exported(path, {"rows": segment.rows, "digest": segment.digest, "bytes": 100, "at_ns": time.time_ns()})
        found.append(info(path))
    return found


# Keepers


class _Fake:
    """Stands for a child: lives until told how it ended."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.pid = 1
        self.lived_s = 0.0
        self.overdue = False

    def poll(self) -> int | None:
        return self.status

    def terminate(self) -> None:
        self.status = 0 if self.status is None else self.status

    def wait(self, _: float) -> int:
        assert self.status is not None
        return self.status


def _keeper(
    refusal: Callable[[int], str | None] = lambda _: None, held: Callable[[], str | None] = lambda: None
) -> tuple[Keeper, list[Any]]:
    started: list[Any] = []

    def start() -> Any:
        started.append(_Fake())
        return started[-1]

    return Keeper("btc", start, refusal, held), started


@pytest.mark.parametrize(("lived_s", "is_back"), [(0.1, False), (LONG_S, True)])
def test_a_child_that_dies_again_and_again_waits_longer_unless_it_lived_long(
    monkeypatch: pytest.MonkeyPatch, lived_s: float, is_back: bool
) -> None:
    now = [100.0]
    monkeypatch.setattr("mexc_pipeline.run.children.time.monotonic", lambda: now[0])
    keeper, started = _keeper()
    for died in range(1, 6):
        now[0] += 30.0
        keeper.tend()
        assert len(started) == died
        started[-1].status, started[-1].lived_s = -9, lived_s
        keeper.tend()
    now[0] += 3.9  # the fifth wait is 4 to 8 s
    keeper.tend()
    assert (len(started) == 6) is is_back


def test_a_child_that_dies_is_started_again_after_its_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("mexc_pipeline.run.children.time.monotonic", lambda: now[0])
    keeper, started = _keeper()
    keeper.tend()
    keeper.tend()
    assert len(started) == 1
    started[0].status = -9
    keeper.tend()
    keeper.tend()
    assert len(started) == 1, "not before the wait is over"
    now[0] += 0.6
    keeper.tend()
    assert len(started) == 2
    assert keeper.restarts == 1
    assert keeper.ends == {"SIGKILL": 1}


def test_a_child_that_cannot_run_is_not_started_again() -> None:
    keeper, started = _keeper(lambda status: "refused" if status == 2 else None)
    keeper.tend()
    started[0].status = 2
    for _ in range(3):
        keeper.tend()
    assert len(started) == 1
    assert keeper.given_up == "refused"


@pytest.mark.parametrize(("status", "lived_s"), [(-9, 1.0), (1, 1.0), (2, LONG_S)])
def test_a_child_that_ran_before_is_tried_again_however_often_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, lived_s: float
) -> None:
    """A half-saved configuration and one crash once ended the whole recording."""
    now = [100.0]
    monkeypatch.setattr("mexc_pipeline.run.children.time.monotonic", lambda: now[0])
    keeper, started = _keeper(lambda status: "refused" if status == 2 else None)
    keeper.tend()
    started[-1].status, started[-1].lived_s = status, lived_s
    keeper.tend()
    for tries in range(2, 7):
        now[0] += 60.0
        keeper.tend()
        assert len(started) == tries
        started[-1].status = 2
        keeper.tend()
        assert (keeper.given_up, keeper.refused) == ("", "refused")
    assert [record.levelname for record in caplog.records].count("ERROR") == 1, "said once"
    now[0] += 60.0
    keeper.tend()
    started[-1].status = -9
    keeper.tend()
    assert keeper.refused == ""


def test_a_child_is_started_once_what_it_needs_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One query that happened to run once left a whole run without a store."""
    now, held = [100.0], ["in use by a query"]
    monkeypatch.setattr("mexc_pipeline.run.children.time.monotonic", lambda: now[0])
    keeper, started = _keeper(held=lambda: next(iter(held), None))
    for _ in range(300):
        keeper.tend()
        now[0] += 1.0
    assert (started, keeper.given_up, keeper.waits) == ([], "", "in use by a query")
    assert len(caplog.records) == 1, "said once"
    held.clear()
    keeper.tend()
    assert len(started) == 1
    assert keeper.waits == ""


@pytest.mark.parametrize(
    ("during", "at_the_end", "said"),
    [
        ([], 0, []),
        ([], 1, ["btc: its collector ended with exit 1: some of what it had received may be in no file"]),
        ([], -9, ["btc: its collector ended with SIGKILL: some of what it had received may be in no file"]),
        ([], -15, []),  # before it had begun
        ([0, -15], 0, []),  # told to from outside
        ([-9], 0, ["btc: its collector ended by itself (SIGKILL): what it had received and not committed"]),
        (
            [1, -11, 1],
            1,
            [
                "btc: its collector ended by itself (2 × exit 1, SIGSEGV): what it had received",
                "btc: its collector ended with exit 1: some of what it had received",
            ],
        ),
    ],
)
def test_a_collector_whose_end_may_have_cost_frames_is_a_problem_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: list[int], at_the_end: int, said: list[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("mexc_pipeline.run.children.time.monotonic", lambda: now[0])
    children: list[Any] = []

    def start(*_: object) -> Any:
        children.append(_Fake())
        return children[-1]

    supervisor = _supervisor(tmp_path, start)
    (keeper,) = supervisor._collectors
    for status in (*during, None):
        now[0] += 100.0
        keeper.tend()
        children[-1].status = status
        keeper.tend()
    children[-1].status = at_the_end
    found = supervisor._end_collectors()
    assert len(found) == len(said), found
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True)), found


def test_a_store_that_does_not_end_in_order_is_a_problem_of_the_run(tmp_path: Path) -> None:
    store: Any = _Fake()
    supervisor = _supervisor(tmp_path, lambda *_: store)
    supervisor._store.tend()
    store.status, store.overdue = -9, True
    (line,) = supervisor._end_store()
    assert line.startswith("store: it did not end within 15 s and was killed")
    assert supervisor._end_store() == [], "said once"


def _supervisor(tmp_path: Path, start: Callable[..., Any]) -> Supervisor:
    lifeline = Lifeline()
    lifeline.close()
    return Supervisor(configure(tmp_path), lifeline, Stop(), lambda name, line: None, start=start)


def _ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *statuses: int) -> tuple[Supervisor, list[list[str]]]:
    """One whose children end like this, the last way again and again; and a clock that its pauses move."""
    now = [100.0]
    monkeypatch.setattr("mexc_pipeline.run.supervisor.time.monotonic", lambda: now[0])
    monkeypatch.setattr("mexc_pipeline.run.supervisor.time.sleep", lambda s: now.__setitem__(0, now[0] + s))
    asked: list[list[str]] = []
    left = list(statuses)

    def start(_: str, args: list[str], *__: object) -> _Fake:
        asked.append(args[2:])  # after --config FILE
        ended = _Fake()
        ended.status = left.pop(0) if len(left) > 1 else left[0]
        return ended

    return _supervisor(tmp_path, start), asked


def test_the_last_export_is_tried_again_where_it_is_refused_or_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, asked = _ending(tmp_path, monkeypatch, 2, -9, 2, 0)
    assert supervisor._export_rest() == []
    assert asked == [["export", "--once", "btc"]] * 4


def test_the_last_export_is_given_up_in_the_end_and_its_refusal_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, asked = _ending(tmp_path, monkeypatch, 2)
    (line,) = supervisor._export_rest()
    assert "configuration was refused" in line
    assert "stays in the spool" in line
    assert 3 <= len(asked) <= 12


def test_an_export_that_said_what_is_wrong_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor, asked = _ending(tmp_path, monkeypatch, 1)
    assert supervisor._export_rest() == ["export --once: exit 1"]
    assert len(asked) == 1


@pytest.mark.parametrize(
    "refusal", [BlockingIOError(11, "no process"), OSError(24, "no handle"), RuntimeError("no thread")]
)
def test_what_the_machine_refuses_for_a_moment_ends_nothing_that_runs(tmp_path: Path, refusal: Exception) -> None:
    started: list[str] = []
    refusals = [refusal] * 3

    def start(name: str, *_: object) -> _Fake:
        if name == "btc" and refusals:
            raise refusals.pop()
        started.append(name)
        return _Fake()

    supervisor = _supervisor(tmp_path, start)
    for _ in range(3):
        supervisor.tick()
    assert started == ["store"]
    supervisor.tick()
    assert started == ["store", "btc"], "once it can be had"


def test_the_last_export_is_tried_again_where_no_process_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, asked = _ending(tmp_path, monkeypatch, 0)
    begin, refusals = supervisor._start, [BlockingIOError(11, "Resource temporarily unavailable")] * 2

    def start(*args: Any) -> Child:
        if refusals:
            raise refusals.pop()
        return begin(*args)

    monkeypatch.setattr(supervisor, "_start", start)
    assert supervisor._export_rest() == []
    assert len(asked) == 1
    refusals += [BlockingIOError(11, "Resource temporarily unavailable")] * 100
    (line,) = supervisor._export_rest()
    assert "Resource temporarily unavailable; what has no file yet stays in the spool" in line


def test_how_a_child_died_is_counted_where_its_lock_cannot_be_looked_at_at_once() -> None:
    refusals: list[Exception] = [OSError(24, "Too many open files")]

    def refusal(_: int) -> None:
        if refusals:
            raise refusals.pop()

    keeper, started = _keeper(refusal)
    keeper.tend()
    started[0].status = -9
    with pytest.raises(OSError, match="Too many"):
        keeper.tend()
    keeper.tend()
    assert keeper.ends == {"SIGKILL": 1}


def test_a_child_that_nobody_could_listen_to_is_not_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    popen = subprocess.Popen

    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    def watched(*args: Any, **kwargs: Any) -> Any:
        begun.append(popen(*args, **kwargs))
        return begun[-1]

    lifeline = Lifeline()
    monkeypatch.setattr(subprocess, "Popen", watched)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    try:
        with pytest.raises(RuntimeError):
            Child("x", ["simulate", "--port", "0"], lifeline, lambda *_: None)
        assert [process.poll() for process in begun] == [-9]
    finally:
        lifeline.close()


def test_a_real_child_has_its_own_session_and_passes_its_lines_on() -> None:
    lines: list[tuple[str, str]] = []
    lifeline = Lifeline()
    try:
        child = Child("x", ["no-such-command"], lifeline, lambda name, line: lines.append((name, line)))
        assert child.wait(30) == 2
    finally:
        lifeline.close()
    assert [name for name, _ in lines] == ["x"]
    assert "no-such-command" in lines[0][1]


def test_a_child_that_does_not_end_is_killed() -> None:
    lifeline = Lifeline()
    try:
        child = Child("x", ["simulate", "--port", "0"], lifeline, lambda *_: None)
        assert child.wait(0.01) == -9
    finally:
        lifeline.close()


@pytest.mark.parametrize(("status", "text"), [(0, "exit 0"), (2, "exit 2"), (-9, "SIGKILL"), (-200, "signal 200")])
def test_how_a_child_ended(status: int, text: str) -> None:
    assert how_it_ended(status) == text


def test_the_lock_is_asked_not_its_file(tmp_path: Path) -> None:
    assert lock_holder(tmp_path) is None
    with SpoolLock(tmp_path):
        assert str(lock_holder(tmp_path)).startswith("process ")
    assert (tmp_path / "lock").exists()
    assert lock_holder(tmp_path) is None


# The account


def test_what_was_settled_before_is_not_this_runs_business_but_leftovers_are(tmp_path: Path) -> None:
    config = _config(tmp_path)
    _record(config, T0, [Mt.TICKER])
    _export_all(config)
    _record(config, T0 + 10 * SECOND_NS, [Mt.TICKER])
    seal_left_open(config.spool_dir / "btc", T0 + 100 * SECOND_NS)
    periods = Periods.begin(config)
    _record(config, T0 + 20 * SECOND_NS, [Mt.TICKER])
    periods.scan()
    assert [(found.name.start_ns - T0) // SECOND_NS for found in periods.ours()] == [10, 20]


def test_a_symbol_without_a_new_frame_is_silent(tmp_path: Path) -> None:
    config = _config(tmp_path)
    _record(config, T0, [Mt.TICKER])
    periods = Periods.begin(config)
    periods.scan()
    assert periods.silent() == ["btc", "eth"], "frames of an earlier run do not count"
    _record(config, T0 + 5, [Mt.EVENT])
    periods.scan()
    assert periods.silent() == ["btc", "eth"], "an event is no frame"
    _record(config, T0 + 7, [Mt.DEAD_LETTER], b'{"channel":"rs.error","data":"Contract [BTC_USDT] not exists"}')
    periods.scan()
    assert periods.silent() == ["btc", "eth"], "an answer is no frame of the market"
    _record(config, T0 + 10, [Mt.DEAD_LETTER])
    periods.scan()
    assert periods.silent() == ["btc", "eth"], "what nobody can read shows nothing of the market"
    _record(config, T0 + 20, [Mt.DEAL])
    periods.scan()
    assert periods.silent() == ["eth"]


def test_too_many_dead_letters_are_a_problem_of_the_run(proven: SegmentInfo) -> None:
    from dataclasses import replace

    def line(**counts: int) -> Any:
        return replace(line_of(proven, _compared(proven), None), counts=counts)

    def letters(of: Any) -> Letters:
        return Letters(Counter({"ts": of.counts["dl"]}), Counter({"d": of.counts["dl"]}))

    def unknown(_: Any) -> Letters:
        return Letters()

    assert dead_letters([line(t=100, d=900, dl=9, ev=4)], letters) == []
    assert dead_letters([line(t=0, dl=9)], letters) == [], "a handful is never judged"
    assert dead_letters([line(t=9000, d=2000, dl=11)], letters) == []
    (said,) = dead_letters([line(t=500, dl=6), line(t=400, dl=6, ev=100)], letters)
    assert said.startswith("btc: 12 of 912 frames are dead letters (1.3 %")
    assert "12 ts" in said
    (said,) = dead_letters([line(dl=400, ev=3)], unknown)
    assert "400 of 400 frames are dead letters (100.0 %" in said
    assert "400 not looked at" in said
    # All of a rare kind, which is little of the whole.
    (said,) = dead_letters([line(t=50_000, dl=6), line(t=40_000, dl=6, ev=100)], letters)
    assert said.startswith("btc: 12 of 12 frames of type d are dead letters (100.0 %; a fault from 1%; 12 ts)")
    assert dead_letters([line(t=50_000, dl=12)], unknown) == [], "of what kind they are nobody knows"


def test_what_waits_for_export(tmp_path: Path) -> None:
    config = _config(tmp_path)
    _record(config, T0, [Mt.TICKER])
    periods = Periods.begin(config)
    assert periods.waiting(T0 + 9 * SECOND_NS) == []
    assert len(periods.waiting(T0 + 11 * SECOND_NS)) == 1, "its edge has passed: nobody closed it, export will"
    _export_all(config)
    periods.scan()
    assert periods.waiting(T0 + 11 * SECOND_NS) == []


def test_a_segment_pruned_during_the_run_stays_in_the_account(tmp_path: Path) -> None:
    config = _config(tmp_path)
    periods = Periods.begin(config)
    _record(config, T0, [Mt.TICKER])
    found = _export_all(config)
    periods.scan()
    remove(found[0].path)
    periods.scan()
    assert [segment.state for segment in periods.ours()] == ["exported"]


def test_an_unreadable_segment_is_a_problem_until_it_can_be_read(tmp_path: Path) -> None:
    config = _config(tmp_path)
    folder = config.spool_dir / "btc"
    folder.mkdir(parents=True)
    (folder / "20260101000000.sqlite").write_bytes(b"no database at all, though its name says so")
    periods = Periods.begin(config)
    assert "not a database" in next(iter(periods.unreadable.values()))
    (folder / "20260101000000.sqlite").unlink()
    periods.scan()
    assert not periods.unreadable


@pytest.fixture
def proven(tmp_path: Path) -> SegmentInfo:
    config = _config(tmp_path)
    _record(config, T0, [Mt.EVENT, Mt.TICKER, Mt.DEAL])
    return _export_all(config)[0]


def _compared(segment: SegmentInfo, **other: Any) -> dict[str, Any]:
    return {"rows": segment.rows, "ok": True, "columns": [], **other}


def test_received_stored_exported_and_the_digest_make_a_verified_line(proven: SegmentInfo) -> None:
    line = line_of(proven, _compared(proven), None)
    assert line.ok
    assert line.received == line.stored == line.exported == 4  # with the sealed row
    assert line.counts["t"] == 1
    assert line.ratio is not None
    assert line.ratio > 0


def test_every_defect_has_its_verdict(proven: SegmentInfo) -> None:
    from dataclasses import replace

    def verdict(segment: SegmentInfo, compared: dict[str, Any] | None, file: str | None = None) -> str:
        line = line_of(segment, compared, file)
        assert not line.ok
        return line.verdict

    right = _compared(proven)
    assert verdict(proven, None) == "not compared in ClickHouse"
    assert verdict(proven, _compared(proven, ok=False, columns=["m"])) == "ClickHouse differs in m"
    assert verdict(proven, _compared(proven, rows=3)) == "ClickHouse holds 3 rows"
    assert verdict(proven, right, "digest_m differs") == "digest_m differs"
    assert verdict(replace(proven, state="closed"), right) == "not exported"
    assert verdict(replace(proven, state="open"), right) == "still open"
    assert verdict(replace(proven, digest="00"), right) == "file differs from the spool"
    assert verdict(replace(proven, exported={**proven.exported, "rows": 3}), right) == "file differs from the spool"


def test_a_closing_with_a_problem_is_not_ok(proven: SegmentInfo) -> None:
    good = line_of(proven, _compared(proven), None)
    assert Closing([good], []).ok
    bad = Closing([good], ["eth: no frame was received"])
    assert not bad.ok
    assert closing_json(bad)["problems"] == ["eth: no frame was received"]
    out = closing_text(bad)
    assert "NOT verified" in out
    assert "eth: no frame was received" in out
    out = closing_text(Closing([good], []))
    assert "all verified" in out
    assert good.digest[:12] in out
    assert totals([good, good])["t"] == 2


def test_the_last_line_says_why_nothing_is_verified(proven: SegmentInfo) -> None:
    line = line_of(proven, None, None, "in use by a query")
    last = closing_text(Closing([line, line], [])).splitlines()[-1]
    assert last.endswith("NOT verified: 2 of 2 periods not compared in ClickHouse (in use by a query)")


# What is shown


def test_an_answer_that_is_missing_makes_no_rate() -> None:
    """A collector too busy to answer once has not sent all its frames in the second after."""
    rate = Rate()
    assert [rate.of(n, 1000 + 9 * n) for n in range(3)] == [0.0, 9.0, 9.0]
    assert rate.of(3, None) == 0.0
    assert rate.of(4, 1036) == 0.0
    assert rate.of(5, 1045) == 9.0
    assert rate.of(6, 3) == 0.0, "a new process"
    assert rate.of(7, 12) == 9.0


def test_a_view_counts_market_frames_only() -> None:
    status = {
        "state": "live",
        "rows": {"t": 1, "dp": 2, "dl": 5, "ev": 7, "r": 11},
        "last_seq": 26,
        "segment": "x.sqlite",
        "market": {"age_s": 2.0, "waited_s": 2.0, "limit_s": 30.0},
    }
    view = view_of("btc", "BTC_USDT", status, {"symbols": {"btc": {"backlog": 4}}}, 1.5)
    assert (view.frames, view.backlog, view.frame_age_s, view.state) == (3, 4, 2.0, "live")
    line = plain_line(view, 7)
    assert "live" in line
    assert "frames 3 (1.5/s)" in line
    assert "backlog 4" in line
    assert "exported 7" in line


def test_a_view_says_since_when_nothing_comes_and_why() -> None:
    market = {"age_s": 70.0, "waited_s": 70.0, "limit_s": 30.0}
    status = {
        "state": "connecting",
        "rows": {"t": 9, "ev": 99},
        "market": market,
        "not_connected": "connection refused",
    }
    view = view_of("btc", "BTC_USDT", status, None, 0.0)
    assert (view.state, view.why) == ("connecting", "connection refused")
    assert plain_line(view, 0).endswith("no market frame for 70 s: connection refused")
    patient = view_of("btc", "BTC_USDT", status, None, 0.0, silent_s=100.0)
    assert patient.faults == ()


def test_a_part_that_does_not_answer_is_down() -> None:
    view = view_of("btc", "BTC_USDT", None, None, 0.0)
    assert view.state == "down"
    assert "backlog –" in plain_line(view, 0)
    assert store_text(None) == "down"
    assert store_text({"reachable": False, "error": "refused"}) == "ClickHouse does not answer: refused"
    assert store_text({"reachable": True}) == "ok"
    assert View("btc", "BTC_USDT", "x").frames == 0


@pytest.mark.parametrize(("seconds", "text"), [(None, "–"), (0.25, "0.2 s"), (123.4, "123 s")])
def test_ages(seconds: float | None, text: str) -> None:
    assert age(seconds) == text


def test_the_demos_configuration_is_valid_wherever_it_lies(tmp_path: Path) -> None:
    place = tmp_path / "a \"quoted\" 'folder' #1 = [x]"
    found = parse(settings(place, "ws://127.0.0.1:1/edge", "http://127.0.0.1:1"), None)
    assert found.data_dir == place / "data"
    assert len(found.symbols) == 3
    assert found.exchange.websocket == "ws://127.0.0.1:1/edge"
