"""Runs scenarios by seed, appends each result as a JSON line, goes on where an earlier run stopped."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faults.bench import Outcome
from faults.catalogue import SCENARIOS, Scenario
from faults.shim import NoCompilerError, library

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "reports" / "campaign"
RESULTS = "results.jsonl"
SAMPLE_MINUTES = 18.0


def run_one(scenario: Scenario, seed: int, keep: bool = False) -> dict[str, Any]:
    """One scenario in a folder of its own; never raises for what the scenario does."""
    folder = Path(tempfile.mkdtemp(prefix=f"faults-{scenario.name}-"))
    began = time.monotonic()
    outcome = Outcome()
    broken = ""
    try:
        outcome = scenario.run(folder, seed)
    except Exception:  # noqa: BLE001 - whatever goes wrong in a scenario is a result, and the campaign goes on
        broken = traceback.format_exc()
        outcome.verdict.wrong(f"the scenario itself ended early: {broken.strip().splitlines()[-1][:1500]}")
    result = {
        "scenario": scenario.name,
        "seed": seed,
        "ok": not outcome.verdict.violations,
        "tries": outcome.tries,
        "steps": dict(outcome.steps),
        **asdict(outcome.verdict),
        "notes": outcome.notes,
        "seconds": round(time.monotonic() - began, 1),
        "revision": revision(),
        "at": int(time.time()),
    }
    if broken:
        result["traceback"] = broken
    if result["ok"] and not keep:
        shutil.rmtree(folder)
    else:
        result["folder"] = str(folder)
    return result


def revision() -> str:
    """The commit of this working copy, with a plus where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All results of a campaign; a line cut short by a crash is left out."""
    path = folder / RESULTS
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # the campaign was killed while it wrote this line; its seed is run again
    return found


def planned(sample: bool, only: list[str]) -> Iterator[tuple[Scenario, int]]:
    """Scenario and seed, the many spread among the few, so that an early end has tried every kind."""
    chosen = [s for s in SCENARIOS if not only or s.name in only]
    if os.geteuid():
        for left_out in [s for s in chosen if s.needs_root]:
            print(f"{left_out.name}: left out, mounting a small disk takes root", file=sys.stderr)  # noqa: T201
            chosen.remove(left_out)
    counts = {s.name: s.sample if sample else s.runs for s in chosen}
    order = [
        ((seed - 0.5) / counts[s.name], n, seed) for n, s in enumerate(chosen) for seed in range(1, counts[s.name] + 1)
    ]
    for _, number, seed in sorted(order):
        yield chosen[number], seed


def say(result: dict[str, Any], file: Any = sys.stdout) -> None:
    """One line a result, and for a violation what it takes to see it again."""
    verdict = "ok" if result["ok"] else "VIOLATION"
    print(
        f"{result['scenario']:<18} seed {result['seed']:<5} {verdict:<9} {result['tries']:>6} tries "
        f"{result['frames']:>8} frames {result['lost']} lost {result['repeated']} repeated "
        f"{result['unexplained']} unexplained, tail {result['tail']} ({result['tail_ms']:.0f} ms), "
        f"{result['seconds']} s",
        file=file,
        flush=True,
    )
    for violation in result["violations"]:
        print(f"    {violation}", file=file)
    if not result["ok"]:
        again = f"PYTHONPATH=tests .venv/bin/python -m faults run {result['scenario']} --seed {result['seed']}"
        print(f"    again: {again}\n    left in: {result.get('folder')}", file=file, flush=True)


def campaign(args: argparse.Namespace) -> int:
    """Run what is planned and not yet in the results. 0 where nothing was violated."""
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    if args.sample:  # a sample is of the present state; only the campaign goes on
        (folder / RESULTS).unlink(missing_ok=True)
    done = {(r["scenario"], r["seed"]) for r in read_results(folder)}
    until = time.monotonic() + args.minutes * 60 if args.minutes else None
    bad = 0
    for scenario, seed in planned(args.sample, args.only):
        if (scenario.name, seed) in done:
            continue
        if until is not None and time.monotonic() >= until:
            break
        result = run_one(scenario, seed)
        say(result)
        bad += not result["ok"]
        with (folder / RESULTS).open("a") as file:
            file.write(json.dumps(result) + "\n")
            file.flush()
            os.fsync(file.fileno())
        write_summary(folder)
    print(f"results in {folder}: {bad} of this run's scenarios violated a promise")  # noqa: T201
    return 1 if bad else 0


def write_summary(folder: Path) -> None:
    """``summary.json``: per scenario the tries and what was found."""
    summary: dict[str, dict[str, Any]] = {}
    for result in read_results(folder):
        entry = summary.setdefault(result["scenario"], {"runs": 0, "violations": 0})
        entry["runs"] += 1
        entry["violations"] += not result["ok"]
        for name in ("tries", "frames", "rows", "witnessed", "lost", "repeated", "unexplained", "tail", "unborn"):
            entry[name] = entry.get(name, 0) + result[name]
        entry["tail_ms"] = round(max(entry.get("tail_ms", 0.0), result["tail_ms"]), 1)
    making = folder / "summary.json.new"
    making.write_text(json.dumps(summary, indent=1) + "\n")
    making.replace(folder / "summary.json")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="one scenario by its seed")
    run.add_argument("name", choices=[s.name for s in SCENARIOS])
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--count", type=int, default=1, help="so many seeds from this one on")
    run.add_argument("--keep", action="store_true", help="leave the folder there also where all is well")
    many = commands.add_parser("campaign", help="everything, resumable")
    many.add_argument("--sample", action="store_true", help="a few of each instead of all")
    many.add_argument("--minutes", type=float, help="stop after so long; the same command goes on")
    many.add_argument("--only", action="append", default=[], choices=[s.name for s in SCENARIOS])
    many.add_argument("--out", default=str(REPORTS))
    write = commands.add_parser("report", help="write docs/reliability.md from the results")
    write.add_argument("--out", default=str(REPORTS))
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a scenario ends its processes
    try:
        library()
    except NoCompilerError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    if args.command == "report":
        from faults.report import write_report

        write_report(Path(args.out), ROOT)
        return 0
    if args.command == "campaign":
        if args.sample and args.minutes is None:
            args.minutes = SAMPLE_MINUTES
        return campaign(args)
    chosen = next(s for s in SCENARIOS if s.name == args.name)
    bad = 0
    for seed in range(args.seed, args.seed + args.count):
        result = run_one(chosen, seed, args.keep)
        say(result)
        if "traceback" in result:
            print(result["traceback"])  # noqa: T201
        bad += not result["ok"]
    return 1 if bad else 0
