"""One damaged part never stops its neighbours: whatever a segment holds, other symbols and segments go on as before."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline.config import Config
from mexc_pipeline.export import main
from mexc_pipeline.spool.lifecycle import Tally, prune
from mexc_pipeline.spool.pending import Pending
from mexc_pipeline.spool.segment import NewerFormatError, SegmentError, SegmentReader, info
from mexc_pipeline.spool.walk import exported_files, in_order, segments
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.verify import by_hour, exports, ledger
from support.spools import T0, configure, fill, open_spool, some_frames

NESTED = "[" * 100_000 + "]" * 100_000
VALUES = [
    "null", '"text"', "[]", "{}", "-1", "1.5", "NaN", "true", NESTED, "9" * 5000, str(2**63), '"../../x"', "", "{",
    "\xff",
]  # fmt: skip
OPEN = ("id", "symbol", "spool_id", "version", "edge_ns", "state", "cut", "period", "period_ns", "part", "kept")
CLOSED = (*OPEN, "rows", "counts", "bytes", "digests", "digest", "gaps", "account", "exported")
"""What a segment says of itself, the last once it is exported."""


ONE_EACH = tuple(f"V{chr(65 + n)}_USDT" for n in range(len(VALUES)))


def recorded(folder: Path, closed: int, *symbols: str) -> Config:
    """Each symbol with so many closed segments and an open one, all with the same frames."""
    config = configure(folder, *symbols)
    for symbol in config.symbols:
        fill(config, symbol.id, periods=closed)
        spool = open_spool(config, symbol.id)
        spool.append(some_frames(20, T0 + closed * config.period.length_ns))
        spool.close()
    return config


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """To be copied: BTC and ETH with two closed segments and an open one."""
    return recorded(tmp_path_factory.mktemp("two"), 2, "BTC_USDT", "ETH_USDT")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """To be copied: ETH and a symbol for each value, with a closed segment and an open one."""
    return recorded(tmp_path_factory.mktemp("many"), 1, "ETH_USDT", *ONE_EACH)


def copied(whole: Config, folder: Path) -> Config:
    shutil.copytree(whole.data_dir, folder / "data")
    return configure(folder, *(symbol.name for symbol in whole.symbols))


@pytest.fixture
def config(two: Config, tmp_path: Path) -> Config:
    """BTC with two closed segments and an open one, ETH the same."""
    return copied(two, tmp_path)


def everything(config: Config, *damaged: Path) -> None:
    """All that reads segments, with one of some symbols damaged, never of ETH: nothing raises, ETH's files are proven,
    the symbols record on, and a damaged one is named or set apart, or its file holds what arrived."""
    files = [f"eth{path.stem}.parquet" for _, path in segments(config.spool_dir / "eth")]
    report = main(config)
    assert {(f.id, f.segment) for f in report.failures} <= {(path.parent.name, path.name) for path in damaged}
    assert sorted(f.file for f in report.files if f.id == "eth" and f.file) == files
    proofs = exports(config)
    assert [f for f in proofs.findings if not f.ok and f.symbol == "eth"] == []
    by_hour(config, ledger(config))
    for path in damaged:
        symbol_id = path.parent.name
        prune(path.parent, 1 << 61, 1)
        spool = open_spool(config, symbol_id)
        after = spool.append(some_frames(5, T0 + 20 * config.period.length_ns))
        assert len(after) == 5
        spool.close()
        named = [f.segment for f in report.failures if f.id == symbol_id]
        named += [f"{f.subject} {f.text}" for f in proofs.findings if not f.ok and f.symbol == symbol_id]
        named += [other.name for other in path.parent.iterdir() if other.name != path.name]
        if not any(said and (path.name in said or f"{symbol_id}{path.stem}" in said) for said in named):
            # .part1 where it is believed to be cut
            made = list(config.export_dir.glob(f"{symbol_id}{path.stem}*.parquet"))
            assert len(made) == 1, f"{symbol_id}: it is in no file, and nobody says so"
            other = config.export_dir / f"eth{path.stem}.parquet"
            assert pq.read_table(made[0]).equals(pq.read_table(other)), "both were given the same frames"


def damage(path: Path, change: Callable[[sqlite3.Connection], object]) -> None:
    db = sqlite3.connect(path)
    db.text_factory = bytes
    try:
        db.execute("PRAGMA writable_schema=ON")
        change(db)
        db.commit()
    finally:
        db.close()


def loosen(db: sqlite3.Connection) -> None:
    """Take the declared types away: then a value can be of any type, as after an altered bit in a row's header."""
    db.execute("UPDATE sqlite_schema SET sql = replace(sql, ' STRICT', '') WHERE name = 'rows'")
    db.commit()
    version = db.execute("PRAGMA schema_version").fetchone()[0]
    db.execute(f"PRAGMA schema_version={version + 1}")
    db.commit()


