"""What must be true of a machine before recording starts, and what had better be.

A hard check that fails means that something cannot do its job as the machine is now; a soft one is said, and nothing is
wrong yet. ``run`` starts all the same where a recording that is under way waits for the same thing to change: one that
was killed, or whose machine started again, has to go on.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from mexc_pipeline.config import Config, Egress, check_mounted
from mexc_pipeline.egress.dial import EgressError, check_files
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.exchange.rest import PING_PATH, read_time
from mexc_pipeline.paths import existing
from mexc_pipeline.spool.disk_level import LEAST_FREE, Limits, Usage
from mexc_pipeline.spool.label import check_label
from mexc_pipeline.spool.reserve import Reserve

SOFT_FREE = 5 << 30
EXCHANGE_S = 8.0
CLICKHOUSE_S = 15.0
CLOCK_MS = 2000
MADE_IN = 1_760_000_000
"""Unix seconds, October 2025: a clock before it was never set."""
TIME_ERROR = 5
"""What adjtimex(2) returns while the kernel's clock is not synchronised."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: ``text`` says what was found, ``advice`` what to do where it is not ok. ``passes``: a recording waits
    for it to change, and goes on meanwhile as far as it can."""

    name: str
    ok: bool
    hard: bool
    text: str
    advice: str = ""
    passes: bool = False

    def line(self) -> str:
        """One line for a terminal."""
        mark = "ok" if self.ok else "FAIL" if self.hard else "warn"
        return f"{mark:<4} {self.sentence()}"

    def sentence(self) -> str:
        """What was found, and what to do where it is not ok and the finding does not say so itself."""
        return f"{self.name}: {self.text}" + (f"; {self.advice}" if self.advice and not self.ok else "")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks of one examination."""

    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether no hard check failed."""
        return all(check.ok or not check.hard for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The answer of ``--json``: ``ok``, ``checks``."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def examine(config: Config) -> Diagnosis:
    """Examine this machine for that configuration; changes nothing but for a probe file it removes again."""
    checks = [python(), sqlite(), clock(time.time()), synchronised(_adjtimex)]
    for key, folder in (("data_dir", config.data_dir), ("export_dir", config.export_dir)):
        checks.append(writable(key, folder, passes=key == "export_dir"))
        checks.append(space(key, folder))
    checks += [spool_room(config), mounted(config), files(config), ids(config), clickhouse(config)]
    checks += exchange(config)
    return Diagnosis(checks)


def python() -> Check:
    """Judge the version of Python: 3.11 is the oldest this is tested with."""
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", sys.version_info >= (3, 11), True, found, "3.11 or newer is needed")


def sqlite() -> Check:
    """Judge the version of SQLite: segments are STRICT tables (3.37)."""
    return Check(
        "SQLite", sqlite3.sqlite_version_info >= (3, 37), True, sqlite3.sqlite_version, "3.37 or newer is needed"
    )


def clock(now_s: float) -> Check:
    """Judge the clock: one that was never set gives rows no later one can follow: ``rx`` never goes back."""
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    return Check("clock", now_s >= MADE_IN, True, at, "set the clock first: times of rows never go back")


def _adjtimex() -> int:
    return int(ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512)))  # modes 0: only reads


def synchronised(ask: Callable[[], int]) -> Check:
    """Whether the kernel says that something (NTP, PTP) steers its clock; ``ask`` returns what adjtimex(2) does."""
    try:
        state = ask()
    except (OSError, AttributeError):
        state = -1
    if state < 0:
        return Check("clock synchronised", False, False, "the kernel does not tell", "make sure NTP runs")
    text = "no" if state == TIME_ERROR else "yes"
    return Check("clock synchronised", state != TIME_ERROR, False, text, "start an NTP client (timesyncd, chrony)")


def writable(key: str, folder: Path, *, passes: bool = False) -> Check:
    """Judge whether files can be made, synced and linked there (files reach ``export_dir`` and segments their place by
    ``link``)."""
    place = existing(folder)
    name = f"{key} writable"
    advice = "choose another folder, or give this user the right to write there"
    if not place.is_dir():
        return Check(name, False, True, f"{place} is not a folder", advice)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-") as probe:
            probe.write(b"x")
            probe.flush()
            os.fsync(probe.fileno())
            link = Path(f"{probe.name}.link")
            os.link(probe.name, link)
            link.unlink()
    except OSError as error:
        return Check(name, False, True, f"{place}: {error.strerror or error}", advice, passes)
    return Check(name, True, True, str(folder) if place == folder else f"{folder} (will be made)")


def space(key: str, folder: Path) -> Check:
    """Judge the room left on the file system that holds a folder."""
    try:
        free = shutil.disk_usage(existing(folder)).free
    except OSError as error:
        return Check(f"{key} space", False, True, error.strerror or str(error), "choose another folder")
    if free < LEAST_FREE:
        text = f"{free >> 20} MiB free"
        return Check(f"{key} space", False, True, text, f"at least {LEAST_FREE >> 20} MiB are needed", passes=True)
    text = f"{free / (1 << 30):.1f} GiB free"
    return Check(f"{key} space", free >= SOFT_FREE, False, text, f"below {SOFT_FREE >> 30} GiB a busy day may not fit")


def spool_room(config: Config) -> Check:
    """Judge whether every symbol can hold its reserve on the spool's file system, and how full that is."""
    spool, name = config.spool, "spool disk"
    limits = Limits(spool.warn_percent, spool.alert_percent, spool.reserve_mib << 20)
    lacking = sum(not Reserve(config.spool_dir / symbol.id, limits.reserve).is_held() for symbol in config.symbols)
    need = lacking * limits.reserve + (limits.reserve if lacking else 0) + limits.low
    try:
        usage = Usage.of(existing(config.spool_dir))
    except OSError as error:
        return Check(name, False, True, error.strerror or str(error), "choose another data_dir")
    text = f"{usage.percent:.0f} % used; warned of from {spool.warn_percent} % on"
    if usage.free < need:
        text += f"; {lacking} symbols lack their reserve of {spool.reserve_mib} MiB" if lacking else ""
        advice = f"free some: recording needs {need >> 20} MiB"
        if (too_small := limits.too_small(usage)) is not None:
            advice = f"recording needs {limits.again >> 20} MiB free, and {too_small}"
        return Check(name, False, True, text, advice, passes=True)
    return Check(name, usage.percent < spool.warn_percent, False, text, "free some, or record elsewhere")


