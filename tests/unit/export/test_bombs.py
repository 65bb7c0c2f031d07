"""Small files that hold gigabytes are refused before they have taken them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mexc_pipeline import memory
from mexc_pipeline.export import main as export
from mexc_pipeline.export.parquet import FileError, metadata, open_file, read_content
from mexc_pipeline.importer import import_files
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.verify.exports import prove
from support import bombs
from support.spools import configure, fill

MEASURE = """
import resource, sys
from pathlib import Path
from mexc_pipeline.importer import import_files
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = import_files(Path(sys.argv[1]) / "exports", [Path(sys.argv[2])])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, *report.lines(), *report.failures)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "value"), [(5_000_000, 28), (3_000, 1 << 20), (40, 60 << 20)])
def test_a_bomb_is_not_imported(tmp_path: Path, rows: int, value: int) -> None:
    source = tmp_path / "btc_20250801_1400.parquet"
    assert bombs.v4(source, rows, value) < 300_000
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(source)], capture_output=True, text=True, check=True
    )
    mib, _, said = done.stdout.partition(" ")
    assert said.strip() == f"{source}: it holds more than an honest file of its size could: refused"
    assert int(mib) < 500
    assert not (tmp_path / "exports").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "value"), [(60_000, 200_000), (1_000, 20 << 20)])
def test_a_bomb_among_the_files_is_a_finding(tmp_path: Path, rows: int, value: int) -> None:
    path = tmp_path / "btc2025080114.parquet"
    bombs.recorded(path, rows, value)
    name = FileName.parse(path.name)
    assert name is not None
    proof = prove(name, path)
    assert f"column m cannot be read (its texts have {rows * value:,} bytes)" in proof.wrong


def test_a_group_of_more_rows_or_bytes_than_ours_is_refused_by_its_footer(tmp_path: Path) -> None:
    path = tmp_path / "btc2025080114.parquet"
    bombs.recorded(path, 65_537, 1)
    with pytest.raises(FileError, match="not written by this program: row group 0 has 65,537 rows"):
        open_file(path)
    bombs.recorded(path, 1, 161 << 20)
    with pytest.raises(FileError, match="column m of row group 0 has 168,"):
        open_file(path)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "btc_20250801_1400.parquet")
    report = import_files(tmp_path / "exports", [tmp_path / "btc_20250801_1400.parquet", tmp_path])
    assert [line.rpartition(": ")[2] for line in report.failures] == ["not a plain file"] * 2


def test_the_bound_holds_inside_and_is_gone_afterwards() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory.at_most(64 << 20), pytest.raises(MemoryError):
        np.zeros(128 << 20, dtype=np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with memory.at_most(256 << 20):
        assert len(np.zeros(32 << 20, dtype=np.uint8)) == 32 << 20
    assert threading.active_count() >= 1


def test_a_size_that_is_only_claimed_is_a_finding(tmp_path: Path) -> None:
    """Whoever reads, proves or imports it would read all of it; its end is put where its footer is looked for."""
    config = configure(tmp_path)
    fill(config)
    assert export(config).ok
    (path,) = config.export_dir.glob("*.parquet")
    tail = path.read_bytes()[-8:]
    os.truncate(path, (3 << 40) - 8)
    with path.open("ab") as file:
        file.write(tail)
    with pytest.raises(FileError, match="longer than what is in it"):
        metadata(path)
    with pytest.raises(FileError, match="longer than what is in it"):
        read_content(path, lambda: None)
    with pytest.raises(FileError, match="longer than what is in it"):
        open_file(path)
    path.rename(tmp_path / "btc_20250801_1400.parquet")
    report = import_files(tmp_path / "imported", [tmp_path / "btc_20250801_1400.parquet"])
    assert "longer than what is in it" in report.failures[0]
