"""Writes docs/reliability.md from the campaign's results: what was really run, and what came of it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

from faults.campaign import read_results
from faults.catalogue import SCENARIOS
from support.evidence import with_evidence

_INTRO = """# Reliability

This page is written by `make reliability` from the results of the fault campaign (`make campaign`). Nothing in it is
typed in by hand but the words of the first section and of the last two.

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
- Disk errors, a disk that takes seconds over a call, and clock steps come from the library too; socket faults and
  frames of other shapes from the simulator. Disks that are really full are small file systems, mounted for it and
  filled to the last byte. A proxy before ClickHouse loses replies, delays them, and refuses a row in the server's name.
- A machine that has nothing to give is a limit on the handles of the processes that run (prlimit) and, where control
  groups can be made, on the number of all of them and their threads.

*Lost* counts rows missing that had been committed, or that came before others of their connection; *repeated* rows
there twice; *unexplained* everything else that should not be, including a command that ended with the wrong status.
*Tail* counts frames sent in the last moments before a connection broke or a process was killed, and not committed by
then: those the recorder never had. It does not promise them, and its next `started` row says that the stop was unclean.

In all of it the order of rows is judged: seq without a hole or a repeat, `rx` never back without a word, each row in
the file of its own period. Each row's `rx` is held against the moment at which the simulator sent the frame, by the
false clock where there is one: half a second of difference (a quarter in `busy`; none at all in `frames` and
`segments`) is a violation, beyond what the machine was seen to be late itself. What was sent while `sockets` had the
process stopped cannot have been read before it went on: there the time counts from then.
"""

_OUTSIDE = """## Found from outside

A campaign proves what its makers thought of. In November 2026 the recorder was tried against some fifty troubles that
users of such software report, attacked in some 250 ways, and operated for a day on three fresh hosts by its
documentation alone. Most held. These kinds did not; each was mended where its rule was wrong, has a test that failed
before, and stands in the campaign above where it is one of processes, disks, clocks or sockets.

- *One channel's trouble cost all of them.* A channel that was retired or refused, frames that came compressed, and
  sessions that were ended made the collector leave the connection, again and again, with growing pauses.
  (`exchange`, `hosts`)
- *One answer over REST, or one handshake refused, weighed more than data that arrive.* (`exchange`, `hosts`)
- *What was received waited for other parts.* Rows of a process's first seconds stood in memory until files, tables and
  other processes had answered; a kill lost them. (`busy`)
- *A late commit gave rows another time and another period.* (`disk`, `slow`)
- *Output for people could end the work*, and a terminal that was closed ended it. (`output`)
- *A wrong clock froze times and files*; names were taken for the order of what they name. (`clock`)
- *Another shape was kept and not said*: dead letters that nobody counted, sides that are null, versions that begin low,
  deals again, numbers beyond a column. (`shapes`, `frames`)
- *A segment that was removed while it was written took what followed with it*, until its period's end; a collector
  whose data folder was removed ran on and recorded nothing. (`neighbours`)
- *One damaged part stopped its neighbours*, permission was taken for damage, and what stood in the place of a file was
  waited for without end. (`neighbours`, `together`, `segments`)
- *Text of others was trusted*: statements, manifests, answers, metadata, control sequences; what it could cost had no
  bound. (tests of its own; floods of sockets in `together`)
- *What proved a segment was made from the segment*: a row altered between two processes was in a verified file.
  (`segments`)
- *A spool that refused for another reason than room was waited for in memory*, and a process that stood still gave rows
  a wrong time without a word. (`sockets`, tests of its own)
- *What a file says of itself was believed word by word*: a bit changed in an edge, a name, a count or the place of a
  pending row lost rows, repeated them, gave them another period, or ended the symbol's recording. (`segments`,
  `neighbours`, property tests)
- *The only copy was taken for its own copy*: pruning with an archive that was the folder of the files itself. (tests of
  their own)
- *A table without its files was blamed on the rows it would not take*, and files without a table kept the next one from
  its name. (`clickhouse`, `mounts`)
- *A start looked for what had been sent before in too few segments*: deals that came again were not said. (`sockets`)
- *One file's word for the last seq was believed unseen*; a store that was not up yet was taken for one that knows
  nothing. (tests of their own)
- *Rows that a damaged log had lost were said once, in one line of the log*, and every file was called complete; a
  segment that newer rows had overtaken was in no file, and nobody said so. (tests of their own)
- *A start could wait for the engine without end*: a store whose engine did not open its folder said nothing and did not
  go on. (`embedded`, tests of its own)
- *What was verified was called all there is*: a channel that had been given up, or frames that nobody could read any
  more, were in no word of a run's end, and the time without the channel was called covered. (tests of their own)
