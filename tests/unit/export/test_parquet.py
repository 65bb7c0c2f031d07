"""An exported file gives back the rows and the account it was written from; other files are refused in one line."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline.export.packed import Packed
from mexc_pipeline.export.parquet import (
    SCHEMA,
    FileError,
    FileWriter,
    metadata,
    metadata_of,
    open_file,
    read_content,
)
from mexc_pipeline.rows import MT_NAMES, Columns
from mexc_pipeline.spool.lifecycle import Tally
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.spool.walk import exported_files
from support.examples import examples
from support.spooled import Stored, digest, digests
from support.spools import event

ROWS = st.lists(
    st.tuples(st.integers(-(2**62), 2**62), st.integers(-(2**52), 2**52), st.integers(1, 6), st.text(max_size=30)),
    min_size=1,
    max_size=60,
)


def columns(rows: list[tuple[int, int, int, str]], first: int) -> Columns:
    return Columns.of((first + n, rx, ts, mt, m.encode()) for n, (rx, ts, mt, m) in enumerate(rows))


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, cut=st.integers(1, 60), first=st.integers(1, 2**63))
def test_what_is_written_is_read_back_with_the_digest_of_the_contract(
    tmp_path: Path, rows: list[tuple[int, int, int, str]], cut: int, first: int
) -> None:
    block = columns(rows, first)
    path = tmp_path / "any.parquet"
    with path.open("wb") as file:
        writer = FileWriter(file)
        for start in range(0, len(block), cut):
            writer.add(Packed.of(block.slice(start, start + cut)))
        writer.finish(metadata_of(writer))
    stored = [Stored(*row) for row in block.rows()]
    content = read_content(path)
    assert content.digests == writer.digest.columns() == digests(stored)
    assert content.digest == digest(stored) == metadata(path)["digest"]
    assert (content.rows, content.first_seq, content.last_seq) == (len(rows), first, first + len(rows) - 1)
    assert content.rx_monotone == (block.rx == sorted(block.rx))
    assert content.consecutive
    assert content.counts == writer.counts == {n: block.mt.count(code) for code, n in MT_NAMES.items()}
    assert content.raw_bytes == writer.raw_bytes == sum(map(len, block.m))
    table = pq.read_table(path)
    assert table.schema.remove_metadata().equals(SCHEMA)
    assert table.column("m").cast(pa.binary()).to_pylist() == block.m
    assert table.column("rx").cast(pa.int64()).to_pylist() == block.rx
    assert table.column("mt").to_pylist() == [MT_NAMES[mt] for mt in block.mt]


EVENTS = [event("gap", count=2), event("connected"), event("started", last_rx=5), event("repaired"), event("clock")]


@settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.one_of(st.none(), st.sampled_from(EVENTS)), min_size=1, max_size=40),
    sealed=st.booleans(),
    read=st.integers(1, 7),
)
def test_the_account_is_read_back_as_the_collector_kept_it(
    tmp_path: Path, rows: list[bytes | None], sealed: bool, read: int
) -> None:
    """Chunks of any size: an event's time and text come in other chunks than its type."""
    block = Columns.of((n + 1, 100 + n, n, 1 if m is None else 5, m or b"frame") for n, m in enumerate(rows))
    last = Columns.of([(len(rows) + 1, 999, 0, 5, event("sealed", rows=len(rows) + 1))] if sealed else [])
    tally = Tally()
    path = tmp_path / "any.parquet"
    with path.open("wb") as file:
        writer = FileWriter(file)
        for part in (block, last):
            tally.add(part)
            writer.add(Packed.of(part))
        writer.finish({})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mexc_pipeline.export.parquet.READ_ROWS", read)
        content = read_content(path)
    assert content.account == tally.account
    assert content.gaps == tally.gaps


def test_row_groups_end_at_either_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mexc_pipeline.export.parquet.GROUP_ROWS", 10)
    monkeypatch.setattr("mexc_pipeline.export.parquet.GROUP_BYTES", 100)
    path = tmp_path / "any.parquet"
    with path.open("wb") as file:
        writer = FileWriter(file)
        for n in range(20):
            writer.add(Packed.of(columns([(n, n, 1, "x")], n + 1)))
        for n in range(20, 23):
            writer.add(Packed.of(columns([(n, n, 4, "y" * 90)], n + 1)))
        writer.finish({})
    shape = pq.read_metadata(path)
    assert [shape.row_group(n).num_rows for n in range(shape.num_row_groups)] == [10, 10, 1, 1, 1]
    assert read_content(path).consecutive


def test_a_frame_that_is_not_utf8_is_refused() -> None:
    writer = FileWriter(io.BytesIO())
    split = Columns([1, 2], [1, 2], [1, 2], [4, 4], [b"\xc3", b"\xa9"])  # valid only when joined
    with pytest.raises(FileError, match="not UTF-8"):
        writer.add(Packed.of(split))
    writer.abandon()


def test_holes_and_steps_back_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "any.parquet"
    with path.open("wb") as file:
        writer = FileWriter(file)
        writer.add(Packed.of(Columns([1, 2, 4], [5, 5, 4], [0, 0, 0], [1, 1, 1], [b"", b"", b""])))
        writer.finish({})
    content = read_content(path)
    assert not content.consecutive
    assert not content.rx_monotone


@pytest.mark.parametrize("junk", [b"", b"PAR1", b"no parquet at all, just text PAR1"])
def test_other_files_are_refused_in_one_line(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(junk)
    with pytest.raises(FileError) as error:
        open_file(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"ts": [1], "mt": ["t"], "m": ["x"]}), path)
    with pytest.raises(FileError, match="columns are not those of an export"):
        read_content(path)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("btc2026112120.parquet", ("btc", "2026112120", 1, True)),
        ("b2c2026112120.part3.parquet", ("b2c", "2026112120", 3, False)),
        ("btc20261121200510.parquet", ("btc", "20261121200510", 1, True)),
        ("btc20261121200510.part12.parquet", ("btc", "20261121200510", 12, False)),
        ("btc202611212005.parquet", None),
        ("btc20261121200570.parquet", None),
        ("btc22026112120.parquet", None),
        ("btc2026113320.parquet", None),
        ("BTC2026112120.parquet", None),
        ("btc2026112120.part0.parquet", None),
        (".btc2026112120.parquet.tmp", None),
    ],
)
def test_file_names(file: str, expected: tuple[str, str, int, bool] | None) -> None:
    name = FileName.parse(file)
    assert (None if name is None else (name.id, name.period, name.part, name.plain)) == expected


def test_files_are_listed_in_order_of_time_and_part(tmp_path: Path) -> None:
    wanted = ["btc2026112120.part2.parquet", "btc2026112120.part10.parquet", "btc2026112121.parquet"]
    for file in [*reversed(wanted), "notes.txt", "eth2026112100.parquet"]:
        (tmp_path / file).touch()
    assert [path.name for _, path in exported_files(tmp_path, "btc")] == wanted
    assert exported_files(tmp_path / "nowhere") == []


def test_writing_and_reading_back_leaves_pandas_alone(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from mexc_pipeline.export.packed import Packed
from mexc_pipeline.export.parquet import FileWriter, read_content
from mexc_pipeline.rows import Columns
with open({str(tmp_path / "x.parquet")!r}, "wb") as sink:
    writer = FileWriter(sink)
    writer.add(Packed.of(Columns([1, 2], [3, 4], [5, 6], [1, 2], [b"{{}}", b"{{}}"])))
    writer.finish()
assert read_content(Path({str(tmp_path / "x.parquet")!r})).rows == 2
print("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"], "it would cost every export 45 MB"
