"""Trades that the socket did not bring: kept once where that is certain, said where it is not, and never invented."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.exchange.checks import Checks
from mexc_pipeline.exchange.depth import LONGEST_RETAINED
from mexc_pipeline.exchange.fills import (
    LOOK_S,
    MOST_WAITING,
    PASSED_MS,
    PATIENCE_S,
    SETTLES_S,
    Fills,
)
from mexc_pipeline.exchange.holes import MOST_TRIES
from mexc_pipeline.exchange.resumption import in_place
from mexc_pipeline.exchange.trades import Trade, trade_of
from mexc_pipeline.rows import Mt, Row
from support.examples import examples

MS = 1_788_335_000_000
Id = Callable[[int], str]
IDS: dict[str, Id] = {
    "text": lambda number: f',"i":"{number}"',
    "number": lambda number: f',"i":{number}',
    "none": lambda number: "",
}


@dataclass(frozen=True)
class Made:
    """A trade of the exchange."""

    number: int
    time_ms: int
    volume: int = 1

    def text(self, ids: Id) -> str:
        return f'{{"p":10.50,"v":{self.volume},"T":1,"O":1,"M":2,"t":{self.time_ms}{ids(self.number)}}}'

    @property
    def alike(self) -> tuple[int, int]:
        return self.time_ms, self.volume


class World:
    """An exchange with its trades, one process of the recorder after another, and the rows that it keeps. ``socket``
    and ``rest`` are how ids are spelled there."""

    def __init__(self, socket: str = "text", rest: str = "text") -> None:
        self.socket, self.rest = IDS[socket], IDS[rest]
        self.made: list[Made] = []
        self.now = 0.0
        self.number = 16_000_000_000
        self.pending: list[list[Made]] = []
        self.online = self.subscribed = False
        self.told_apart = False
        """Whether each trade has a volume of its own."""
        self.arranged: Callable[[list[Trade]], list[Trade]] = lambda trades: trades
        """What becomes of REST's answers, newest first."""
        self.rows: list[Row] = []
        self._begin()

    def _begin(self) -> None:
        frames = [row for row in self.rows if row.mt == Mt.DEAL]
        known = in_place(
            frames, [r for r in self.rows if r.mt == Mt.REPAIRED], [r for r in self.rows if r.mt == Mt.EVENT]
        )
        self.checks = Checks(["push.deal"], 0, known)
        self.fills = Fills(self.checks.deals)

    def keep(self, rows: Sequence[tuple[int, bytes]]) -> None:
        for mt, m in rows:
            self.rows.append(Row(len(self.rows) + 1, 0, 0, mt, m))

    # -- what happens

    @property
    def ms(self) -> int:
        return MS + round(self.now * 1000)

    def trade(self, count: int = 1, step: int = 7, volume: int = 1) -> list[Made]:
        made = []
        for _ in range(count):
            self.number += step
            made.append(Made(self.number, self.ms, self.number if self.told_apart else volume))
        self.made += made
        if self.subscribed:
            self.pending.append(made)
        return made

    def trades(self, count: int) -> None:
        """One after another, each at a time of its own."""
        for _ in range(count):
            self.pause(0.05)
            self.trade()

    def deliver(self, frames: int = 1_000) -> None:
        for _ in range(min(frames, len(self.pending))):
            newest_first = ",".join(trade.text(self.socket) for trade in reversed(self.pending.pop(0)))
            m = f'{{"symbol":"X","data":[{newest_first}],"channel":"push.deal","ts":{self.ms}}}'.encode()
            found = self.checks.by_channel["push.deal"](m)
            self.keep([(Mt.EVENT, found.said.m)] if found is not None and found.said is not None else [])
            self.keep([(Mt.DEAL, m)])

    def connect(self) -> None:
        if self.online:
            self.disconnect()
        self.online = True
        self.checks.connected()
        self.fills.connected()
        self.keep([(Mt.EVENT, b'{"event":"connected"}')])

    def subscribe(self) -> None:
        if self.online and not self.subscribed:
            self.subscribed = True
            self.fills.subscribed(self.now, self.ms)

    def disconnect(self) -> None:
        if self.online:
            self.online = self.subscribed = False
            self.pending.clear()
            self.keep(self.fills.disconnected())

    def pause(self, seconds: float) -> None:
        """Time passes, and what has been decided is kept."""
        self.now = round(self.now + seconds, 3)
        self.keep(self.fills.look(self.now))

    def shown(self, lag: int = 0, most: int = 100) -> list[Trade]:
        """What REST shows: the newest trades but for so many, newest first."""
        upto = len(self.made) - lag
        newest = self.made[max(0, upto - most) : max(0, upto)]
        return self.arranged([trade_of(trade.text(self.rest).encode()) for trade in reversed(newest)])

    def ask(self, lag: int = 0, most: int = 100) -> bool:
        if not self.fills.wants(self.now):
            return False
        rows, _ = self.fills.answered(self.shown(lag, most), self.now)
        self.keep(rows)
        return True

    def kill(self, lost: int = 0) -> None:
        """The process is gone, and its last rows so many with it."""
        del self.rows[len(self.rows) - lost :]
        self.online = self.subscribed = False
        self.pending.clear()
        self._begin()

    def settle(self) -> None:
        """All goes well from now on."""
        self.pause(0.05)
        if not self.online:
            self.connect()
        self.subscribe()
        for _ in range(3 * MOST_TRIES):
            self.pause(0.6)
            self.trade()
            self.deliver()
            self.ask()
        self.pause(SETTLES_S)

    # -- what is in the rows

    def numbers(self, mt: Mt) -> list[int]:
        return [trade.number for m in self.texts(mt) for trade in self._found(mt, m)]

    def texts(self, mt: Mt) -> list[bytes]:
        return [row.m for row in self.rows if row.mt == mt]

    def _found(self, mt: Mt, m: bytes) -> list[Made]:
        said = json.loads(m)
        pieces = said["data"] if mt == Mt.DEAL else [said]
        return [Made(int(piece.get("i", 0) or 0), piece["t"], piece["v"]) for piece in pieces]

    def alike(self, mt: Mt) -> Counter[tuple[int, int]]:
        return Counter(trade.alike for m in self.texts(mt) for trade in self._found(mt, m))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [said for m in self.texts(Mt.EVENT) if (said := json.loads(m))["event"] == name]

    def check(self) -> None:
        """Each trade from the first recorded to the last is in the rows once, or within a stretch that is said."""
        brought, fetched = self.numbers(Mt.DEAL), self.numbers(Mt.REPAIRED)
        assert max(Counter(brought + fetched).values(), default=0) <= 1
        made = {trade.number: trade for trade in self.made}
        assert set(fetched) <= set(made)
        for m in self.texts(Mt.REPAIRED):
            assert m == made[int(json.loads(m)["i"])].text(self.rest).encode()
        if not brought:
            return
        unfilled = [(said["from"], said["to"]) for said in self.events("unfilled")]
        for trade in self.made:
            if min(brought) <= trade.number <= max(brought) and trade.number not in {*brought, *fetched}:
                assert any(first <= trade.time_ms <= last for first, last in unfilled), trade


