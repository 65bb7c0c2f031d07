"""What answers and steps tell of the clock."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mexc_pipeline.exchange.protocol import pong_ms
from mexc_pipeline.exchange.rest import read_time
from mexc_pipeline.feed.clock import FAULT_MS, LEAST_STEP_MS, SAID_MS, UNCOMPARED_S, ClockWatch, HostClock
from mexc_pipeline.text import with_advice

MS = 1_000_000
SECOND = 1_000 * MS
TRUE = 1_789_498_320 * SECOND


def test_steps_of_the_clock() -> None:
    c = ClockWatch(1_000_000_000, 0)
    assert c.step_ms(1_000_000_000 + 10**9, 10**9) is None
    assert c.step_ms(1_000_000_000 + 2 * 10**9 + 99 * 10**6, 2 * 10**9) is None
    assert c.step_ms(1_000_000_000 + 10**9, 3 * 10**9) == -2099
    assert c.step_ms(1_000_000_000 + 10**9 + 3600 * 10**9, 3 * 10**9) == 3_600_000
    assert c.step_ms(1_000_000_000 + 2 * 10**9 + 3600 * 10**9, 4 * 10**9) is None


class Host:
    """A host whose clock is off, and an exchange whose clock is right and that answers after a while."""

    def __init__(self, error_ms: float = 0) -> None:
        self.mono = 77 * SECOND
        self.slew = 0.0
        self.slept = 0
        self.error = round(error_ms * MS)
        self.clock = HostClock(self.wall, self.mono)
        self.said: list[dict[str, Any]] = []

    @property
    def wall(self) -> int:
        """By a clock that is off, and that may have run at a speed of its own since the beginning."""
        return self.true + self.error + round(self.slew * (self.mono - 77 * SECOND))

    @property
    def true(self) -> int:
        return TRUE + self.mono + self.slept

    def keep(self, events: list[bytes]) -> None:
        self.said += [json.loads(m) for m in events]

    def wait(self, ms: float) -> None:
        self.mono += round(ms * MS)

    def step(self, ms: float) -> None:
        self.keep(self.clock.look(self.wall, self.mono))
        self.error += round(ms * MS)
        self.keep(self.clock.look(self.wall, self.mono))

    def ping(self, there_ms: float = 20, back_ms: float = 30, off_ms: int = 0) -> None:
        self.clock.asked(self.mono)
        self.wait(there_ms)
        server = self.true // MS + off_ms
        self.wait(back_ms)
        self.keep(self.clock.answered(server, self.wall, self.mono))

    @property
    def status(self) -> dict[str, Any]:
        return {name: said for name, said in self.clock.status(self.mono).items() if name not in ("warning", "todo")}

    @property
    def warning(self) -> str | None:
        status = self.clock.status(self.mono)
        warning: str | None = status["warning"] and with_advice(status["warning"], status["todo"])
        return warning


def test_two_answers_in_succession_that_agree_tell_the_error() -> None:
    host = Host(-300_000)
    assert host.status == {"error_ms": None, "compared_at_ns": None, "suspect": False}
    host.ping()
    assert host.status["error_ms"] is None
    host.wait(15_000)
    host.ping()
    assert host.status["error_ms"] == pytest.approx(-300_000, abs=26)
    assert host.status["suspect"]
    assert host.status["compared_at_ns"] == host.wall
    assert [set(e) for e in host.said] == [{"event", "error_ms"}]
    assert "300.0 s behind the exchange's" in (host.warning or "")


def test_one_answer_that_is_wrong_tells_nothing() -> None:
    host = Host()
    for off in (0, 90_000, 0, -90_000):
        host.ping(off_ms=off)
        assert host.status["error_ms"] is None
    host.ping()
    host.ping()
    assert not host.status["suspect"]
    assert not host.said


def test_rest_and_pong_together_are_two_answers() -> None:
    host = Host(400 * 86_400_000)
    host.ping()
    host.wait(1)
    host.keep(host.clock.compare((TRUE + host.mono) // MS, host.wall, host.mono, 5 * MS))
    assert host.status["suspect"]
    assert abs(host.said[0]["error_ms"] - 400 * 86_400_000) <= 26


def test_the_second_pong_for_one_ping_is_no_answer() -> None:
    host = Host()
    host.ping()
    host.wait(14_000)
    host.keep(host.clock.answered((TRUE + host.mono) // MS - 14_000, host.wall, host.mono))
    assert host.status["error_ms"] is None
    host.ping()
    assert host.status["error_ms"] is not None


def test_a_pong_that_may_belong_to_either_of_two_pings_is_no_answer() -> None:
    host = Host()
    host.ping()
    host.clock.asked(host.mono)
    host.wait(15_000)
    host.clock.asked(host.mono)
    host.wait(10)
    host.keep(host.clock.answered((TRUE + host.mono) // MS, host.wall, host.mono))
    assert host.status["error_ms"] is None


@pytest.mark.parametrize("look", [False, True])
def test_a_pong_that_was_under_way_while_the_machine_was_suspended_is_no_answer(look: bool) -> None:
    """The monotonic clock stood still meanwhile: how old it is cannot be known. The step alone is said."""
    host = Host()
    host.ping()
    host.ping()
    host.clock.asked(host.mono)
    host.wait(20)
    server = host.true // MS
    host.wait(30)
    host.slept += 8 * 3600 * SECOND
    if look:
        host.keep(host.clock.look(host.wall, host.mono))
    host.keep(host.clock.answered(server, host.wall, host.mono))
    assert host.status["suspect"], "not compared since"
    host.ping()
    host.ping()
    assert not host.status["suspect"]
    assert abs(host.status["error_ms"]) <= 26
    assert host.said == [{"event": "clock", "step_ms": 8 * 3_600_000}]


def test_pings_of_the_connection_before_are_forgotten() -> None:
    host = Host()
    host.clock.asked(host.mono)
    host.clock.connected()
    host.ping()
    host.ping()
    assert host.status["error_ms"] is not None


def test_a_slow_way_is_no_error() -> None:
    """Seconds between asking and answering bound what can be known, and are not taken for a wrong clock."""
    host = Host()
    for _ in range(4):
        host.ping(there_ms=12_000, back_ms=500)
    assert not host.said
    assert abs(host.status["error_ms"]) <= 6_300


def test_its_beginning_its_change_and_its_end_are_said() -> None:
    host = Host(8_000)
    for _ in range(5):
        host.ping()
    for change in (3_000, 40_000, -51_000):
        host.error += change * MS  # steered, or stepped in between
        for _ in range(3):
            host.ping()
    said = [(round(e["error_ms"], -3), e.get("ended", False)) for e in host.said if "error_ms" in e]
    assert said == [(8_000, False), (51_000, False), (0, True)]


@pytest.mark.parametrize("step", [-61_000, 61_000, 8 * 3_600_000, -400 * 86_400_000])
def test_after_a_step_nothing_is_known_until_compared(step: int) -> None:
    host = Host()
    host.ping()
    host.ping()
    host.step(step)
    assert [e["step_ms"] for e in host.said] == [step]
    assert (host.status["error_ms"], host.status["suspect"]) == (None, True)
    assert f"{step / 1000:+,.0f} s" in (host.warning or "")
    host.ping()
    assert host.status["suspect"], "one answer proves nothing"
    host.ping()
    assert host.status["suspect"], "now it is known to be wrong"
    host.step(-step)
    host.ping()
    host.ping()
    assert not host.status["suspect"]
    assert host.warning is None
    assert host.said[-1]["ended"]


@pytest.mark.parametrize("compared", [False, True])
def test_an_exchange_that_does_not_tell_its_time_any_more_is_said(compared: bool) -> None:
    host = Host()
    if compared:
        host.ping()
        host.ping()
    host.wait(UNCOMPARED_S * 1000 - 1)
    assert host.warning is None
    assert host.clock.is_known(host.mono) is compared
    host.wait(2)
    assert not host.clock.is_known(host.mono), "REST is asked for it"
    assert "not compared with the exchange's for 10 min" in (host.warning or "")
    assert ("nothing is deleted by age" in (host.warning or "")) is (
        host.clock.trusted_ns(host.wall, host.mono) is None
    )
    host.ping()
    host.ping()
    assert host.warning is None


@pytest.mark.parametrize("look_ms", [20, 250])
@pytest.mark.parametrize("slew", [-1.0, -0.5, 0.5, 2.0])
def test_a_clock_that_stands_still_or_runs_away_is_known_to_be_wrong(slew: float, look_ms: int) -> None:
    """Be it too little between two looks to be a step or a step at each of them: no two answers name the same error."""
    host = Host()
    host.slew = slew
    for _ in range(12):
        for _ in range(15_000 // look_ms):
            host.wait(look_ms)
            host.keep(host.clock.look(host.wall, host.mono))
        host.ping()
        if abs(host.wall - TRUE - host.mono) > 62_000 * MS:
            assert host.status["suspect"]
    assert host.status["error_ms"] == pytest.approx((host.wall - TRUE - host.mono) / MS, abs=200)
    assert "s ahead of" in (said := host.warning or "") or "s behind" in said


@pytest.mark.parametrize("slew", [-0.1, 0.1])
def test_a_clock_that_is_being_steered_is_compared_all_the_while(slew: float) -> None:
    """The monotonic clock is steered with it: only the exchange's goes at its own pace."""
    host = Host(30_000 if slew < 0 else -30_000)
    start = host.mono
    for _ in range(30):
        ran = host.mono - start
        server_off = -round(ran * slew / (1 + slew) / MS)
        host.ping(off_ms=server_off)
        host.wait(15_000)
    error_ms = host.error / MS - server_off
    assert host.status["error_ms"] == pytest.approx(error_ms, abs=2_000)


