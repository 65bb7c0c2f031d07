"""Files altered behind our back are noticed by content, and the file and the column are named."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mexc_pipeline.config import Config
from mexc_pipeline.events import Started
from mexc_pipeline.export import main
from mexc_pipeline.ledger.conservation import Side
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.run.account import Periods, dead_letters, line_of
from mexc_pipeline.run.children import Lifeline
from mexc_pipeline.run.supervisor import Stop, Supervisor, verify_files
from mexc_pipeline.spool.lifecycle import mark_exported, remove
from mexc_pipeline.spool.pending import Pending, left_since_ns
from mexc_pipeline.spool.segment import info
from mexc_pipeline.spool.walk import by_symbol, exported_files, segments
from mexc_pipeline.verify import Finding, Report, exports, ledger, waiting
from mexc_pipeline.verify.exports import left
from support.spools import (
    BOOK,
    DEAL,
    SECOND,
    T0,
    TICKER,
    configure,
    event,
    fill,
    open_spool,
    some_frames,
    tamper,
    written,
)

exports_module = importlib.import_module("mexc_pipeline.verify.exports")  # the package's name of it is the function
FILES = tuple(f"btc202609151852{s}.parquet" for s in ("00", "10", "20"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = configure(tmp_path)
    fill(config, periods=3)
    assert main(config).ok
    return config


def forget_spool(config: Config) -> None:
    for _, path in segments(config.spool_dir / "btc"):
        remove(path)


def failed(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if not finding.ok]


def rewrite(path: Path, change: Callable[[Any], Any], metadata: dict[bytes, bytes] | None = None) -> None:
    """The file again with other rows but its own metadata, counts and all."""
    table = pq.read_table(path)
    changed = change(table).replace_schema_metadata({**table.schema.metadata, **(metadata or {})})
    pq.write_table(changed, path, compression="zstd")


def with_value(column: str, row: int, value: object) -> Callable[[Any], Any]:
    def change(table: Any) -> Any:
        values = table.column(column).cast(pa.string()) if column == "mt" else table.column(column)
        listed = values.cast(pa.int64()).to_pylist() if column in ("ts", "rx", "seq") else values.to_pylist()
        listed[row] = value(listed[row]) if callable(value) else value
        array = pa.array(listed).cast(table.column(column).type)
        return table.set_column(table.schema.get_field_index(column), table.schema.field(column), array)

    return change


def test_sound_files_verify_with_and_without_their_spool(config: Config) -> None:
    report = exports(config)
    assert report.ok, report.lines()
    assert [f.subject for f in report.findings] == [*FILES, "continuity", *FILES]
    forget_spool(config)
    report = exports(config)
    assert report.ok
    assert [f.subject for f in report.findings] == [*FILES, "continuity"]


def test_a_type_that_nobody_can_read_is_said_where_it_is_little_of_the_whole(tmp_path: Path) -> None:
    """Deals whose ``ts`` is of another unit: 12 of 2,012 frames. ``run`` and ``verify`` judged the whole alone."""
    config = configure(tmp_path)
    spool = open_spool(config)
    good = b'{"symbol":"BTC_USDT","data":{"lastPrice":1},"channel":"push.ticker","ts":1789498320000}'
    bad = b'{"symbol":"BTC_USDT","data":[],"channel":"push.deal","ts":1789498320000000}'
    spool.append([Frame(T0 + n, None, Mt.TICKER, good) for n in range(2000)])
    spool.append([Frame(T0 + 3000 + n, None, Mt.DEAD_LETTER, bad) for n in range(12)])
    spool.close()
    assert main(config).ok
    said = "12 of 12 frames of type d are dead letters (12 ts)"
    assert exports(config, newest=0).notes == [f"warn btc btc20260915185200.parquet: {said}"]
    periods = Periods(config)
    periods.scan()
    (line,) = (line_of(segment, None, None) for segment in periods.ours())
    lifeline = Lifeline()
    supervisor = Supervisor(config, lifeline, Stop(), lambda _, __: None)
    lifeline.close()
    (problem,) = dead_letters([line], supervisor._dead_letters)
    assert problem.startswith("btc: 12 of 12 frames of type d are dead letters (100.0 %; a fault from 1%; 12 ts)")
    (config.export_dir / line.file).unlink()
    assert dead_letters([line], supervisor._dead_letters) == [], "that it is gone is said elsewhere"


def test_the_newest_rows_are_shown_readable(config: Config) -> None:
    notes = exports(config).notes
    assert [line.split()[1] for line in notes] == ["t"] * 3 + ["d"] * 3 + ["dp"] * 3 + ["dl"] * 3 + ["ev"] * 3
    text = "\n".join(notes)
    assert "last 76376.1 bid 76376.2 ask 76376.3" in text
    assert "buy 208 at 77526, sell 5 at 77525.9" in text
    assert "ask 48 at 77526.1, bid 46 at 77526" in text
    assert "Größe – 大" in text
    assert "2026-09-15 18:52:20.018000018 seq 61:" in text


@pytest.mark.parametrize("newest", [1, 3])
def test_newest_rows_that_no_reader_can_read_are_a_warning(tmp_path: Path, newest: int) -> None:
    """A field was renamed: all is kept and proven, and none of it can be read."""
    config = configure(tmp_path)
    spool = open_spool(config)
    bad = DEAL.replace('"data"', '"d"').encode()
    spool.append([Frame(T0 + n, 1_789_498_320_000, Mt.DEAL, DEAL.encode()) for n in range(9)])
    spool.append([Frame(T0 + 10 + n, 1_789_498_320_000, Mt.DEAL, bad) for n in range(2)])
    assert spool.cut(T0 + SECOND)
    assert main(config).ok
    warned = [note for note in exports(config, newest=newest).notes if note.startswith("warn")]
    assert bool(warned) is (newest == 1), "three of them: the third could still be read"
    spool.append([Frame(T0 + 2 * SECOND + n, 1_789_498_320_000, Mt.DEAL, bad) for n in range(2)])
    spool.close()
    assert main(config, once=True).ok
    (line,) = [note for note in exports(config, newest=newest).notes if note.startswith("warn")]
    assert line.startswith("warn btc: the newest frames of type d cannot be read: Object missing required field `data`")


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("m", lambda m: m.replace("7", "8", 1), ("m",)),
        ("m", lambda m: m + " ", ("len", "m")),
        ("rx", lambda rx: rx + 1, ("rx",)),
        ("ts", lambda ts: ts + 1, ("ts",)),
        ("mt", "dl", ("mt",)),
        ("seq", lambda seq: seq + 100, ("seq",)),
    ],
)
def test_an_altered_value_is_noticed_by_content(
    config: Config, column: str, value: object, named: tuple[str, ...]
) -> None:
    rewrite(config.export_dir / FILES[1], with_value(column, 4, value))
    forget_spool(config)
    (finding,) = [f for f in failed(exports(config)) if f.columns]
    assert finding.subject == FILES[1]
    assert finding.columns == named
    assert f"in column {', '.join(named)}" in finding.text


def test_an_alteration_with_matching_metadata_is_noticed_against_the_spool(config: Config, tmp_path: Path) -> None:
    other = configure(tmp_path / "data")
    spool = open_spool(other)
    frames = some_frames(20, T0)
    spool.append([frames[0]._replace(m=frames[0].m.replace(b"76376.1", b"76376.2")), *frames[1:]])
    spool.tick(T0 + 10 * SECOND)
    spool.close()
    assert main(other).ok
    (config.export_dir / FILES[0]).write_bytes((other.export_dir / FILES[0]).read_bytes())
    twice, finding = failed(exports(config, ["btc"]))
    assert (finding.subject, finding.columns) == (FILES[0], ("m",))
    assert "differs from segment 20260915185200.sqlite" in finding.text
    assert "was given twice" in twice.text  # by the spool of that file, and by this one


def test_one_flipped_bit_in_a_page_is_noticed_and_its_column_named(config: Config) -> None:
    path = config.export_dir / FILES[2]
    place = pq.read_metadata(path).row_group(0).column(2)
    assert place.path_in_schema == "m"
    whole = path.read_bytes()
    forget_spool(config)
    start, size = place.data_page_offset, place.total_compressed_size
    noticed = 0
    for at in range(start, start + size, max(1, size // 40)):
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        report = exports(config, newest=0)
        if report.ok:
            held = pq.read_table(path).column("m").to_pylist()
            path.write_bytes(whole)
            assert held == pq.read_table(path).column("m").to_pylist(), f"byte {at} altered a row unnoticed"
            continue
        noticed += 1
        (finding,) = failed(report)
        assert finding.subject == FILES[2]
        assert "m" in finding.columns
    assert noticed > 30


def test_what_to_do_about_a_damaged_file_is_said_and_does_it(config: Config) -> None:
    path = config.export_dir / FILES[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes(8))
    (finding,) = failed(exports(config))
    assert finding.text.endswith(
        "; move the file away, and mexc-pipeline export --missing makes it again from the spool, which has its rows"
    )
    assert "verify exports reads" in main(config, missing=True).lines()[-1], "a file of that name is there"
    path.rename(path.with_name("away"))
    assert main(config, missing=True).ok
    assert path.read_bytes() == whole
    assert exports(config).ok
    path.write_bytes(whole[:-8] + bytes(8))
    forget_spool(config)
    (finding,) = failed(exports(config))
    assert finding.text.endswith(
        "; put back a copy from your backup or archive: the spool does not have its rows any more"
    )


def test_metadata_rewritten_to_fit_contradicts_itself(config: Config) -> None:
    path = config.export_dir / FILES[0]
    rewrite(path, lambda table: table.slice(0, 20), {b"mexc.rows": b"20", b"mexc.last_seq": b"20"})
    texts = [f.text for f in failed(exports(config)) if f.subject == FILES[0]]
    assert any("content differs from its digest" in text for text in texts)
    assert any("metadata says rows_ev 1, the file has 0" in text for text in texts)


@pytest.mark.parametrize("key", [b"mexc.symbol", b"mexc.spool_id", b"mexc.version"])
def test_one_flipped_bit_in_the_metadata_is_noticed_from_the_file_alone(config: Config, key: bytes) -> None:
    """A bit flipped in metadata that no row proves (symbol, spool, version) went unnoticed."""
    path = config.export_dir / FILES[0]
    data = bytearray(path.read_bytes())
    at = data.rindex(key) + len(key) + 4  # into the value, past Thrift's field header
    data[at] ^= 1
    path.write_bytes(data)
    forget_spool(config)
    texts = [f.text for f in failed(exports(config, newest=0)) if f.subject == FILES[0]]
    assert any(f"the two copies of its metadata differ in {key.decode().removeprefix('mexc.')}" in t for t in texts)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("gaps", b"1", "metadata says gaps 1, the file has 0"),
        ("account", {"missing": 1}, "its account differs from its rows in missing"),
        ("account", {"last_rx": 1, "moments": [[1, "stopped", 0]]}, "in last_rx, moments"),
        ("account", b"[", "its account cannot be read"),
        ("account", b"[]", "its account cannot be read"),
    ],
)
def test_what_metadata_says_of_the_events_is_proven_by_them(
    config: Config, key: str, value: bytes | dict[str, Any], said: str
) -> None:
    path = config.export_dir / FILES[0]
    if isinstance(value, dict):
        value = json.dumps({**json.loads(pq.read_metadata(path).metadata[b"mexc.account"]), **value}).encode()
    rewrite(path, lambda table: table, {f"mexc.{key}".encode(): value})
    (text,) = [f.text for f in failed(exports(config, newest=0)) if f.subject == FILES[0]]
    assert said in text


def test_a_file_of_a_version_without_an_account_is_not_judged_by_it(config: Config) -> None:
    path = config.export_dir / FILES[0]
    table = pq.read_table(path)
    kept = {k: v for k, v in table.schema.metadata.items() if k != b"mexc.account"}
    pq.write_table(table.replace_schema_metadata(kept), path, compression="zstd")
    assert exports(config, newest=0).ok


AWAY = "push.depth.full"


def told(tmp_path: Path, *events: tuple[float, bytes], frames_from_s: float | None = None) -> Config:
    """A file of a minute: events, and a frame of depth each second from then on."""
    config = configure(tmp_path, period="60s")
    start = T0 - T0 % (60 * SECOND)
    frames = [Frame(start + int(s * SECOND), None, Mt.EVENT, m) for s, m in events]
    if frames_from_s is not None:
        frames += [Frame(start + s * SECOND, None, Mt.DEPTH, BOOK.encode()) for s in range(int(frames_from_s), 55)]
    frames.append(Frame(start + 55 * SECOND, None, Mt.TICKER, TICKER.encode()))
    spool = open_spool(config)
    spool.append(sorted(frames, key=lambda frame: frame.rx))
    spool.tick(start + 60 * SECOND)
    spool.close()
    assert main(config).ok
    return config


STALLED = (10.0, event("stalled", channel=AWAY, age_s=30.0))
GIVEN_UP = (20.0, event("given_up", channel=AWAY, reason="refused"))


@pytest.mark.parametrize(
    ("events", "frames_from_s", "said"),
    [
        ([STALLED], None, f"{AWAY}: silent too long at 2026-09-15 18:52:10 UTC, and no frame since"),
        ([STALLED], 40, None),
        ([(40.0, STALLED[1])], None, None),
        ([STALLED, GIVEN_UP], None, f"{AWAY}: given up since 2026-09-15 18:52:20 UTC at least, and not back"),
        ([GIVEN_UP, (30.0, event("resumed", channel=AWAY, by="data", after_s=10.0))], 30, None),
        ([GIVEN_UP, (30.0, event("started", clean=False))], None, None),
    ],
)
def test_a_channel_that_stays_away_at_the_end_of_the_newest_file_is_warned_of(
    tmp_path: Path, events: list[tuple[float, bytes]], frames_from_s: float | None, said: str | None
) -> None:
    config = told(tmp_path, *events, frames_from_s=frames_from_s)
    report = exports(config, newest=0)
    assert report.ok
    assert report.notes == ([f"warn btc btc20260915185200.parquet: {said}"] if said else [])
    (file,) = [path for _, path in exported_files(config.export_dir)]
    files, problems = verify_files(config, [info(path) for _, path in segments(config.spool_dir / "btc")], {})
    assert (files, [problem.partition("; ")[0] for problem in problems]) == ({}, [f"btc: {said}"] if said else [])
    assert file.exists()


def test_rows_in_files_of_an_earlier_run_are_no_hole_in_this_ones(tmp_path: Path) -> None:
    """A run that was stopped and started again within a period goes on with a further part of it."""
    config = configure(tmp_path)
    (config.spool_dir / "btc").mkdir(parents=True)
    for n in range(3):
        at = T0 + 3 * n * SECOND
        spool = open_spool(config)
        last_seq = sum(info(path).rows for _, path in segments(config.spool_dir / "btc"))
        began = Started(clean=True, last_seq=last_seq, last_rx=at, version="0.1.0", spool_id="a" * 32)
        spool.append([Frame(at + SECOND, None, Mt.EVENT, began.m), *some_frames(10, at + 2 * SECOND)])
        spool.cut(at + 3 * SECOND)
        spool.close()
    assert main(config).ok
    held = [info(path) for _, path in segments(config.spool_dir / "btc")]
    one, two, three = (config.export_dir / segment.file for segment in held)
    assert three.name == "btc20260915185200.part3.parquet"
    assert verify_files(config, held[2:], {}) == ({}, [])
    assert verify_files(config, [held[0], held[2]], {}) == ({}, []), "nor between a leftover and this one's"
    one.unlink()
    assert verify_files(config, held[2:], {}) == ({}, []), "what is missing before those is theirs to tell"
    two.unlink()
    assert verify_files(config, held[2:], {}) == ({}, []), "as of one that is elsewhere"
    remove(held[1].path)
    _, problems = verify_files(config, held[2:], {})
    assert [problem.partition(";")[0] for problem in problems] == [f"{three.name}: begins at seq {held[2].first_seq}"]


def test_what_the_collector_said_last_of_a_channel_goes_before_what_files_say(tmp_path: Path) -> None:
    config = told(tmp_path, GIVEN_UP)
    held = [info(path) for _, path in segments(config.spool_dir / "btc")]
    _, (problem,) = verify_files(config, held, {"btc": [f"{AWAY} given up 35 s ago: refused"], "eth": ["x"]})
    assert problem.startswith(f"btc: {AWAY} given up 35 s ago: refused; it is asked for again by itself")


def test_a_file_of_a_version_whose_account_told_nothing_of_channels_is_proven_as_before(tmp_path: Path) -> None:
    config = told(tmp_path, GIVEN_UP)
    (path,) = [path for _, path in exported_files(config.export_dir)]
    account = json.loads(pq.read_metadata(path).metadata[b"mexc.account"])
    assert [what for _, what, _ in account.pop("channels")] == ["given_up"]
    rewrite(path, lambda table: table, {b"mexc.account": json.dumps(account).encode()})
    report = exports(config, newest=0)
    texts = [finding.text for finding in failed(report)]
    assert not any("account differs" in text for text in texts), texts
    rewrite(path, lambda table: table, {b"mexc.account": json.dumps({**account, "channels": []}).encode()})
    assert any("its account differs from its rows in channels" in f.text for f in failed(exports(config, newest=0)))


def test_metadata_of_another_spool_is_noticed_while_the_segment_is_there(config: Config) -> None:
    path = config.export_dir / FILES[0]
    rewrite(path, lambda table: table, {b"mexc.spool_id": b"f" * 32})
    texts = [f.text for f in failed(exports(config, newest=0)) if f.subject == FILES[0]]
    assert any("its segment's spool_id is" in text for text in texts)


def test_an_export_in_the_same_moment_leaves_no_file_missing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config.export_dir / FILES[2]
    aside = path.with_suffix(".aside")
    segment = next(p for p in (config.spool_dir / "btc").glob("*.sqlite") if p.stem in FILES[2])
    exported = info(segment).exported
    written(segment, "UPDATE meta SET value = '\"closed\"' WHERE key = 'state'")
    path.rename(aside)

    def export_right_after(*arguments: Any) -> Any:
        seen = list(by_symbol(*arguments))
        aside.rename(path)
        mark_exported(segment, exported)
        return seen

    monkeypatch.setattr(exports_module, "by_symbol", export_right_after)
    report = exports(config, newest=0)
    assert report.ok, failed(report)


@pytest.mark.parametrize("where", ["file", "spool"])
def test_a_newest_row_in_the_future_is_a_fault(tmp_path: Path, where: str) -> None:
    """As on a host whose clock is five minutes ahead of the one that looks, or was when it was received."""
    made = configure(tmp_path, period="1h")
    spool = open_spool(made)
    spool.append(some_frames(3, time.time_ns() + 299 * SECOND))
    if where == "file":
        spool.cut(time.time_ns())
        assert main(made).ok
        forget_spool(made)
    (finding,) = failed(exports(made))
    assert re.search(r"the newest row \(seq [34]\) is 29\d\.\d s in the future", finding.text)
    spool.append(some_frames(3, time.time_ns() + 10 * SECOND))
    assert [f.subject for f in failed(exports(made, newest=0)) if "future" in f.text] == []
    spool.close()


def test_a_missing_hour_is_a_hole(config: Config) -> None:
    forget_spool(config)
    (config.export_dir / FILES[1]).unlink()
    (finding,) = failed(exports(config))
    assert finding.text == f"seq 22 to 42 (21 rows) are in no file between it and {FILES[2]}"


def test_a_file_that_is_gone_while_the_spool_has_it(config: Config) -> None:
    (config.export_dir / FILES[2]).unlink()
    (finding,) = failed(exports(config))
    assert finding.text.startswith("segment 20260915185220.sqlite was exported but the file is gone; put it back")
    lost = next(entry for entry in ledger(config) if entry.file == finding.subject)
    assert lost.verdict == "differs", "no export is still to come"


def test_an_old_closed_segment_without_a_file_is_overdue(config: Config) -> None:
    spool = open_spool(config)
    spool.append(some_frames(3, T0 + 30 * SECOND))
    segment = spool.tick(T0 + 40 * SECOND)
    spool.close()
    assert segment is not None
    assert failed(exports(config)) == [], "the clock was behind until just now"
    os.utime(segment.path, ns=(segment.edge_ns, segment.edge_ns))
    (finding,) = failed(exports(config))
    assert finding.text == "segment 20260915185230.sqlite (4 rows) waits for export"


def test_rows_that_a_killed_process_left_are_told_before_they_are_overdue(config: Config, tmp_path: Path) -> None:
    """Neither the open segment of a period that is over nor rows without a seq were in any line for ten minutes."""
    spool = open_spool(config)
    spool.append(some_frames(3, T0 + 30 * SECOND))
    spool.close()
    edge = T0 + 40 * SECOND
    for after_s, lines in ((30, 0), (120, 1), (601, 1)):
        report = exports(config, now_ns=edge + after_s * SECOND)
        told = [finding for finding in report.findings if "20260915185230.sqlite" in finding.subject]
        assert len(told) == len(waiting(config, edge + after_s * SECOND)) == lines
        assert report.ok is (after_s < 601)
    assert told[0].text.endswith("run export, which says why")
    assert waiting(config, edge + 61 * SECOND) == ["btc: 3 rows of a period that is over wait in the spool: run export"]

    other = tmp_path / "other"
    other.mkdir()
    (other / "eth").mkdir()
    pending = Pending(other / "eth", "ETH_USDT")
    pending.append([Frame(T0, None, Mt.TICKER, TICKER.encode())])
    pending.close()
    since = left_since_ns(other / "eth")
    assert since is not None
    assert left(other / "eth", since + 59 * SECOND) == []
    for after_s, ok in ((61, True), (601, False)):
        (finding,) = left(other / "eth", since + after_s * SECOND)
        assert finding.ok is ok
        assert "run export, which numbers them" in finding.text


def alter(path: Path) -> None:
    """A row of an open segment is no longer the one that arrived."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE rows SET ts = ts + 1 WHERE seq = (SELECT min(seq) FROM rows)")
        db.commit()


