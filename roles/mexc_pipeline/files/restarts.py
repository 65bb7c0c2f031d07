#!/usr/bin/python3
"""Ends with 1 where a unit was restarted too often of late, or has not been ready for as long: ``restarts.py STATE
UNIT…``, run once a minute by a timer.

A unit that is tried again for ever never counts as failed, so ``OnFailure=`` of the unit itself is never reached; it is
by this one. What is counted is systemd's own number of automatic restarts, kept in STATE from one turn to the next, and
with it when the unit was last ready: a start that takes two minutes to fail makes few restarts. A unit that somebody
has stopped is left alone. Where that cannot be asked or kept it ends with 1 too: nobody would be told any more.
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
from typing import Any, NamedTuple, NoReturn

MOST = 5
WITHIN_S = 600.0
READY = ("active", "reloading", "refreshing")
STOPPED = ("inactive",)
WAIT_S = 20.0
"""For systemd's answer; the unit itself may take 30 s."""


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


class Unit(NamedTuple):
    """As systemd has it now."""

    state: str
    restarts: int


class Seen(NamedTuple):
    """What is kept of a unit: when it was last ready, and samples of its restarts; times in seconds since boot."""

    ready: float
    samples: list[tuple[float, int]]


def too_often(seen: list[tuple[float, int]], now: float, count: int) -> tuple[list[tuple[float, int]], int]:
    """The samples (seconds, restarts until then) that are still of interest, the new one with them, and by how many the
    count rose within them. A unit that was started by hand counts from 0 again."""
    kept = [(at, n) for at, n in seen if now - WITHIN_S <= at <= now]
    if kept and count < kept[-1][1]:
        kept = []
    kept.append((now, count))
    return kept, count - kept[0][1]


def judged(name: str, unit: Unit, before: Seen | None, now: float) -> tuple[Seen, list[str]]:
    """What is kept of a unit from this turn on, and what is to be told of it: once, and again when it has lasted as
    long, or taken as many restarts, again."""
    samples, risen = too_often(before.samples if before is not None else [], now, unit.restarts)
    alarms = []
    if risen > MOST:
        alarms.append(f"{name} was restarted {risen} times in {now - samples[0][0]:.0f} s and goes on trying")
        samples = samples[-1:]
    # One that is up at this moment and was restarted since the turn before may be on its way down again.
    is_new = before is not None and bool(before.samples) and unit.restarts > before.samples[-1][1]
    is_up = unit.state in READY and not is_new
    ready = now if before is None or before.ready > now or is_up or unit.state in STOPPED else before.ready
    if now - ready >= WITHIN_S:
        alarms.append(f"{name} has not been ready for {now - ready:.0f} s ({unit.state})")
        ready = now
    return Seen(ready, samples), alarms


def main() -> int:
    state = Path(sys.argv[1])
    before = seen_in(state)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    after: dict[str, Seen] = {}
    alarms: list[str] = []
    for name, unit in units(sys.argv[2:]).items():
        after[name], told = judged(name, unit, before.get(name), now)
        alarms += told
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


def seen_in(state: Path) -> dict[str, Seen]:
    """What the turn before has kept, by unit. Something else than it writes is said and counts for nothing: the turn
    replaces it."""
    try:
        said: dict[str, Any] = json.loads(state.read_bytes())
        return {
            unit: Seen(float(ready), [(float(at), int(n)) for at, n in samples])
            for unit, (ready, samples) in said.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        print(f"{state} is none of ours and is written anew: restarts before now are not counted", file=sys.stderr)
        return {}


def units(patterns: list[str]) -> dict[str, Unit]:
    """systemd's number of automatic restarts and the state, by unit; those that are not installed here are left out."""
    command = ("systemctl", "show", "--property", "Id,LoadState,ActiveState,NRestarts", "--", *patterns)
    found = {}
    for block in filter(None, answer(*command).strip().split("\n\n")):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        try:
            if fields["LoadState"] not in ("not-found", "masked"):
                found[fields["Id"]] = Unit(fields["ActiveState"], int(fields.get("NRestarts") or 0))
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
