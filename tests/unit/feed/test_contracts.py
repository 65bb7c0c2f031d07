"""The host's copy of the list of contracts: asked for once, shared, and nothing of it stands in anybody's way."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mexc_pipeline import config
from mexc_pipeline.egress.dial import EgressError, dial
from mexc_pipeline.egress.http import HttpAnswer, RestClient
from mexc_pipeline.exchange.contracts import DETAILS_PATH
from mexc_pipeline.exchange.rest import detail_path
from mexc_pipeline.feed import contracts as module
from mexc_pipeline.feed.contracts import FAILED_S, FRESH_S, KNOWN_S, HostContracts

BTC = b'{"symbol":"BTC_USDT","contractSize":0.0001}'
ETH = b'{"symbol":"ETH_USDT","contractSize":0.01}'
URLS = ("https://one", "https://two")
ONE = detail_path("BTC_USDT")


class Exchange:
    """REST of an exchange, and the clock of a host; ``data`` by path, None: not reached."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.data: dict[str, bytes | None] = {DETAILS_PATH: b"[%s,%s]" % (BTC, ETH)}
        self.asked: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def clock(self) -> float:
        return self.now


class Rest(RestClient):
    def __init__(self, exchange: Exchange) -> None:
        settings = config.parse("", None)
        super().__init__(settings.symbols[0].egress, settings.exchange, dial)
        self.exchange = exchange

    def get(self, path: str, within_s: float = 5.0) -> HttpAnswer:
        self.exchange.asked.append(path)
        self.exchange.meanwhile()
        data = self.exchange.data.get(path)
        if data is None:
            raise EgressError("not reached")
        code = b'{"success":true,"code":0,"data":%s}' % data if data else b'{"success":false,"code":1001}'
        return HttpAnswer(200, {}, code, self.url, 0, 0)