@pytest.mark.parametrize("value", ["9" * 5000, "²", "-1", "1e400", "NaN", "[" * 9999, '{"a": {}}', str(2**63), ""])
def test_whatever_one_footer_says_the_others_are_judged(config: Config, value: str) -> None:
    """Also where what it says is no value of its key, and no number that Python takes."""
    forget_spool(config)
    path = sorted(config.export_dir.iterdir())[1]
    whole = path.read_bytes()
    keys = [key for key in pq.read_metadata(path).metadata if key.startswith(b"mexc.") and b"digest_" not in key]
    for key in keys:
        rewrite(path, lambda table: table, {key: value.encode()})
        found = exports(config).findings
        assert {f.subject for f in found if not f.ok} <= {path.name, "label"}
        ledger(config)
        path.write_bytes(whole)


def test_what_was_set_apart_before_the_first_file_is_named(tmp_path: Path) -> None:
    """No hole between two files tells of it."""
    config = configure(tmp_path)
    spool = open_spool(config)
    spool.append(some_frames(20, T0))
    spool.close()
    (path,) = (config.spool_dir / "btc").glob("*.sqlite")
    alter(path)
    spool = open_spool(config)
    (apart,) = spool.recovered.set_apart
    (finding,) = failed(exports(config))
    assert finding.subject == apart
    assert "no hole between files tells of what was in it" in finding.text
    spool.append(some_frames(20, time.time_ns()))
    spool.cut(time.time_ns())
    spool.close()
    assert main(config).ok
    forget_spool(config)
    (finding,) = failed(exports(config))
    assert finding.subject == apart
    (config.spool_dir / "btc" / apart).rename(tmp_path / apart)
    assert exports(config).ok