@pytest.mark.parametrize("number", [0, 1, 2], ids=["oldest", "newest closed", "open"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET mt = mt | 64 WHERE seq % 20 = 7",
        "UPDATE rows SET mt = 0 WHERE seq % 20 = 7",
        "UPDATE rows SET rx = -1 WHERE seq % 20 = 7",
        "UPDATE rows SET rx = 9223372036854775807 WHERE seq % 20 = 7",
        "UPDATE rows SET ts = -9223372036854775808 WHERE seq % 20 = 7",
        "UPDATE rows SET seq = 9223372036854775807 WHERE seq % 20 = 7",
        "UPDATE rows SET seq = -seq WHERE seq % 20 = 7",
        "DELETE FROM rows WHERE seq % 20 = 7",
        "DELETE FROM meta",
        "DROP TABLE rows",
        "DROP TABLE meta",
        "PRAGMA user_version=-1",
    ],
)
def test_a_row_that_is_none(config: Config, number: int, statement: str) -> None:
    path = segments(config.spool_dir / "btc")[number][1]
    damage(path, lambda db: db.execute(statement))
    everything(config, path)


@pytest.mark.parametrize("number", [1, 2], ids=["closed", "open"])
@pytest.mark.parametrize("column", ["rx", "ts", "mt", "m"])
@pytest.mark.parametrize("value", ["'text'", "1.5", "NULL", "x'ff'", "1", "zeroblob(10)"])
def test_a_value_of_another_type(config: Config, number: int, column: str, value: str) -> None:
    path = segments(config.spool_dir / "btc")[number][1]

    def change(db: sqlite3.Connection) -> None:
        loosen(db)
        db.execute("UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'rows'")
        db.commit()
        again = sqlite3.connect(path)
        again.execute(f"UPDATE rows SET {column} = {value} WHERE seq % 20 = 7")
        again.commit()
        again.close()

    damage(path, change)
    everything(config, path)


@pytest.mark.parametrize(
    ("number", "key"), [(number, key) for number, keys in enumerate((CLOSED, OPEN)) for key in keys]
)
def test_meta_that_is_none(many: Config, tmp_path: Path, number: int, key: str) -> None:
    """Each value in a symbol of its own, as everything that reads segments finds it."""
    config = copied(many, tmp_path)
    paths = [segments(config.spool_dir / symbol.id)[number][1] for symbol in config.symbols if symbol.id != "eth"]
    for path, value in zip(paths, VALUES, strict=True):
        damage(path, partial(_set, key, value))
        try:
            found = info(path)
        except SegmentError:
            pass
        else:
            assert "/" not in found.file
    everything(config, *paths)


def _set(key: str, value: str, db: sqlite3.Connection) -> None:
    """As a version without a check value wrote it: with one, none of them is looked at."""
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))
    db.execute("DELETE FROM meta WHERE key = 'check'")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), bits=st.integers(1, 6), number=st.integers(0, 2), header=st.booleans())