def recording(socket: str = "text", rest: str = "text") -> World:
    """A world in which deals have come over a connection for a while."""
    world = World(socket, rest)
    world.trades(5)  # of before the recording
    world.connect()
    world.subscribe()
    world.trades(5)
    world.deliver()
    return world


@pytest.mark.parametrize("rest", ["text", "number"])
@pytest.mark.parametrize("socket", ["text", "number"])
def test_what_was_traded_without_a_connection_is_kept_as_rest_spells_it(socket: str, rest: str) -> None:
    world = recording(socket, rest)
    world.disconnect()
    world.pause(1)
    missed = world.trade(3)
    world.pause(1)
    world.connect()
    assert not world.ask(), "not before the subscription stands, or what comes between would be in neither"
    world.subscribe()
    assert world.ask()
    assert world.numbers(Mt.REPAIRED) == []
    world.pause(0.1)
    world.trade()
    world.deliver()
    world.pause(LOOK_S)
    assert world.numbers(Mt.REPAIRED) == [trade.number for trade in missed]
    assert world.ask(), "the first answer was of before the first deal"
    world.pause(LOOK_S)
    (said,) = world.events("filled")
    assert said["count"] == 3
    assert said["from"] < missed[0].time_ms < said["to"]
    assert not world.events("unfilled")
    assert world.fills.wait_s is None
    world.check()


