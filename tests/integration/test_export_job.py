"""The export job on real segments: what it makes, and what stands in its way."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlServer
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export import main
from mexc_pipeline.export.job import run, stop_on_signals
from mexc_pipeline.export.parquet import metadata
from mexc_pipeline.export.report import ExportReport
from mexc_pipeline.rows import Frame
from mexc_pipeline.spool.lifecycle import Tally
from mexc_pipeline.spool.lock import LockedError, SpoolLock
from mexc_pipeline.spool.segment import info
from mexc_pipeline.spool.walk import segments
from mexc_pipeline.verify import exports
from support.spooled import CODES, Stored, digest, digests, read_rows, read_segments
from support.spools import SECOND, T0, configure, fill, open_spool, some_frames, tamper, written

STEPS = ("created", "block", "written", "synced", "read back", "linked", "unlinked", "folder synced", "marked")
KILLED = 9


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows_of(*paths: Path) -> list[Stored]:
    """A file's rows, by nothing but PyArrow."""
    found: list[Stored] = []
    for path in paths:
        table = pq.read_table(path)
        found += [
            Stored(seq, rx, ts, CODES[mt], m.encode())
            for ts, mt, m, rx, seq in zip(
                table["ts"].cast("int64").to_pylist(),
                table["mt"].to_pylist(),
                table["m"].to_pylist(),
                table["rx"].cast("int64").to_pylist(),
                table["seq"].to_pylist(),
                strict=True,
            )
        ]
    return found


def states(config: Config, symbol_id: str = "btc") -> list[str]:
    return [info(path).state for _, path in segments(config.spool_dir / symbol_id)]


def test_every_closed_segment_becomes_a_file_that_equals_it(config: Config) -> None:
    fill(config, periods=3)
    report = main(config)
    assert report.ok
    assert [(f.file, f.state, f.rows) for f in report.files] == [
        (f"btc202609151852{s}.parquet", "written", 21) for s in ("00", "10", "20")
    ]
    spooled = read_segments(config.spool_dir / "btc")
    for segment, done in zip(spooled, report.files, strict=True):
        assert done.file is not None
        path = config.export_dir / done.file
        assert rows_of(path) == segment.rows
        said = metadata(path)
        assert said["digest"] == digest(segment.rows) == done.digest
        assert {c: said[f"digest_{c}"] for c in digests([])} == digests(segment.rows)
        assert (said["symbol"], said["id"], said["part"], said["final"]) == ("BTC_USDT", "btc", "1", "true")
        assert (int(said["first_seq"]), int(said["last_seq"])) == (segment.rows[0].seq, segment.rows[-1].seq)
        assert [said[f"rows_{t}"] for t in ("t", "d", "dp", "dl", "ev", "r")] == ["5", "5", "5", "5", "1", "0"]
        assert {k.decode() for k in pq.read_schema(path).metadata} == {f"mexc.{key}" for key in said}
        assert segment.meta["state"] == "exported"
        marked = segment.meta["exported"]
        assert (marked["file"], marked["rows"], marked["digest"]) == (done.file, 21, said["digest"])
        assert marked["bytes"] == path.stat().st_size
    assert names(config.export_dir) == [f.file for f in report.files]


def test_a_second_run_has_nothing_to_do(config: Config) -> None:
    fill(config)
    assert len(main(config).files) == 1
    before = [(p.name, p.stat().st_mtime_ns, p.stat().st_ino) for p in config.export_dir.iterdir()]
    assert main(config).files == []
    assert [(p.name, p.stat().st_mtime_ns, p.stat().st_ino) for p in config.export_dir.iterdir()] == before


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_next_run_finishes(config: Config, step: str) -> None:
    fill(config, periods=2)
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom mexc_pipeline.config import load\n"
        "from mexc_pipeline.export.job import run\n"
        f"run(load(Path(sys.argv[1])), hook=lambda step: os._exit({KILLED}) if step == sys.argv[2] else None)\n"
    )
    assert config.path is not None
    killed = subprocess.run([sys.executable, "-c", script, str(config.path), step], timeout=60)
    assert killed.returncode == KILLED, f"the step {step!r} was never reached"
    report = main(config)
    assert report.ok, report.lines()
    assert states(config) == ["exported", "exported"]
    files = ["btc20260915185200.parquet", "btc20260915185210.parquet"]
    assert names(config.export_dir) == files
    assert rows_of(*(config.export_dir / f for f in files)) == read_rows(config.spool_dir / "btc")


