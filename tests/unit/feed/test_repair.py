"""How what is missing is asked for: the exchange's patience and its allowance are kept, and answers reach the rows."""

from __future__ import annotations

import threading
import time

import pytest

from mexc_pipeline import config
from mexc_pipeline.egress.dial import EgressError, dial
from mexc_pipeline.egress.http import HttpAnswer, RestClient
from mexc_pipeline.exchange import fills as filling
from mexc_pipeline.exchange import recovery
from mexc_pipeline.exchange.checks import FollowUp
from mexc_pipeline.exchange.depth import Deals, MissingVersions
from mexc_pipeline.exchange.fills import Fills
from mexc_pipeline.exchange.holes import MOST_TRIES, Row
from mexc_pipeline.exchange.recovery import BURST, EACH_S, Recovery
from mexc_pipeline.feed.repair import Repairer
from mexc_pipeline.rows import Mt
from support.waiting import until


class GivenRest(RestClient):
    """Answers that the test gives."""

    def __init__(self) -> None:
        settings = config.parse("", None)
        super().__init__(settings.symbols[0].egress, settings.exchange, dial)
        self.data = b"null"
        self.status_code = 200
        self.wait_s = 0.0
        self.asked: list[str] = []

    @property
    def patience_s(self) -> float:
        return self.wait_s

    def get(self, path: str, within_s: float = 5.0) -> HttpAnswer:
        self.asked.append(path)
        if not self.data:
            raise EgressError("not reached")
        body = b'{"success":true,"code":0,"data":%s}' % self.data
        return HttpAnswer(self.status_code, {}, body, self.url, time.time_ns(), time.time_ns())


class Rig:
    def __init__(self) -> None:
        self.kept: list[Row] = []
        self.came = threading.Event()
        self.rest = GivenRest()
        self.recovery = Recovery("BTC_USDT")
        self.repairer = Repairer("btc", self.rest, self.keep, lambda: 0, self.recovery)

    def keep(self, rows: list[Row]) -> None:
        self.kept += rows
        if rows:
            self.came.set()

    def missing(self, first: int, last: int) -> None:
        self.repairer.found(FollowUp(gap=MissingVersions(first, last)))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_nothing_is_given_up_while_the_exchange_asks_for_patience(rig: Rig) -> None:
    """A try that is refused counts, one that is not made does not."""
    rig.missing(4000, 4009)
    (request,) = rig.recovery.requests()
    rig.rest.wait_s, rig.rest.status_code = 600.0, 429
    for _ in range(MOST_TRIES + 1):
        assert rig.repairer.ask(request) == 600.0
    assert rig.rest.asked == []
    assert rig.repairer.status() == {
        "seen": 1,
        "open": 1,
        "trouble": f"{rig.rest.url} asks for patience",
        "no_book": None,
    }
    rig.rest.wait_s = 0.0
    assert rig.repairer.ask(request) >= 2.0, "the window in which requests are counted"
    assert rig.rest.asked == [request.path]
    assert rig.repairer.status() == {"seen": 1, "open": 1, "trouble": "HTTP 429", "no_book": None}


def test_requests_keep_to_their_allowance(rig: Rig) -> None:
    """Also those that were answered as they should be."""
    rig.rest.data = b'[{"version":9}]'
    pauses = []
    for at in range(BURST + 1):
        rig.missing(at, at)
        pauses.append(rig.repairer.ask(rig.recovery.requests()[0]))
    assert pauses[0] == 0.0
    assert pauses[-1] > 0.9 * EACH_S


def test_what_no_answer_brings_is_given_up_and_said(rig: Rig) -> None:
    rig.rest.data = b""
    rig.missing(4, 5)
    (request,) = rig.recovery.requests()
    for _ in range(MOST_TRIES):
        assert rig.kept == []
        rig.repairer.ask(request)
    assert [mt for mt, _ in rig.kept] == [Mt.EVENT]
    assert b'"reason":"not reached"' in rig.kept[0][1]


