"""This host's copy of the exchange's list of contracts: a file that all collectors share, so that one of them asks.

How old it is goes by the clock since the machine's start, which all processes share and which no setting of the wall
clock moves. Where the file cannot be used each process asks for itself: nothing of it keeps a recording from anything.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from mexc_pipeline.egress.dial import EgressError
from mexc_pipeline.egress.http import MAX_BODY, RestClient
from mexc_pipeline.exchange.contracts import DETAILS_PATH, ContractList, contracts_in, read_contracts
from mexc_pipeline.exchange.rest import Listing, RestRefusedError, answered, detail_path, read_listing
from mexc_pipeline.feed.attempts import boot_id
from mexc_pipeline.files import own, own_lock
from mexc_pipeline.paths import make_folder
from mexc_pipeline.text import clean

log = logging.getLogger("mexc_pipeline.feed")

FRESH_S = 3600.0
"""A copy is taken as it is for so long."""
KNOWN_S = 86_400.0
"""Where no newer one can be had, a copy is gone by for so long; after that it is not known what a contract is."""
LIST_S = 30.0
"""How long the list may take; it is 2.3 MB before it is compressed."""
ANSWER_S = 5.0
FAILED_S = 5.0
"""An attempt that failed so lately is not made again by the other processes."""
WAIT_S = 60.0
"""How long another process may take to ask: one that stands still holds its lock for ever."""
LOOK_S = 0.1
_HEADER = 4096


class _Copy(msgspec.Struct):
    """The first line of the file, before the list: when it was asked for, in seconds since that start of the machine,
    where, and what the list's bytes must be."""

    boot: str
    at: float
    urls: list[str]
    sha256: str


class _Failure(msgspec.Struct):
    """What the lock's file says: the newest attempt that brought nothing."""

    boot: str
    at: float
    said: str


class Specified(NamedTuple):
    """What is known of a contract: whether it is ``listed``, its specification ``m`` byte for byte (None: unknown), and
    since when (s since the machine's start; 0 where it is not known)."""

    listing: Listing
    m: bytes | None
    at: float = 0.0