def test_nothing_is_missing_before_the_beginning_of_a_recording() -> None:
    world = recording()
    assert not world.fills.wants(world.now)
    assert world.fills.wait_s is None
    world.kill(lost=1_000)
    world.settle()
    assert not world.texts(Mt.REPAIRED)
    assert not world.events("filled")


def test_what_rest_shows_before_the_socket_brings_it_is_not_missing() -> None:
    world = recording()
    world.connect()
    world.subscribe()
    world.trades(4)
    assert world.ask()
    world.pause(2 * PATIENCE_S)
    assert world.numbers(Mt.REPAIRED) == []
    world.deliver()
    world.settle()
    assert world.numbers(Mt.REPAIRED) == []
    assert [said["count"] for said in world.events("filled")] == [0]
    world.check()


def test_what_a_connection_did_not_bring_to_its_end_is_missing() -> None:
    world = recording()
    world.connect()
    world.subscribe()
    missed = world.trade(2)
    assert world.ask()
    world.disconnect()
    assert world.numbers(Mt.REPAIRED) == [trade.number for trade in missed]
    world.settle()
    world.check()


def test_a_quiet_market_is_waited_for_only_so_long() -> None:
    """A trade of before the subscription will not be pushed any more."""
    world = recording()
    world.disconnect()
    missed = world.trade(1)
    world.pause(3)
    world.connect()
    world.subscribe()
    assert world.ask()
    world.pause(PATIENCE_S - 0.1)
    assert world.numbers(Mt.REPAIRED) == []
    world.pause(0.2)
    assert world.numbers(Mt.REPAIRED) == [missed[0].number]
    world.settle()
    world.check()


def test_what_no_answer_reaches_is_said_with_its_times() -> None:
    world = recording()
    last = world.made[-1]
    world.disconnect()
    world.trades(150)
    world.pause(1)
    world.connect()
    world.subscribe()
    assert world.ask()
    (said,) = world.events("unfilled")
    assert said == {
        "event": "unfilled",
        "channel": "push.deal",
        "from": last.time_ms,
        "to": world.made[-100].time_ms,
        "reason": "at most 100 trades could be asked for",
    }
    world.settle()
    assert len(world.numbers(Mt.REPAIRED)) == 100
    assert len(world.events("unfilled")) == 1
    world.check()


def test_an_answer_that_lags_is_asked_for_again_and_given_up_in_the_end() -> None:
    world = recording()
    world.disconnect()
    world.trades(3)
    world.connect()
    world.subscribe()
    world.trades(2)
    world.deliver()
    world.pause(LOOK_S)
    for _ in range(MOST_TRIES):
        assert not world.events("unfilled")
        assert world.ask(lag=4)
        world.pause(LOOK_S)
    assert not world.ask()
    (said,) = world.events("unfilled")
    assert said["reason"] == "REST lags behind the socket"
    assert said["from"] == world.made[-5].time_ms, "it showed one of the three"
    assert len(world.numbers(Mt.REPAIRED)) == 1
    assert [said["count"] for said in world.events("filled")] == [1]
    world.check()


def test_without_an_answer_the_stretch_is_said() -> None:
    world = recording()
    last = world.made[-1]
    world.connect()
    world.subscribe()
    for _ in range(2 * MOST_TRIES):
        if world.fills.wants(world.now):
            world.keep(world.fills.failed("HTTP 403"))
    assert not world.events("unfilled"), "nothing says yet until when trades are missing"
    status = world.fills.status
    assert (status.unfilled, status.why, status.open, status.trouble) == (0, None, True, "HTTP 403")
    world.trades(1)
    world.deliver()
    world.pause(LOOK_S)
    for _ in range(MOST_TRIES):
        assert world.fills.wants(world.now)
        world.keep(world.fills.failed("HTTP 403"))
    assert not world.fills.wants(world.now)
    (said,) = world.events("unfilled")
    assert (said["from"], said["to"], said["reason"]) == (last.time_ms, world.made[-1].time_ms, "HTTP 403")
    status = world.fills.status
    assert (status.unfilled, status.why, status.open, status.trouble) == (1, "HTTP 403", False, None)


