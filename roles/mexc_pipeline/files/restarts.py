#!/usr/bin/python3
"""Ends with 1 where a unit was restarted too often of late: ``restarts.py STATE UNIT…``, run once a minute by a timer.

``Restart=always`` keeps trying and never counts as failed, so ``OnFailure=`` of the unit itself is never reached; it is
by this one. What is counted is systemd's own number of automatic restarts, kept in STATE from one turn to the next.
Where that cannot be asked or kept it ends with 1 too: nobody would be told of restarts any more.
"""

# ruff: noqa: T201 - what it prints is for the journal; systemd's own PATH
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

MOST = 5
WITHIN_S = 600.0
WAIT_S = 20.0
"""For systemd's answer; the unit itself may take 30 s."""


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


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
    before = samples_of(state)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    after, alarms = {}, []
    for unit, count in restarts(sys.argv[2:]).items():
        samples, risen = too_often(before.get(unit, []), now, count)
        if risen > MOST:
            alarms.append(f"{unit} was restarted {risen} times in {now - samples[0][0]:.0f} s and goes on trying")
            samples = samples[-1:]  # said once; it takes as many again to say it again
        after[unit] = samples
    for alarm in alarms:
        print(f"{alarm}; its journal says why", file=sys.stderr)
    making = state.with_name(state.name + ".new")
    try:
        making.write_text(json.dumps(after))
        making.replace(state)
    except OSError as error:
        raise UserError(
            f"{state} cannot be written: {error.strerror}; until it can, no restarts are counted"
        ) from error
    return 1 if alarms else 0


def samples_of(state: Path) -> dict[str, list[tuple[float, int]]]:
    """What the turn before has kept, by unit. Something else than it writes is said and counts for nothing: the turn
    replaces it."""
    try:
        said: dict[str, Any] = json.loads(state.read_bytes())
        return {unit: [(float(at), int(n)) for at, n in samples] for unit, samples in said.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        print(f"{state} is none of ours and is written anew: restarts before now are not counted", file=sys.stderr)
        return {}


def restarts(patterns: list[str]) -> dict[str, int]:
    """systemd's number of automatic restarts, by unit."""
    command = ("systemctl", "show", "--property", "Id,NRestarts", "--", *patterns)
    found = {}
    for block in filter(None, answer(*command).strip().split("\n\n")):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        try:
            found[fields["Id"]] = int(fields.get("NRestarts") or 0)
        except (KeyError, ValueError):
            raise UserError(f"{' '.join(command)} says what is no unit: {block[:200]}; run it by hand") from None
    return found


def answer(*command: str, fails: bool = False) -> str:
    """What a command prints. UserError where it cannot be run or does not end, or (but with ``fails``) fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=WAIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{' '.join(command)} did not end within {WAIT_S:g} s; run it by hand to see why") from None
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run: {error.strerror}; PATH is {os.environ.get('PATH')}") from error
    if done.returncode != 0 and not fails:
        said = done.stderr.strip() or "it said nothing"
        raise UserError(f"{' '.join(command)} ended with {done.returncode}: {said}; run it by hand to see why")
    return done.stdout


def end(main: Callable[[], int]) -> NoReturn:
    """End the process with ``main``'s status; what failed outside of this program is one line, and the status 1."""
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        is_of_file = isinstance(error, OSError) and error.filename is not None
        said = f"{error.filename}: {error.strerror}" if is_of_file else str(error)
        line = " ".join(said.split())
        sys.exit("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


if __name__ == "__main__":
    end(main)
