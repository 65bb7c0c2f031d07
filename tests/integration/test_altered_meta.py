"""What a segment or a file of pending rows says of itself is believed only as it was written: one altered bit of it
loses and repeats no row in silence, and stops no neighbour."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.config import Config, parse
from mexc_pipeline.export import main as export
from mexc_pipeline.export.newest import newest_seq
from mexc_pipeline.rows import Frame
from mexc_pipeline.spool.label import check_label, said_by
from mexc_pipeline.spool.last_seq import LastSeq
from mexc_pipeline.spool.pending import FILE, Pending, number_left
from mexc_pipeline.spool.segment import NewerFormatError, SegmentError, info, put_meta
from mexc_pipeline.spool.walk import in_order, segments
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.verify import exports as verify
from support.spools import SECOND, T0, configure, fill, open_spool, tamper, written

PERIOD = 10 * SECOND
NO_LAST_SEQ = LastSeq(0, (), None, ())
MOVED, LEFT = 30, 25
_ALL = ("id", "symbol", "spool_id", "version", "period", "period_ns", "edge_ns", "state", "cut", "kept", "check")
KEYS = {
    "oldest": (*_ALL, "rows", "counts", "bytes", "gaps", "account", "digests", "digest"),
    "newest": (*_ALL, "moved"),
    "pending": ("id", "symbol", "check"),
}


def frames(count: int, start_ns: int, what: str) -> list[Frame]:
    return [Frame(start_ns + n, None, 1, f"{what} {n}".encode()) for n in range(count)]


def left(folder: Path) -> Config:
    """A closed segment of each of two symbols; of BTC also an open one, into which a part of the pending rows was
    moved when the process died."""
    config = configure(folder, "BTC_USDT", "ETH_USDT")
    for symbol_id in ("btc", "eth"):
        spool = open_spool(config, symbol_id)
        spool.append(frames(20, T0, "early"))
        spool.tick(T0 + PERIOD)
        spool.close()
    pending = Pending(config.spool_dir / "btc", "BTC_USDT")
    pending.append(frames(MOVED, T0 + PERIOD, "moved"))
    spool = Spool(config.spool_dir / "btc", "btc", "BTC_USDT", config.period, next_rx=T0 + PERIOD)
    assert pending.move(spool) == MOVED
    pending.append(frames(LEFT, T0 + PERIOD + SECOND, "left"))
    spool.close()
    pending.close()
    return config


@pytest.fixture(scope="module")
def spooled(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return left(tmp_path_factory.mktemp("left"))


def again(config: Config, folder: Path) -> Config:
    """A copy in a folder of its own."""
    shutil.copytree(config.data_dir, folder / "data")
    symbols = 'symbols = ["BTC_USDT", "ETH_USDT"]\nperiod = "10s"'
    text = f'{symbols}\ndata_dir = "{folder}/data"\nexport_dir = "{folder}/exports"\n'
    return parse(text, folder / "config.toml")


def file_of(config: Config, which: str) -> Path:
    if which == "pending":
        return config.spool_dir / "btc" / FILE
    return segments(config.spool_dir / "btc")[0 if which == "oldest" else -1][1]


def flip(path: Path, key: str, at: float, bit: int) -> None:
    db = sqlite3.connect(path)
    db.text_factory = bytes
    with db:
        (value,) = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        changed = bytearray(value)
        changed[int(at * len(changed))] ^= 1 << bit
        db.execute("UPDATE meta SET value = CAST(? AS TEXT) WHERE key = ?", (bytes(changed), key))
    db.close()


def judge(config: Config) -> None:
    """Number, export and verify what is there: BTC's rows are in files once, or a file of them was set apart."""
    folder = config.spool_dir / "btc"
    number_left(folder, "btc", config.period, NO_LAST_SEQ)
    report = export(config, once=True)
    assert {failure.id for failure in report.failures} <= {"btc"}
    findings = verify(config).findings
    assert [finding for finding in findings if finding.symbol == "eth" and not finding.ok] == []
    assert sorted(path.name[:3] for path in config.export_dir.iterdir()).count("eth") == 1
    found = Counter[str]()
    for path in config.export_dir.glob("btc*.parquet"):
        table = pq.read_table(path)
        rows = zip(table["m"].cast("string").to_pylist(), table["mt"].to_pylist(), strict=True)
        found.update(m for m, mt in rows if mt != "ev")
    names = {"early": 20, "moved": MOVED, "left": LEFT}
    expected = Counter(f"{what} {n}" for what, count in names.items() for n in range(count))
    assert not found - expected, "rows are there more than once"
    apart = [path.name for path in folder.iterdir() if ".damaged-" in path.name]
    assert found == expected or apart


