"""Writes docs/reliability.md from the campaign's results: what was really run, and what came of it."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Any

from faults.campaign import read_results
from faults.catalogue import SCENARIOS

_INTRO = """# Reliability

This page is written by `make reliability` from the results of the fault campaign (`make campaign`). Nothing in it is
typed in by hand but the words of the first and the last section.

The campaign starts the recorder's real processes against the bundled exchange simulator, breaks them at points drawn
from a seed, then stops the faults, lets the recorder finish, and judges from outside: what the simulator sent on each
connection, told apart with Python's `json` module, against what the Parquet files hold, read with PyArrow. Beside each
recording a reader watches the spool; every row it saw committed must be in a file, unchanged. No code of the recorder
takes part in the judgement.

How faults are made:

- A library preloaded into the processes (`tests/faults/shim/faults.c`) counts their writes, syncs and changes of names
  and kills the process with signal 9 before, after or in the middle of the one drawn. Processes are forked from an
  interpreter that has the modules loaded; from there on they are the installed commands.
- For a power loss the same library keeps a journal. After the kill, each write since the file's last fsync is dropped,
  kept, or torn at 512 or 4,096 bytes, and each name made or removed since the folder's last fsync is undone, as the
  seed has it. This is harsher than common file systems are.
- Disk errors and clock steps come from the library too; socket faults from the simulator. Disks that are really full
  are small file systems, mounted for it and filled to the last byte. A proxy before ClickHouse loses replies, delays
  them, and refuses a row in the server's name.

*Lost* counts rows missing that had been committed, or that came before others of their connection; *repeated* rows
there twice; *unexplained* everything else that should not be, including a command that ended with the wrong status.
*Tail* counts frames sent in the last moments before a connection broke or a process was killed, and not committed by
then: those the recorder never had. It does not promise them, and its next `started` row says that the stop was unclean.
"""

_LIMITS = """## What this does not show

- The power losses are made by rolling files back, not by cutting a machine's power; a disk that lies about its cache is
  outside of what any program can promise.
- The server is Debian's ClickHouse 18.16, the embedded engine chDB; newer servers are used in the field. The embedded
  engine makes its calls past the library, so its disk is seen full, not failing or read-only, and its process is killed
  at random moments, not at each call.
- Debian's ClickHouse, once its disk was full, refuses a table's name until it is started again, because of a file that
  it leaves behind. In those runs it is.
- A write-ahead log that somebody damages takes the rows with it that were nowhere else. They stand in the tail of that
  row of the table and not among the lost: what is promised is that the rest is in order and that the next `started` row
  calls the stop unclean.
- A collector killed while it waits for room on a full disk loses what it had received and not committed, at most the
  seconds until it would have left the exchange.
- Some runs of earlier campaigns were made again: for a defect that had been mended, or because the campaign itself had
  been at fault (a deadline too short for a busy machine, a moment taken too late). In this one `embedded` found one
  more defect, the damaged table of records in the list above; after that was mended, `embedded`, `clickhouse`,
  `tables` and `index` were run again, and only those runs of theirs are counted. Everything else is of the first of
  the two revisions.
- A collector that is told to end has five seconds. On a machine so busy that what waited for its commit took longer (a
  start of half a minute, periods of two seconds) it gave up, said so and ended with 1, three times in an earlier
  campaign.
- Faults are drawn one or two at a time. The tail depends on how busy the machine is; the times above are of a machine
  of two cores that ran up to five of them at once.
