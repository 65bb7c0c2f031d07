"""What failed, for the end of a run: ``python -m deploy.failures FOLDER SCENARIO…``, folders of reports below FOLDER.

Whoever sees only the last screen of a long output sees which tests failed, and why the first of them did: those after
it are often its consequences. From the JUnit files ``*.xml`` of a scenario, and where these name no failure from its
``log``, before a step failed; what the others have to say stands there too.
"""

# ruff: noqa: T201 - what it prints is its answer
from __future__ import annotations

import re
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LINES = 10
"""Of the first failure, below its name."""
WIDTH = 120
"""Of a line; with ``LINES`` it keeps the first failure within the last 1,500 characters of what is printed."""
MOST = 100
"""Names."""
LONGEST = 100_000
"""Characters that are read of a line: a failed command is one, with all that it printed."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_WHY = re.compile(r"E  |\S+:\d+: \w*(Error|Exception|Failed|Exit|Interrupt)\b")
"""pytest's lines that say why, and its line of where."""
_STEP_FAILED = re.compile(r"\[\S+ > (\w+)\] Executed: Failed")


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed test, or a step of a scenario."""

    name: str
    said: Sequence[str]


def of_scenario(folder: Path) -> list[Failure]:
    """What failed in the scenario whose reports are in that folder; never nothing."""
    found: list[Failure] = []
    for path in sorted(folder.glob("*.xml")):
        try:
            found += of_junit(path.read_text())
        except ET.ParseError as error:
            found.append(Failure(path.name, [f"cut off, no report: {error}"]))
    if found:
        return found
    log = folder / "log"
    return [of_log(log.read_text(errors="replace") if log.exists() else "")]


def of_junit(text: str) -> list[Failure]:
    """The failed cases of a report. A failed task's text is all of its result: the message may be far from its end."""
    found = []
    for case in ET.fromstring(text).iter("testcase"):
        for wrong in [*case.findall("failure"), *case.findall("error")]:
            said, message = _lines(wrong.text or ""), _lines(wrong.get("message", ""))[-1:]
            if message and not any(message[0] in line for line in said[-LINES:]):
                said += message
            found.append(Failure(f"{case.get('classname', '')}::{case.get('name', '')}", said))
    return found


def of_log(text: str) -> Failure:
    """What was printed before the last step that failed, by the name of the last task before it."""
    lines = _lines(text)
    step, at = "", len(lines)
    for n, line in enumerate(lines):
        if match := _STEP_FAILED.search(line):
            step, at = f"{match[1]}: ", n + 1
    task = next((line.rstrip(" *") for line in reversed(lines[:at]) if line.startswith("TASK [")), "no task")
    return Failure(step + task, lines[:at])


def _lines(text: str) -> list[str]:
    lines = (line.rstrip() for line in _COLOURS.sub("", text).splitlines())
    shown = ("".join(c if c.isprintable() else "?" for c in line.expandtabs()) for line in lines)
    return [line[:LONGEST] for line in shown if line]


def why(said: Sequence[str]) -> list[str]:
    """At most ``LINES`` lines of what a failure says: pytest's of why and where, else its end, from Ansible's last
    error on; what is too long lacks its middle."""
    chosen = [line for line in said if _WHY.match(line)]
    if not chosen:
        starts = [n for n, line in enumerate(said) if line.startswith(("fatal: [", "failed: ["))]
        chosen = list(said[starts[-1] :] if starts else said[-LINES:])
    pieces = [piece for line in chosen for piece in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]
    if len(pieces) <= LINES:
        return pieces
    return [*pieces[: LINES // 2], "…", *pieces[len(pieces) - LINES + LINES // 2 + 1 :]]


def summary(failed: dict[str, list[Failure]]) -> list[str]:
    """The names of all, then the name of the first and why it failed."""
    every = [(scenario, failure) for scenario, failures in failed.items() for failure in failures]
    names = [" ".join(_lines(f"{scenario}: {failure.name}"))[: WIDTH - len("failed: ")] for scenario, failure in every]
    more = [f"and {len(names) - MOST} more"] if len(names) > MOST else []
    shown = [f"failed: {name}" for name in names[:MOST]]
    return [*shown, *more, f"first: {names[0]}", *why(every[0][1].said)]


def main() -> int:
    """Print it."""
    folder, scenarios = Path(sys.argv[1]), sys.argv[2:]
    for line in summary({scenario: of_scenario(folder / scenario) for scenario in scenarios}):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
