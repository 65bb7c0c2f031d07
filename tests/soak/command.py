"""Runs simulator and recorder for so many hours, samples both, judges rows and growth, writes the page."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mexc_pipeline import signals
from soak import page, sampling
from soak.compare import compare
from soak.growth import HOUR_S, trends
from support.lifetime import end_with_parent

ROOT = Path(__file__).parents[2]
SYMBOLS = {"btc": "BTC_USDT", "eth": "ETH_USDT", "sol": "SOL_USDT"}
EVERY_S = 10.0
ENDING_S = 600.0
SAMPLES, RESULT = "samples.csv", "result.json"
NOTE = "note.md"
"""Beside them, by hand: what was found out about the run, for its page. A new run removes it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every row is in its file and nothing grows, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="record, judge, write the page; Ctrl-C ends early and judges what there is")
    run.add_argument("--hours", type=float, default=1.0)
    run.add_argument("--rate", type=float, default=200.0, help="frames per second and symbol")
    run.add_argument("--period", default="1m")
    run.add_argument("--keep", default="5m", help="how long exported segments stay in the spool")
    run.add_argument("--every", type=float, default=EVERY_S, help="seconds between two samples")
    again = commands.add_parser("page", help="write the page of an earlier run")
    for command in (run, again):
        command.add_argument("--out", type=Path, default=ROOT / "reports" / "soak")
        command.add_argument("--docs", type=Path, help="where soak.md and images/soak.svg go (default: --out)")
    args = parser.parse_args(arguments)
    out: Path = args.out
    if args.command == "run":
        result = record(out, args.hours, args.rate, args.period, args.keep, args.every)
        (out / RESULT).write_text(json.dumps(result, indent=1) + "\n")
    else:
        result = json.loads((out / RESULT).read_text())
    samples = sampling.read(out / SAMPLES)
    found = trends(samples, result["seconds"])
    problems = [*result["problems"], *(page.grows(trend) for trend in found if not trend.is_flat)]
    note = out / NOTE
    page.write(args.docs or out, result, samples, found, problems, note.read_text() if note.exists() else "")
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201
    total = sum(c["held"] for c in result["comparisons"])
    print(f"{total:,} frames in {result['seconds'] / HOUR_S:.2f} hours: {'FAILED' if problems else 'ok'}; {out}")  # noqa: T201
    return 1 if problems else 0


def record(out: Path, hours: float, rate: float, period: str, keep: str, every_s: float) -> dict[str, Any]:
    """The run, and what came of it as JSON. The data stays in ``out/site`` where something is wrong."""
    site = out / "site"
    if site.exists():
        shutil.rmtree(site)
    site.mkdir(parents=True)
    (out / NOTE).unlink(missing_ok=True)
    stop = threading.Event()
    with signals.handled(signals.ending(stop.set)):
        with _simulator(site, rate) as (simulator, addresses), (out / SAMPLES).open("w", newline="") as file:
            config = _configure(site, addresses, period, keep)
            recorder = _start(site / "run.log", "--config", str(config), "run")
            try:
                seconds = _sample(sampling.Table(file), recorder, simulator, site, hours * HOUR_S, every_s, stop)
                problems = _end(recorder, site)
            finally:
                if recorder.poll() is None:
                    recorder.kill()
                    recorder.wait()
        problems += _verify(config)
        comparisons = [compare(name, i, site / "sent", site / "exports") for i, name in SYMBOLS.items()]
        problems += [f"{c.symbol}: {problem}" for c in comparisons for problem in c.problems[:20]]
        problems += [f"{c.symbol}: nothing was recorded" for c in comparisons if not c.held]
    result = {
        "at": int(time.time()),
        "seconds": seconds,
        "rate": rate,
        "period": period,
        "keep": keep,
        "revision": _revision(),
        "machine": _machine(),
        "sent_bytes": sampling.allocated(site / "sent"),
        "exports_bytes": sampling.allocated(site / "exports"),
        "comparisons": [asdict(c) for c in comparisons],
        "problems": problems,
    }
    if not problems:
        shutil.rmtree(site)
    return result


def _configure(site: Path, addresses: tuple[str, str], period: str, keep: str) -> Path:
    config = site / "config.toml"
    config.write_text(
        f"symbols = {json.dumps(list(SYMBOLS.values()))}\n"
        f'data_dir = "{site}/data"\nexport_dir = "{site}/exports"\nperiod = "{period}"\nspool_keep = "{keep}"\n'
        f'[exchange]\nwebsocket = "{addresses[0]}"\nrest = "{addresses[1]}"\n[clickhouse]\nmode = "embedded"\n'
    )
    return config


def _start(log: Path, *args: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "mexc_pipeline", *args],
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent,  # another recorder in the same folder would spoil the next run
        )


@contextlib.contextmanager
def _simulator(site: Path, rate: float) -> Iterator[tuple[subprocess.Popen[bytes], tuple[str, str]]]:
    """The exchange in a process of its own, and its two addresses."""
    log = site / "simulator.log"
    process = _start(log, "simulate", "--port", "0", "--rate", str(rate), "--log-dir", str(site / "sent"))
    try:
        deadline = time.monotonic() + 60
        while not (said := log.read_text()).endswith("\n"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the simulator does not start: {said}")
            time.sleep(0.05)
        words = said.split()
        yield process, (next(w for w in words if w.startswith("ws")), next(w for w in words if w.startswith("http")))
    finally:
        process.terminate()  # its logs are whole only after its end
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _sample(
    table: sampling.Table,
    recorder: subprocess.Popen[bytes],
    simulator: subprocess.Popen[bytes],
    site: Path,
    length_s: float,
    every_s: float,
    stop: threading.Event,
) -> float:
    """Look every so often until the time is over; seconds that the recording lasted."""
    began = time.monotonic()
    pids = {"run": recorder.pid, "simulator": simulator.pid}
    due = began
    while (now := time.monotonic()) - began < length_s and recorder.poll() is None:
        table.add(sampling.look(now - began, pids, site / "data", site / "exports"))
        due = max(due + every_s, time.monotonic())
        if stop.wait(min(due, began + length_s) - time.monotonic()):
            break
    return time.monotonic() - began


def _end(recorder: subprocess.Popen[bytes], site: Path) -> list[str]:
    """SIGTERM: the recorder ends in order, exports and compares all; problems as lines."""
    early = recorder.poll()
    if early is not None:
        return [f"the recorder ended by itself with {early}: {_tail(site)}"]
    recorder.send_signal(signal.SIGTERM)
    try:
        status = recorder.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        return [f"the recorder did not end within {ENDING_S:.0f} s: {_tail(site)}"]
    return [] if status == 0 else [f"the recorder ended with {status}: {_tail(site)}"]


def _tail(site: Path) -> str:
    return (site / "run.log").read_text(errors="replace")[-2000:]


def _verify(config: Path) -> list[str]:
    command = [sys.executable, "-m", "mexc_pipeline", "--config", str(config), "verify", "exports"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [f"verify exports ended with {done.returncode}: {done.stdout[-2000:]}"]


def _revision() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _machine() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}"