def test_flipped_bits_raise_nothing_but_what_is_foreseen(
    config: Config, seed: int, bits: int, number: int, header: bool
) -> None:
    """Nor does one keep anybody from recording: what notices it last is a commit."""
    rng = random.Random(seed)
    source = segments(config.spool_dir / "btc")[number][1]
    folder = config.data_dir / "copies" / "btc"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / source.name
    data = bytearray(source.read_bytes())
    for _ in range(bits):
        data[rng.randrange(100) if header else rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    for look in (_counts, _tail, Tally.of, _blocks):
        try:
            look(path)
        except SegmentError:
            continue
    in_order(folder)
    _records_on(folder, config)


@pytest.mark.parametrize("at", range(100))
def test_any_byte_of_the_header(config: Config, at: int) -> None:
    """Of a segment that is open: rows go on, and those that were in it are there or in a file that is named so."""
    path = segments(config.spool_dir / "btc")[2][1]
    data = bytearray(path.read_bytes())
    folder = config.data_dir / "copies" / "btc"
    for bit in (0, 7):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        data[at] ^= 1 << bit
        (folder / path.name).write_bytes(data)
        data[at] ^= 1 << bit
        try:
            first_seq = info(folder / path.name).first_seq
        except SegmentError:
            first_seq = None
        if not _records_on(folder, config):
            assert first_seq is None
            continue
        there = [segment for segment in in_order(folder).readable if segment.first_seq == first_seq]
        apart = [p.name for p in folder.iterdir() if ".sqlite.damaged-" in p.name]
        assert there or apart, f"bit {bit}"


def _records_on(folder: Path, config: Config) -> bool:
    """Rows that take new pages go into the folder's spool, and its segment ends in order; False where a later version
    seems to have written there."""
    edge = T0 + 3 * config.period.length_ns
    try:
        spool = Spool(folder, "btc", "BTC_USDT", config.period, next_rx=edge - 10**9)
    except NewerFormatError:
        return False
    wanted = some_frames(300, edge - 10**9, 1_000_000)
    done = 0
    while done < len(wanted):
        done += len(spool.append(wanted[done:]))
    last_seq = spool.last_seq
    spool.tick(edge)
    spool.close()
    newest = in_order(folder).readable[-1]
    assert (newest.state, newest.last_seq) == ("closed", last_seq + 1)
    Tally.of(newest.path)
    return True


def _counts(path: Path) -> object:
    with SegmentReader(path) as reader:
        return reader.counts()


def _tail(path: Path) -> object:
    with SegmentReader(path) as reader:
        return reader.tail(5, 10)


def _blocks(path: Path) -> object:
    with SegmentReader(path) as reader:
        return list(reader.blocks(max_rows=7))


@pytest.mark.parametrize("what", ["fifo", "folder", "device", "dangling link", "loop", "empty", "text"])
@pytest.mark.parametrize("where", ["spool", "exports"])
def test_something_else_under_the_name(config: Config, what: str, where: str) -> None:
    """Named and passed over; nothing waits for it."""
    name = "20260915180000.sqlite" if where == "spool" else "btc20260915180000.parquet"
    path = (config.spool_dir / "btc" if where == "spool" else config.export_dir) / name
    path.parent.mkdir(exist_ok=True)
    match what:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "dangling link":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)
        case "empty":
            path.touch()
        case _:
            path.write_text(json.dumps({}))
    if where == "spool":
        everything(config, path)
    else:
        assert main(config).ok
        found = [f for f in exports(config).findings if not f.ok]
        assert [f.subject for f in found] == [name]
        ledger(config)


def swap_first_cells(data: bytearray) -> None:
    """Of every leaf page with rows: seq 2 stands before seq 1 then."""
    size = int.from_bytes(data[16:18], "big")
    for page in range(size, len(data), size):
        if data[page] == 0x0D and int.from_bytes(data[page + 3 : page + 5], "big") > 2:
            at = page + 8
            data[at : at + 4] = data[at + 2 : at + 4] + data[at : at + 2]