def test_an_equal_file_is_taken_as_done(config: Config) -> None:
    fill(config)
    main(config)
    (segment,) = [path for _, path in segments(config.spool_dir / "btc")]
    written(segment, "UPDATE meta SET value = '\"closed\"' WHERE key = 'state'")
    inode = (config.export_dir / "btc20260915185200.parquet").stat().st_ino
    report = main(config)
    assert [f.state for f in report.files] == ["present"]
    assert states(config) == ["exported"]
    assert (config.export_dir / "btc20260915185200.parquet").stat().st_ino == inode


def test_a_different_file_of_that_name_is_kept_and_named(tmp_path: Path) -> None:
    config = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(config)
    fill(config, "eth")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = configure(elsewhere)
    fill(other, rows=19)
    main(other)
    target = config.export_dir / "btc20260915185200.parquet"
    config.export_dir.mkdir()
    target.write_bytes((other.export_dir / target.name).read_bytes())
    before = target.read_bytes()
    report = main(config)
    assert [f.id for f in report.files] == ["eth"], "one symbol's failure stopped another"
    (failed,) = report.failures
    assert failed.segment == "20260915185200.sqlite"
    assert "differs from segment" in failed.text
    assert "seq" in failed.text
    assert "\n" not in failed.text
    assert report.exit_status == 1
    assert target.read_bytes() == before
    assert states(config) == ["closed"]
    target.rename(tmp_path / "moved.parquet")
    assert main(config).ok
    assert rows_of(target) == read_rows(config.spool_dir / "btc")


@pytest.mark.parametrize("junk", [b"", b"not parquet"])
def test_a_foreign_file_of_that_name_is_kept(config: Config, junk: bytes) -> None:
    fill(config)
    config.export_dir.mkdir()
    target = config.export_dir / "btc20260915185200.parquet"
    target.write_bytes(junk)
    report = main(config)
    assert "is not the export of segment" in report.failures[0].text
    assert target.read_bytes() == junk
    assert names(config.export_dir) == [target.name]


def test_a_file_that_appears_meanwhile_is_not_replaced(config: Config) -> None:
    fill(config)
    target = config.export_dir / "btc20260915185200.parquet"

    def appear(step: str) -> None:
        if step == "read back":
            target.write_bytes(b"mine")

    report = run(config, hook=appear)
    assert not report.ok
    assert target.read_bytes() == b"mine"
    assert names(config.export_dir) == [target.name]


def test_a_segment_altered_behind_our_back_is_not_exported(config: Config) -> None:
    fill(config, periods=2)
    tamper(config.spool_dir / "btc" / "20260915185200.sqlite", "UPDATE rows SET rx = rx + 1 WHERE seq = 3")
    report = main(config)
    assert "column rx differs" in report.failures[0].text
    assert [f.file for f in report.files] == ["btc20260915185210.parquet"]
    assert names(config.export_dir) == ["btc20260915185210.parquet"]


def test_a_row_missing_from_a_segment_is_noticed(config: Config) -> None:
    fill(config)
    tamper(config.spool_dir / "btc" / "20260915185200.sqlite", "DELETE FROM rows WHERE seq = 7")
    report = main(config)
    assert "rows are missing" in report.failures[0].text
    assert names(config.export_dir) == []


def test_a_segment_that_is_not_utf8_is_reported(config: Config) -> None:
    fill(config, rows=2)
    (_, path) = segments(config.spool_dir / "btc")[0]
    tamper(path, "UPDATE rows SET m = x'fffe' WHERE seq = 2")  # the spool itself would have wrapped it
    report = main(config)
    assert "not UTF-8" in report.failures[0].text
    assert names(config.export_dir) == []