def test_a_book_is_asked_for_again_after_all_tries_and_that_there_is_none_is_said(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what goes missing meanwhile is not kept waiting for it."""
    monkeypatch.setattr(recovery, "BOOK_S", 0.3)
    rig.rest.data = b""
    rig.repairer.found(FollowUp(book=7))
    for _ in range(MOST_TRIES):
        assert rig.repairer.status()["no_book"] is None
        rig.repairer.ask(rig.recovery.requests()[0])
    assert rig.repairer.status()["no_book"]["why"] == "not reached"
    assert rig.repairer.status()["no_book"]["for_s"] >= 0
    thread = threading.Thread(target=rig.repairer.run, daemon=True)
    rig.rest.data = b'{"version":9}'
    thread.start()
    assert rig.came.wait(20)
    assert b'"event":"snapshot"' in rig.kept[0][1]
    until(lambda: rig.repairer.status()["no_book"] is None, 5, "the word that there is one")
    rig.repairer.close()
    thread.join(20)
    assert not thread.is_alive()


def test_a_book_that_is_put_off_holds_up_nothing_else(rig: Rig) -> None:
    rig.rest.data = b""
    rig.repairer.found(FollowUp(book=7))
    for _ in range(MOST_TRIES + 4):
        pause = rig.repairer.ask(rig.recovery.requests()[0])
    assert pause <= 2.0
    rig.rest.data = b'[{"version":4},{"version":5}]'
    thread = threading.Thread(target=rig.repairer.run, daemon=True)
    thread.start()
    rig.missing(4, 5)
    assert rig.came.wait(20)
    assert [mt for mt, _ in rig.kept] == [Mt.REPAIRED, Mt.REPAIRED, Mt.EVENT]
    assert "commits" in rig.rest.asked[-1], "the book is not due yet"
    rig.repairer.close()
    thread.join(20)
    assert not thread.is_alive()


def test_the_thread_asks_for_what_is_missing_until_it_is_closed(rig: Rig) -> None:
    rig.rest.data = b'[{"version":4},{"version":5}]'
    thread = threading.Thread(target=rig.repairer.run, daemon=True)
    thread.start()
    rig.missing(4, 5)
    assert rig.came.wait(20)
    assert [mt for mt, _ in rig.kept] == [Mt.REPAIRED, Mt.REPAIRED, Mt.EVENT]
    assert rig.repairer.close() == []
    thread.join(20)
    assert not thread.is_alive()


def test_what_comes_after_the_end_is_not_kept(rig: Rig) -> None:
    rig.missing(4, 5)
    (request,) = rig.recovery.requests()
    assert [mt for mt, _ in rig.repairer.close()] == [Mt.EVENT]
    rig.rest.data = b'[{"version":4},{"version":5}]'
    rig.repairer.ask(request)
    assert rig.kept == []


class TradesRig(Rig):
    """A repairer of trades, of which one came before a connection ended and one after the next began."""

    def __init__(self) -> None:
        super().__init__()
        self.deals = Deals()
        fills = Fills(self.deals)
        self.repairer = Repairer("btc", self.rest, self.keep, lambda: 0, self.recovery, fills, "BTC_USDT")
        self.repairer.connected()
        self.deals.frame(frame(1))
        self.repairer.connected()
        self.repairer.subscribed(None)
        self.thread = threading.Thread(target=self.repairer.run, daemon=True)

    def events(self) -> list[bytes]:
        return [m for mt, m in self.kept if mt == Mt.EVENT]

    def close(self) -> None:
        self.repairer.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


def piece(number: int) -> bytes:
    return b'{"p":1,"v":1,"T":1,"O":1,"M":1,"t":17883350000%02d,"i":"%d"}' % (number, number)


def frame(number: int) -> bytes:
    return b'{"data":[%b]}' % piece(number)


NO_TROUBLE = {"trouble": None, "ids_shared": False}


def test_the_thread_asks_for_trades_and_keeps_what_is_missing() -> None:
    rig = TradesRig()
    rig.rest.data = b"[%b]" % b",".join(map(piece, (3, 2, 1)))
    rig.thread.start()
    rig.deals.frame(frame(3))
    until(lambda: rig.events(), 20, "the word that it is known what is missing")
    rig.close()
    assert rig.rest.asked[0] == "/api/v1/contract/deals/BTC_USDT?limit=100"
    assert rig.kept[0] == (Mt.REPAIRED, piece(2))
    assert rig.events() == [
        b'{"event":"filled","channel":"push.deal","from":1788335000001,"to":1788335000003,"count":1}'
    ]
    assert rig.repairer.trades() == {"filled": 1, "unfilled": 0, "why": None, "open": False} | NO_TROUBLE


def test_trades_that_are_asked_for_in_vain_hold_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "MOST_TRIES", 2)
    rig = TradesRig()
    rig.deals.frame(frame(3))
    rig.rest.data = b""
    pauses = [rig.repairer.ask_trades() for _ in range(2)]
    assert max(pauses) == 0.0
    assert rig.events() == []
    rig.rest.data = b"[%b]" % piece(1)
    rig.thread.start()
    until(lambda: len(rig.events()) == 2, 30, "the end of the stretch")
    rig.close()
    assert b'"reason":"REST lags behind the socket"' in rig.events()[0]
    assert b'"count":0' in rig.events()[1]


def test_nothing_is_asked_for_trades_while_the_exchange_asks_for_patience() -> None:
    rig = TradesRig()
    rig.rest.wait_s = 600.0
    assert rig.repairer.ask_trades() == 600.0
    assert rig.rest.asked == []
    rig.rest.status_code, rig.rest.wait_s = 429, 0.0
    assert rig.repairer.ask_trades() >= 2.0


def test_that_there_is_no_book_is_said_however_short_the_sessions_are(rig: Rig) -> None:
    """A connection that asks for another book, or a gap that is given up, does not end that there is none."""
    rig.rest.data = b""
    for session in range(MOST_TRIES):
        rig.repairer.found(FollowUp(book=7 + session))
        rig.repairer.ask(rig.recovery.requests()[-1])
    said = rig.repairer.status()["no_book"]
    assert said is not None
    rig.repairer.give_up("no room")
    assert rig.repairer.status()["no_book"] is None, "none is wanted"
    rig.repairer.found(FollowUp(book=99))
    assert rig.repairer.status()["no_book"]["for_s"] >= said["for_s"]
    rig.rest.data = b'{"version":100}'
    rig.repairer.ask(rig.recovery.requests()[-1])
    assert rig.repairer.status()["no_book"] is None
