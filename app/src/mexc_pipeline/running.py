"""What a process was started with, to be compared with what is on the disk now.

A configuration that is written and an installation that is replaced take effect at the next start. Until then what runs
is not what an operator reads; each process keeps these digests from its start and tells them in its ``status``.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mexc_pipeline.config import Config, Symbol


class Outdated(NamedTuple):
    """Why a process does not do what is on the disk, and the verb of ``systemctl`` that mends it."""

    why: str
    verb: str


def report(settings: Config, symbol: Symbol | None = None) -> dict[str, str]:
    """SHA-256 of what a process of these settings does, in parts: ``configuration``, what a collector of that symbol
    (without one: the store) reads at its start; ``program``, the installation; ``deployment``, of a collector in mode
    tor, with whom it shares the exits, which it reads again on SIGHUP."""
    shared: dict[str, str] = {}
    if symbol is not None:
        if symbol.egress.mode == "tor":
            shared = {"deployment": _digest("\n".join(symbol.egress.deployment).encode())}
        egress = msgspec.structs.replace(symbol.egress, deployment=())
        read: tuple[Any, ...] = (symbol.name, symbol.id, symbol.channels, egress, settings.exchange, settings.spool)
        read += (settings.spool_keep_ns, settings.candles_s)
    else:
        read = (settings.clickhouse, sorted((s.name, s.id) for s in settings.symbols))
    read += (settings.data_dir, settings.export_dir, settings.period.length_ns)
    read_once = {"configuration": _digest(msgspec.json.encode(read, enc_hook=str)), "program": _digest(_installation())}
    return read_once | shared


def outdated(running: Mapping[str, Any] | None, now: Mapping[str, str]) -> Outdated | None:
    """What is to be done about a process that reported ``running``; None where it does what is on the disk, or where it
    reports nothing."""
    if not running:
        return None
    if running.get("program") != now["program"]:
        return Outdated("it was started from another installation", "restart")
    if running.get("configuration") != now["configuration"]:
        return Outdated("it was started with another configuration", "restart")
    if running.get("deployment", now.get("deployment")) != now.get("deployment"):
        return Outdated("it shares Tor's exits out by another list of symbols", "reload")
    return None


def _installation() -> bytes:
    """Where this Python lives, and the mark that whoever installed the program left in it."""
    home = Path(sys.prefix).resolve()
    try:
        mark = (home / ".installed").read_bytes()
    except OSError:
        mark = b""
    return b"%s\n%s" % (str(home).encode(errors="surrogateescape"), mark)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