def test_what_the_disk_gives_back_is_what_counts(config: Config) -> None:
    fill(config)

    def spoil(step: str) -> None:
        if step == "synced":
            making = config.export_dir / ".btc20260915185200.parquet.tmp"
            data = bytearray(making.read_bytes())
            data[len(data) // 2] ^= 1
            making.write_bytes(data)

    report = run(config, hook=spoil)
    assert not report.ok
    assert names(config.export_dir) == []
    assert states(config) == ["closed"]
    assert main(config).ok


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "is full"), (errno.EROFS, "is read-only"), (errno.EDQUOT, "quota")]
)
def test_a_folder_that_takes_nothing_is_said_once_and_caught_up(tmp_path: Path, number: int, said: str) -> None:
    config = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(config, periods=2)
    fill(config, "eth", periods=2)

    def fail(step: str) -> None:
        if step == "block":
            raise OSError(number, os.strerror(number))

    report = run(config, hook=fail)
    assert len(report.failures) == 1
    assert said in report.failures[0].text
    assert "\n" not in report.failures[0].text
    assert names(config.export_dir) == []
    caught_up = main(config)
    assert caught_up.ok
    periods = [str(f.file)[3:] for f in caught_up.files]
    assert len(periods) == 4
    assert periods == sorted(periods), "not oldest first"


def test_an_export_folder_that_is_none(config: Config) -> None:
    fill(config)
    config.export_dir.write_text("in the way")
    with pytest.raises(UserError, match="not a folder"):
        main(config)
    assert config.export_dir.read_text() == "in the way"


def test_an_export_folder_without_a_parent(config: Config) -> None:
    fill(config)
    with pytest.raises(UserError, match="cannot create export folder"):
        main(dataclasses.replace(config, export_dir=config.data_dir / "not" / "there"))
    assert states(config) == ["closed"]


def test_leftovers_are_removed_and_what_is_not_ours_stays(config: Config) -> None:
    fill(config)
    config.export_dir.mkdir()
    (config.export_dir / ".btc20260915185200.parquet.tmp").write_bytes(b"PAR1 half")
    (config.export_dir / ".btc20260101000000.parquet.tmp").write_bytes(b"")
    (config.export_dir / ".btc20260101000010.parquet.tmp").write_bytes(b"somebody's notes")
    (config.export_dir / ".xrp20260101000000.parquet.tmp").write_bytes(b"PAR1")
    assert main(config).ok
    assert names(config.export_dir) == [
        ".btc20260101000010.parquet.tmp",
        ".xrp20260101000000.parquet.tmp",
        "btc20260915185200.parquet",
    ]


def test_something_else_in_place_of_the_temporary_file(config: Config) -> None:
    fill(config)
    (config.export_dir / ".btc20260915185200.parquet.tmp").mkdir(parents=True)
    report = main(config)
    assert "in the way" in report.failures[0].text
    assert names(config.export_dir) == [".btc20260915185200.parquet.tmp"]


def neighbour(config: Config, folder: Path, rows: int) -> Config:
    """Another data folder with a symbol of the same id and the same export folder."""
    folder.mkdir()
    other = dataclasses.replace(configure(folder), export_dir=config.export_dir)
    fill(other, rows=rows)
    return other


@pytest.mark.parametrize("step", ["created", "block", "synced", "read back"])
def test_what_another_data_folders_export_is_writing_is_left_to_it(config: Config, tmp_path: Path, step: str) -> None:
    """Its lock is another one; once its file was swept away, and the other's unfinished one linked as if proven."""
    fill(config)
    other = neighbour(config, tmp_path / "other", rows=7)
    reports: list[ExportReport] = []

    def meanwhile(at: str) -> None:
        if at == step:
            reports.append(main(other))

    assert run(config, hook=meanwhile).ok
    assert "another export" in reports[0].failures[0].text
    assert states(other) == ["closed"]
    assert states(config) == ["exported"]
    assert names(config.export_dir) == ["btc20260915185200.parquet"]
    assert rows_of(config.export_dir / "btc20260915185200.parquet") == read_rows(config.spool_dir / "btc")