def mounted(config: Config) -> Check:
    """Judge whether what ``require_mount`` names is mounted."""
    try:
        check_mounted(config)
    except UserError as error:
        return Check("mounts", False, True, str(error))
    return Check("mounts", True, True, "as required" if config.require_mount else "none required")


def ids(config: Config) -> Check:
    """Judge whether what is kept under each id is of the symbol that has it now."""
    try:
        for symbol in config.symbols:
            check_label(config, symbol)
    except ConfigError as error:
        return Check("ids", False, True, str(error))
    return Check("ids", True, True, "each is one symbol's")


def files(config: Config) -> Check:
    """Judge whether certificates, passwords and credentials that the configuration names are there and of use."""
    try:
        for egress in _ways(config):
            check_files(egress, config.exchange.ca_file)
        config.clickhouse.check_files()
    except ConfigError as error:
        return Check("configured files", False, True, str(error), "name a file this user can read, or none")
    return Check("configured files", True, True, "there")


def clickhouse(config: Config, reach: str = "mexc_pipeline.store.reach") -> Check:
    """Judge whether the embedded engine runs, or the server answers ``SELECT 1`` to the store's own name and password.
    It is asked in a process of its own, the module ``reach``, with the client that only the store knows."""
    settings = config.clickhouse
    embedded = settings.mode == "embedded"
    if embedded and importlib.util.find_spec("chdb") is None:
        advice = "install it: pip install './app[embedded]', or set [clickhouse] mode = \"server\""
        return Check("ClickHouse", False, True, "embedded (chDB) not installed", advice)
    where = "embedded (chDB)" if embedded else f"{settings.host}:{settings.port}"
    advice = "recording goes on without it; loading catches up when it answers"
    asked = {"clickhouse": msgspec.to_builtins(settings), "folder": str(existing(config.data_dir))}
    try:
        done = subprocess.run(
            [sys.executable, "-m", reach], input=json.dumps(asked).encode(), capture_output=True, timeout=CLICKHOUSE_S
        )
        said = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        said_nothing = f"{where}: no answer within {CLICKHOUSE_S:g} s"
        return Check("ClickHouse", False, embedded, said_nothing, advice, passes=True)
    except ValueError:
        ended = f"{where}: its client {_ended(done.returncode)}"
        return Check("ClickHouse", False, embedded, ended, advice, passes=done.returncode != -signal.SIGILL)
    if "error" in said:
        return Check("ClickHouse", False, embedded, f"{where}: {said['error']}", advice, passes=True)
    return Check("ClickHouse", True, embedded, f"{where} answers, version {said['version']}")


