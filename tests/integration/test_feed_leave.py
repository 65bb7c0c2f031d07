"""A feed that is told to connect anew by another exit, and what its rows say of the exits."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from mexc_pipeline import config
from mexc_pipeline.collector.exits import Exits
from mexc_pipeline.egress.dial import Dialled, dial
from mexc_pipeline.egress.tor import Tor
from mexc_pipeline.egress.uses import Use
from mexc_pipeline.events import Collision, Rotated
from mexc_pipeline.feed.feed import Feed
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.gathering import Gathered
from support.waiting import until


class Rig:
    """A feed whose connections leave by exit "e1", "e2" and so on."""

    def __init__(self, url: str) -> None:
        self.got: list[Frame] = []
        numbers = itertools.count(1)

        def by_another(egress: config.Egress, target: str, ca_file: str) -> Dialled:
            number = next(numbers)
            details = {"circuit": str(number), "exit": f"e{number}", "fingerprint": "F"}
            return dataclasses.replace(dial(egress, target, ca_file), mode="tor", details=details)

        settings = config.parse("", None)
        self.feed = Feed(
            settings.symbols[0], config.ExchangeTable(websocket=url), Gathered(self.got.extend), by_another
        )
        self.thread = threading.Thread(target=self.feed.run)

    def events(self, *names: str) -> list[dict[str, Any]]:
        events = [json.loads(frame.m) for frame in list(self.got) if frame.mt == Mt.EVENT]
        return [event for event in events if event["event"] in names]


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Simulator(SimulatorConfig()) as simulator:
        made = Rig(simulator.ws_url)
        made.thread.start()
        yield made
        made.feed.stop()
        made.thread.join(10)
        assert not made.thread.is_alive()


def test_leaving_is_recorded_and_the_next_connection_follows_at_once(rig: Rig) -> None:
    until(lambda: rig.events("subscribed"), 20, "a subscription")
    began = time.monotonic()
    rig.feed.leave(rig.feed.state.connection, "another exit was asked for", Rotated(exit="e1"))
    until(lambda: len(rig.events("connected")) == 2, 20, "the next connection")
    assert time.monotonic() - began < 5
    names = ("connected", "rotated", "disconnected")
    assert [(event["event"], event["exit"]) for event in rig.events(*names)] == [
        ("connected", "e1"),
        ("rotated", "e1"),
        ("disconnected", "e1"),
        ("connected", "e2"),
    ]
    gone = rig.events("disconnected")[0]
    assert (gone["code"], gone["reason"]) == (1000, "another exit was asked for")
    assert rig.feed.status()["egress"]["exit"] == "e2"
    assert rig.feed.state.reconnects == 1


def test_an_orderly_end_gives_the_exit_free(rig: Rig) -> None:
    until(lambda: rig.events("connected"), 20, "a connection")
    rig.feed.stop()
    rig.thread.join(10)
    (gone,) = rig.events("disconnected")
    assert (gone["exit"], gone["reason"]) == ("e1", "stopped")


def test_a_connection_fails_without_an_exit_of_the_one_before() -> None:
    with Simulator(SimulatorConfig()) as simulator:
        rig = Rig(simulator.ws_url)
        rig.thread.start()
        until(lambda: rig.events("connected"), 20, "a connection")
    try:
        until(lambda: len(rig.events("disconnected")) >= 2, 20, "a try that fails")
    finally:
        rig.feed.stop()
        rig.thread.join(10)
    first, second = rig.events("disconnected")[:2]
    assert first["exit"] == "e1"
    assert "exit" not in second


def test_a_request_to_leave_made_between_two_connections_is_for_neither(rig: Rig) -> None:
    """It may come when the connection it is about has just broken: the next, good one must not pay for it."""
    until(lambda: rig.events("subscribed"), 20, "a subscription")
    rig.feed.hold("a while")
    until(lambda: rig.events("disconnected"), 20, "no connection")
    rig.feed.leave(
        rig.feed.state.connection, "exit e1 is used by eth too", Collision(exit="e1", seen="e1", other="eth")
    )
    rig.feed.resume()
    until(lambda: len(rig.events("connected")) == 2, 20, "the next connection")
    seen = len(rig.got)
    until(lambda: len(rig.got) > seen + 20, 20, "frames over it")
    assert not rig.events("collision")
    assert len(rig.events("disconnected")) == 1


def test_a_connection_made_while_the_one_before_was_judged_is_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask the others takes seconds; what they say is of the exit that was looked at before."""
    settings = config.parse('[egress]\nmode = "tor"\n', None)
    dropped: list[str] = []

    class Dropping:
        def drop(self, address: str) -> None:
            dropped.append(address)

    exits = Exits(settings, settings.symbols[0], rig.feed, cast(Tor, Dropping()))

    def anew() -> list[Use]:
        rig.feed.hold("a while")
        until(lambda: rig.events("disconnected"), 20, "no connection")
        rig.feed.resume()
        until(lambda: len(rig.events("connected")) == 2, 20, "the next connection")
        return [Use("ada", "e1", "e1", 1, None)]

    monkeypatch.setattr(exits, "_others", anew)
    until(lambda: rig.events("subscribed"), 20, "a subscription")
    exits.look()
    seen = len(rig.got)
    until(lambda: len(rig.got) > seen + 20, 20, "frames over it")
    assert dropped == ["e1"]
    assert not rig.events("collision")
    assert len(rig.events("disconnected")) == 1
    monkeypatch.setattr(exits, "_others", lambda: [Use("ada", "e2", "e2", 1, None)])
    exits.look()
    until(lambda: len(rig.events("connected")) == 3, 20, "another exit")
    assert [event["exit"] for event in rig.events("collision")] == ["e2"]