class HostContracts:
    """The host's copy as one process uses it, on one thread. ``path`` is the file, ``path`` with ``.lock`` its lock.
    ``urls`` are the addresses of REST: the copy of another exchange is none."""

    def __init__(
        self, path: Path, rest: RestClient, urls: Sequence[str], clock: Callable[[], float] | None = None
    ) -> None:
        self._path = path
        self._lock = path.with_name(f"{path.name}.lock")
        self._rest = rest
        self._urls = list(urls)
        self._clock = clock or (lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        self._boot = boot_id()
        self._own: dict[str, Specified] = {}
        self.trouble: str | None = None
        """Why the other processes' copy is not used."""

    def due_s(self, name: str) -> float:
        """Seconds until the contract is to be asked about again; 0 or less: now."""
        known = self._own.get(name)
        return 0.0 if known is None or not known.at else known.at + FRESH_S - self._clock()

    def ask(self, name: str, stop: threading.Event) -> Specified:
        """What is known of the contract called ``name``. One that the list does not have is asked for by itself, from
        the second time on: it may be a listing to come. Waits for another process that asks, but not once ``stop`` is
        set; never raises for what the network, the exchange or the disk does."""
        before = self._own.get(name)
        now = self._clock()
        if before is not None and before.at and now - before.at < FRESH_S:
            if before.listing.verdict != "listed":
                return self._keep(name, self._ask_for_one(name, before))
            return before
        found, said = self._list(stop)
        if found is None:
            if before is None or not before.at or self._clock() - before.at >= KNOWN_S:
                return self._keep(name, Specified(Listing("unknown", said), None))
            return before
        at, contracts = found
        return self._keep(name, Specified(contracts.listing(name), contracts.specifications.get(name), at))

    def _keep(self, name: str, found: Specified) -> Specified:
        self._own[name] = found
        return found

    def _ask_for_one(self, name: str, before: Specified) -> Specified:
        try:
            answer = self._rest.get(detail_path(name), ANSWER_S)
        except EgressError as error:
            return before._replace(listing=Listing("unknown", str(error)))
        listing = read_listing(name, answer.status, answer.body)
        m = None
        if listing.verdict == "listed":
            try:
                m = read_contracts(answer.status, answer.body).specifications.get(name)
            except RestRefusedError:
                m = None
        return Specified(listing, m, before.at)

    # -- the list, which all share

    def _list(self, stop: threading.Event) -> tuple[tuple[float, ContractList] | None, str]:
        """The list and when it was asked for, of this host or else by this process; why there is none that is new."""
        held, why = self._read(), ""
        if held is not None and self._is_fresh(held[0]):
            return held, why
        try:
            make_folder(self._path.parent)
            fd = own_lock(self._lock)
        except OSError as error:
            self._say(error)
            return self._ask(None, held)
        try:
            until = time.monotonic() + WAIT_S
            while not _is_locked(fd):
                if stop.wait(LOOK_S):
                    return held, "told to stop"
                if time.monotonic() >= until:  # it stands still
                    return self._ask(None, held)
            held = self._read() or held  # of whoever held it meanwhile
            if held is not None and self._is_fresh(held[0]):
                return held, ""
            if (failure := self._failed(fd)) is not None:
                return self._older(held), failure.said
            return self._ask(fd, held)
        except OSError as error:
            self._say(error)
            return self._ask(None, held)
        finally:
            os.close(fd)

    def _ask(
        self, lock: int | None, held: tuple[float, ContractList] | None
    ) -> tuple[tuple[float, ContractList] | None, str]:
        """Ask the exchange, for all of the host where the lock is held. Never raises OSError."""
        at = self._clock()
        try:
            answer = self._rest.get(DETAILS_PATH, LIST_S)
            data = bytes(answered(answer.status, answer.body))
            contracts = contracts_in(data)
        except (EgressError, RestRefusedError) as error:
            said = str(error)
            log.warning("contracts not known", extra={"fields": {"why": said}})
            if lock is not None:
                self._write_failure(lock, _Failure(self._boot, at, clean(said, 500)))
            return self._older(held), said
        log.info("contracts asked for", extra={"fields": {"contracts": len(contracts.names), "bytes": len(data)}})
        if lock is not None:
            self._write(at, data)
        return (at, contracts), ""

    def _is_fresh(self, at: float) -> bool:
        return self._clock() - at < FRESH_S

    def _older(self, held: tuple[float, ContractList] | None) -> tuple[float, ContractList] | None:
        """What is gone by where no newer one can be had."""
        return held if held is not None and self._clock() - held[0] < KNOWN_S else None

    def _read(self) -> tuple[float, ContractList] | None:
        """The copy, of whatever age; None where there is none that holds."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say(error)
            return None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            with open(fd, "rb", closefd=False) as file:
                header = msgspec.json.decode(file.readline(_HEADER), type=_Copy)
                data = file.read(MAX_BODY + 1)
            now = self._clock()
            if header.boot != self._boot or header.urls != self._urls or not 0 <= now - header.at < KNOWN_S:
                return None
            if hashlib.sha256(data).hexdigest() != header.sha256:
                return None  # damaged
            return header.at, contracts_in(data)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError, RestRefusedError) as error:
            log.warning("copy of the contracts not read", extra={"fields": {"why": str(error)}})
            return None
        finally:
            os.close(fd)

    def _write(self, at: float, data: bytes) -> None:
        """The lock is held: nobody else writes."""
        header = msgspec.json.encode(_Copy(self._boot, at, self._urls, hashlib.sha256(data).hexdigest()))
        making = self._path.with_name(f"{self._path.name}.new")
        try:
            making.unlink(missing_ok=True)
            fd = own(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o660)
            with open(fd, "wb") as file:
                file.write(header + b"\n")
                file.write(data)
            making.replace(self._path)
            self.trouble = None
        except OSError as error:
            self._say(error)

    def _failed(self, fd: int) -> _Failure | None:
        """The newest attempt of any process, where that failed just now."""
        try:
            said = msgspec.json.decode(os.pread(fd, _HEADER, 0), type=_Failure)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return said if said.boot == self._boot and 0 <= self._clock() - said.at < FAILED_S else None

    def _write_failure(self, fd: int, failure: _Failure) -> None:
        try:
            os.ftruncate(fd, os.pwrite(fd, msgspec.json.encode(failure), 0))
        except OSError as error:
            self._say(error)

    def _say(self, error: OSError) -> None:
        if self.trouble is None:
            log.warning("contracts are asked for by each process", extra={"fields": {"why": str(error)}})
        self.trouble = f"contracts are asked for by each process: {error.strerror or error}"


def _is_locked(fd: int) -> bool:
    """Whether the lock is held by this process now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
