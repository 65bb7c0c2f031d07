"""``demo``: the main job, offline: the simulator in a process of its own and a ``run`` that records it."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mexc_pipeline import config
from mexc_pipeline.errors import UserError
from mexc_pipeline.run.account import Closing
from mexc_pipeline.run.children import Lifeline
from mexc_pipeline.run.display import say
from mexc_pipeline.run.main import run

log = logging.getLogger("mexc_pipeline.run")

SYMBOLS = ("BTC_USDT", "ETH_USDT", "SOL_USDT")
PERIOD = "10s"
LATEST = "latest"
CONFIG = "demo.toml"
START_S = 15.0
_ADDRESSES = re.compile(r"(wss?://\S+).*?(https?://\S+)")


def demo(folder: Path, duration_s: float, rate: float, level: str = "INFO") -> Closing:
    """Record the simulator for ``duration_s`` into a new folder below ``folder``; nothing that is there is touched."""
    place = folder.absolute() / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    try:
        place.mkdir(parents=True)
        _point(folder / LATEST, place)
    except OSError as error:
        raise UserError(f"cannot make {error.filename2 or error.filename}: {error.strerror or error}") from error
    with simulator(place / "simulator.log", rate) as (websocket, rest):
        path = place / CONFIG
        path.write_text(settings(place, websocket, rest), encoding="utf-8")
        say(f"demo: three symbols from the simulator at {websocket}, period {PERIOD}, into {place}")
        return run(config.load(path), duration_s, level)


def _point(link: Path, place: Path) -> None:
    """The newest demo has a path that documents can name."""
    made = link.with_name(f".{LATEST}-{os.getpid()}")
    made.symlink_to(place.name)
    try:
        made.replace(link)
    finally:
        made.unlink(missing_ok=True)


def afterwards(folder: Path) -> str:
    """Where the files are, a command that reads them as it is pasted, and what comes next."""
    exports = str(folder / LATEST / "exports")
    code = (
        f'import pandas as pd; print(pd.read_parquet({json.dumps(exports)}, columns=["seq", "rx", "mt", "m"]).tail())'
    )
    program = [sys.executable, "-m", "mexc_pipeline"]
    proof = [*program, "--config", str(folder / LATEST / CONFIG), "verify", "exports"]
    return (
        f"\nfiles  {exports}\n"
        f"read   {shlex.quote(sys.executable)} -c {shlex.quote(code)}\n"
        f"ask    {shlex.join(proof)}\n"
        "       and so with ledger, or query 'SELECT …': without --config they look at ./data and ./exports\n"
        "next   `mexc-pipeline run` records the live exchange into ./data and ./exports (in a checkout: make run)"
    )


def settings(place: Path, websocket: str, rest: str) -> str:
    """The configuration the demo runs with."""
    quoted = str(place).replace("\\", "\\\\").replace('"', '\\"')
    names = ", ".join(f'"{name}"' for name in SYMBOLS)
    return f"""\
symbols    = [{names}]
data_dir   = "{quoted}/data"
export_dir = "{quoted}/exports"
period     = "{PERIOD}"

[exchange]
websocket = "{websocket}"
rest      = "{rest}"
"""


@contextmanager
def simulator(output: Path, rate: float) -> Iterator[tuple[str, str]]:
    """The simulator as a child on a free port of the loopback; yields its WebSocket and REST addresses."""
    lifeline = Lifeline()
    args = ["simulate", "--port", "0", "--seed", "1", "--symbols", ",".join(SYMBOLS), "--rate", f"{rate:g}"]
    with output.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "mexc_pipeline", *args, "--parent-fd", str(lifeline.read_fd)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=(lifeline.read_fd,),
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )
    watchdog = threading.Timer(START_S, process.kill)  # a simulator that says nothing ends the wait below
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        watchdog.cancel()
        found = _ADDRESSES.search(line)
        if found is None:
            said = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise UserError(f"the simulator did not start: {said[-1] if said else 'no output'}")
        yield found[1], found[2]
    finally:
        watchdog.cancel()
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        lifeline.close()