def test_ids_that_begin_anew_are_told_by_time() -> None:
    world = recording()
    world.disconnect()
    lost = world.trade(1)  # at the time of the last one that came
    world.pause(1)
    world.number = 1000
    lost += world.trade(2)
    world.pause(1)
    world.settle()
    world.pause(PASSED_MS / 1000)
    world.settle()
    assert sorted(world.numbers(Mt.REPAIRED)) == sorted(trade.number for trade in lost)
    made = {trade.number for trade in world.made[5:]}
    assert {*world.numbers(Mt.DEAL), *world.numbers(Mt.REPAIRED)} == made
    assert not world.events("unfilled")


@pytest.mark.parametrize("socket", ["none", "text"])
def test_without_ids_only_what_lies_strictly_between_connections_is_kept(socket: str) -> None:
    world = recording(socket, "none")
    world.trade(1, volume=7)  # at the very time of the last one that comes
    world.deliver()
    world.disconnect()
    doubtful = world.trade(1, volume=8)
    world.pause(1)
    world.trade(3, volume=9)
    world.pause(1)
    doubtful += world.trade(1, volume=10)
    world.connect()
    world.subscribe()
    world.trade(1, volume=11)
    world.deliver()
    world.pause(LOOK_S)
    assert world.ask() == (socket == "text"), "others of about that time may still come"
    assert not world.texts(Mt.REPAIRED)
    world.pause(SETTLES_S)
    assert world.ask() == (socket == "none")
    assert world.alike(Mt.REPAIRED) == {(world.made[-3].time_ms, 9): 3}
    (said,) = world.events("unfilled")
    assert (said["count"], said["from"], said["to"]) == (2, doubtful[0].time_ms, doubtful[1].time_ms)
    assert [said["count"] for said in world.events("filled")] == [3]


def test_without_ids_nothing_is_kept_of_a_doubt_within_a_connection() -> None:
    world = recording(rest="none")
    world.fills.in_doubt()
    world.pause(1)
    world.trade(2)
    world.pending.clear()
    world.settle()
    assert not world.texts(Mt.REPAIRED)
    (said,) = world.events("unfilled")
    assert said["count"] == 2


def test_without_ids_a_frame_that_could_not_be_held_leaves_all_open() -> None:
    world = recording("none", "none")
    large = f'{{"symbol":"X","data":[{world.made[-1].text(IDS["none"])}],"x":"{"x" * LONGEST_RETAINED}"}}'.encode()
    world.checks.by_channel["push.deal"](large)
    world.disconnect()
    world.pause(1)
    world.trade(2)
    world.settle()
    assert not world.texts(Mt.REPAIRED)
    assert sum(said["count"] for said in world.events("unfilled")) == 2


def test_what_was_kept_before_a_kill_is_not_kept_again() -> None:
    for rest in ("text", "none"):
        world = recording(rest=rest)
        world.disconnect()
        world.pause(1)
        world.trade(1)
        world.pause(0.5)
        world.trade(2)
        world.settle()
        kept = world.alike(Mt.REPAIRED)
        assert kept.total() == 3
        for lost in range(1, 6):
            again = World(rest=rest)
            again.made, again.now, again.number = list(world.made), world.now, world.number
            filled = next(n for n, row in enumerate(world.rows) if row.m.startswith(b'{"event":"filled"'))
            again.rows = world.rows[: filled + 1]
            again.kill(lost)
            again.settle()
            assert max(again.alike(Mt.REPAIRED).values()) <= 2, rest
            if rest == "text":
                again.check()