@pytest.mark.parametrize("how", ["meta", "another id", "no database"])
def test_what_was_set_apart_and_whose_seqs_were_given_again_is_named(config: Config, how: str) -> None:
    """Nobody else knew of them, so that no hole between two files tells of it."""
    spool = open_spool(config)
    spool.append(some_frames(20, T0 + 30 * SECOND))
    spool.close()
    path = config.spool_dir / "btc" / "20260915185230.sqlite"
    match how:
        case "meta":
            tamper(path, "UPDATE meta SET value = '7' WHERE key = 'gaps' OR key = 'period_ns'")
        case "another id":
            written(path, "UPDATE meta SET value = '\"eth\"' WHERE key = 'id'")
        case _:
            path.write_bytes(b"\0" * 8192)
    spool = open_spool(config)
    (apart,) = spool.recovered.set_apart
    assert [finding.subject for finding in failed(exports(config))] == [apart]
    spool.append(some_frames(20, T0 + 50 * SECOND))
    spool.tick(T0 + 60 * SECOND)
    spool.close()
    assert main(config).ok
    assert [finding.subject for finding in failed(exports(config))] == [apart]
    (config.spool_dir / "btc" / apart).rename(config.data_dir / apart)
    assert exports(config).ok


def test_what_was_set_apart_between_two_files_is_their_hole(config: Config) -> None:
    spool = open_spool(config)
    spool.append(some_frames(20, T0 + 30 * SECOND))
    spool.close()
    path = config.spool_dir / "btc" / "20260915185230.sqlite"
    alter(path)
    spool = open_spool(config)
    spool.append(some_frames(20, T0 + 50 * SECOND))
    spool.tick(T0 + 60 * SECOND)
    spool.close()
    assert len(spool.recovered.set_apart) == 1
    assert main(config).ok
    (finding,) = failed(exports(config))
    assert "are in no file between it and btc20260915185250.parquet" in finding.text


