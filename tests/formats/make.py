"""Makes a fixture of the data format of one version: a folder as that version left it, and the rows it must hold.

    python tests/formats/make.py --source PATH/app/src tests/fixtures/formats/0.1.0

``--source`` is the ``app/src`` of the version's own commit (``git worktree add ../old COMMIT``); the interpreter
needs its requirements and nothing else: commands alone are used, so that the script fits every version. It records
the version's own simulator for some seconds, exports the first segments, waits for one more, and kills the collector.
What is left: exported, closed and open segments (the open one with its write-ahead log, as a crash leaves it), the
first files, and ``expected.json`` with every row as the sqlite3 module reads it:

    {"version": …, "symbol": …, "id": …, "period": …, "segments": {file: {"state": …, "rows": [[seq, rx, ts, mt, h]]}}}

With ``--clock-ahead SECONDS`` (and ``PYTHONPATH=tests``) collector and exporter run by a clock that is ahead and is set
right before the last rows come: what a version makes of that is part of what it leaves.

``h``: first 16 hexadecimal digits of SHA-256 over ``m``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PERIOD = "3s"
RATE = 12
DEADLINE_S = 60


def read(path: Path) -> dict[str, Any]:
    """State and rows of a segment."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        (state,) = db.execute("SELECT value FROM meta WHERE key = 'state'").fetchone()
        rows = db.execute("SELECT seq, rx, ts, mt, m FROM rows ORDER BY seq").fetchall()
    finally:
        db.close()
    return {
        "state": json.loads(state),
        "rows": [[*row[:4], hashlib.sha256(row[4]).hexdigest()[:16]] for row in rows],
    }


def _is_kept(path: Path) -> bool:
    return ".sqlite" in path.name and not path.name.endswith("-shm") and path.stat().st_size > 0


def segments(spool: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(spool.glob("*.sqlite")):
        try:
            found[path.name] = read(path)
        except sqlite3.Error:
            continue  # being made at this moment
    return found


def wait_for(spool: Path, closed: int, open_rows: int) -> None:
    """Until so many segments are closed (or further) and the open one has so many rows."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        found = list(segments(spool).values())
        is_open = [s for s in found if s["state"] == "open"]
        if len(found) - len(is_open) >= closed and any(len(s["rows"]) >= open_rows for s in is_open):
            return
        time.sleep(0.05)
    raise SystemExit(f"the recording in {spool} did not come so far within {DEADLINE_S} s")


def wrong_clock(folder: Path, ahead_s: int) -> tuple[dict[str, str], Callable[[], None]]:
    """The environment of a process whose clock is ahead, and what sets that clock right."""
    from faults.shim import Control, library

    control = Control(folder / "control")
    control.clock(ahead_s * 10**9)
    env = {
        "LD_PRELOAD": str(library()),
        "FAULTS_CONTROL": str(control.path),
        "FAULTS_PREFIX": str(folder / "none"),
        "FAULTS_CRASH": str(folder / "crashes"),
    }
    return env, lambda: control.clock(0)


def make(source: Path, target: Path, ahead_s: int = 0) -> None:
    """Record, export, kill, copy."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(source.resolve())}

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = folder / "config.toml"
        config.write_text(
            f'symbols = ["BTC_USDT"]\ndata_dir = "{folder}/data"\nexport_dir = "{folder}/exports"\n'
            f'period = "{PERIOD}"\n[channels]\ndepth = "merged"\n'
            f'[exchange]\nwebsocket = "ws://127.0.0.1:{port}/edge"\nrest = "http://127.0.0.1:{port}"\n'
        )

        def command(*args: str) -> list[str]:
            return [sys.executable, "-m", "mexc_pipeline", "--config", str(config), *args]

        wrong, set_right = wrong_clock(folder, ahead_s) if ahead_s else ({}, None)
        recorder = {**env, **wrong}
        spool = folder / "data" / "spool" / "btc"
        simulator = subprocess.Popen(
            command("simulate", "--port", str(port), "--seed", "7", "--rate", str(RATE)), env=env
        )
        collector = subprocess.Popen(command("collect", "btc"), env=recorder)
        try:
            wait_for(spool, 2, 1)
            subprocess.run(command("export"), env=recorder, check=True)
            wait_for(spool, 1 + sum(s["state"] != "open" for s in segments(spool).values()), 8)
            if set_right is not None:
                set_right()
                wait_for(spool, 0, 40)
        finally:
            collector.kill()
            collector.wait()
            simulator.kill()
            simulator.wait()
        version = subprocess.run(command("--version"), env=env, check=True, capture_output=True, text=True).stdout
        expected = {
            "version": version.split()[-1],
            "symbol": "BTC_USDT",
            "id": "btc",
            "period": PERIOD,
            "segments": segments(spool),
        }
        shutil.rmtree(target, ignore_errors=True)
        for name in sorted(p.name for p in spool.iterdir() if _is_kept(p)):
            (target / "spool" / "btc").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(spool / name, target / "spool" / "btc" / name)
        shutil.copytree(folder / "exports", target / "exports", ignore=shutil.ignore_patterns(".*"))
        lines = json.dumps(expected, separators=(",", ":")).replace("],[", "],\n[")
        (target / "expected.json").write_text(lines + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="app/src of the version")
    parser.add_argument("target", type=Path)
    parser.add_argument(
        "--clock-ahead", type=int, default=0, metavar="SECONDS", help="of the recorder, set right later"
    )
    given = parser.parse_args()
    make(given.source, given.target, given.clock_ahead)