def test_hostile_answers_are_bounded() -> None:
    world = recording()
    world.connect()
    world.subscribe()
    far = [Made(10**18 + n, MS + 10**9) for n in range(MOST_WAITING + 5)]
    trades = [trade_of(trade.text(IDS["text"]).encode()) for trade in far]
    rows, _ = world.fills.answered(trades + world.shown(), world.now)
    world.keep(rows)
    assert [said["count"] for said in world.events("unfilled")] == [5]
    world.trades(1)
    world.deliver()
    world.pause(LOOK_S)
    assert world.ask()
    world.disconnect()
    assert len(world.texts(Mt.REPAIRED)) == MOST_WAITING, "as the exchange said so"
    assert world.fills.wait_s is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("trades"), st.integers(1, 40)),
        st.tuples(st.just("burst"), st.integers(1, 5)),
        st.tuples(st.just("pause"), st.integers(1, 120)),
        st.tuples(st.just("deliver"), st.integers(1, 30)),
        st.tuples(st.just("drop"), st.integers(1, 3)),
        st.tuples(st.just("ask"), st.integers(0, 30)),
        st.tuples(st.just("fail"), st.just(0)),
        st.tuples(st.just("doubt"), st.just(0)),
        st.tuples(st.sampled_from(["connect", "subscribe", "disconnect"]), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 6)),
    ),
    max_size=40,
)


def play(world: World, steps: list[tuple[str, int]]) -> None:
    for what, n in steps:
        match what:
            case "trades":
                world.trades(n)
            case "burst":
                world.trade(n)
            case "pause":
                world.pause(n / 10)
            case "deliver":
                world.deliver(n)
            case "drop":
                del world.pending[: n if world.rows and world.online else 0]
                world.fills.in_doubt()
            case "ask":
                world.ask(n)
            case "fail":
                if world.fills.wants(world.now):
                    world.keep(world.fills.failed("HTTP 500"))
            case "doubt":
                world.fills.in_doubt()
            case "kill":
                world.kill(min(n, len(world.rows)))
            case _:
                getattr(world, what)()
    world.settle()


@settings(max_examples=examples(150))
@given(STEPS, st.sampled_from(["text", "number"]), st.sampled_from(["text", "number"]))
def test_each_trade_is_there_once_or_said_to_be_missing(steps: list[tuple[str, int]], socket: str, rest: str) -> None:
    world = World(socket, rest)
    play(world, steps)
    world.check()
    assert world.fills.wait_s is None, "nothing is left in doubt"


@settings(max_examples=examples(100))
@given(STEPS, st.sampled_from(["text", "none"]))
def test_without_ids_no_trade_is_invented(steps: list[tuple[str, int]], socket: str) -> None:
    world = World(socket, "none")
    play(world, steps)
    made = Counter(trade.alike for trade in world.made)
    assert world.alike(Mt.DEAL) + world.alike(Mt.REPAIRED) <= made


OFFSETS = [10**10, -(10**9), 1, -1, 7, -7, 14, -21, 70]
NUMBERINGS: list[Callable[[int], object]] = [
    lambda number: number,
    *(lambda number, by=by: number + by for by in OFFSETS),
    lambda number: 0,
    lambda number: number // 21,
    lambda number: number % 35,
    lambda number: 32_000_000_000 - number,
    lambda number: number if number < 16_000_000_200 else number + 7,
    lambda number: number * 7_919 % 10_007,
    lambda number: "",
]
"""Relations of the ids of one side to the true ones."""


IN_ORDER = range(16_000_000_007, 16_000_000_700, 7)


def spelled(numbering: Callable[[int], object]) -> Id:
    return lambda number: f',"i":"{numbering(number)}"'


ROUND = st.tuples(
    st.integers(1, 30).map(lambda n: [("trades", n), ("deliver", 1_000)]),
    st.sampled_from(
        [[("disconnect", 0)], [("doubt", 0)], [("drop", 2)], [("kill", 2)], [("burst", 3), ("disconnect", 0)]]
    ),
    st.one_of(st.integers(0, 120).map(lambda n: [("trades", n)]), st.integers(1, 5).map(lambda n: [("burst", n)])),
    st.just([("pause", 3), ("connect", 0), ("subscribe", 0)]),
    STEPS.map(lambda steps: steps[:6]),
    st.integers(0, 5).map(lambda n: [("ask", n), ("trades", n), ("deliver", 1_000), ("pause", 15), ("ask", n)]),
)
ROUNDS = st.lists(ROUND, min_size=1, max_size=4).map(
    lambda rounds: [("connect", 0), ("subscribe", 0), *(step for parts in rounds for part in parts for step in part)]
)


