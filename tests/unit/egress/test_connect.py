"""Several addresses of one host, some of them dead: the first that answers, and nothing left behind."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.config import Egress
from mexc_pipeline.egress import dial as dial_module
from mexc_pipeline.egress.connect import Address, NoWayError, connect, interleave
from support.peers import SocksProxy, free_port, saying, serving, silent

V4, V6 = socket.AF_INET, socket.AF_INET6


class Hole:
    """Addresses on loopback that never answer: listeners whose backlog is full."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def address(self, family: socket.AddressFamily = V4) -> Address:
        host = "::1" if family == V6 else "127.0.0.1"
        listener = self._stack.enter_context(socket.create_server((host, 0), family=family, backlog=0))
        where = listener.getsockname()
        for _ in range(4):
            filler = self._stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex(where)
        return Address(family, where)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def hole() -> Iterator[Hole]:
    found = Hole()
    yield found
    found.close()


def _six() -> socket.AddressFamily:
    """IPv6 where loopback has it; the dead ones are IPv4 otherwise."""
    try:
        socket.create_server(("::1", 0), family=V6).close()
    except OSError:
        return V4
    return V6


def _open_sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder's own
            count += str(entry.readlink()).startswith(("socket:", "anon_inode:[eventpoll]"))
    return count


@pytest.mark.parametrize("dead", [4, 8])
@pytest.mark.parametrize("family", [V4, V6])
def test_dead_addresses_before_a_good_one_cost_less_than_a_second(
    hole: Hole, dead: int, family: socket.AddressFamily
) -> None:
    holes = [hole.address(_six() if family == V6 else V4) for _ in range(dead)]
    with serving(silent) as server:
        open_before = _open_sockets()
        began = time.monotonic()
        sock = connect([*holes, Address(V4, ("127.0.0.1", server.port))], 10.0)
        took = time.monotonic() - began
        assert sock.getpeername() == ("127.0.0.1", server.port)
        assert sock.gettimeout() == 10.0
        sock.close()
        assert _open_sockets() <= open_before + 1, "the others are closed (the server holds its own end)"
    assert took < 1.0


def test_refused_addresses_cost_nothing(hole: Hole) -> None:
    refused = [Address(V4, ("127.0.0.1", free_port())) for _ in range(20)]
    with serving(silent) as server:
        began = time.monotonic()
        connect([*refused, Address(V4, ("127.0.0.1", server.port))], 10.0).close()
        assert time.monotonic() - began < 0.2


def test_a_family_the_machine_does_not_have_is_passed_over() -> None:
    strange = Address(V6, ("not an address", 1, 0, 0))
    unknown = Address(socket.AF_X25, ("nowhere", 1))
    with serving(silent) as server:
        connect([strange, unknown, Address(V4, ("127.0.0.1", server.port))], 5.0).close()


def test_all_dead_ends_at_the_deadline_and_names_them(hole: Hole) -> None:
    addresses = [hole.address() for _ in range(5)] + [Address(V4, ("127.0.0.1", free_port()))]
    before = _open_sockets()
    began = time.monotonic()
    with pytest.raises(OSError, match=r"127\.0\.0\.1: Connection refused; 127\.0\.0\.1: timed out; .*and 2 more"):
        connect(addresses, 0.7)
    assert time.monotonic() - began < 1.5
    assert _open_sockets() == before


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([errno.ENETUNREACH], NoWayError),
        ([errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN], NoWayError),
        ([errno.ENETUNREACH, errno.ECONNREFUSED], OSError),
        ([errno.ECONNREFUSED, errno.ENETUNREACH], OSError),
    ],
)
def test_where_nothing_left_this_host_it_is_said(
    answers: list[int], kind: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(answers)

    class Socket(socket.socket):
        def connect_ex(self, address: object) -> int:
            return next(said)

    monkeypatch.setattr("mexc_pipeline.egress.connect.socket.socket", Socket)
    with pytest.raises(OSError, match=os.strerror(answers[0])) as raised:
        connect([Address(V4, ("192.0.2.1", n)) for n in range(len(answers))], 5.0)
    assert type(raised.value) is kind


def test_an_address_that_serves_nothing_is_not_the_first_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts connections, so that it wins each race in which it comes first."""
    with serving(silent) as mute, serving(saying(b"hello")) as good:
        found = [(V4, 1, 6, "", ("127.0.0.1", far.port)) for far in (mute, good)]
        monkeypatch.setattr("mexc_pipeline.egress.dial.socket.getaddrinfo", lambda *_, **__: found)
        met: set[int] = set()
        while len(met) < 2:  # of 64 in a row one half: once in 10¹⁹
            met.add(connect(dial_module._resolve("exchange.invalid", 1), 5.0).getpeername()[1])
            assert mute.accepted + good.accepted < 64


@given(st.lists(st.tuples(st.sampled_from([V4, V6]), st.integers(0, 9)), max_size=12))
def test_families_take_turns_and_none_is_lost(pairs: list[tuple[socket.AddressFamily, int]]) -> None:
    addresses = [Address(family, (str(n), 1)) for family, n in pairs]
    ordered = interleave(addresses)
    assert sorted(ordered) == sorted(set(addresses))
    if addresses:
        assert ordered[0] == addresses[0], "the resolver's first choice stays the first"
    for family in (V4, V6):
        mine = [a for a in dict.fromkeys(addresses) if a.family == family]
        assert [a for a in ordered if a.family == family] == mine
    least = min(sum(a.family == family for a in ordered) for family in (V4, V6))
    assert all(a.family != b.family for a, b in pairwise(ordered[: 2 * least]))


def test_a_proxys_own_dead_addresses_are_passed_over(hole: Hole, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = SocksProxy({"exchange.invalid": "127.0.0.1"})
    with serving(saying(b"hello")) as server, serving(proxy.serve) as front:
        found = [*(hole.address() for _ in range(3)), Address(V4, ("127.0.0.1", front.port))]
        monkeypatch.setattr(dial_module, "_resolve", lambda *_: found)
        began = time.monotonic()
        egress = Egress(mode=f"socks5h://proxy.invalid:{front.port}")
        dialled = dial_module.dial(egress, f"ws://exchange.invalid:{server.port}/edge")
        assert time.monotonic() - began < 1.0
        with dialled.sock:
            assert dialled.peer == f"127.0.0.1:{front.port}"