def test_small_steps_add_up() -> None:
    host = Host()
    host.ping()
    host.ping()
    for _ in range(7):
        host.step(-9_000)
    assert host.status["suspect"]


@example(turns=[("step", -4_500), ("ping", 0), ("ping", 0), ("unseen", -58_000)])  # neither is much by itself
@given(st.lists(st.tuples(st.sampled_from(["step", "unseen", "ping"]), st.integers(-(10**9), 10**9)), max_size=12))
def test_no_time_is_trusted_that_is_far_from_the_true_one(turns: list[tuple[str, int]]) -> None:
    """Also not one that was read after a step and before anybody looked."""
    host = Host()
    for what, ms in turns:
        match what:
            case "step":
                host.step(ms)
            case "unseen":
                host.error += ms * MS
            case _:
                host.ping()
        host.wait(1_000)
        found = host.clock.trusted_ns(host.wall, host.mono)
        assert found in (None, host.wall)
        if found is not None:
            assert abs(host.error) <= (FAULT_MS + 100) * MS


def test_a_clock_that_was_compared_and_is_right_is_trusted() -> None:
    """A clock that was set 8 hours ahead in the moment in which segments were judged by age had two deleted early."""
    host = Host()
    assert host.clock.trusted_ns(host.wall, host.mono) is None
    host.ping()
    host.ping()
    assert host.clock.trusted_ns(host.wall, host.mono) == host.wall
    host.error += 8 * 3600 * SECOND
    assert host.clock.trusted_ns(host.wall, host.mono) is None, "nobody has looked since it was set"


