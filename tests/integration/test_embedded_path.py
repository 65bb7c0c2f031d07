"""The embedded engine opens wherever the configuration lets it, also where the path looks like something else."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mexc_pipeline import doctor
from mexc_pipeline.config import parse
from mexc_pipeline.control import ControlError, ask
from support.waiting import until

ODD = "a&config-file=b #%3F'\"`;:,=+@!$*()[]{}<>|~^ üß日本"


def test_every_mark_that_is_allowed_works(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    config = parse(f'data_dir = {json.dumps(str(folder / "data"))}\nexport_dir = "{tmp_path}/exports"', None)
    check = doctor.clickhouse(config)
    assert check.ok, check.line()
    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder], "nothing was made elsewhere"


@contextmanager
def store(folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The ``store`` process of a recording in that folder."""
    settings = folder.parent / "config.toml"
    settings.write_text(f'symbols = ["BTC_USDT"]\ndata_dir = {json.dumps(str(folder))}\n')
    command = [sys.executable, "-m", "mexc_pipeline", "--config", str(settings), "store"]
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.engine
def test_the_engines_folder_is_its_owners_alone(tmp_path: Path) -> None:
    """The group may enter the data folder, and a kill leaves a file whose lock says that the folder is in use."""
    data = tmp_path / "data"
    with store(data):
        until(lambda: (data / "clickhouse" / "status").exists())
        until(lambda: stat.S_IMODE((data / "clickhouse").stat().st_mode) == 0o700)


@pytest.mark.engine
def test_a_store_needs_no_writable_tmpdir(tmp_path: Path) -> None:
    """It is made a folder that refuses files for root too."""
    data = tmp_path / "data"

    def reachable() -> bool:
        with suppress(ControlError):
            return bool(ask(data / "control" / "store.sock", "status", timeout_s=5)["reachable"])
        return False

    with store(data, TMPDIR="/proc/self") as process:
        until(reachable, 60, "the store")
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line or "trace" in line] == []


@pytest.mark.parametrize("name", ["da?ta", "?", "data?config-file=x"])
def test_a_path_that_the_engine_cannot_take_is_one_line_before_anything_starts(tmp_path: Path, name: str) -> None:
    data = tmp_path / name / "data"
    data.parent.mkdir()
    before = sorted(tmp_path.rglob("*"))
    with store(data) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = said.splitlines()
    assert "data_dir" in line
    assert "?" in line
    assert sorted(tmp_path.rglob("*")) == sorted([*before, data.parent / "config.toml"])
