"""A collector gives an exit up that another symbol had first, and changes it on request."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mexc_pipeline import config
from mexc_pipeline.collector.exits import Exits
from mexc_pipeline.control import ControlServer
from mexc_pipeline.egress.partition import owner
from mexc_pipeline.egress.tor import Tor
from mexc_pipeline.errors import UserError
from mexc_pipeline.events import Collision, Event, Rotated
from mexc_pipeline.feed.feed import Feed
from mexc_pipeline.feed.state import FeedState, Look


class StubFeed:
    def __init__(self, begin: int) -> None:
        self.connected_since_ns: int | None = begin * 10**9
        self.egress: dict[str, Any] = {"mode": "tor", "exit": "203.0.113.11", "url": "wss://contract.example/edge"}
        self.connection: object | None = self
        self.left: list[tuple[str, Event]] = []
        self.left_at = threading.Event()

    @property
    def state(self) -> FeedState:
        look = Look(0.0, {}, {})
        return FeedState(self.egress, look, 0.0, self.connection, self.connected_since_ns)

    def leave(self, connection: object | None, reason: str, said: Event) -> None:
        assert connection is self.connection
        self.left.append((reason, said))
        self.left_at.set()


class StubTor:
    def __init__(self, others: int = 2) -> None:
        self.dropped: list[str] = []
        self.shared_with: list[tuple[str, ...]] = []
        self._others = others

    def share_with(self, deployment: tuple[str, ...]) -> None:
        self.shared_with.append(deployment)

    def drop(self, address: str) -> None:
        self.dropped.append(address)

    def others(self, port: int) -> int:
        assert port == 443
        return self._others


class Stage:
    def __init__(self, folder: Path) -> None:
        text = f'data_dir = "{folder}"\n[egress]\nmode = "tor"\ndeployment = ["btc", "eth", "sol", "xrp"]\n'
        self.settings = config.parse(text, None)
        self.servers: list[ControlServer] = []
        self.feed, self.tor = StubFeed(1000), StubTor()

    def exits(self, symbol: str = "eth") -> Exits:
        chosen = self.settings.symbol(symbol)
        return Exits(self.settings, chosen, cast(Feed, self.feed), cast(Tor, self.tor))

    def collector(self, symbol: str, address: str, begin: int) -> None:
        status = {"egress": {"mode": "tor", "exit": address}, "connected_since_ns": begin * 10**9}
        path = self.settings.control_dir / f"{symbol}.sock"
        self.servers.append(ControlServer(path, {"status": lambda _: status}))

    def store(self, symbol: str, address: str, begin: int, age_s: int) -> None:
        now = int(time.time())

        row = [symbol, begin, "7", json.dumps({"event": "connected", "exit": address})]
        said: dict[str, Any] = {"rows": [row], "alive": [[symbol, now - age_s, now]]}
        self.servers.append(ControlServer(self.settings.control_dir / "store.sock", {"exits": lambda _: said}))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    for server in made.servers:
        server.close()


def test_an_exit_that_a_symbol_of_this_host_had_first_is_given_up(stage: Stage) -> None:
    stage.collector("btc", "203.0.113.11", 900)
    assert stage.exits().look()
    assert stage.tor.dropped == ["203.0.113.11"]
    ((reason, said),) = stage.feed.left
    assert said == Collision(exit="203.0.113.11", seen="203.0.113.11", other="btc")
    assert reason == "exit 203.0.113.11 is used by btc too"


def test_who_had_it_first_keeps_it(stage: Stage) -> None:
    stage.collector("btc", "203.0.113.11", 1100)
    assert not stage.exits().look()
    assert not stage.feed.left


@pytest.mark.parametrize(("symbol", "gives_up"), [("eth", True), ("btc", False)])
def test_of_two_in_the_same_second_exactly_one_gives_it_up(stage: Stage, symbol: str, gives_up: bool) -> None:
    stage.collector("eth" if symbol == "btc" else "btc", "203.0.113.11", 1000)
    assert stage.exits(symbol).look() is gives_up


def test_what_the_world_sees_decides(stage: Stage) -> None:
    stage.collector("btc", "203.0.113.99", 900)
    stage.feed.egress["seen"] = "203.0.113.99"
    assert stage.exits().look()
    assert stage.tor.dropped == ["203.0.113.11"]


@pytest.mark.parametrize(("age_s", "gives_up"), [(10, True), (600, False)])
def test_symbols_of_other_hosts_are_known_from_the_log_while_they_live(
    stage: Stage, age_s: int, gives_up: bool
) -> None:
    stage.store("xrp", "203.0.113.11", 900, age_s)
    assert stage.exits().look() is gives_up


def test_of_a_symbol_of_this_host_that_does_not_answer_the_log_tells(stage: Stage) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise UserError("too busy")

    stage.servers.append(ControlServer(stage.settings.control_dir / "btc.sock", {"status": refuse}))
    stage.store("btc", "203.0.113.11", 900, age_s=10)
    assert stage.exits().look()
    assert [said for _, said in stage.feed.left] == [Collision(exit="203.0.113.11", seen="203.0.113.11", other="btc")]


def test_a_collector_that_has_ended_uses_no_exit_whatever_the_log_says(stage: Stage) -> None:
    stage.store("btc", "203.0.113.11", 900, age_s=10)
    assert not stage.exits().look()


@pytest.mark.parametrize(
    "status",
    [
        {"egress": "x", "connected_since_ns": 1},
        {"egress": {"exit": "203.0.113.11"}, "connected_since_ns": [1]},
        {"egress": {"exit": "203.0.113.11"}, "connected_since_ns": float("inf")},
    ],
)
def test_an_answer_of_another_shape_does_not_end_the_watch(stage: Stage, status: dict[str, Any]) -> None:
    stage.servers.append(ControlServer(stage.settings.control_dir / "btc.sock", {"status": lambda _: status}))
    stage.store("btc", "203.0.113.11", 900, age_s=10)
    assert stage.exits().look()


@pytest.mark.parametrize("event", ["[" * 10_000, "[]", "null", "1", "no JSON"])
def test_a_row_of_the_log_that_is_none_hides_no_other(stage: Stage, event: str) -> None:
    taken = json.dumps({"event": "connected", "exit": "203.0.113.11"})
    now = int(time.time())
    said = {"rows": [["sol", 900, "7", event], ["xrp", 900, "7", taken]], "alive": [["xrp", now, now]]}
    stage.servers.append(ControlServer(stage.settings.control_dir / "store.sock", {"exits": lambda _: said}))
    assert stage.exits().look()


@pytest.mark.parametrize("answer", [{}, {"rows": 1, "alive": []}, {"rows": [], "alive": [["xrp", float("inf"), 1]]}])
def test_that_the_log_cannot_be_asked_is_said_once_and_ends_no_watch(
    stage: Stage, answer: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    said = dict(answer)
    stage.servers.append(ControlServer(stage.settings.control_dir / "store.sock", {"exits": lambda _: said}))
    exits = stage.exits()
    with caplog.at_level("INFO"):
        assert [exits.look(), exits.look()] == [False, False]
        said.update(rows=[], alive=[])
        assert not exits.look()
    assert [r.message for r in caplog.records if "other hosts" in r.message] == [
        "exits of other hosts not known",
        "exits of other hosts known again",
    ]


def test_without_anybody_to_ask_nothing_changes(stage: Stage) -> None:
    assert not stage.exits().look()


def test_rotation_waits_for_the_new_connection(stage: Stage) -> None:
    def reconnect() -> None:
        assert stage.feed.left_at.wait(10)
        stage.feed.connected_since_ns = None
        stage.feed.egress = {**stage.feed.egress, "exit": "203.0.113.14"}
        stage.feed.connected_since_ns = 2000 * 10**9

    thread = threading.Thread(target=reconnect)
    thread.start()
    answer = stage.exits().rotate({})
    thread.join()
    assert answer == {"before": "203.0.113.11", "now": "203.0.113.14", "seen": "203.0.113.14"}
    assert stage.feed.left[0][1] == Rotated(exit="203.0.113.11")


def test_rotation_without_another_exit_keeps_the_connection(stage: Stage) -> None:
    stage.tor = StubTor(others=0)
    with pytest.raises(UserError, match=r"no other exit at this moment; 203\.0\.113\.11 is kept"):
        stage.exits().rotate({})
    assert not stage.feed.left


def test_rotation_of_what_is_not_connected_is_refused(stage: Stage) -> None:
    stage.feed.connected_since_ns = None
    with pytest.raises(UserError, match="eth is not connected"):
        stage.exits().rotate({})


EVERYBODY = ("btc", "eth", "sol", "xrp")


def grown(stage: Stage, folder: Path, more: str) -> config.Config:
    """The stage's settings as of a file whose list of symbols has grown by one since it was read."""
    path = folder / "config.toml"
    listed = json.dumps([*EVERYBODY, more])
    path.write_text(f'data_dir = "{folder}"\n[egress]\nmode = "tor"\ndeployment = {listed}\n')
    return dataclasses.replace(stage.settings, path=path)


