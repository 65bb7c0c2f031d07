"""Exits belong to exactly one symbol, wherever and in whatever order that is worked out."""

from __future__ import annotations

import base64
import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.egress.partition import (
    Relay,
    TooFewExitsError,
    allows,
    check_enough,
    owner,
    relays,
    share,
)

GOOD = frozenset({"Exit", "Running", "Valid", "Fast"})
ids = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), min_size=1, max_size=8, unique=True)
addresses = st.ip_addresses(v=4).map(str)
exits = st.lists(
    st.builds(
        Relay,
        fingerprint=st.binary(min_size=20, max_size=20).map(lambda b: b.hex().upper()),
        address=st.integers(0, 40).map(lambda n: f"203.0.113.{n}"),
        flags=st.sampled_from([GOOD, GOOD | {"BadExit"}, GOOD - {"Running"}, GOOD - {"Valid"}, GOOD - {"Exit"}]),
    ),
    max_size=60,
    unique_by=lambda relay: relay.fingerprint,
)


def test_only_running_valid_exits_that_are_not_bad_are_usable() -> None:
    assert Relay("A" * 40, "203.0.113.1", GOOD).usable_exit
    for flags in (GOOD | {"BadExit"}, GOOD - {"Exit"}, GOOD - {"Running"}, GOOD - {"Valid"}):
        assert not Relay("A" * 40, "203.0.113.1", flags).usable_exit


@settings(deadline=None)
@given(exits, ids)
def test_every_usable_exit_belongs_to_exactly_one_symbol(found: list[Relay], deployment: list[str]) -> None:
    shares = [share(found, symbol, deployment) for symbol in deployment]
    owned = [fingerprint for mine in shares for group in mine.values() for fingerprint in group]
    assert sorted(owned) == sorted(relay.fingerprint for relay in found if relay.usable_exit)
    used = [address for mine in shares for address in mine]
    assert len(used) == len(set(used)), "an address with several relays is never split"


@given(addresses, ids, st.randoms())
def test_owner_does_not_depend_on_the_order_of_the_list(address: str, deployment: list[str], rng: object) -> None:
    assert owner(address, deployment) == owner(address, sorted(deployment, reverse=True))


@given(addresses, ids, st.from_regex(r"[a-z]{7}", fullmatch=True))
def test_a_new_symbol_takes_and_nothing_moves_between_the_others(address: str, deployment: list[str], new: str) -> None:
    assert owner(address, [*deployment, new]) in (owner(address, deployment), new)


def test_shares_are_about_equal() -> None:
    deployment = ["btc", "eth", "sol"]
    counts = dict.fromkeys(deployment, 0)
    for number in range(3000):
        counts[owner(str(ipaddress.IPv4Address((203 << 24) + number)), deployment)] += 1
    assert all(900 < count < 1100 for count in counts.values()), counts


def test_the_hash_is_the_documented_one() -> None:
    """Hosts of different versions must agree: this must never change."""
    found = {a: owner(a, ("btc", "eth", "sol")) for a in ("203.0.113.10", "203.0.113.11", "203.0.113.12")}
    assert found == {"203.0.113.10": "eth", "203.0.113.11": "btc", "203.0.113.12": "sol"}


def _entry(number: int, address: str, flags: str, digest: bool = True) -> str:
    identity = base64.b64encode(bytes([number]) * 20).decode().rstrip("=")
    fields = ["r", f"relay{number}", identity, *(["x" * 27] if digest else []), "2038-01-01", "00:00:00", address]
    return " ".join([*fields, "9001", "0"]) + f"\ns {flags}\nw Bandwidth=0\n"


def test_consensus_entries_are_read_in_both_flavours() -> None:
    text = _entry(1, "203.0.113.1", "Exit Running Valid") + _entry(2, "203.0.113.2", "Running", digest=False)
    one, two = relays(text)
    assert (one.fingerprint, one.address, one.usable_exit) == ("01" * 20, "203.0.113.1", True)
    assert (two.fingerprint, two.address, two.usable_exit) == ("02" * 20, "203.0.113.2", False)


def test_entries_that_cannot_be_read_are_left_out_with_their_flags() -> None:
    broken = "r short\ns Exit Running Valid\nr n !!!! d 2038-01-01 00:00:00 203.0.113.3 1 0\ns Exit Running Valid\n"
    bad_address = _entry(4, "203.0.113.400", "Exit Running Valid")
    assert [r.address for r in relays(broken + bad_address + _entry(5, "203.0.113.5", "Exit"))] == ["203.0.113.5"]


@settings(deadline=None)
@given(st.text(max_size=300))
def test_reading_a_consensus_never_fails(text: str) -> None:
    for relay in relays(text):
        assert ipaddress.IPv4Address(relay.address)


@pytest.mark.parametrize(
    ("policy", "port", "expected"),
    [
        ("accept 80,443", 443, True),
        ("accept 80,443", 8443, False),
        ("accept 20-23,400-500", 443, True),
        ("reject 25,119-120", 443, True),
        ("reject 25,400-500", 443, False),
        ("reject 1-65535", 443, False),
        ("accept 1-65535", 65535, True),
        (None, 443, False),
        ("accept all", 443, False),
        ("", 443, False),
    ],
)
def test_policy_summaries(policy: str | None, port: int, expected: bool) -> None:
    assert allows(policy, port) is expected


def test_too_few_exits_are_refused_with_what_to_do() -> None:
    check_enough("btc", {"a": 1, "b": 1, "c": 1}, 3, 443, 3)
    with pytest.raises(TooFewExitsError, match=r"btc has 2 usable exit addresses for port 443 of 5 .*min_exits"):
        check_enough("btc", {"a": 1, "b": 1}, 3, 443, 5)