@pytest.mark.parametrize("which", list(KEYS))
@settings(max_examples=40, deadline=None)
@given(data=st.data(), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_bit_of_what_a_file_says_of_itself(
    spooled: Config, which: str, data: st.DataObject, at: float, bit: int
) -> None:
    key = data.draw(st.sampled_from(KEYS[which]))
    with tempfile.TemporaryDirectory() as folder:
        config = again(spooled, Path(folder))
        path = file_of(config, which)
        flip(path, key, at, bit)
        judge(config)
        assert list((config.spool_dir / "btc").glob(f"{path.name}.damaged-*")), f"{key} was believed"


def test_unaltered_it_is_whole(spooled: Config, tmp_path: Path) -> None:
    config = again(spooled, tmp_path)
    judge(config)
    assert not list((config.spool_dir / "btc").glob("*.damaged-*"))
    assert verify(config).ok


@pytest.mark.parametrize("which", list(KEYS))
@pytest.mark.parametrize("bit", range(0, 31, 5))
def test_any_bit_of_its_headers_version(spooled: Config, tmp_path: Path, which: str, bit: int) -> None:
    """That of 16777217 is no later version's where the rest says to be of this one."""
    config = again(spooled, tmp_path)
    path = file_of(config, which)
    tamper(path, f"PRAGMA user_version={1 ^ 1 << bit}")
    judge(config)
    assert list((config.spool_dir / "btc").glob(f"{path.name}.damaged-*"))


def test_rows_that_were_moved_into_a_damaged_segment_are_moved_once_more(spooled: Config, tmp_path: Path) -> None:
    config = again(spooled, tmp_path)
    flip(file_of(config, "newest"), "moved", 0.99, 0)
    judge(config)
    rows = sum(pq.read_metadata(path).num_rows for path in config.export_dir.glob("btc*.parquet"))
    assert rows >= 20 + MOVED + LEFT


def test_a_writer_does_not_make_good_what_was_altered(spooled: Config, tmp_path: Path) -> None:
    config = again(spooled, tmp_path)
    path = file_of(config, "newest")
    flip(path, "edge_ns", 0.5, 0)
    db = sqlite3.connect(path)
    with db:
        put_meta(db, {"state": "open"})
    db.close()
    with pytest.raises(SegmentError, match="is not what was written there"):
        info(path)


@pytest.mark.parametrize(
    "value",
    [
        ("id", '"eth"', "a segment of id 'eth' in the folder of 'btc'"),
        ("edge_ns", str(T0 - 1), "a period is a whole number"),
        ("edge_ns", str(T0 + 2 * 86_400 * SECOND), "a period is a whole number"),
        ("edge_ns", str(T0 + PERIOD + 1), "a period is a whole number"),
    ],
)
def test_without_a_check_value_it_must_be_plausible(
    spooled: Config, tmp_path: Path, value: tuple[str, str, str]
) -> None:
    """As an earlier version wrote it."""
    key, text, said = value
    config = again(spooled, tmp_path)
    path = file_of(config, "oldest")
    tamper(path, "DELETE FROM meta WHERE key = 'check'")
    assert not in_order(path.parent).unreadable
    tamper(path, "UPDATE meta SET value = ? WHERE key = ?", text, key)
    ((unreadable, error),) = in_order(path.parent).unreadable
    assert unreadable == path
    assert said in str(error)
    report = export(config)
    assert list(path.parent.glob(f"{path.name}.damaged-*")), "by whoever numbers what is pending"
    assert [file.file for file in report.files if file.id == "eth"] == ["eth20260915185200.parquet"]


def test_a_later_format_with_its_own_check_is_a_later_format(spooled: Config, tmp_path: Path) -> None:
    config = again(spooled, tmp_path)
    path = file_of(config, "oldest")
    written(path, "PRAGMA user_version=2")
    with pytest.raises(NewerFormatError):
        info(path)


def test_one_altered_symbol_does_not_end_a_recording(tmp_path: Path) -> None:
    """Of a segment without a check value beside others, and of the newest file's footer."""
    config = configure(tmp_path)
    fill(config, periods=3)
    assert export(config).ok
    btc = config.symbol("btc")
    (_, oldest), *_ = segments(config.spool_dir / "btc")
    tamper(oldest, "DELETE FROM meta WHERE key = 'check'")
    tamper(oldest, "UPDATE meta SET value = '\"BTC_USDU\"' WHERE key = 'symbol'")
    check_label(config, btc)
    newest = max(config.export_dir.iterdir())
    whole = newest.read_bytes()
    at = whole.rindex(b"BTC_USDT")
    newest.write_bytes(whole[:at] + b"BTC_USDU" + whole[at + 8 :])
    assert pq.read_metadata(newest).metadata[b"mexc.symbol"] == b"BTC_USDU"
    assert said_by(newest, "symbol") == ""
    check_label(config, btc)
    for _, path in segments(config.spool_dir / "btc"):
        path.unlink()
    check_label(config, btc)


def test_an_altered_id_of_a_footer_hides_no_row(tmp_path: Path) -> None:
    """Else its seqs would be given again where the spool is gone."""
    config = configure(tmp_path)
    fill(config)
    assert export(config).ok
    (file,) = config.export_dir.iterdir()
    whole = file.read_bytes()
    at = whole.rindex(b"mexc.id\x18\x03btc") + 9
    file.write_bytes(whole[:at] + b"btb" + whole[at + 3 :])
    assert pq.read_metadata(file).metadata[b"mexc.id"] == b"btb"
    last, unknown = newest_seq(config.export_dir, "btc")
    assert last == 0
    assert "the two copies of its metadata differ in id" in unknown[0]


def test_an_edge_that_is_no_periods_is_found_in_a_file(tmp_path: Path) -> None:
    config = configure(tmp_path)
    fill(config)
    assert export(config).ok
    assert verify(config).ok
    (file,) = config.export_dir.iterdir()
    whole = file.read_bytes()
    assert whole.count(str(T0 + PERIOD).encode()) == 1
    file.write_bytes(whole.replace(str(T0 + PERIOD).encode(), str(T0 + 3 * PERIOD + 1).encode()))
    texts = [finding.text for finding in verify(config).findings if not finding.ok]
    assert any("ends no period of that name" in text for text in texts)