@pytest.mark.parametrize("step", ["written", "synced", "read back"])
def test_only_the_file_that_was_proven_is_put_in_place(config: Config, step: str) -> None:
    """Whoever takes its name meanwhile: another version's export, which knows no locks."""
    fill(config)
    making = config.export_dir / ".btc20260915185200.parquet.tmp"

    def swap(at: str) -> None:
        if at == step:
            data = making.read_bytes()
            making.unlink()
            making.write_bytes(data if step == "synced" else b"PAR1 half")

    report = run(config, hook=swap)
    assert not report.ok
    assert states(config) == ["closed"]
    assert names(config.export_dir) == [making.name], "it is the other's"
    assert main(config).ok
    assert names(config.export_dir) == ["btc20260915185200.parquet"]


def test_a_dead_collectors_ended_segment_is_closed_and_its_running_one_is_not(config: Config) -> None:
    now = time.time_ns()
    spool = open_spool(config)
    spool.append(some_frames(5, T0))
    spool.close()
    report = run(config, now_ns=lambda: T0 + 9 * SECOND)
    assert report.files == []
    assert states(config) == ["open"]
    report = run(config, now_ns=lambda: now)
    assert [f.file for f in report.files] == ["btc20260915185200.parquet"]
    rows = read_rows(config.spool_dir / "btc")
    assert rows[-1].m.startswith(b'{"event":"sealed"')
    assert rows[-1].rx == T0 + 10 * SECOND - 1


@pytest.mark.parametrize("meanwhile", [0, 3])
def test_a_collector_may_start_while_what_another_left_is_read(
    config: Config, monkeypatch: pytest.MonkeyPatch, meanwhile: int
) -> None:
    """To read a large segment takes longer than a start waits for the lock. What was recorded ``meanwhile`` counts."""
    spool = open_spool(config)
    spool.append(some_frames(5, T0))
    real, reads = Tally.of, []

    def of(path: Path) -> Tally:
        reads.append(path)
        if len(reads) > 1:
            return real(path)
        with SpoolLock(config.spool_dir / "btc"):
            tally = real(path)
            if meanwhile:
                spool.append(some_frames(meanwhile, T0 + SECOND))
            spool.close()
        return tally

    monkeypatch.setattr(Tally, "of", of)
    report = run(config, now_ns=lambda: T0 + 10 * SECOND)
    assert [(f.file, f.rows) for f in report.files] == [("btc20260915185200.parquet", 6 + meanwhile)]
    assert rows_of(config.export_dir / "btc20260915185200.parquet") == read_rows(config.spool_dir / "btc")
    assert meanwhile or len(reads) == 1, "once is enough"


def test_a_live_collectors_segments_are_left_to_it(config: Config) -> None:
    spool = open_spool(config)
    spool.append(some_frames(5, T0))
    with SpoolLock(config.spool_dir / "btc"):
        assert main(config).ok
        assert states(config) == ["open"]
        report = main(config, once=True)
    assert f"process {os.getpid()}" in report.failures[0].text
    assert states(config) == ["open"]
    spool.close()


def test_once_cuts_and_the_period_goes_on_as_parts(config: Config) -> None:
    spool = open_spool(config)
    spool.append(some_frames(5, T0))
    spool.close()
    now = T0 + 5 * SECOND
    report = run(config, once=True, now_ns=lambda: now)
    assert [f.file for f in report.files] == ["btc20260915185200.part1.parquet"]
    spool = open_spool(config)
    spool.append(some_frames(5, now))
    spool.tick(T0 + 10 * SECOND)
    spool.close()
    report = run(config, now_ns=lambda: T0 + 11 * SECOND)
    assert [f.file for f in report.files] == ["btc20260915185200.part2.parquet"]
    parts = [config.export_dir / f"btc20260915185200.part{n}.parquet" for n in (1, 2)]
    assert [(metadata(p)["part"], metadata(p)["final"]) for p in parts] == [("1", "false"), ("2", "true")]
    assert rows_of(*parts) == read_rows(config.spool_dir / "btc")
    assert names(config.export_dir) == [p.name for p in parts]


