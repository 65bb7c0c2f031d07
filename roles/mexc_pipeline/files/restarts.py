#!/usr/bin/python3
"""Ends with 1 where a unit was restarted too often of late: ``restarts.py STATE UNIT…``, run once a minute by a timer.

``Restart=always`` keeps trying and never counts as failed, so ``OnFailure=`` of the unit itself is never reached; it is
by this one. What is counted is systemd's own number of automatic restarts, kept in STATE from one turn to the next.
"""

# ruff: noqa: T201, S607 - what it prints is for the journal; systemd's own PATH
from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

MOST = 5
WITHIN_S = 600.0


def too_often(seen: list[tuple[float, int]], now: float, count: int) -> tuple[list[tuple[float, int]], int]:
    """The samples (seconds, restarts until then) that are still of interest, the new one with them, and by how many the
    count rose within them. A unit that was started by hand counts from 0 again."""
    kept = [(at, n) for at, n in seen if now - WITHIN_S <= at <= now]
    if kept and count < kept[-1][1]:
        kept = []
    kept.append((now, count))
    return kept, count - kept[0][1]


def main() -> int:
    state = Path(sys.argv[1])
    try:
        before: dict[str, list[tuple[float, int]]] = json.loads(state.read_text())
    except (OSError, ValueError, RecursionError):
        before = {}
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    after, alarms = {}, []
    for unit, count in restarts(sys.argv[2:]).items():
        samples, risen = too_often([(at, n) for at, n in before.get(unit, [])], now, count)
        if risen > MOST:
            alarms.append(f"{unit} was restarted {risen} times in {now - samples[0][0]:.0f} s and goes on trying")
            samples = samples[-1:]  # said once; it takes as many again to say it again
        after[unit] = samples
    making = state.with_name(state.name + ".new")
    making.write_text(json.dumps(after))
    making.replace(state)
    for alarm in alarms:
        print(f"{alarm}; its journal says why", file=sys.stderr)
    return 1 if alarms else 0


def restarts(patterns: list[str]) -> dict[str, int]:
    """systemd's number of automatic restarts, by unit."""
    shown = subprocess.run(
        ["systemctl", "show", "--property", "Id,NRestarts", "--", *patterns], capture_output=True, text=True, check=True
    )
    found = {}
    for block in filter(None, shown.stdout.strip().split("\n\n")):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        found[fields["Id"]] = int(fields.get("NRestarts") or 0)
    return found


if __name__ == "__main__":
    sys.exit(main())
