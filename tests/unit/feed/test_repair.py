"""What is asked for over REST, and what is made of the answers: without a network, step by step."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline import config
from mexc_pipeline.egress.dial import dial
from mexc_pipeline.egress.http import Rest
from mexc_pipeline.exchange.depth import Gap
from mexc_pipeline.exchange.holes import MOST_OPEN, MOST_TRIES, Row
from mexc_pipeline.exchange.rest import RefusedError
from mexc_pipeline.feed.repair import BURST, EACH_S, Allowance, Repairer
from mexc_pipeline.rows import Mt


class Rig:
    """A repairer whose answers the test gives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept: list[Row] = []
        settings = config.parse('[channels]\ndepth = "merged"\n', None)
        self.newest = 0
        self.rest = Rest(settings.symbols[0].egress, settings.exchange, dial)
        self.repairer = Repairer(settings.symbols[0], self.rest, self.kept.extend, lambda: self.newest)
        self.data = b"null"
        monkeypatch.setattr(
            self.repairer, "_get", lambda path: (200, b'{"success":true,"code":0,"data":%s}' % self.data)
        )

    def book(self, data: bytes) -> bool:
        self.data = data
        return self.repairer._ask_snapshot()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(m) for mt, m in self.kept if mt == Mt.EVENT]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_a_book_of_the_old_count_is_not_taken_while_the_socket_counts_below_it(rig: Rig) -> None:
    rig.repairer.snapshot(5000)
    rig.repairer.anew(9, seen=5000)
    rig.newest = 12
    assert not rig.book(b'{"version":5003}')
    assert not rig.events()
    assert rig.book(b'{"version":11,"asks":null}')
    assert [(e["event"], e["version"]) for e in rig.events()] == [("snapshot", 11)]


def test_where_the_exchange_only_lagged_its_book_is_taken_once_the_socket_is_there(rig: Rig) -> None:
    rig.repairer.anew(4990, seen=5000)
    rig.newest = 4995
    assert not rig.book(b'{"version":5003}')
    rig.newest = 5001
    assert rig.book(b'{"version":5003}')


def test_an_exchange_whose_rest_never_follows_is_said(rig: Rig) -> None:
    rig.repairer.anew(9, seen=5000)
    rig.newest = 12
    for _ in range(MOST_TRIES - 1):
        assert not rig.book(b'{"version":6000}')
    with pytest.raises(RefusedError, match="version 6000, where the socket counts at 12"):
        rig.book(b'{"version":6000}')


def test_a_new_count_ends_what_was_missing_of_the_old_one(rig: Rig) -> None:
    rig.repairer.gap(Gap(4000, 4009))
    rig.repairer.anew(9, seen=5000)
    assert rig.repairer.status()["open"] == 0
    (said,) = [json.loads(m) for _, m in rig.repairer.close()]
    assert (said["event"], said["count"], said["reason"]) == ("unrepaired", 10, "the exchange counts anew")


def test_nothing_is_given_up_while_the_exchange_asks_for_patience(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try that is refused counts, one that is not made does not."""
    monkeypatch.setattr(Rest, "patience_s", 600.0)
    asked: list[str] = []

    def refuse(path: str) -> tuple[int, bytes]:
        asked.append(path)
        return 429, b""

    monkeypatch.setattr(rig.repairer, "_get", refuse)
    rig.repairer.gap(Gap(4000, 4009))
    for _ in range(MOST_TRIES + 1):
        assert rig.repairer._step(rig.repairer._ask_commits, rig.repairer._no_commits) == 600.0
    assert asked == []
    assert rig.repairer.status() == {"seen": 1, "open": 1, "trouble": f"{rig.rest.url} asks for patience"}
    monkeypatch.setattr(Rest, "patience_s", 0.0)
    rig.repairer._step(rig.repairer._ask_commits, rig.repairer._no_commits)
    assert len(asked) == 1


def test_a_book_that_is_not_utf8_is_wrapped_inside_its_event(rig: Rig) -> None:
    rig.repairer.snapshot(1)
    assert rig.book(b'{"asks":[],"note":"\xff","version":7}')
    ((_, m),) = rig.kept
    said = json.loads(m.decode())
    assert (said["version"], list(said["book"])) == (7, ["base64", "opcode"])


@given(st.lists(st.floats(0.0, 5.0), max_size=300))
def test_trouble_without_end_asks_at_a_bounded_rate(thinking_s: list[float]) -> None:
    """Whoever waits as told makes no more requests in any minute than the burst and one in each second."""
    allowance, now, made = Allowance(), 1000.0, []
    for pause in thinking_s:
        made.append(now)
        now += max(allowance.take(now), pause * 0.1)
    assert all(sum(at <= other < at + 60 for other in made) <= BURST + 60 / EACH_S for at in made)


def test_a_burst_is_not_held_up() -> None:
    allowance = Allowance()
    assert [allowance.take(1000.0) for _ in range(BURST - 1)] == [0.0] * (BURST - 1)
    assert allowance.take(1000.0) == EACH_S
    assert allowance.take(1000.0 + BURST * EACH_S) == 0.0


def test_requests_keep_to_their_allowance(rig: Rig) -> None:
    """Also those that were answered as they should be."""
    rig.data = b'[{"version":9}]'
    pauses = []
    for at in range(BURST + 1):
        rig.repairer.gap(Gap(at, at))
        pauses.append(rig.repairer._step(rig.repairer._ask_commits, rig.repairer._no_commits))
    assert pauses[0] == 0.0
    assert pauses[-1] > 0.9 * EACH_S


def test_gaps_without_end_are_given_up_and_said(rig: Rig) -> None:
    for at in range(1, 2 * (MOST_OPEN + 5), 2):
        rig.repairer.gap(Gap(at, at))
    assert rig.repairer.status()["open"] == MOST_OPEN
    said = [json.loads(m) for _, m in rig.repairer.close()]
    assert [e["from"] for e in said] == list(range(1, 2 * (MOST_OPEN + 5), 2))
    assert [e["reason"] for e in said[4:6]] == ["more than 1,000 gaps at a time", "stopped"]