def swap_last_cells(data: bytearray) -> None:
    """Reading on after the last row of such a page begins with it again."""
    size = int.from_bytes(data[16:18], "big")
    for page in range(size, len(data), size):
        cells = int.from_bytes(data[page + 3 : page + 5], "big")
        if data[page] == 0x0D and cells > 2:
            at = page + 8 + 2 * (cells - 2)
            data[at : at + 4] = data[at + 2 : at + 4] + data[at : at + 2]


def spoil_schema(data: bytearray) -> None:
    """SQLite quotes what it cannot parse, and no text can be made of that."""
    at = data.index(b"CREATE TABLE meta")
    data[at : at + 17] = b"CREATE \xd5\xd5BLE meta"


@pytest.mark.parametrize("change", [swap_first_cells, swap_last_cells, spoil_schema])
@pytest.mark.parametrize("number", [0, 2], ids=["closed", "open"])
def test_pages_that_lead_round_and_a_schema_that_is_no_text(
    config: Config, number: int, change: Callable[[bytearray], None]
) -> None:
    path = segments(config.spool_dir / "btc")[number][1]
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    with pytest.raises(SegmentError):
        Tally.of(path)
    everything(config, path)


@pytest.mark.parametrize("number", [1, 2], ids=["closed", "open"])
@pytest.mark.parametrize(
    "statements",
    [
        "ALTER TABLE rows RENAME TO former; CREATE VIEW rows AS WITH RECURSIVE n(seq) AS "  # as well without an end
        "(VALUES (1) UNION ALL SELECT seq + 1 FROM n LIMIT 9) SELECT seq, 1 AS rx, 1 AS ts, 1 AS mt, x'20' AS m FROM n",
        "CREATE TRIGGER gone AFTER INSERT ON rows BEGIN DELETE FROM rows WHERE seq = new.seq; END",
    ],
    ids=["view", "trigger"],
)
def test_what_runs_by_itself_is_none_of_ours(config: Config, number: int, statements: str) -> None:
    path = segments(config.spool_dir / "btc")[number][1]
    damage(path, lambda db: db.executescript(statements))
    with pytest.raises(SegmentError, match="a view or a trigger"):
        info(path)
    everything(config, path)


@pytest.mark.parametrize("part", ["99999999", "999999999", "1000000000", "9" * 200])
@pytest.mark.parametrize("where", ["spool", "exports"])
def test_a_part_that_nobody_made(config: Config, part: str, where: str) -> None:
    """What is recorded beside it has a name by which its file is found."""
    period = config.period.name(T0 + 20 * config.period.length_ns)
    folder, name = config.spool_dir / "btc", f"{period}.part{part}.sqlite"
    if where == "exports":
        folder, name = config.export_dir, f"btc{period}.part{part}.parquet"
        folder.mkdir()
    (folder / name).write_text("x")
    files = [path.name for path in folder.glob("*.parquet")]
    spool = Spool(config.spool_dir / "btc", "btc", "BTC_USDT", config.period, exports=files)
    for _ in range(3):
        spool.append(some_frames(5, T0 + 20 * config.period.length_ns))
        spool.cut(T0 + 21 * config.period.length_ns - 1)
    spool.close()
    assert main(config).ok
    assert (
        len([n for n, path in exported_files(config.export_dir, "btc") if n.period == period and path.name != name])
        == 3
    )
    assert {f.subject for f in exports(config).findings if not f.ok and f.symbol == "btc"} <= {
        name, *(path.name for path in folder.glob("*.damaged-*"))
    }  # fmt: skip


def test_pending_rows_with_a_schema_that_is_no_text(tmp_path: Path) -> None:
    Pending(tmp_path, "BTC_USDT").close()
    path = tmp_path / "pending.db"
    data = bytearray(path.read_bytes())
    spoil_schema(data)
    path.write_bytes(data)
    pending = Pending(tmp_path, "BTC_USDT")
    assert pending.set_apart is not None
    pending.close()
