"""Which exits belong to which symbol: read from the consensus, shared out by address. Pure.

An exit's address belongs to exactly one symbol of the deployment. Every host works that out by itself from the same
consensus and the same list of ids, so that no two symbols can leave from the same address, whichever host they are on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mexc_pipeline.errors import UserError

_NEEDED = frozenset({"Exit", "Running", "Valid"})


class TooFewExitsError(UserError):
    """The symbol's share of the exits is too small to record with."""


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay of the consensus: ``fingerprint`` 40 hex digits in capitals, ``address`` IPv4 as text."""

    fingerprint: str
    address: str
    flags: frozenset[str]

    @property
    def usable_exit(self) -> bool:
        """Whether clients may leave by it. The Exit flag means that it lets ports 80 and 443 out to at least one /8
        (Tor directory specification, "Exit")."""
        return self.flags >= _NEEDED and "BadExit" not in self.flags


def relays(consensus: str) -> list[Relay]:
    """The relays in the answer to ``GETINFO ns/all`` or ``ns/id/…`` ("r" and "s" lines of the directory
    specification). Entries that cannot be read are left out: an exit we do not understand is not ours."""
    found: list[Relay] = []
    fingerprint = address = ""
    for line in consensus.splitlines():
        word, _, rest = line.partition(" ")
        if word == "r":
            fingerprint, address = _identity(rest.split())
        elif word == "s" and fingerprint:
            found.append(Relay(fingerprint, address, frozenset(rest.split())))
            fingerprint = ""
    return found


def _identity(fields: list[str]) -> tuple[str, str]:
    """Nickname, identity, [digest,] date, time, address, ORPort, DirPort."""
    if len(fields) < 7:
        return "", ""
    try:
        identity = base64.b64decode(fields[1] + "=", validate=True)
        address = ipaddress.IPv4Address(fields[-3])
    except (binascii.Error, ValueError):
        return "", ""
    return (identity.hex().upper(), str(address)) if len(identity) == 20 else ("", "")


def allows(policy: str | None, port: int) -> bool:
    """Whether an exit policy summary (``accept 80,443`` or ``reject 25,119-120``, the "p" line of a relay's
    microdescriptor) lets a port out. Without a summary nothing is let out (directory specification)."""
    verb, _, listed = (policy or "reject 1-65535").partition(" ")
    for part in listed.split(","):
        low, _, high = part.partition("-")
        if not low.isdigit() or not (high or low).isdigit():
            return False
        if int(low) <= port <= int(high or low):
            return verb == "accept"
    return verb == "reject"


def owner(address: str, deployment: Iterable[str]) -> str:
    """The symbol an address belongs to: the id for which SHA-256 of ``<address> <id>`` (ASCII) is highest.

    Rendezvous hashing: a new id takes from every other about the same share and nothing moves between the others.
    """
    return max(deployment, key=lambda symbol: hashlib.sha256(f"{address} {symbol}".encode()).digest())


def share(consensus: Iterable[Relay], symbol: str, deployment: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """A symbol's exits: address → fingerprints of the relays there, both in order. Relays that share an address
    always belong to the same symbol."""
    everyone = tuple(deployment)
    grouped: dict[str, list[str]] = {}
    for relay in consensus:
        if relay.usable_exit:
            grouped.setdefault(relay.address, []).append(relay.fingerprint)
    return {a: tuple(sorted(grouped[a])) for a in sorted(grouped) if owner(a, everyone) == symbol}


def check_enough(symbol: str, usable: Mapping[str, object], least: int, port: int, owned: int) -> None:
    """Raise TooFewExitsError where fewer than ``least`` addresses are usable; ``owned`` are the symbol's in all."""
    if len(usable) < least:
        raise TooFewExitsError(
            f"Tor: {symbol} has {len(usable)} usable exit addresses for port {port} of {owned} in its share, "
            f"{least} are needed (egress.min_exits); wait for the consensus or shorten egress.deployment"
        )