- *What an operator changed, mistyped or broke off cost data, or was not what ran afterwards.* (`make test-deploy`)
- *A field that every frame of a channel had and none has any more was said to nobody but who read it*, and a book's
  levels were numbered as they came. (property tests)
- *Any frame counted as life*: of several addresses one that only sent a notice now and then kept the recorder from the
  next, which served. (tests of its own)
- *The end of a run went by its own files alone*: one that was stopped and started again within a period never ended
  well. (tests of its own)
- *Half of what was put back was in the way of putting it back*, and tables were dropped as proven by files of another
  spool that had the same seqs. (tests of their own)
- *Who may read may lock*: a member of the recorder's group, who may change nothing, kept a symbol from being recorded.
  (tests of its own)
- *What the machine had not to give for a moment was taken for good*: `run` ended and killed its collectors, a collector
  ended, sound tables were set apart as damaged. (`scarce`, tests of its own)
- *Symbols that lost the exchange together used up what their address may ask of it within seconds*, and for most of a
  minute none of them could see it come back. (property tests)
- *A start refused what a recording under way waits out*: a busy engine, a disk that is nearly full, a folder for files
  that takes none. A machine that started again recorded nothing. (tests of its own)
- *Rows that a killed process left were in no word of those who look at files* until they were ten minutes overdue.
  (tests of its own)
- *A clock that stands still while the machine is suspended was asked how long it had stood still.* (tests of its own;
  the campaign cannot suspend a machine)
- *What a contract had been was taken for what it is*, for up to an hour after it changed: minutes differed that did
  not, and files began with its old size. (tests of their own; changes of contracts in `sockets`, `exchange`, `shapes`,
  `candles`)
"""

_LIMITS = """## What this does not show

- The power losses are made by rolling files back, not by cutting a machine's power; a disk that lies about its cache is
  outside of what any program can promise.
- The server is Debian's ClickHouse 18.16, the embedded engine chDB; newer servers are used in the field. The embedded
  engine makes its calls past the library, so its disk is seen full, not failing or read-only, and its process is killed
  at random moments, not at each call.
- A write-ahead log that somebody damages takes the rows with it that were nowhere else. They stand in the tail of that
  row of the table and not among the lost: what is promised is that the rest is in order and that the next `started` row
  calls the stop unclean. Of the damaged one of two symbols only this is judged: what is in its files was sent, and is
  there once.
- A collector killed while it waits for room on a full disk loses what it had received and not committed, at most the
  seconds until it would have left the exchange.
- A collector that is told to end has five seconds. What a disk, or a machine, keeps it from committing for longer than
  that is not committed; it says so and ends with 1.
- The campaign runs as root, to whom every file is open. What belongs to somebody else is tried by tests of its own
  (`test_not_allowed.py`), not here.
- A run that was made again, because the campaign itself had been at fault (a deadline too short for a busy machine, a
  moment taken too late), counts once.
- Faults are drawn one or two at a time. The tail depends on how busy the machine is; the times above are of a machine
  of two cores that ran up to three of them at once.
"""

_ELSEWHERE = (
    ("unit/feed/test_clock.py", "test_a_clock_that_was_compared_and_is_right_is_trusted"),
    ("integration/test_store_loading.py", "test_loading_goes_on_past_a_table_that_the_server_only_half_made"),
    ("integration/test_verify_exports.py", "test_one_flipped_bit_in_the_metadata_is_noticed_from_the_file_alone"),
)
"""Tests of defects that the campaign found, beside the ones of test_defects.py."""


def write_report(results: Path, root: Path) -> None:
    """Write docs/reliability.md of ``root``, and what README says of the campaign from it."""
    text = page(read_results(results))
    (root / "docs" / "reliability.md").write_text(text)
    readme = root / "README.md"
    readme.write_text(with_evidence(readme.read_text(), evidence(text)))


def evidence(text: str) -> dict[str, str]:
    """What README's table of evidence says of the campaign, by the page: claim → what came of it."""
    table = text.partition("## The last campaign\n\n")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    faults = {scenario.name: scenario.fault for scenario in SCENARIOS}
    kills, power = (
        next(row[2].partition(" ")[0] for row in cells if row[1] == faults[name]) for name in ("kill", "power")
    )
    lost, repeated, unexplained = (sum(int(row[column] or 0) for row in cells) for column in (4, 5, 6))
    (rows,) = re.findall(r"^[\d,]+ runs, ([\d,]+) rows in files", text, re.MULTILINE)
    return {
        "a committed row is in a file, once, byte for byte": f"{kills} kills, {power} power losses and what else "
        f"[the page](docs/reliability.md) lists: {lost} lost, {repeated} repeated, {unexplained} unexplained "
        f"of {rows} rows"
    }


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
        _OUTSIDE,
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
