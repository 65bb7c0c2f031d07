"""The pure parts of the deployment tests: what they rest on must itself be able to fail."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter

import pytest

from deploy.comparison import Sent, compare
from deploy.hosts.cache import key
from deploy.hosts.layout import EXITS, GUESTS, NETWORK, RELAYS
from mexc_pipeline.egress.partition import owner
from support.repository import ROOT


def connection(*frames: str) -> Sent:
    return Sent(1, "203.0.113.11:5", 1, 2, "client (1000)", "BTC_USDT", list(frames))


def test_frames_of_all_connections_in_order_are_accepted() -> None:
    assert compare([connection("a", "b"), connection("c", "d")], ["a", "b", "c", "d"]) == 4


def test_the_end_of_a_connection_may_not_have_arrived() -> None:
    assert compare([connection("a", "b"), connection("c", "d")], ["a", "c"]) == 2


@pytest.mark.parametrize(
    "frames",
    [
        ["a", "c"],  # a hole
        ["a", "a", "b", "c"],  # a repeat
        ["b", "a", "c"],  # out of order
        ["a", "b", "c", "x"],  # what was never sent
        ["b", "c"],  # the first is missing
    ],
)
def test_anything_else_is_refused(frames: list[str]) -> None:
    with pytest.raises(AssertionError):
        compare([connection("a", "b", "c")], frames)


@pytest.mark.parametrize("ids", [("btc", "eth", "sol"), ("btc", "eth", "sol", "doge")])
def test_every_symbol_owns_enough_of_the_test_network(ids: tuple[str, ...]) -> None:
    owned = Counter(owner(address, ids) for address in EXITS)
    assert {symbol: owned[symbol] >= 12 // len(ids) for symbol in ids} == dict.fromkeys(ids, True)


def test_every_symbol_owns_three_of_the_fewer_exits() -> None:
    text = (ROOT / "molecule" / "debian13" / "inventory" / "group_vars" / "all.yml").read_text()
    exits = re.findall(r"203\.0\.113\.\d+", text)
    assert set(exits) <= set(EXITS)
    assert Counter(owner(address, ("btc", "eth", "sol")) for address in exits) == {"btc": 3, "eth": 3, "sol": 3}


def test_addresses_are_of_documentation_ranges_only() -> None:
    assert all(ipaddress.ip_address(guest.address) in NETWORK for guest in GUESTS.values())
    assert all(ipaddress.ip_address(address) in RELAYS for address in EXITS)


def test_cache_keys_tell_inputs_apart() -> None:
    assert key(["ab", "c"]) != key(["a", "bc"])
    assert key(["a"]) == key([b"a"])