class Host:
    """A host of one exchange, with any number of processes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "control" / "contracts"
        self.exchange = Exchange()
        self.stop = threading.Event()

    def process(self, urls: tuple[str, ...] = URLS) -> HostContracts:
        return HostContracts(self.path, Rest(self.exchange), urls, self.exchange.clock)

    def ask(self, name: str = "BTC_USDT", process: HostContracts | None = None) -> tuple[str, bytes | None]:
        found = (process or self.process()).ask(name, self.stop)
        return found.listing.verdict, found.m


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_any_number_of_processes_ask_once_in_an_hour(host: Host) -> None:
    first = host.process()
    assert host.ask("BTC_USDT", first) == ("listed", BTC)
    host.exchange.now += FRESH_S - 1
    assert [host.ask(name) for name in ("BTC_USDT", "ETH_USDT", "ETH_USDT")] == [
        ("listed", BTC),
        ("listed", ETH),
        ("listed", ETH),
    ]
    assert host.exchange.asked == [DETAILS_PATH]
    assert first.due_s("BTC_USDT") == 1
    host.exchange.now += 1
    host.exchange.data[DETAILS_PATH] = b"[%s]" % BTC.replace(b"0.0001", b"0.001")
    assert host.ask("BTC_USDT", first) == ("listed", BTC.replace(b"0.0001", b"0.001"))
    assert host.ask() == ("listed", BTC.replace(b"0.0001", b"0.001"))
    assert host.exchange.asked == [DETAILS_PATH] * 2


def test_processes_that_come_at_once_ask_once(host: Host) -> None:
    """All begin while the first one waits for its answer."""
    entered, go = threading.Event(), threading.Event()
    found: list[tuple[str, bytes | None]] = []

    def meanwhile() -> None:
        entered.set()
        assert go.wait(40)

    host.exchange.meanwhile = meanwhile
    threads = [threading.Thread(target=lambda: found.append(host.ask())) for _ in range(4)]
    threads[0].start()
    assert entered.wait(40)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(40)
    assert found == [("listed", BTC)] * 4
    assert host.exchange.asked == [DETAILS_PATH]


def test_what_failed_just_now_is_not_tried_by_everybody(host: Host) -> None:
    host.exchange.data = {}
    one, other = host.process(), host.process()
    assert host.ask("BTC_USDT", one) == host.ask("ETH_USDT", other) == ("unknown", None)
    assert host.exchange.asked == [DETAILS_PATH]
    assert other.ask("ETH_USDT", host.stop).listing.said == "not reached"
    host.exchange.now += FAILED_S
    host.exchange.data = {DETAILS_PATH: b"[%s]" % ETH}
    assert host.ask("ETH_USDT", other) == ("listed", ETH)
    assert host.exchange.asked == [DETAILS_PATH] * 2


def test_an_older_copy_is_gone_by_for_a_day(host: Host) -> None:
    process = host.process()
    assert host.ask("BTC_USDT", process) == ("listed", BTC)
    host.exchange.data = {}
    host.exchange.now += KNOWN_S - 1
    assert host.ask("BTC_USDT", process) == host.ask() == ("listed", BTC)
    assert process.due_s("BTC_USDT") <= 0
    host.exchange.now += FAILED_S
    assert host.ask("BTC_USDT", process) == host.ask() == ("unknown", None)


def test_a_contract_that_is_not_in_the_list_is_asked_for_by_itself(host: Host) -> None:
    host.exchange.data = {DETAILS_PATH: b"[%s]" % ETH, ONE: b""}
    process = host.process()
    assert host.ask("BTC_USDT", process) == ("unlisted", None)
    assert process.ask("BTC_USDT", host.stop).listing.said == "code 1001"
    host.exchange.data[ONE] = None
    assert host.ask("BTC_USDT", process) == ("unknown", None)
    host.exchange.data[ONE] = BTC
    assert host.ask("BTC_USDT", process) == ("listed", BTC)
    assert host.ask("BTC_USDT", process) == ("listed", BTC)
    assert host.exchange.asked == [DETAILS_PATH, ONE, ONE, ONE]


def test_a_machine_that_was_started_again_or_another_exchange_has_no_copy(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.ask()
    assert host.ask("BTC_USDT", host.process(("https://three",))) == ("listed", BTC)
    assert len(host.exchange.asked) == 2
    host.exchange.now = 10.0  # as no clock since a start ever does
    host.ask("BTC_USDT", host.process(("https://three",)))
    assert len(host.exchange.asked) == 3
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    host.ask("BTC_USDT", host.process(("https://three",)))
    assert len(host.exchange.asked) == 4


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda held: b"",
    "half": lambda held: held[: len(held) // 2],
    "header alone": lambda held: held.partition(b"\n")[0],
    "one bit": lambda held: held[:-20] + bytes([held[-20] ^ 1]) + held[-19:],
    "no header": lambda held: held.partition(b"\n")[2],
    "deep": lambda held: b"[" * 100_000,
    "longer": lambda held: held + b" ",
    "of no time": lambda held: held.replace(b'"at":5000.0', b'"at":1e999'),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_copy_is_none(host: Host, what: str) -> None:
    host.ask()
    host.path.write_bytes(DAMAGE[what](host.path.read_bytes()))
    assert host.ask() == ("listed", BTC)
    assert host.exchange.asked == [DETAILS_PATH] * 2
    assert host.ask() == ("listed", BTC)
    assert host.exchange.asked == [DETAILS_PATH] * 2, "it was put right"


@pytest.mark.parametrize("what", ["folder", "fifo", "link", "lock folder", "lock fifo", "no folder", "full"])
def test_a_file_that_cannot_be_used_leaves_each_process_to_itself(
    host: Host, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = host.path.with_name("contracts.lock") if "lock" in what else host.path
    if what == "no folder":
        host.path.parent.write_text("in the way")
    else:
        place.parent.mkdir()
        match what.rpartition(" ")[2]:
            case "folder":
                place.mkdir()
                (place / "something").touch()
            case "fifo":
                os.mkfifo(place)
            case "link":
                place.symlink_to("/dev/full")
            case "full":
                place.with_name("contracts.new").mkdir()  # cannot be written, whatever the reason
    process = host.process()
    assert host.ask("BTC_USDT", process) == ("listed", BTC)
    assert (process.trouble is None) == (what in ("fifo", "link", "lock fifo")), process.trouble  # what is replaced
    assert host.ask("BTC_USDT", process) == ("listed", BTC)
    assert host.exchange.asked == [DETAILS_PATH], "once an hour all the same"


def test_one_that_stands_still_is_not_waited_for_for_ever(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    host.path.parent.mkdir()
    with host.path.with_name("contracts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = host.process()
        assert host.ask("BTC_USDT", process) == ("listed", BTC)
        assert not host.path.exists(), "whoever holds the lock writes"
        host.stop.set()
        assert host.ask() == ("unknown", None)


def test_the_file_says_what_it_is(host: Host) -> None:
    host.ask()
    header, _, data = host.path.read_bytes().partition(b"\n")
    assert data == b"[%s,%s]" % (BTC, ETH)
    assert json.loads(header)["urls"] == list(URLS)
    assert sorted(path.name for path in host.path.parent.iterdir()) == ["contracts", "contracts.lock"]