@pytest.mark.parametrize("mine", [True, False])
def test_a_symbol_more_takes_only_its_own_exits(stage: Stage, tmp_path: Path, mine: bool) -> None:
    everybody = (*EVERYBODY, "doge")
    addresses = [f"203.0.113.{n}" for n in range(1, 250)]
    held = [a for a in addresses if owner(a, EVERYBODY) == "eth"]
    stage.feed.egress["exit"] = next(a for a in held if (owner(a, everybody) == "eth") is mine)
    stage.settings = grown(stage, tmp_path, "doge")
    read = stage.exits().repartition()
    assert read is not None
    assert read.symbol("eth").egress.deployment == tuple(sorted(everybody))
    assert stage.tor.shared_with == [tuple(sorted(everybody))]
    assert [said.name() for _, said in stage.feed.left] == ([] if mine else ["reassigned"])


def test_an_exit_that_became_anothers_is_being_left_until_its_connection_has_ended(
    stage: Stage, tmp_path: Path
) -> None:
    everybody = (*EVERYBODY, "doge")
    taken = (f"203.0.113.{n}" for n in range(1, 250))
    stage.feed.egress["exit"] = next(a for a in taken if owner(a, EVERYBODY) == "eth" and owner(a, everybody) == "doge")
    stage.settings = grown(stage, tmp_path, "doge")
    exits = stage.exits()
    before = exits.is_leaving
    exits.repartition()
    asked = exits.is_leaving
    stage.feed.connection = None
    assert (before, asked, exits.is_leaving) == (False, True, False)


def test_a_list_that_cannot_be_read_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("symbols = [")
    stage.settings = dataclasses.replace(stage.settings, path=path)
    assert stage.exits().repartition() is None
    assert (stage.tor.shared_with, stage.feed.left) == ([], [])
