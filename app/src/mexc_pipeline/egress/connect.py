"""TCP connections to whichever of several addresses answers first (RFC 8305, "Happy Eyeballs")."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

STAGGER_S = 0.25
"""Between two attempts, as the standard recommends; one that fails makes way at once."""
LEAST_STAGGER_S = 0.05
ALL_BEGUN_S = 0.5
"""With many addresses the attempts follow more closely, so that the last one has begun by then."""
_SAID = 4
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})


class NoWayError(OSError):
    """This host, or a router, has no way to any of the addresses: nothing has reached the far end."""


class Address(NamedTuple):
    """Where to connect: ``where`` is what ``socket.connect`` takes for that family."""

    family: socket.AddressFamily
    where: Any


class _Problem(NamedTuple):
    """Why one address could not be connected to."""

    host: str
    errno: int | None
    said: str


def interleave(addresses: Iterable[Address]) -> list[Address]:
    """The same addresses, each once, families taking turns, in the resolver's order otherwise (section 4)."""
    families: dict[socket.AddressFamily, list[Address]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address.family, []).append(address)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [address for address in turns if address is not None]


def connect(addresses: Sequence[Address], within_s: float) -> socket.socket:
    """A socket connected to the first address that answers, with a timeout of ``within_s``. OSError naming the
    addresses where none has answered within ``within_s`` seconds, NoWayError where there is no way to any."""
    waiting = interleave(addresses)
    pause = max(LEAST_STAGGER_S, min(STAGGER_S, ALL_BEGUN_S / max(1, len(waiting) - 1)))
    problems: list[_Problem] = []
    end = time.monotonic() + within_s
    next_at = 0.0
    with selectors.DefaultSelector() as trying:
        try:
            while (now := time.monotonic()) < end:
                if waiting and (now >= next_at or not trying.get_map()):
                    next_at = now + pause
                    _begin(waiting.pop(0), trying, problems)
                    continue
                if not trying.get_map():
                    break
                for key, _ in trying.select((min(end, next_at) if waiting else end) - now):
                    sock: socket.socket = key.fileobj  # type: ignore[assignment]  # what _begin registered
                    trying.unregister(sock)
                    wrong = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not wrong:
                        sock.settimeout(within_s)
                        return sock
                    sock.close()
                    problems.append(_Problem(key.data, wrong, os.strerror(wrong)))
                    next_at = 0.0
            problems += [_Problem(key.data, errno.ETIMEDOUT, "timed out") for key in trying.get_map().values()]
        finally:
            for key in list(trying.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]  # a socket
    more = f"; and {len(problems) - _SAID} more" if len(problems) > _SAID else ""
    said = "; ".join(f"{problem.host}: {problem.said}" for problem in problems[:_SAID]) + more
    raise (NoWayError if all(problem.errno in _NO_WAY for problem in problems) else OSError)(said)


def _begin(address: Address, trying: selectors.BaseSelector, problems: list[_Problem]) -> None:
    host = str(address.where[0])
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as error:  # a family this machine does not have
        problems.append(_Problem(host, error.errno, error.strerror or str(error)))
        return
    try:
        sock.setblocking(False)
        wrong = sock.connect_ex(address.where)
    except OSError as error:
        wrong = error.errno or errno.EINVAL
    if wrong in (0, errno.EINPROGRESS):
        trying.register(sock, selectors.EVENT_WRITE, host)
    else:
        sock.close()
        problems.append(_Problem(host, wrong, os.strerror(wrong)))