def _ended(status: int) -> str:
    if status < 0:
        why = ": it does not run on this machine" if status == -signal.SIGILL else ""
        return f"was ended by {signal.Signals(-status).name}{why}"
    return f"ended with {status}"


def exchange(config: Config) -> list[Check]:
    """Judge the exchange's REST ping, once through each configured egress, all at the same time.

    The answer carries the exchange's clock in ms (official futures REST page), so ours can be compared.
    """
    found: dict[Egress, list[Check]] = {}

    def ask(egress: Egress) -> None:
        found[egress] = _ping(config, egress)

    threads = [
        (egress, threading.Thread(target=ask, args=(egress,), name="doctor", daemon=True)) for egress in _ways(config)
    ]
    for _, thread in threads:
        thread.start()
    deadline = time.monotonic() + EXCHANGE_S
    checks: list[Check] = []
    for egress, thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        checks += found.get(egress) or [_unreachable(config, egress, f"no answer within {EXCHANGE_S:g} s")]
    return checks


def _ways(config: Config) -> Iterable[Egress]:
    return dict.fromkeys(symbol.egress for symbol in config.symbols)


def _unreachable(config: Config, egress: Egress, why: str) -> Check:
    advice = "recording starts and retries for ever; check the address, the network and [egress] mode"
    if not any(url in why for url in config.exchange.rest_urls):
        why = f"{', '.join(config.exchange.rest_urls)}: {why}"
    return Check(f"exchange by {egress.mode}", False, False, why, advice)


def _ping(config: Config, egress: Egress) -> list[Check]:
    try:
        answer = RestClient(egress, config.exchange).get(PING_PATH)
    except EgressError as error:
        return [_unreachable(config, egress, str(error))]
    took_ms = (answer.received_ns - answer.sent_ns) / 1e6
    if answer.status != 200:
        return [_unreachable(config, egress, f"{answer.url}: HTTP {answer.status}")]
    theirs = read_time(answer.status, answer.body)
    if theirs is None:
        return [_unreachable(config, egress, f"{answer.url}: answered something else than a ping")]
    off = round(answer.sent_ns / 1e6 + took_ms / 2 - theirs)
    advice = "feed delays will be wrong by that much; check NTP"
    return [
        Check(f"exchange by {egress.mode}", True, False, f"{answer.url} in {took_ms:.0f} ms"),
        Check(
            f"clock against exchange by {egress.mode}",
            abs(off) <= CLOCK_MS + took_ms / 2,
            False,
            f"{off:+d} ms",
            advice,
        ),
    ]
