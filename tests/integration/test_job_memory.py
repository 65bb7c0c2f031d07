"""Export, verify and prune of a busy hour, as their units run them, within what those units allow."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from mexc_pipeline.config import Config
from mexc_pipeline.periods import HOUR_NS
from mexc_pipeline.rows import Frame
from mexc_pipeline.spool.lifecycle import remove
from mexc_pipeline.spool.walk import segments
from support.spools import KINDS, T0, configure, open_spool

ROLE = Path(__file__).parents[2] / "roles" / "mexc_pipeline"
HOUR = T0 // HOUR_NS * HOUR_NS
MEASURED = r"""
import atexit, re, runpy, sys
from pathlib import Path
peak = Path(sys.argv.pop(1))
status = Path("/proc/self/status")
atexit.register(lambda: peak.write_text(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]))
runpy.run_module("mexc_pipeline", run_name="__main__")
"""


def allowed(job: str) -> int:
    """Bytes of the unit's MemoryMax."""
    unit = (ROLE / "templates" / f"mexc-{job}.service.j2").read_text()
    assert f"/current/bin/mexc-pipeline {job}" in unit or f"/current/bin/mexc-pipeline', '{job}'" in unit
    name = re.search(r"^MemoryMax=\{\{ (\w+) \}\}$", unit, re.MULTILINE)
    assert name is not None
    said = re.search(rf"^{name[1]}: (\d+)M$", (ROLE / "defaults" / "main.yml").read_text(), re.MULTILINE)
    assert said is not None
    return int(said[1]) << 20


def peak_of(config: Config, job: str, *arguments: str) -> int:
    """Bytes that the job's process had in memory at most."""
    assert config.path is not None
    peak = config.path.with_name("peak")
    command = [sys.executable, "-c", MEASURED, str(peak), job, *arguments, "--config", str(config.path)]
    subprocess.run(command, capture_output=True, timeout=300, check=False)
    return int(peak.read_text()) << 10


def busy_hour() -> Iterator[Frame]:
    """200,000 rows, 1000 of them of 60 KB that do not compress."""
    some = random.Random(1)
    for n in range(200_000):
        mt, text = KINDS[n % 4]
        yield Frame(HOUR + n * 1_000_000, None, mt, some.randbytes(60_000) if n % 200 == 0 else text.encode())


def largest_frames() -> Iterator[Frame]:
    """Two, of the size that the collector is held to: binary ones are kept in base64."""
    for n in range(2):
        yield Frame(HOUR + n, None, 4, random.Random(n).randbytes(60 << 20))


@pytest.mark.slow
@pytest.mark.parametrize("frames", [busy_hour, largest_frames])
def test_the_jobs_of_a_busy_hour_fit_into_their_units(tmp_path: Path, frames: Callable[[], Iterator[Frame]]) -> None:
    config = configure(tmp_path, period="1h")
    assert config.path is not None
    with config.path.open("a") as file:
        file.write('[exchange]\nwebsocket = "ws://127.0.0.1:1"\nrest = "http://127.0.0.1:1"\n')
    spool = open_spool(config)
    source = frames()
    while block := list(islice(source, 5000)):
        spool.append(block)
    spool.append([Frame(HOUR + HOUR_NS, None, 4, b"{}")])
    spool.tick(HOUR + 2 * HOUR_NS)
    spool.close()
    peaks = {"export": peak_of(config, "export")}
    big, _ = sorted(config.export_dir.glob("*.parquet"))
    peaks["verify"] = peak_of(config, "verify")
    remove(segments(config.spool_dir / "btc")[0][1])
    peaks["prune"] = peak_of(config, "prune", "--min-free", "999999T")
    assert not big.exists(), "prune has proven it before"
    over = {job: f"{peak >> 20} MiB" for job, peak in peaks.items() if peak > allowed(job) * 0.9}
    assert not over, f"{over} of {peaks}"
