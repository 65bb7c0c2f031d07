"""The line of statistics of a recording, and the one that systemd shows of all of a process. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mexc_pipeline import health


class StatisticsLine(NamedTuple):
    """What is said of one recording: the ``fields`` of its line in the log, ``state`` and ``last_seq`` as there, and
    the market's frames a second since the line before."""

    fields: dict[str, Any]
    state: str
    last_seq: int
    frames_s: float


def in_a_line(
    status: Mapping[str, Any], before: Mapping[str, int], seconds: float, silent_s: float | None
) -> StatisticsLine:
    """What is said of a recording's ``status``. ``before``: the rows by type at the line before; ``silent_s`` as
    configured."""
    rows: Mapping[str, int] = status["rows"]
    state = health.of_symbol(status, silent_s=silent_s).state
    rates = {name: round((rows[name] - before[name]) / seconds, 2) for name in rows}
    frames_s = (health.market_frames(rows) - health.market_frames(before)) / seconds
    fields = {
        "symbol": status["id"],
        "state": state,
        "last_seq": status["last_seq"],
        **{f"{name}_s": rate for name, rate in rates.items() if rate},
        "reconnects": status["reconnects"],
        "delay_ms": status["delay_ms"],
        "durable_ms": status["durable_ms"],
        "disk_used_percent": status["disk"]["used_percent"],
    }
    return StatisticsLine(fields, state, status["last_seq"], frames_s)


def for_systemd(lines: Sequence[StatisticsLine], of: int) -> str:
    """What systemd shows of a process whose recordings (at least one of ``of``, those that have ended among them) are
    said so: of a single one its state, of several how many are in which."""
    frames_s = sum(line.frames_s for line in lines)
    if of == 1:
        return f"{lines[0].state}, seq {lines[0].last_seq}, {frames_s:.1f} frames/s"
    states = Counter(line.state for line in lines)
    states["ended"] += of - len(lines)
    said = [f"{count} {state}" for state, count in states.most_common() if count]
    return f"{', '.join(said)}, {frames_s:.1f} frames/s"
