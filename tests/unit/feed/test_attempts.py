"""How often one address asks for a connection, counted over processes."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline import config
from mexc_pipeline.egress.patience import PATIENCE_MOST_S
from mexc_pipeline.feed import attempts as module
from mexc_pipeline.feed.attempts import (
    BURST,
    MOST,
    REFUSED_MOST_S,
    SPREAD_S,
    WINDOW_S,
    Attempts,
    Budget,
    Hold,
    key,
)
from mexc_pipeline.feed.turns import KEPT_S
from support.waiting import until


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_twenty_a_minute_then_the_oldest_has_to_be_a_minute_old() -> None:
    budget = Budget()
    assert [budget.wait_s(n, "h", free=False) for n in range(MOST)] == [0.0] * MOST
    assert budget.wait_s(20, "h", free=False) == WINDOW_S - 20
    assert budget.wait_s(20, "h", free=True) == 0, "what follows a session that delivered is no part of it"
    assert budget.wait_s(59.9, "h", free=False) == pytest.approx(0.1)
    assert budget.wait_s(WINDOW_S, "h", free=False) == 0
    assert budget.wait_s(WINDOW_S + 0.5, "h", free=False) == pytest.approx(0.5)


def test_a_session_that_lasts_gives_its_attempt_back() -> None:
    budget = Budget()
    for n in range(MOST):
        budget.wait_s(n, "h", free=False)
    budget.forget(3.0)
    budget.forget(3.0)
    assert budget.wait_s(20, "h", free=False) == 0
    assert budget.wait_s(20, "h", free=False) > 0


@given(st.integers(1, 30), st.floats(1, 200))
def test_symbols_that_lose_the_exchange_together_see_it_come_back_within_seconds(symbols: int, away_s: float) -> None:
    """Each asks whenever it may. None used to be let for most of a minute once all had tried a few times."""
    budget, now, made, back = Budget(), 0.0, [], dict[int, float]()
    while len(back) < min(symbols, BURST):
        for symbol in {*range(symbols)} - back.keys():
            if budget.wait_s(now, "h", free=False):
                continue
            made.append(now)
            if now < away_s:
                budget.came_to_nothing(now)
            else:
                budget.delivered("h")
                back[symbol] = now
        for at in [at for at in back.values() if now - at >= KEPT_S]:
            budget.forget(at)
        assert sum(now - WINDOW_S < at for at in made) <= MOST + len(back)
        now += 0.5
    assert min(back.values()) <= away_s + SPREAD_S + 0.5
    assert max(back.values()) <= away_s + SPREAD_S + 2 * (KEPT_S + 1), "some of the minute's attempts are left for them"


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans(), st.sampled_from(["ask", "refused", "late", "ok", "lost"]))))
def test_no_minute_has_more_attempts_than_allowed_and_patience_is_kept(steps: list[tuple[float, bool, str]]) -> None:
    budget, now, made, patience = Budget(), 0.0, [], 0.0
    for wait, free, what in steps:
        now += wait
        match what:
            case "ask":
                left = budget.wait_s(now, "h", free=free)
                assert 0 <= left <= PATIENCE_MOST_S
                assert left == 0 or not free or now < budget.holds["h"].not_before
                if left == 0:
                    assert now >= patience
                    made += [] if free else [now]
                    assert sum(now - WINDOW_S < at for at in made) <= MOST
            case "ok":
                budget.delivered("h")
            case "lost" if made:
                budget.came_to_nothing(made[-1])
            case _:
                asked = 1e6 if what == "late" else None
                budget.refused(now, "h", asked, "no")
                patience = max(patience, now + PATIENCE_MOST_S) if asked else patience
                assert budget.holds["h"].not_before <= now + PATIENCE_MOST_S


def test_refusals_that_ask_for_no_patience_get_some_that_grows() -> None:
    budget, now, waits = Budget(), 0.0, []
    for _ in range(8):
        budget.refused(now, "h", None, "HTTP 503")
        budget.refused(now + 0.1, "h", None, "HTTP 503")  # another symbol's, of the same moment
        waits.append(budget.wait_s(now + 0.1, "h", free=True))
        now = budget.holds["h"].not_before
    assert waits[:3] == pytest.approx([1, 2, 4], abs=0.11)
    assert waits[-1] == pytest.approx(REFUSED_MOST_S, abs=0.11)
    budget.delivered("h")
    budget.refused(now + 1, "h", None, "HTTP 503")
    assert budget.wait_s(now + 1, "h", free=False) == 1
    budget.refused(now + 3, "h", 0.0, "HTTP 503")
    assert budget.wait_s(now + 3, "h", free=False) == 0, "none was asked for"


def test_a_clock_that_began_anew_binds_nobody() -> None:
    budget = Budget(attempts=[9e5] * MOST, holds={"h": Hold(9e5)})
    assert budget.wait_s(10, "h", free=False) == PATIENCE_MOST_S, "at most"
    budget = Budget(attempts=[9e5] * MOST)
    assert budget.wait_s(10, "h", free=False) == 0


def test_processes_share_a_file(tmp_path: Path) -> None:
    clock = Clock()
    one, two = (Attempts(tmp_path / "a" / "direct", clock) for _ in range(2))
    for _ in range(MOST // 2):
        assert one.wait_s("h", free=False)[0] == 0
        assert two.wait_s("h", free=False)[0] == 0
        clock.now += 0.1
    wait, why = one.wait_s("h", free=False)
    assert wait == pytest.approx(WINDOW_S - 1)
    assert "20 attempts" in why
    assert two.wait_s("h", free=True)[0] == 0
    two.forget()
    until(lambda: one.wait_s("h", free=False)[0] == 0, 10, "the attempt to be given back")
    clock.now += 100
    two.refused("h", 30, "handshake answered by HTTP 429")
    assert one.wait_s("h", free=True) == (30, "handshake answered by HTTP 429")
    clock.now += 30
    assert one.wait_s("h", free=True)[0] == 0
    assert one.trouble is None


def test_what_another_start_of_the_machine_left_binds_nobody(tmp_path: Path) -> None:
    path = tmp_path / "direct"
    path.write_text(json.dumps({"boot": "another", "attempts": [999.0] * MOST, "holds": {"h": {"not_before": 1e9}}}))
    assert Attempts(path, Clock()).wait_s("h", free=False)[0] == 0


GARBAGE = [b"", b"{", b"\xff" * 100_000, b'{"attempts":[1e999]}', b'{"holds":{"h":{"not_before":"x"}}}', b"[]"]


@pytest.mark.parametrize("left", GARBAGE)
def test_garbage_in_the_file_is_no_budget(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "direct"
    path.write_bytes(left)
    attempts = Attempts(path, Clock())
    assert attempts.wait_s("h", free=False)[0] == 0
    assert json.loads(path.read_bytes())["attempts"] == [1000.0]
    assert attempts.trouble is None


def test_a_file_that_cannot_be_used_does_not_stop_anybody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    attempts = Attempts(tmp_path / "file" / "direct", Clock())
    assert [attempts.wait_s("h", free=False)[0] for _ in range(MOST)] == [0.0] * MOST
    assert attempts.wait_s("h", free=False)[0] > 0, "this process alone keeps to it"
    assert "this process alone" in (attempts.trouble or "")


def test_a_file_that_another_process_holds_does_not_stop_anybody(tmp_path: Path) -> None:
    path = tmp_path / "direct"
    attempts = Attempts(path, Clock())
    assert attempts.wait_s("h", free=False)[0] == 0
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert attempts.wait_s("h", free=False)[0] == 0
        assert attempts.trouble is not None
    finally:
        os.close(fd)
    assert attempts.wait_s("h", free=False)[0] == 0
    assert attempts.trouble is None


def test_what_a_session_says_of_its_attempt_is_written_in_order_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "direct", Clock()
    monkeypatch.setattr(module, "LOCK_S", 30.0)
    attempts = Attempts(path, clock)
    attempts.refused("h", 0.0, "HTTP 503")
    assert attempts.wait_s("h", free=False)[0] == 0
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        before = time.monotonic()
        attempts.delivered("h")
        attempts.forget()
        assert time.monotonic() - before < 10, "the lock is held for ever, and waited for 30 s"
        assert json.loads(path.read_bytes())["attempts"] == [clock.now]
    finally:
        os.close(fd)
    until(lambda: json.loads(path.read_bytes() or b"{}").get("attempts") == [], 10, "the attempt to be given back")
    assert json.loads(path.read_bytes())["holds"]["h"]["refusals"] == 0
    assert attempts.trouble is None


def test_a_disk_without_room_does_not_count_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(tmp_path / "direct", Clock())

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert attempts.wait_s("h", free=False)[0] == 0
    assert "No space left" in (attempts.trouble or "")
    assert len(attempts._own.attempts) == 1


@pytest.mark.parametrize(
    ("mode", "name"),
    [("direct", "direct"), ("socks5h://127.0.0.1:1080", "socks5h-127.0.0.1-1080"), ("tor", "tor-btc")],
)
def test_who_leaves_by_one_address_shares_one_file(mode: str, name: str) -> None:
    settings = config.parse(f'symbols = ["BTC_USDT"]\n[egress]\nmode = "{mode}"\n', None)
    assert key(settings.symbols[0]) == name


def test_one_hosts_wish_for_patience_is_no_reason_to_spare_another() -> None:
    budget = Budget()
    budget.refused(0, "a", 600, "HTTP 503")
    assert budget.wait_s(1, "a", free=True) == 599
    assert budget.wait_s(1, "b", free=False) == 0
    budget.delivered("b")
    assert budget.wait_s(2, "a", free=False) == 598