def test_an_altered_segment_that_nobody_records_in_any_more_is_named(config: Config) -> None:
    spool = open_spool(config)
    spool.append(some_frames(20, T0 + 30 * SECOND))
    spool.close()
    path = config.spool_dir / "btc" / "20260915185230.sqlite"
    alter(path)
    report = main(config)
    assert not report.ok
    (failure,) = report.failures
    assert failure.segment == path.name
    assert "are not those that arrived" in failure.text
    (finding,) = failed(exports(config))
    assert finding.subject == path.name
    assert "still open" in finding.text
    open_spool(config).close()
    assert main(config).ok, "it was set apart by who records there"


def test_rows_twice_and_junk_and_imported_files_are_named(config: Config) -> None:
    forget_spool(config)
    copy = config.export_dir / "btc20260915185230.parquet"
    copy.write_bytes((config.export_dir / FILES[2]).read_bytes())
    (config.export_dir / "btc20260915185240.parquet").write_bytes(b"junk")
    table = pq.read_table(config.export_dir / FILES[0]).replace_schema_metadata({"mexc.imported": "v4"})
    pq.write_table(table, config.export_dir / "eth2026091518.parquet")
    texts = {f.subject: f.text for f in failed(exports(config))}
    assert "rows twice" in texts[FILES[2]]
    assert "metadata says period 20260915185220, the file has 20260915185230" in texts[copy.name]
    assert "not a readable Parquet file" in texts["btc20260915185240.parquet"]
    assert "imported files belong in imported/" in texts["eth2026091518.parquet"]


