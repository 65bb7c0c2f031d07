"""The exits of symbols in mode tor: carried by them, theirs, recorded, and used by nobody else at the same time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mexc_pipeline.config import Config, Symbol
from mexc_pipeline.control import ControlError
from mexc_pipeline.egress.control_port import ControlPort, ControlPortError
from mexc_pipeline.egress.partition import owner
from mexc_pipeline.egress.uses import Use, collisions, local, logged
from mexc_pipeline.verify.report import Finding

LOG_DAYS = 31
RECORDED_S = 2
"""The log's seconds are those of the ``connected`` row, the collector's are those of the connection."""


def carried(symbol: Symbol, said: Mapping[str, Any]) -> Finding:
    """Whether Tor itself says that the reported circuit carries a stream now, and leaves by the reported exit.
    ``said`` is the ``egress`` of the collector's status."""
    address, fingerprint, circuit = (str(said.get(key, "")) for key in ("exit", "fingerprint", "circuit"))

    def finding(ok: bool, text: str) -> Finding:
        return Finding(symbol.id, "data socket", ok, text)

    if not address:
        return finding(False, "not connected by an exit")
    if owner(address, symbol.egress.deployment) != symbol.id:
        belongs = owner(address, symbol.egress.deployment)
        return finding(False, f"exit {address} belongs to {belongs}; restart the collector after a changed deployment")
    try:
        with ControlPort(symbol.egress.control_socket) as control:
            path = next((c.path for c in control.circuits() if c.id == circuit), ())
            streams = [s for s in control.streams() if s.circuit == circuit and s.status == "SUCCEEDED"]
    except ControlPortError as error:
        return finding(False, str(error))
    if not path or not streams:
        return finding(False, f"Tor has no stream on circuit {circuit}, by which {symbol.id} says it is connected")
    if path[-1] != fingerprint:
        return finding(False, f"circuit {circuit} leaves by {path[-1]}, recorded is {fingerprint}")
    seen = f", seen outside as {said['seen']}" if said.get("seen") else ""
    return finding(True, f"leaves by exit {address} ({fingerprint}) on circuit {circuit}{seen}")


def distinct(config: Config) -> list[Finding]:
    """Judge that the present exits are recorded so and distinct over all hosts, and that the last 31 days of the log
    have no collision."""
    here: list[Use] = []
    for symbol in config.symbols:
        if symbol.egress.mode == "tor":
            try:
                use = local(config.control_dir, symbol.id)
            except ControlError:
                continue  # the data socket's own finding says so
            if use is not None:
                here.append(use)
    since = int(time.time()) - LOG_DAYS * 86400
    try:
        past = logged(config.control_dir, since)
        newest = logged(config.control_dir, 0, newest_only=True)
    except ControlError as error:
        return [*judge(here, [], []), Finding("all", "egress_log", False, str(error))]
    ours = {use.symbol for use in here}
    present = here + [use for use in newest if use.end is None and use.symbol not in ours]
    return [*recorded(here, newest), *judge(present, past, newest)]


def recorded(here: Sequence[Use], newest: Sequence[Use]) -> list[Finding]:
    """Whether the newest row of each symbol in the log is its present connection."""
    log = {use.symbol: use for use in newest}
    findings = []
    for use in here:
        row = log.get(use.symbol)
        ok = row is not None and row.exit == use.exit and abs(row.begin - use.begin) <= RECORDED_S
        what = f"exit {row.exit} since {_time(row.begin)}" if row else "nothing"
        text = f"the log has {what}" if ok else f"the log has {what}, connected is {use.exit} since {_time(use.begin)}"
        findings.append(Finding(use.symbol, "egress_log", ok, text))
    return findings


def judge(present: Sequence[Use], past: Sequence[Use], newest: Sequence[Use]) -> list[Finding]:
    """Whether no two symbols used one address at the same time, now (``present``) and ever in the log (``past``,
    ``newest`` completing it where the present connection is older)."""
    findings = []
    now = collisions(present)
    for one, other in now:
        text = f"{other.symbol} leaves by {one.outside} too"
        findings.append(Finding(one.symbol, "exits", False, text))
    if not now:
        text = ", ".join(f"{use.symbol} {use.outside}" for use in sorted(present, key=lambda u: u.symbol))
        findings.append(Finding("all", "exits", True, f"distinct now: {text or 'none connected'}"))
    before = collisions(set(past) | set(newest))
    for one, other in before:
        ends = [end for end in (one.end, other.end) if end is not None]
        until = _time(min(ends)) if ends else "now"
        text = f"{other.symbol} left by {one.outside} too, {_time(max(one.begin, other.begin))} to {until}"
        findings.append(Finding(one.symbol, "exits in the log", False, text))
    if not before and past:
        text = f"distinct in all {len(past)} connections since {_time(min(use.begin for use in past))}"
        findings.append(Finding("all", "exits in the log", True, text))
    return findings


def _time(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(second))
