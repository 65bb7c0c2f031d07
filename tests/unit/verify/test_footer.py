"""Whatever a footer says of its rows is proven, or changes no row that any reader gets: bit by bit, field by field."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mexc_pipeline import read
from mexc_pipeline.export import footer, main
from mexc_pipeline.export import parquet as parquet_module
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.verify.exports import exports, prove
from support.crafted import BINARY, I32, I64, STRUCT, Struct, decoded, encoded, get, put, write
from support.examples import examples
from support.spools import SECOND, T0, configure, fill

FLIPS = 600
MT, M, RX, SEQ = 1, 2, 3, 4
ROWS = 30


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file of several row groups, and no segment that it could be compared with."""
    monkeypatch.setattr(parquet_module, "GROUP_ROWS", 12)
    config = configure(tmp_path)
    fill(config, rows=ROWS)
    assert main(config).ok
    (found,) = config.export_dir.glob("*.parquet")
    assert pq.read_metadata(found).num_row_groups == 3
    return found


def wrong(path: Path) -> list[str]:
    name = FileName.parse(path.name)
    assert name is not None
    return prove(name, path).wrong


def filters(path: Path) -> list[Any]:
    """Questions by which readers leave row groups out, each of them true of some rows and false of others."""
    table = pq.read_table(path)
    asked: list[Any] = [None, [("mt", "==", "d")], [("mt", "!=", "ev")]]
    for name in ("seq", "rx", "ts"):
        values = table[name].take(pc.sort_indices(table[name]))
        for at in (1, len(table) // 2, len(table) - 2):
            asked += [[(name, "<", values[at])], [(name, ">=", values[at])], [(name, "==", values[at])]]
    return asked


def answers(path: Path, asked: list[Any]) -> list[Any]:
    return [pq.read_table(path, filters=each).replace_schema_metadata(None) for each in asked]


STRETCHES = (None, None), (T0 + 10_000_000, None), (None, T0 + 10_000_000), (T0 + 5_000_000, T0 + 20_000_000)


def frames(path: Path) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [read.frames("btc", start, end, export_dir=path.parent) for start, end in STRETCHES]


def test_no_flipped_bit_of_a_footer_passes_and_changes_what_is_read(path: Path) -> None:
    asked = filters(path)
    tables, read_back = answers(path, asked), frames(path)
    assert {len(table) for table in tables} > {1, ROWS + 1}
    good = path.read_bytes()
    first = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    choose = random.Random(135)
    passed = 0
    for _ in range(examples(FLIPS)):
        bit = choose.randrange(first * 8, len(good) * 8)
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        if wrong(path):
            continue
        passed += 1
        assert answers(path, asked) == tables, f"bit {bit}"
        assert all(now.equals(before) for now, before in zip(frames(path), read_back, strict=True)), f"bit {bit}"
    assert passed, "some say nothing to any reader, such as who wrote the file"


def rewritten(path: Path, change: Callable[[list[Struct]], None]) -> None:
    """The file with another footer: ``change`` gets its row groups."""
    data = path.read_bytes()
    at = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer, _ = decoded(STRUCT, data, at)
    change(get(footer, 4)[1])
    write(path, data[:at], encoded(STRUCT, footer))


def column(groups: list[Struct], number: int, group: int = 1) -> Struct:
    """What a footer says of the values of a row group's column."""
    meta: Struct = get(get(groups[group], 1)[1][number], 3)
    return meta


def test_a_footer_that_is_written_again_is_the_same(path: Path) -> None:
    before = path.read_bytes()
    rewritten(path, lambda _: None)
    assert path.read_bytes() == before
    assert wrong(path) == []


@pytest.mark.parametrize("fields", [(1,), (2,), (5,), (6,), (1, 5), (2, 6)])
@pytest.mark.parametrize("number", [0, MT, RX, SEQ])
def test_a_least_or_greatest_value_that_is_none_is_found(path: Path, number: int, fields: tuple[int, ...]) -> None:
    """In each of the two places that readers look at, and in both alike."""
    read_back = frames(path)
    there = False

    def change(groups: list[Struct]) -> None:
        nonlocal there
        statistics = get(column(groups, number), 12)
        for field in {entry[0] for entry in statistics} & set(fields):
            there = True
            value = get(statistics, field)
            put(statistics, field, bytes([value[0] ^ 1]) + value[1:])

    rewritten(path, change)
    name = ("ts", "mt", "m", "rx", "seq")[number]
    if there:
        assert f"column {name} of row group 1: its m" in wrong(path)[0]
    else:
        assert wrong(path) == [], "PyArrow writes numbers without a sign and texts in one of the two places"
        assert number in (MT, SEQ)
        assert set(fields) <= {1, 2}
    assert all(now.equals(before) for now, before in zip(frames(path), read_back, strict=True))


def _insert(struct: Struct, field: int, kind: int, value: Any) -> None:
    struct.append([field, kind, value])
    struct.sort(key=lambda entry: entry[0])


def _missing(groups: list[Struct]) -> None:
    put(get(column(groups, RX), 12), 3, 1)


def _distinct(groups: list[Struct]) -> None:
    _insert(get(column(groups, MT), 12), 4, I64, 1)


def _bloom_filter(groups: list[Struct]) -> None:
    _insert(column(groups, MT), 14, I64, 4)


def _page_index(groups: list[Struct]) -> None:
    chunk = get(groups[1], 1)[1][RX]
    for field, kind in ((4, I64), (5, I32), (6, I64), (7, I32)):
        _insert(chunk, field, kind, 4)


def _elsewhere(groups: list[Struct]) -> None:
    _insert(get(groups[1], 1)[1][RX], 1, BINARY, b"another file")


def _sorted_by_rx(groups: list[Struct]) -> None:
    put(get(groups[1], 4)[1][0], 1, RX)


def _backwards(groups: list[Struct]) -> None:
    get(groups[1], 4)[1][0][1] = [2, 1, True]


def _another_column(groups: list[Struct]) -> None:
    put(column(groups, RX), 3, (BINARY, [b"ts"]))


def _place(groups: list[Struct]) -> None:
    put(groups[1], 5, 4)


def _size(groups: list[Struct]) -> None:
    put(groups[1], 6, 4)


def _texts(groups: list[Struct]) -> None:
    put(get(column(groups, M), 16), 1, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_missing, "its null_count is not that of its values"),
        (_distinct, "how many distinct values"),
        (_bloom_filter, "a field 14 of"),
        (_page_index, "a field 4 of"),
        (_elsewhere, "a field 1 of"),
        (_sorted_by_rx, "sorted by something else than seq"),
        (_backwards, "sorted by something else than seq"),
        (_another_column, "it is said to be another one"),
        (_place, "its place is said to be 4, and is "),
        (_size, "its size as stored is said to be 4, and is "),
        (_texts, "bytes, its footer says 4"),
    ],
)
def test_what_else_a_footer_says_is_proven(path: Path, change: Callable[[list[Struct]], None], said: str) -> None:
    rewritten(path, change)
    assert said in "; ".join(wrong(path))


