"""Files whose headers lie are refused in one line and in bounded memory, wherever they are read."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.export import main
from mexc_pipeline.export.headers import FOOTER, Chunk, HeaderError, check_footer, check_pages
from mexc_pipeline.export.parquet import SCHEMA
from support.crafted import Page, Struct, craft, footer_of_chunks, put, varint, write
from support.examples import examples
from support.spools import configure, fill

NAME = "btc20260915185200.parquet"
HUGE = (1 << 31) - 1
MT, M, SEQ = 1, 2, 4
MOST_MIB = 700
"""What a row group may take of the readers' own accord is 180 MiB, and there are copies of it."""

MEASURE = """
import json, resource, sys, warnings
from pathlib import Path
import pandas
from mexc_pipeline import read
from mexc_pipeline.config import parse
from mexc_pipeline.importer import import_files
from mexc_pipeline.verify import exports, ledger
folder = Path(sys.argv[1])
config = parse((folder / "config.toml").read_text(), folder / "config.toml")
warnings.simplefilter("ignore")
looks = {
    "frames": lambda: read.frames("btc", export_dir=config.export_dir),
    "trades": lambda: read.trades("btc", export_dir=config.export_dir),
    "tickers": lambda: read.tickers("btc", export_dir=config.export_dir),
    "book": lambda: read.book("btc", export_dir=config.export_dir),
    "at": lambda: read.book("btc", at="2030-01-01", export_dir=config.export_dir),
    "verify": lambda: [f.text for f in exports(config).findings if not f.ok],
    "ledger": lambda: [e.exported.rows for e in ledger(config)],
    "import": lambda: import_files(config.export_dir, [config.export_dir / sys.argv[2]]).failures,
}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = {}
for name, look in looks.items():
    try:
        said[name] = str(look())
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"
said["mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
print(json.dumps(said))
"""


def _unpacked(pages: list[Page], _: Struct) -> None:
    put(pages[-1].header, 2, HUGE)


def _values(pages: list[Page], _: Struct) -> None:
    pages[-1].say(5, 1, HUGE)


def _values_everywhere(pages: list[Page], meta: Struct) -> None:
    _values(pages, meta)
    put(meta, 5, HUGE)


def _negative(pages: list[Page], _: Struct) -> None:
    put(pages[-1].header, 2, -1)


def _dictionary(pages: list[Page], _: Struct) -> None:
    pages[0].say(7, 1, HUGE)


def _frame(pages: list[Page], _: Struct) -> None:
    pages[-1].hold(bytes(1 << 30), honest=False)


def _frame_that_says_so(pages: list[Page], _: Struct) -> None:
    pages[-1].hold(bytes(1 << 30))


def _footer_says_less(pages: list[Page], meta: Struct) -> None:
    pages[-1].hold(bytes(1 << 30))
    put(meta, 6, 1)


def _levels(pages: list[Page], _: Struct) -> None:
    content = pages[-1].content()
    size = int.from_bytes(content[:4], "little")
    run = varint(HUGE << 1) + b"\x01"
    pages[-1].hold(len(run).to_bytes(4, "little") + run + content[4 + size :])


def _indices(pages: list[Page], _: Struct) -> None:
    content = pages[-1].content()
    size = int.from_bytes(content[:4], "little")
    pages[-1].hold(content[: 4 + size] + b"\x03" + varint(HUGE << 1) + b"\x01")


def _differences(pages: list[Page], _: Struct) -> None:
    content = pages[-1].content()
    size = int.from_bytes(content[:4], "little")
    head = varint(1 << 31) + varint(1 << 26) + varint(HUGE) + varint(2)
    pages[-1].hold(content[: 4 + size] + head + bytes(64))


def _unknown_encoding(pages: list[Page], _: Struct) -> None:
    pages[-1].say(5, 2, 7)


def _pages_without_end(pages: list[Page], _: Struct) -> None:
    pages[-1].say(5, 1, 0)
    pages *= 1000


Change = Callable[[list[Page], Struct], None]
_CHANGES: dict[int, list[Change]] = {
    M: [_unpacked, _values, _values_everywhere, _negative, _frame, _frame_that_says_so, _footer_says_less, _levels,
        _unknown_encoding, _pages_without_end],
    MT: [_unpacked, _values, _dictionary, _frame_that_says_so],
    SEQ: [_unpacked, _values_everywhere, _levels, _differences],
}  # fmt: skip
CRAFTS: dict[str, tuple[int, Change]] = {
    f"{change.__name__.strip('_')} of {SCHEMA.names[column]}": (column, change)
    for column, changes in _CHANGES.items()
    for change in changes
}


LOOKS = "frames", "trades", "tickers", "book", "at", "verify", "ledger", "import"


