"""Which guests there are and which addresses they have: the one place that knows the test network."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

BRIDGE = "mexcbr0"
NETWORK = ipaddress.IPv4Network("198.51.100.0/24")  # documentation ranges (RFC 5737): nothing real answers there
RELAYS = ipaddress.IPv4Network("203.0.113.0/24")
AUTHORITY, NAMESERVER, ECHO, EXCHANGE = "203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.250"
EXCHANGE_PORT = 8443
EXCHANGE_NAME, ECHO_NAME = "exchange.test", "echo.test"
# Chosen so that btc, eth and sol own four each, and after doge has joined them every one of the four owns three.
EXITS = tuple(f"203.0.113.{last}" for last in (11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 24))


@dataclass(frozen=True, slots=True)
class Release:
    """A release of Debian: its suite, its Python's version, and the file that lists what its guests may install."""

    suite: str
    python: str
    packages: str


DEBIAN_12 = Release("bookworm", "3.11", "packages.txt")
DEBIAN_13 = Release("trixie", "3.13", "packages-trixie.txt")


@dataclass(frozen=True, slots=True)
class Guest:
    """One test host; ``groups`` are its inventory groups, ``routes`` are (destination, gateway)."""

    name: str
    address: str
    groups: tuple[str, ...]
    routes: tuple[tuple[str, str], ...] = ()
    release: Release = DEBIAN_12


_NET1 = "198.51.100.30"
_TO_RELAYS = ((str(RELAYS), _NET1),)

GUESTS = {
    guest.name: guest
    for guest in (
        Guest("ch1", "198.51.100.10", ("clickhouse_hosts",)),
        Guest("col1", "198.51.100.21", ("collector_hosts",), _TO_RELAYS),
        Guest("col2", "198.51.100.22", ("collector_hosts",), _TO_RELAYS),
        Guest("all1", "198.51.100.40", ("clickhouse_hosts", "collector_hosts"), _TO_RELAYS, DEBIAN_13),
        Guest("net1", _NET1, ("test_network",)),
    )
}