def test_what_was_recorded_in_the_future_makes_the_clock_suspect() -> None:
    host = Host()
    host.clock.followed(host.wall + 59 * SECOND)
    assert not host.status["suspect"]
    host.clock.followed(host.wall + 30 * 86_400 * SECOND)
    assert host.status["suspect"]
    host.ping()
    host.ping()
    assert not host.status["suspect"]


@given(
    st.floats(-1e11, 1e11),
    st.lists(st.tuples(st.floats(0, 30_000), st.floats(0, 30_000)), min_size=2, max_size=6),
)
def test_whatever_the_way_the_error_lies_within_its_bounds(error: float, ways: list[tuple[float, float]]) -> None:
    """It is never said wrongly: neither of a right clock nor of one that is off by less."""
    host = Host(error)
    for there, back in ways:
        host.ping(there, back)
    known, shortest = host.status["error_ms"], min(there + back for there, back in ways[-2:])
    assert known is not None
    assert abs(known - error) <= shortest + 252
    if abs(error) < SAID_MS - 300:
        assert not host.said
    if abs(error) < FAULT_MS - 300:
        assert not host.status["suspect"]
    if abs(error) - shortest > FAULT_MS + 300:
        assert host.status["suspect"]


_STEPS = st.floats(-2_000, 2_000).filter(lambda step: abs(step) > 1.1 * LEAST_STEP_MS)


@given(st.floats(-1e9, 1e9), st.floats(1, 20_000), st.lists(_STEPS, max_size=20))
def test_what_is_known_of_the_exchanges_clock_holds_its_time(error: float, away_ms: float, steps: list[float]) -> None:
    """Also where steps were too small to be told, or nobody has looked since; but for steps that no clock that is
    steered is told from."""
    host = Host(error)
    assert host.clock.exchange(host.wall, host.mono) is None
    host.ping(away_ms / 2, away_ms / 2)
    host.wait(1000)
    host.ping(20, away_ms)
    for step in steps:
        host.wait(100)
        host.error += round(step * MS)
        known = host.clock.exchange(host.wall, host.mono)
        true_ms = (TRUE + host.mono) / MS
        assert known is None or known.earliest - 1 <= true_ms <= known.latest + 1
        host.step(0)


def test_the_exchanges_clock_is_not_known_after_a_step_nor_for_ever() -> None:
    host = Host(-300_000)
    host.ping()
    host.wait(1000)
    host.ping()
    known = host.clock.exchange(host.wall, host.mono)
    assert known is not None
    assert known.latest - known.earliest < 100
    host.error += 3600 * SECOND
    assert host.clock.exchange(host.wall, host.mono) is None, "and nobody has noticed yet"
    host.error -= 3600 * SECOND
    host.wait(UNCOMPARED_S * 1000)
    assert host.clock.exchange(host.wall, host.mono) is None


def test_two_threads_may_learn_at_a_time() -> None:
    host = Host(-70_000)

    def learn() -> None:
        for _ in range(50):
            host.keep(host.clock.compare((TRUE + host.mono) // MS, host.wall, host.mono, MS))

    threads = [threading.Thread(target=learn) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert host.status["suspect"]
    assert len(host.said) == 1


def test_pongs_and_answers_without_a_time_say_so() -> None:
    assert pong_ms(b'{"channel":"pong","data":1789498336785}') == 1789498336785
    assert pong_ms(b'{"channel":"pong","data":"1789498336785"}') == 1789498336785
    for m in (
        b'{"channel":"pong"}',
        b'{"data":7}',
        b'{"data":{}}',
        b'{"data":"x"}',
        b"[]",
        b'{"data":1789498336785000}',
    ):
        assert pong_ms(m) is None
    assert read_time(200, b'{"success":true,"code":0,"data":1789498336785}') == 1789498336785
    for status, body in ((500, b'{"data":1789498336785}'), (200, b"{}"), (200, b'{"data":1}'), (200, b"x")):
        assert read_time(status, body) is None