@settings(max_examples=examples(150), deadline=None)
@given(st.one_of(ROUNDS, STEPS), st.sampled_from(NUMBERINGS), st.sampled_from(NUMBERINGS), st.booleans())
def test_whatever_ids_the_two_sides_have_no_trade_is_there_twice_nor_invented(
    steps: list[tuple[str, int]], socket: Callable[[int], object], rest: Callable[[int], object], told_apart: bool
) -> None:
    """Also trades of which nothing but the id tells one from the other: no more are there than were made."""
    world = World()
    world.socket, world.rest, world.told_apart = spelled(socket), spelled(rest), told_apart
    play(world, steps)
    made = Counter(trade.alike for trade in world.made)
    there = world.alike(Mt.DEAL) + world.alike(Mt.REPAIRED)
    assert there <= made
    unfilled = [(said["from"], said["to"]) for said in world.events("unfilled")]
    times = [time_ms for time_ms, _ in world.alike(Mt.DEAL)]
    in_order = socket is not rest or sorted(map(str, map(socket, IN_ORDER))) == list(map(str, map(socket, IN_ORDER)))
    for time_ms, _ in made - there:
        if in_order and times and min(times) < time_ms < max(times):
            assert any(first <= time_ms <= last for first, last in unfilled), time_ms
    assert world.fills.wait_s is None, "nothing is left in doubt"


@pytest.mark.parametrize("by", OFFSETS)
def test_another_numbering_is_found_out(by: int) -> None:
    world = recording()
    world.rest = spelled(lambda number: number + by)
    world.told_apart = True
    for _ in range(3):
        world.trades(5)
        world.deliver()
        world.connect()
        world.subscribe()
        world.ask()
        world.settle()
    assert world.alike(Mt.DEAL) + world.alike(Mt.REPAIRED) <= Counter(trade.alike for trade in world.made)


def test_ids_that_two_trades_share_are_none() -> None:
    """Said once; what is missing is then told as without ids."""
    world = World()
    world.socket = spelled(lambda number: 0)
    world.told_apart = True
    world.connect()
    world.subscribe()
    world.trades(5)
    world.deliver()
    assert not world.checks.deals.unique
    world.disconnect()
    world.pause(1)
    missed = world.trade(3)
    world.pause(1)
    world.settle()
    assert world.alike(Mt.REPAIRED) == Counter(trade.alike for trade in missed)
    assert world.checks.repeated(world.now) is None, "no deal came again"
    assert len(world.events("ids_shared")) == 1


@pytest.mark.parametrize("rest", IDS)
@pytest.mark.parametrize(
    "arranged",
    [
        lambda trades: trades[::-1],
        lambda trades: sorted(trades, key=lambda trade: trade.time_ms * 7_919 % 101),
        lambda trades: [*trades, *trades],
        lambda trades: [trade for trade in trades for _ in range(2)],
    ],
    ids=["oldest first", "shuffled", "all twice", "each twice"],
)
def test_neither_the_order_of_an_answer_nor_what_it_says_twice_makes_a_trade(
    rest: str, arranged: Callable[[list[Trade]], list[Trade]]
) -> None:
    """One that REST lists twice was kept twice, where its ids were not believed for that very reason."""
    world = recording(rest=rest)
    world.told_apart, world.arranged = True, arranged
    for _ in range(2):
        world.disconnect()
        world.pause(1)
        world.trades(4)
        world.pause(1)
        world.settle()
    made = Counter(trade.alike for trade in world.made[5:])
    there = world.alike(Mt.DEAL) + world.alike(Mt.REPAIRED)
    if rest == "none" and len(arranged(world.shown()[:1])) > 1:
        return  # two that agree in everything are two then
    assert there == made


def test_tries_of_all_sessions_count_where_each_is_too_short() -> None:
    world = recording()
    for _ in range(3):
        world.connect()
        world.subscribe()
        world.trades(1)
        world.deliver()
        world.pause(LOOK_S)
        for _ in range(MOST_TRIES // 2):
            if world.fills.wants(world.now):
                world.keep(world.fills.failed("HTTP 510"))
    assert world.events("unfilled"), "not put off from session to session"
    world.settle()
    world.check()