def _looks(tmp_path: Path, one_line: Sequence[str] = LOOKS) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), NAME], capture_output=True, text=True, check=True
    )
    said: dict[str, Any] = json.loads(done.stdout)
    assert said.pop("mib") < MOST_MIB, said
    assert all("\n" not in said[look] for look in one_line), said
    return said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A genuine file, and the only one."""
    config = configure(tmp_path)
    fill(config)
    assert main(config).ok
    return config.export_dir / NAME


@pytest.mark.parametrize("name", CRAFTS)
def test_headers_that_lie(tmp_path: Path, path: Path, name: str) -> None:
    column, change = CRAFTS[name]
    craft(path, column, change)
    said = _looks(tmp_path)
    for look in ("frames", "trades", "tickers", "book", "at"):
        assert said[look].startswith(f"FileError: {path}: "), said
    assert f"column {SCHEMA.names[column]} cannot be read" in said["verify"] or "none of ours" in said["verify"], said
    assert path.name in said["import"]


def test_a_run_of_more_values_than_the_page_has(tmp_path: Path, path: Path) -> None:
    """Is read as far as there are rows, and is not what was recorded."""
    craft(path, MT, _indices)
    said = _looks(tmp_path, one_line=())
    assert "content differs from its digest in column mt" in said["verify"]


def test_a_long_word_for_the_type_of_every_row(tmp_path: Path, path: Path) -> None:
    rows = 60_000
    types = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array(["x" * (1 << 20)]))
    _instead(path, mt=types, m=pa.array(["{}"] * rows))
    said = _looks(tmp_path)
    assert said["frames"] == (
        f"FileError: {path}: column mt of row group 0 cannot be read: its dictionary has 1,048,580 bytes"
    )
    assert said["trades"] == said["frames"]
    assert "column mt cannot be read (its dictionary has 1,048,580 bytes)" in said["verify"]


@pytest.mark.parametrize("encoding", ["by a dictionary", "DELTA_BYTE_ARRAY"])
def test_a_long_text_that_is_stored_once(tmp_path: Path, path: Path, encoding: str) -> None:
    rows, text = 3_000, "x" * (1 << 20)
    m = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([text]))
    if encoding != "by a dictionary":
        rows = 100
        m = pa.array([text] * rows)
    types = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array(["d"]))
    _instead(path, mt=types, m=m, encoding=None if encoding == "by a dictionary" else encoding)
    said = _looks(tmp_path)
    why = (
        "its texts have 3,145,728,000 bytes" if encoding == "by a dictionary" else "its page 0 has values of encoding 7"
    )
    assert said["frames"] == f"FileError: {path}: column m of row group 0 cannot be read: {why}"
    assert f"column m cannot be read ({why})" in said["verify"]


def _instead(path: Path, *, mt: Any, m: Any, encoding: str | None = None) -> None:
    """Another file of our columns and metadata."""
    rows = len(m)
    counted = pa.array(np.arange(1, rows + 1))
    table = pa.table(
        {
            "ts": counted.cast(pa.timestamp("ms", "UTC")),
            "mt": mt,
            "m": m,
            "rx": counted.cast(pa.timestamp("ns", "UTC")),
            "seq": counted.cast(pa.uint64()),
        }
    )
    said = base64.b64encode(SCHEMA.serialize().to_pybytes())
    with pq.ParquetWriter(
        path,
        table.schema,
        compression="zstd",
        store_schema=False,
        use_dictionary=["mt"] if encoding else ["mt", "m"],
        column_encoding={"m": encoding} if encoding else None,
        dictionary_pagesize_limit=1 << 30,
    ) as writer:
        writer.write_table(table, row_group_size=rows)
        writer.add_key_value_metadata({b"ARROW:schema": said})


def test_a_footer_of_objects(tmp_path: Path, path: Path) -> None:
    """PyArrow makes 2 GB of these 9 MB."""
    footer_of_chunks(path, 3, 1_000_000)
    said = _looks(tmp_path)
    why = f"{path}: not a readable Parquet file: its footer has more entries than any of ours"
    assert said["frames"] == f"FileError: {why}"
    assert said["verify"].startswith(f"['{why}; ")
    assert said["ledger"] == "[0]"
    newest = subprocess.run(
        [sys.executable, "-m", "mexc_pipeline.export.newest", str(path.parent), "btc"], capture_output=True, text=True
    )
    why = "cannot be read (its footer has more entries than any of ours); move it away"
    assert json.loads(newest.stdout) == {"last_seq": 0, "unknown": [f"{path}: {why}"]}


@pytest.mark.parametrize("groups", [1, 2000])
def test_an_honest_footer_is_let_pass_however_long(tmp_path: Path, groups: int) -> None:
    path = tmp_path / NAME
    table = SCHEMA.empty_table()
    with pq.ParquetWriter(path, SCHEMA.with_metadata({"mexc.account": "x" * 300_000})) as writer:
        for _ in range(groups):
            writer.write_table(table)
    check_footer(path)
    assert pq.read_metadata(path).num_row_groups == groups


@settings(deadline=None, max_examples=examples(300))
@given(head=st.binary(max_size=40), at=st.integers(0, 1 << 20))
def test_any_bytes_for_a_footer_are_judged(tmp_path_factory: pytest.TempPathFactory, head: bytes, at: int) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    footer = bytearray(FOOTER + 1)
    footer[: len(head)] = head
    footer[at % len(footer)] ^= 0xFF
    write(path, b"PAR1", bytes(footer))
    try:
        check_footer(path)
    except HeaderError:
        return


@settings(deadline=None, max_examples=examples(500))
@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 1 << 40), st.integers(0, 1 << 20))
def test_any_bytes_for_pages_are_judged(data: bytes, stored: int, unpacked: int, values: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            dictionary = check_pages(file.fileno(), Chunk(0, stored, unpacked, values))
        except HeaderError:
            return
    assert dictionary <= unpacked
