"""What a process was started with, to be compared with what is on the disk now.

A configuration that is written and an installation that is replaced take effect at the next start. Until then what runs
is not what an operator reads; each process keeps these digests from its start and tells them in its ``status``.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mexc_pipeline.config import Config, Symbol


def report(settings: Config, symbol: Symbol | None = None) -> dict[str, str]:
    """``configuration``: SHA-256 of what a collector of that symbol (without one: the store) reads of it, and
    ``program``: of the installation this process was started from."""
    if symbol is not None:
        # Who else shares Tor's exits is read again on SIGHUP, without a start.
        egress = msgspec.structs.replace(symbol.egress, deployment=())
        read: tuple[Any, ...] = (symbol.name, symbol.id, symbol.channels, egress, settings.exchange, settings.spool)
        read += (settings.spool_keep_ns,)
    else:
        read = (settings.clickhouse, sorted((s.name, s.id) for s in settings.symbols))
    read += (settings.data_dir, settings.export_dir, settings.period.length_ns)
    return {"configuration": _digest(msgspec.json.encode(read, enc_hook=str)), "program": _digest(_installation())}


def outdated(running: Mapping[str, Any] | None, now: Mapping[str, str]) -> str | None:
    """Why a process that reported ``running`` is to be restarted; None where it is not, or where it reports nothing."""
    if not running:
        return None
    if running.get("program") != now["program"]:
        return "it was started from another installation"
    if running.get("configuration") != now["configuration"]:
        return "it was started with another configuration"
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