"""

_ELSEWHERE = (
    ("integration/test_verify_exports.py", "test_one_flipped_bit_in_the_metadata_is_noticed_from_the_file_alone"),
)
"""Tests of defects that the campaign found, beside the ones of test_defects.py."""


def write_report(results: Path, target: Path) -> None:
    """Replace ``target`` by the page."""
    every = read_results(results)
    target.write_text(page(every))


def page(every: list[dict[str, Any]]) -> str:
    """The page's text."""
    lines = [_INTRO, "## The last campaign", "", *_table(every), "", *_totals(every), "", *_violations(every)]
    lines += [
        "## What was broken, and where processes died",
        "",
        *_steps(every),
        "",
        "## Defects found",
        "",
        *_defects(),
        "",
        _LIMITS,
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(every: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| promise | fault | tries (aim) | frames judged | lost | repeated | unexplained | tail | result |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for scenario in SCENARIOS:
        mine = [r for r in every if r["scenario"] == scenario.name]
        if not mine:
            lines.append(f"| {scenario.promise} | {scenario.fault} | 0 ({scenario.target:,}) | | | | | | not run |")
            continue
        total = {k: sum(r[k] for r in mine) for k in ("tries", "frames", "lost", "repeated", "unexplained", "tail")}
        tail_ms = max(r["tail_ms"] for r in mine)
        bad = sum(not r["ok"] for r in mine)
        result = f"{bad} of {len(mine)} runs violated" if bad else f"held in {len(mine)} runs"
        if total["tries"] < scenario.target:
            result += ", aim not reached"
        lines.append(
            f"| {scenario.promise} | {scenario.fault} | {total['tries']:,} ({scenario.target:,}) | {total['frames']:,} "
            f"| {total['lost']} | {total['repeated']} | {total['unexplained']} "
            f"| {total['tail']:,} (≤ {tail_ms:,.0f} ms) | {result} |"
        )
    return lines


def _totals(every: list[dict[str, Any]]) -> list[str]:
    revisions = list(dict.fromkeys(r["revision"] for r in sorted(every, key=lambda r: int(r["at"]))))
    span = f"{revisions[0]} to {revisions[-1]} ({len(revisions)} in all)" if revisions else "none"
    return [
        f"{len(every):,} runs, {sum(r['rows'] for r in every):,} rows in files, "
        f"{sum(r['witnessed'] for r in every):,} of them seen committed by the reader beside; "
        f"{sum(r['seconds'] for r in every) / 3600:.1f} hours. Revisions, a plus for "
        f"changes not committed: {span}.",
        "",
        f"Frames sent to a process that died before its first commit: {sum(r.get('unborn', 0) for r in every):,}.",
    ]


def _violations(every: list[dict[str, Any]]) -> list[str]:
    bad = [r for r in every if not r["ok"]]
    if not bad:
        return []
    lines = ["### Violations", ""]
    for result in bad:
        again = f"`PYTHONPATH=tests .venv/bin/python -m faults run {result['scenario']} --seed {result['seed']}`"
        what = "; ".join(v.replace("\n", " ").replace("|", "\\|")[:300] for v in result["violations"])
        lines.append(f"- {again} at {result['revision']}: {what}")
    return [*lines, ""]


def _steps(every: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for scenario in SCENARIOS:
        steps: Counter[str] = Counter()
        for result in every:
            if result["scenario"] == scenario.name:
                for step, count in result["steps"].items():
                    steps[_in_words(step)] += count
        if steps:
            said = ", ".join(f"{step} {count:,}" for step, count in steps.most_common())
            lines += [f"**{scenario.name}**: {said}.", ""]
    return lines[:-1]


def _in_words(step: str) -> str:
    """A call other than a write has no middle: the process died after it."""
    return step if " write of " in step else step.replace("middle ", "after ")


def _defects() -> list[str]:
    """The tests of defects say by name what was found."""
    tests = Path(__file__).parents[1]
    here = Path(__file__).with_name("test_defects.py")
    named = [(here, f) for f in _functions(here) if "the_power_loss_takes" not in f.name]  # that one is of the campaign
    for path, name in ((tests / file, name) for file, name in _ELSEWHERE):
        named.append((path, next(f for f in _functions(path) if f.name == name)))
    return [f"- `{path.name}::{f.name}`: {' '.join((ast.get_docstring(f) or '').split())}" for path, f in named]


def _functions(path: Path) -> list[ast.FunctionDef]:
    return [
        f for f in ast.parse(path.read_text()).body if isinstance(f, ast.FunctionDef) and f.name.startswith("test_")
    ]