def test_a_row_group_that_is_left_out_is_said_by_every_reader(path: Path) -> None:
    def change(groups: list[Struct]) -> None:
        del groups[-1]

    rewritten(path, change)
    assert any("its row groups have 24 rows, all of it 31" in text for text in wrong(path))
    with pytest.raises(parquet_module.FileError, match="its row groups have 24 rows, all of it 31"):
        frames(path)


def test_statistics_of_texts_are_proven_too(path: Path) -> None:
    """No file of ours has them, one that somebody packed anew has."""
    table = pq.read_table(path)
    pq.write_table(table, path, compression="zstd", row_group_size=12)
    assert wrong(path) == []

    def change(groups: list[Struct]) -> None:
        put(get(column(groups, M, 0), 12), 5, b"a")

    rewritten(path, change)
    assert wrong(path) == ["column m of row group 0: its max_value is not that of its values"]


def test_an_export_reads_its_footer_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose statistics are not those of its rows is not put in place, and one in its place is not taken for
    the segment's."""
    config = configure(tmp_path)
    fill(config)
    real = footer.contradictions
    monkeypatch.setattr(footer, "contradictions", lambda *_: ["its max is not that of its values"])
    assert not main(config).ok
    assert list(config.export_dir.glob("*")) == []
    monkeypatch.setattr(footer, "contradictions", real)
    assert main(config).ok
    (path,) = config.export_dir.glob("*.parquet")

    def change(groups: list[Struct]) -> None:
        statistics = get(column(groups, RX, 0), 12)
        for field in (1, 5):
            put(statistics, field, T0.to_bytes(8, "little"))

    rewritten(path, change)
    assert "column rx of row group 0: its max is not" in "; ".join(f.text for f in exports(config).findings)
    after = read.frames("btc", T0 + SECOND // 100, export_dir=config.export_dir)
    assert len(after) == 11
