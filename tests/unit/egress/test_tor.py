"""Leaving through Tor: never by an exit that is not ours, and never without knowing which."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mexc_pipeline.config import Egress
from mexc_pipeline.egress import tor
from mexc_pipeline.egress.dial import EgressError
from mexc_pipeline.egress.http import get
from mexc_pipeline.egress.tor import Tor, address_in, choose
from mexc_pipeline.egress.way import dial
from support.fake_tor import CONNECT, RESOLVE, RESOLVE_PTR, FakeTor, fingerprint, owned_by

BTC, ETH = owned_by("btc", 4), owned_by("eth", 3)
URL = "ws://exchange.example:443/edge"
Make = Callable[..., FakeTor]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Make]:
    made: list[FakeTor] = []

    def make(addresses: list[str] = BTC + ETH, **options: str) -> FakeTor:
        made.append(FakeTor(tmp_path, addresses, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def fingerprints(addresses: list[str]) -> tuple[str, ...]:
    return tuple(sorted(map(fingerprint, addresses)))


def test_the_share_is_set_and_the_circuit_probed_before_the_exchange_is_contacted(world: Make) -> None:
    fake = world()
    dialled = Tor(fake.egress()).dial(fake.egress(), URL)
    dialled.sock.close()
    exit_used = dialled.details["exit"]
    assert fake.log == [
        ("setconf", fingerprints(BTC)),
        (RESOLVE, "exchange.example", 0, exit_used),
        (CONNECT, "exchange.example", 443, exit_used),
    ]
    assert exit_used in BTC
    assert dialled.details == {"circuit": "1", "exit": exit_used, "fingerprint": fingerprint(exit_used)}
    assert (dialled.mode, dialled.peer) == ("tor", f"unix:{fake.socks_path}")


def test_an_exchange_given_by_address_is_probed_by_asking_for_its_name(world: Make) -> None:
    fake = world()
    Tor(fake.egress()).dial(fake.egress(), "ws://198.51.100.10:443/").sock.close()
    assert [entry[0] for entry in fake.log] == ["setconf", RESOLVE_PTR, CONNECT]


@pytest.mark.parametrize("have", [0, 2])
def test_with_too_few_exits_nothing_leaves(world: Make, have: int) -> None:
    fake = world(BTC[:have] + ETH)
    with pytest.raises(EgressError, match=f"btc has {have} usable exit addresses .* 3 are needed"):
        Tor(fake.egress()).dial(fake.egress(), URL)
    assert fake.log == []


def test_exits_that_do_not_let_the_port_out_do_not_count(world: Make) -> None:
    fake = world(policy="reject 443")
    with pytest.raises(EgressError, match="0 usable exit addresses for port 443 of 4"):
        Tor(fake.egress()).dial(fake.egress(), URL)
    assert fake.log == []


def test_a_tor_that_is_not_ready_is_waited_for(world: Make) -> None:
    fake = world()
    fake.progress = 45
    with pytest.raises(EgressError, match=r"not ready yet \(45 % done\)"):
        Tor(fake.egress()).dial(fake.egress(), URL)
    assert fake.log == []


def test_without_tor_there_is_no_connection(tmp_path: Path) -> None:
    egress = Egress(mode="tor", symbol="btc", deployment=("btc",), control_socket=f"{tmp_path}/no", socks_socket="/no")
    with pytest.raises(EgressError, match="control socket"):
        Tor(egress).dial(egress, URL)
    with pytest.raises(EgressError, match="control socket"):
        dial(egress, URL)


def test_a_probe_by_somebody_elses_exit_ends_before_the_exchange_is_contacted(world: Make) -> None:
    fake = world()
    fake.leave_by[RESOLVE] = fingerprint(ETH[0])
    with pytest.raises(EgressError, match="does not belong to btc"):
        Tor(fake.egress()).dial(fake.egress(), URL)
    assert fake.connections() == []


def test_a_connection_by_somebody_elses_exit_is_closed(world: Make) -> None:
    fake = world()
    fake.leave_by[CONNECT] = fingerprint(ETH[0])
    with pytest.raises(EgressError, match="does not belong to btc"):
        Tor(fake.egress()).dial(fake.egress(), URL)
    assert len(fake.connections()) == 1


def test_the_exit_of_the_connection_before_is_left_alone(world: Make) -> None:
    fake = world()
    way = Tor(fake.egress())
    used = []
    for _ in range(3):
        dialled = way.dial(fake.egress(), URL)
        dialled.sock.close()
        used.append(dialled.details["exit"])
    assert len(set(used)) == 3
    assert fingerprint(used[1]) not in fake.exit_nodes
    assert way.others(443) == 1


def test_an_exit_by_which_the_exchange_cannot_be_reached_is_left_alone(world: Make) -> None:
    fake = world()
    fake.refuse = 5
    way = Tor(fake.egress())
    for _ in range(2):
        with pytest.raises(EgressError, match="connection refused"):
            way.dial(fake.egress(), URL)
    one, other = fake.connections()
    assert one[3] != other[3]


def test_a_dropped_exit_is_left_alone_while_there_are_others(world: Make) -> None:
    fake = world()
    way = Tor(fake.egress())
    for address in BTC[1:]:
        way.drop(address)
    dialled = way.dial(fake.egress(), URL)
    dialled.sock.close()
    assert dialled.details["exit"] == BTC[0]
    assert fake.exit_nodes == [fingerprint(BTC[0])]


def test_a_request_leaves_what_the_data_socket_chose(world: Make) -> None:
    fake = world()
    way = Tor(fake.egress())
    way.dial(fake.egress(), URL).sock.close()
    way.dial(fake.egress(), URL).sock.close()
    chosen = list(fake.exit_nodes)
    way.request(fake.egress(), URL).sock.close()
    dial(fake.egress(), URL).sock.close()
    assert fake.exit_nodes == chosen
    assert len(chosen) == 3


def test_a_request_corrects_exits_that_are_not_ours(world: Make) -> None:
    fake = world()
    fake.exit_nodes = [fingerprint(BTC[0]), fingerprint(ETH[0])]
    dial(fake.egress(), URL).sock.close()
    assert fake.exit_nodes == list(fingerprints(BTC))


def test_each_connection_has_a_circuit_of_its_own(world: Make) -> None:
    fake = world()
    way = Tor(fake.egress())
    circuits = [way.request(fake.egress(), URL) for _ in range(3)]
    assert len({dialled.details["circuit"] for dialled in circuits}) == 3
    for dialled in circuits:
        dialled.sock.close()


def test_the_echo_tells_what_the_world_sees_before_the_exchange_is_contacted(world: Make) -> None:
    fake = world()
    fake.echo = "192.0.2.77"
    egress = fake.egress(echo_url="http://echo.example/ip")
    dialled = Tor(egress).dial(egress, URL)
    dialled.sock.close()
    assert dialled.details["seen"] == "192.0.2.77"
    assert [entry[1] for entry in fake.log if entry[0] == CONNECT] == ["echo.example", "exchange.example"]


def test_a_single_request_asks_no_echo_service(world: Make) -> None:
    fake = world()
    egress = fake.egress(echo_url="http://echo.example/ip")
    Tor(egress).request(egress, URL).sock.close()
    assert [entry[1] for entry in fake.connections()] == ["exchange.example"]


def test_a_failing_echo_means_no_connection(world: Make) -> None:
    fake = world()
    fake.echo = "nothing to see"
    egress = fake.egress(echo_url="http://echo.example/ip")
    with pytest.raises(EgressError, match="0 addresses instead of one"):
        Tor(egress).dial(egress, URL)
    assert [entry[1] for entry in fake.connections()] == ["echo.example"]


def test_a_connection_by_another_exit_than_the_echo_saw_is_not_used(world: Make) -> None:
    fake = world()
    fake.echo = ""
    fake.leave_by = {RESOLVE: fingerprint(BTC[0])}
    fake.leave_by_host = {"echo.example": fingerprint(BTC[0]), "exchange.example": fingerprint(BTC[1])}
    egress = fake.egress(echo_url="http://echo.example/ip")
    with pytest.raises(EgressError, match=f"moved the connection from exit {BTC[0]} to {BTC[1]}"):
        Tor(egress).dial(egress, URL)
    assert sum(entry[1] == "exchange.example" for entry in fake.connections()) == tor.ATTEMPTS


def test_the_exit_is_that_of_the_new_stream_not_of_an_older_one(world: Make) -> None:
    fake = world()
    fake.leave_by = {RESOLVE: fingerprint(BTC[0]), CONNECT: fingerprint(BTC[1])}
    dialled = Tor(fake.egress()).dial(fake.egress(), URL)
    dialled.sock.close()
    assert dialled.details["exit"] == BTC[1]


def test_a_silent_tor_is_left_within_the_deadline(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tor, "CIRCUIT_S", 0.5)
    fake = world()
    fake.silent = True
    began = time.monotonic()
    with pytest.raises(EgressError, match=r"no circuit by an exit of btc within 0\.5 s"):
        Tor(fake.egress()).dial(fake.egress(), URL)
    assert time.monotonic() - began < 3


def test_rest_goes_the_same_way(world: Make) -> None:
    fake = world()
    fake.echo = '{"ip": "192.0.2.7"}'
    answer = get(fake.egress(), "http://echo.example", "/ip")
    assert (answer.status, answer.body) == (200, b'{"ip": "192.0.2.7"}')
    assert [entry[3] in BTC for entry in fake.connections()] == [True]


def test_two_threads_may_dial_at_once(world: Make) -> None:
    fake = world()
    way = Tor(fake.egress())
    done: list[str] = []

    def go(connect: Callable[..., object]) -> None:
        dialled = connect(fake.egress(), URL)
        dialled.sock.close()  # type: ignore[attr-defined]
        done.append(dialled.details["exit"])  # type: ignore[attr-defined]

    threads = [threading.Thread(target=go, args=(connect,)) for connect in (way.dial, way.request) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(done) == 6
    assert set(done) <= set(BTC)


@pytest.mark.parametrize(
    ("body", "address"),
    [
        (b"192.0.2.7\n", "192.0.2.7"),
        (b'{"ip":"192.0.2.7","IsTor":true}', "192.0.2.7"),
        (b"fl=1\nip=2001:db8::7\nts=1789498321.5\n", "2001:db8::7"),
    ],
)
def test_answers_of_echo_services(body: bytes, address: str) -> None:
    assert address_in(body) == address


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"192.0.2.7, 192.0.2.8"])
def test_answers_that_name_no_single_address(body: bytes) -> None:
    with pytest.raises(EgressError, match="instead of one"):
        address_in(body)


def test_choice_falls_back_to_the_exit_left_alone_longest() -> None:
    assert choose(["a", "b", "c"], {"b": 5.0}, 1.0) == ["a", "c"]
    assert choose(["a", "b"], {"a": 9.0, "b": 5.0}, 1.0) == ["b"]
    assert choose(["a", "b"], {"a": 9.0, "b": 5.0}, 6.0) == ["b"]
    assert choose(["a"], {}, 0.0) == ["a"]
