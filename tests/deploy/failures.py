"""What failed, for the end of a run: ``python -m deploy.failures FOLDER SCENARIO…``, folders of reports below FOLDER.

Whoever sees only the end of a long output sees here which tests failed and the end of what each has to say: from the
JUnit files ``*.xml`` of a scenario, and where these name no failure from its ``log``, before a step failed.
"""

# ruff: noqa: T201 - what it prints is its answer
from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LINES = 30
"""Of one failure, from its end."""
MOST = 200
"""Lines in all."""
WIDTH = 300
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
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
    return [line[:WIDTH] for line in shown if line]


def summary(failed: dict[str, list[Failure]]) -> list[str]:
    """At most ``MOST`` lines: the end of what each failure says, then the names of all, which are seen in any case."""
    every = [(scenario, failure) for scenario, failures in failed.items() for failure in failures]
    names = [" ".join(_lines(f"failed: {scenario}: {failure.name}")) for scenario, failure in every]
    if len(names) > MOST // 2:
        names = [*names[: MOST // 2 - 1], f"and {len(names) - MOST // 2 + 1} more"]
    shown: list[str] = []
    each = min(LINES, (MOST - len(names)) // len(every) - 1)
    for name, (_, failure) in zip(names, every if each > 0 else (), strict=False):
        shown += [name.replace("failed:", "==", 1), *failure.said[-each:]]
    return shown + names


def main() -> int:
    """Print it."""
    folder, scenarios = Path(sys.argv[1]), sys.argv[2:]
    for line in summary({scenario: of_scenario(folder / scenario) for scenario in scenarios}):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