def test_a_spool_that_began_anew_below_its_files_is_named_while_nothing_of_it_is_exported(config: Config) -> None:
    """An empty disk in place of one that was not mounted: the files of the other are here."""
    forget_spool(config)
    spool = open_spool(config)
    spool.append(some_frames(3, T0 + 40 * SECOND))
    try:
        (finding,) = failed(exports(config, now_ns=T0 + 50 * SECOND))
    finally:
        spool.close()
    assert finding.subject == "seq"
    assert "seq 1 to 3 (3 rows) was given twice: by spool " in finding.text


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    config = configure(tmp_path)
    spool = open_spool(config)
    for n in range(3):
        spool.append(some_frames(3, T0 + n * SECOND))
        spool.cut(T0 + n * SECOND + SECOND // 2)
    spool.close()
    assert len(main(config).files) == 3
    assert exports(config).ok
    forget_spool(config)
    (config.export_dir / "btc20260915185200.part2.parquet").unlink()
    assert "part 2 of period 20260915185200 is missing" in [f.text for f in failed(exports(config))]


@pytest.mark.parametrize(
    "name", ["eth20260915185200.parquet", "btc20260915190000.parquet", "btc20260915185200.part2.parquet"]
)
def test_the_ledger_proves_no_file_under_a_wrong_name(config: Config, name: str) -> None:
    """Once its rows were counted twice, and proven, where verify says what is wrong."""
    forget_spool(config)
    (config.export_dir / name).hardlink_to(config.export_dir / FILES[0])
    assert not exports(config).ok
    entries = {entry.file: entry for entry in ledger(config, {})}
    assert entries.keys() == {*FILES, name}
    assert (entries[name].verdict, entries[name].exported) == ("differs", Side(0, ok=False))
    assert [entries[file].verdict for file in FILES] == ["proven"] * 3


@pytest.mark.parametrize("when", ["before it is proven", "afterwards"])
def test_a_file_deleted_meanwhile_ends_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """As `prune` does beside it, with the oldest: once the report of all symbols was one line, or said a fault."""
    config = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    for symbol_id in ("btc", "eth"):
        fill(config, symbol_id, periods=3)
    assert main(config).ok
    forget_spool(config)
    oldest = config.export_dir / FILES[0]
    real = exports_module.prove

    def proven(name: Any, path: Path) -> Any:
        if when == "before it is proven":
            oldest.unlink(missing_ok=True)
        proof = real(name, path)
        if path.name == FILES[-1]:
            oldest.unlink(missing_ok=True)
        return proof

    monkeypatch.setattr(exports_module, "prove", proven)
    report = exports(config, newest=10_000)
    assert failed(report) == []
    assert [f.symbol for f in report.findings].count("eth") >= 3
    assert any("eth" in note for note in report.notes)
    told = [note for note in report.notes if note.startswith("warn btc: newest rows")]
    assert [oldest.name in note for note in told] == ([] if when == "before it is proven" else [True])


def test_the_ledger_lists_received_stored_exported(config: Config) -> None:
    spool = open_spool(config)
    spool.append(some_frames(3, T0 + 30 * SECOND))
    spool.tick(T0 + 40 * SECOND)
    spool.close()
    compared = {
        "btc": {
            "20260915185200.sqlite": {"rows": 21, "ok": True, "columns": []},
            "20260915185210.sqlite": {"rows": 21, "ok": False, "columns": ["m"]},
        }
    }
    rows = [entry.to_json() for entry in ledger(config, compared)]
    assert [(r["received"], r["stored"], r["exported"], r["verdict"]) for r in rows] == [
        (21, 21, 21, "proven"),
        (21, 21, 21, "differs"),
        (21, None, 21, "proven"),
        (4, None, None, "waiting"),
    ]
    assert [(r["first_seq"], r["last_seq"]) for r in rows] == [(1, 21), (22, 42), (43, 63), (64, 67)]
    assert all(r["digest_spool"] == r["digest"] for r in rows)
    assert [r["digest_file"] == r["digest_spool"] for r in rows] == [True, True, True, False], (
        "the last has no file yet"
    )
    forget_spool(config)
    assert [e.verdict for e in ledger(config)] == ["proven"] * 3
    (config.export_dir / FILES[0]).write_bytes(b"junk")
    assert [e.verdict for e in ledger(config)] == ["differs", "proven", "proven"]


def test_nothing_yet_is_said(tmp_path: Path) -> None:
    config = configure(tmp_path)
    config.spool_dir.mkdir(parents=True)
    report = exports(config)
    assert report.ok
    assert "no files in" in report.notes[0]


def test_a_check_of_another_folder_does_not_pass(tmp_path: Path) -> None:
    """Once it said that there was nothing, and status 0: so did a daily check run from another working directory."""
    config = configure(tmp_path)
    [finding] = exports(config).findings
    assert not finding.ok
    assert "relative to where the command is run" in finding.text
    config.export_dir.write_text("a file")
    [finding] = exports(config).findings
    assert not finding.ok
    assert "not a folder" in finding.text