def test_once_asks_the_running_collector(config: Config) -> None:
    spool = open_spool(config)
    spool.append(some_frames(5, T0))

    def cut(request: dict[str, Any]) -> dict[str, Any]:
        closed = spool.cut(T0 + SECOND)
        return {"segment": closed.path.name if closed else None, "last_seq": spool.last_seq}

    server = ControlServer(config.control_dir / "btc.sock", {"cut": cut})
    try:
        with SpoolLock(config.spool_dir / "btc"):
            report = main(config, ["BTC_USDT"], once=True)
    finally:
        server.close()
        spool.close()
    assert [f.file for f in report.files] == ["btc20260915185200.part1.parquet"]


@pytest.mark.parametrize("options", [{}, {"once": True}, {"ids": ["btc"]}, {"copy": True}])
def test_an_export_in_a_wrong_folder_fails_and_makes_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    """It said that every segment had its file, and left folders by which no later check failed."""
    config = configure(tmp_path)
    before = names(tmp_path)
    copy_to = tmp_path / "copies" if options.pop("copy", False) else None
    with pytest.raises(UserError, match="nothing was recorded in"):
        main(config, copy_to=copy_to, **options)
    assert names(tmp_path) == before


def test_a_collector_that_refuses_to_cut_is_reported_and_closed_segments_still_go(config: Config) -> None:
    fill(config)

    def cut(request: dict[str, Any]) -> dict[str, Any]:
        raise UserError("not now")

    server = ControlServer(config.control_dir / "btc.sock", {"cut": cut})
    try:
        report = main(config, once=True)
    finally:
        server.close()
    assert [f.text for f in report.failures] == ["btc: not now"]
    assert len(report.files) == 1


def test_a_signal_ends_it_between_blocks(config: Config) -> None:
    fill(config)
    stop = threading.Event()
    report = run(config, stop=stop, hook=lambda step: stop.set() if step == "block" else None)
    assert (report.stopped, report.ok, report.files) == (True, True, [])
    assert names(config.export_dir) == []
    assert main(config).ok


def test_a_copy_of_the_open_period_changes_nothing(config: Config, tmp_path: Path) -> None:
    spool = open_spool(config)
    spool.append(some_frames(8, T0))
    copies = tmp_path / "copies"
    report = main(config, copy_to=copies)
    assert [(f.file, f.state, f.rows) for f in report.files] == [("btc20260915185200.parquet", "copied", 8)]
    spool.append(some_frames(2, T0 + SECOND))
    assert main(config, copy_to=copies).files[0].rows == 10
    copy = copies / "btc20260915185200.parquet"
    assert rows_of(copy) == read_rows(config.spool_dir / "btc")
    assert metadata(copy)["final"] == "false"
    assert states(config) == ["open"]
    assert not config.export_dir.exists()
    copy.write_bytes(b"something else")
    assert not main(config, copy_to=copies).ok
    assert copy.read_bytes() == b"something else"
    spool.close()
    config.export_dir.mkdir()
    with pytest.raises(ConfigError, match="is the export folder"):
        main(config, copy_to=config.export_dir)


@pytest.mark.parametrize("place", [".", "spool", "spool/btc", "store/copies", ".."])
def test_a_copy_is_not_put_into_the_recording(config: Config, place: str) -> None:
    spool = open_spool(config)
    spool.append(some_frames(8, T0))
    before = sorted(config.data_dir.rglob("*"))
    with pytest.raises(ConfigError, match=r"data_dir|keeps for itself"):
        main(config, copy_to=config.data_dir / place)
    assert sorted(config.data_dir.rglob("*")) == before
    spool.close()


def test_two_exports_do_not_run_at_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(config)
    monkeypatch.setattr("mexc_pipeline.export.job.LOCK_WAIT_S", 0.0)
    with SpoolLock(config.data_dir / "export"), pytest.raises(LockedError, match=str(os.getpid())):
        main(config)
    assert main(config).ok


def test_symbols_that_are_no_longer_configured_are_exported_too(tmp_path: Path) -> None:
    before = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(before, "eth")
    config = configure(tmp_path, "BTC_USDT")
    assert [f.id for f in main(config).files] == ["eth"]


def test_what_is_recorded_no_longer_is_pruned_without_a_collector(tmp_path: Path) -> None:
    """All but the newest segment, which tells the next seq should the symbol come back; and no other symbol's."""
    fill(configure(tmp_path, "BTC_USDT", "DOGE_USDT"), "doge", periods=4)
    config = configure(tmp_path)
    fill(config, periods=4)
    assert run(config).ok
    assert len(segments(config.spool_dir / "doge")) == 4, "proven just now"
    assert run(config, now_ns=lambda: time.time_ns() + config.spool_keep_ns + 60 * SECOND).ok
    assert len(segments(config.spool_dir / "doge")) == 1
    assert len(segments(config.spool_dir / "btc")) == 4


def test_nothing_recorded_no_longer_is_pruned_by_a_clock_that_a_collector_calls_wrong(tmp_path: Path) -> None:
    fill(configure(tmp_path, "BTC_USDT", "DOGE_USDT"), "doge", periods=4)
    config = configure(tmp_path)
    said = {"clock": {"suspect": True, "error_ms": None}}
    server = ControlServer(config.control_dir / "btc.sock", {"status": lambda _: said})
    try:
        assert run(config, now_ns=lambda: 2 * time.time_ns()).ok
        assert len(segments(config.spool_dir / "doge")) == 4
        said["clock"]["suspect"] = False
        assert run(config, now_ns=lambda: 2 * time.time_ns()).ok
        assert len(segments(config.spool_dir / "doge")) == 1
    finally:
        server.close()


def test_what_is_recorded_after_all_is_left_to_its_collector(tmp_path: Path) -> None:
    fill(configure(tmp_path, "BTC_USDT", "DOGE_USDT"), "doge", periods=4)
    config = configure(tmp_path)
    assert run(config).ok
    with SpoolLock(config.spool_dir / "doge"):
        assert run(config, now_ns=lambda: 2 * time.time_ns()).ok
    assert len(segments(config.spool_dir / "doge")) == 4


def test_an_unknown_symbol_is_a_usage_error(config: Config) -> None:
    with pytest.raises(ConfigError, match="choose one of: btc"):
        main(config, ["doge"])


def test_a_damaged_segment_does_not_stop_the_others(config: Config) -> None:
    fill(config, periods=2)
    (config.spool_dir / "btc" / "20260915185200.sqlite").write_bytes(b"not a database, long enough to be read" * 50)
    report = main(config)
    assert [f.file for f in report.files] == ["btc20260915185210.parquet"]
    assert [f.segment for f in report.failures] == ["20260915185200.sqlite"]


def test_what_nobody_foresaw_of_one_segment_stops_no_other(config: Config) -> None:
    """A defect of ours, too: the other segments are exported, it is reported and logged whole."""
    fill(config, periods=3)
    steps = iter(range(1000))

    def hook(step: str) -> None:
        if step == "created" and next(steps) == 1:
            raise KeyError("mt")

    report = run(config, hook=hook)
    assert [failed.text for failed in report.failures] == ["unexpected KeyError: 'mt'"]
    assert len(report.files) == 2
    assert run(config).ok


def test_memory_does_not_grow_with_the_hour(config: Config) -> None:
    spool = open_spool(config)
    for n in range(30):
        spool.append([Frame(T0 + n, None, 4, f"{n:04}".encode() * (1 << 18)) for _ in range(4)])
    spool.tick(T0 + 10 * SECOND)
    spool.close()
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom mexc_pipeline.config import load\n"
        "from mexc_pipeline.export import main\nmaxrss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "import pyarrow.parquet\nbefore = maxrss()\nassert main(load(Path(sys.argv[1]))).ok\n"
        "print((maxrss() - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(config.path)], capture_output=True, text=True, timeout=100)
    assert int(done.stdout) < 120, f"120 MiB of frames took {done.stdout} MiB"


def test_sigterm_asks_it_to_stop_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = threading.Event()
    with stop_on_signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_files_that_are_gone_are_written_again_when_asked(config: Config) -> None:
    fill(config, periods=3)
    assert main(config).ok
    spooled = {segment.file: segment for _, path in segments(config.spool_dir / "btc") if (segment := info(path)).rows}
    before = {path.name: (path.read_bytes(), metadata(path)) for path in config.export_dir.iterdir()}
    kept, *gone = sorted(before)
    kept_at = (config.export_dir / kept).stat().st_mtime_ns
    for name in gone:
        (config.export_dir / name).unlink()
    said = main(config)
    assert said.ok
    assert said.absent == gone
    assert said.lines() == [
        f"2 files that were made, such as {gone[0]}, are not in export_dir: export --missing makes them again"
    ]
    assert names(config.export_dir) == [kept], "whoever moves files elsewhere does not get them twice"
    done = main(config, missing=True)
    assert done.ok
    assert sorted((file.file, file.state) for file in done.files) == [(name, "written") for name in gone]
    assert {path.name: (path.read_bytes(), metadata(path)) for path in config.export_dir.iterdir()} == before
    assert (config.export_dir / kept).stat().st_mtime_ns == kept_at
    assert exports(config).ok
    again = {segment.file: segment for _, path in segments(config.spool_dir / "btc") if (segment := info(path)).rows}
    assert again == spooled, "nothing else learns of it: how old the spool's rows are, what export_log has"
    again_said = main(config, missing=True)
    assert not again_said.files
    assert again_said.lines() == [
        "nothing to export: every closed segment has a file of its name; verify exports reads what is in it"
    ]


def test_something_else_in_a_files_place_is_said(config: Config) -> None:
    fill(config)
    assert main(config).ok
    (path,) = config.export_dir.iterdir()
    path.write_bytes(b"junk")
    for missing in (False, True):
        said = main(config, missing=missing)
        assert said.lines() == [f"1 file that was made ({path.name}) is not what was written: verify exports says more"]
        assert said.to_json()["altered"] == [path.name]
    assert path.read_bytes() == b"junk"


def test_where_there_is_nothing_to_do_the_words_say_why(config: Config, tmp_path: Path) -> None:
    fill(config)
    assert main(config).ok
    copies = tmp_path / "copies"
    assert main(config, copy_to=copies).lines() == ["nothing to copy: no period is open"]
    empty = dataclasses.replace(config, data_dir=tmp_path / "empty", export_dir=config.export_dir)
    assert main(empty).lines() == [f"nothing to export: nothing of these symbols is in the spool ({empty.spool_dir})"]


def test_a_file_that_is_gone_is_not_made_of_rows_that_were_altered(config: Config) -> None:
    fill(config)
    assert main(config).ok
    (path,) = config.export_dir.iterdir()
    path.unlink()
    (segment, *_) = [path for _, path in segments(config.spool_dir / "btc") if info(path).state == "exported"]
    tamper(segment, "UPDATE rows SET m = CAST(m || ' ' AS BLOB) WHERE seq = 3")
    done = main(config, missing=True)
    assert "no longer holds what the collector recorded" in done.failures[0].text
    assert not names(config.export_dir)


def test_what_stands_in_a_files_place_is_not_missing(config: Config) -> None:
    fill(config)
    assert main(config).ok
    (path,) = config.export_dir.iterdir()
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))
    assert not main(config, missing=True).files
    assert path.is_symlink()
