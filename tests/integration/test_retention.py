"""Retention on real files: what goes, and above all what stays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mexc_pipeline.cli.app import invoke
from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlServer
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export.job import run
from mexc_pipeline.export.order import in_order
from mexc_pipeline.export.parquet import Content, read_content
from mexc_pipeline.export.retention import PruneReport, Rules, prune, rules, size_bytes
from mexc_pipeline.periods import Period
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool import lifecycle
from mexc_pipeline.spool.lock import LockedError, SpoolLock
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.spool.walk import exported_files, segments
from mexc_pipeline.spool.walk import in_order as spooled
from mexc_pipeline.spool.writer import Spool
from support.spools import SECOND, T0, configure, open_spool, some_frames

PERIOD = 10 * SECOND
PERIODS = 4


def record(config: Config, symbol_id: str = "btc", periods: int = 1, start_ns: int = T0, error_ns: int = 0) -> None:
    """Whole periods one after the other, by a clock that is ahead of the exchange's by an error."""
    spool = open_spool(config, symbol_id)
    for n in range(periods):
        begin = start_ns + n * PERIOD
        for frame in some_frames(20, begin):
            spool.append([frame._replace(ts=frame.ts and (frame.rx - error_ns) // 1_000_000)])
        spool.tick(begin + PERIOD)
    spool.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Four files of btc and one of eth; their segments have left the spool but for each symbol's newest."""
    made = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    record(made, "btc", periods=PERIODS)
    record(made, "eth", periods=1)
    assert run(made, now_ns=lambda: 1 << 62).ok
    for symbol_id in ("btc", "eth"):
        for _, path in segments(made.spool_dir / symbol_id)[:-1]:
            path.unlink()
    return made


def files(config: Config, symbol_id: str = "btc") -> list[str]:
    return sorted(p.name for p in config.export_dir.iterdir() if p.name.startswith(symbol_id))


def edges(config: Config, symbol_id: str = "btc") -> list[int]:
    """End of each file's period, Unix ns, oldest first."""
    found = [FileName.parse(name) for name in files(config, symbol_id)]
    return [name.start_ns + PERIOD for name in found if name is not None]


def prune_all(config: Config, **more: object) -> PruneReport:
    return prune(config, Rules(keep_ns=0, **more), now_ns=lambda: 1 << 62)  # type: ignore[arg-type]


def test_without_rules_nothing_goes(config: Config) -> None:
    before = files(config)
    assert prune(config, Rules()).deleted == []
    assert files(config) == before


def test_old_files_go_and_the_newest_of_each_symbol_stays(config: Config) -> None:
    *old, newest = files(config)
    report = prune_all(config)
    assert (report.ok, [name for name, _ in report.deleted]) == (True, old)
    assert files(config) == [newest]
    assert len(files(config, "eth")) == 1


def test_age_counts_from_the_end_of_the_period(config: Config) -> None:
    first, second, *_ = edges(config)
    before = files(config)
    at_edge = prune(config, Rules(keep_ns=SECOND), now_ns=lambda: first + SECOND - 1)
    assert at_edge.deleted == []
    after = prune(config, Rules(keep_ns=SECOND), now_ns=lambda: first + SECOND)
    assert [name for name, _ in after.deleted] == before[:1]
    assert second > first


DAY = 86_400 * SECOND


@pytest.mark.parametrize("ahead_ns", [DAY // 3, 30 * DAY, 400 * DAY])
def test_a_clock_that_is_ahead_makes_nothing_old(config: Config, ahead_ns: int) -> None:
    """No frame of the exchange says that so much time has passed. So it is on a host that was off for a month, too."""
    before = files(config)
    report = prune(config, Rules(keep_ns=2 * 3600 * SECOND), now_ns=lambda: T0 + ahead_ns)
    assert (report.ok, report.deleted) == (True, [])
    record(config, start_ns=T0 + 20 * DAY)  # time has passed indeed
    assert prune(config, Rules(keep_ns=DAY), now_ns=lambda: T0 + 20 * DAY).deleted
    assert files(config) != before


@pytest.mark.parametrize("error_ns", [-4000 * DAY, -DAY, 30 * DAY, 400 * DAY])
def test_what_a_wrong_clock_named_is_as_old_as_the_exchange_says(tmp_path: Path, error_ns: int) -> None:
    made = configure(tmp_path)
    true_ns = T0 + 5 * PERIOD
    for n, error in enumerate((0, error_ns, 0, 0)):
        record(made, start_ns=T0 + n * PERIOD + error, error_ns=error)
    assert run(made, now_ns=lambda: 1 << 62).ok
    for segment in spooled(made.spool_dir / "btc").readable[:-1]:
        segment.path.unlink()
    order = [file.path.name for file in in_order(exported_files(made.export_dir))]
    kept = prune(made, Rules(keep_ns=3600 * SECOND), now_ns=lambda: true_ns)
    assert (kept.ok, kept.deleted) == (True, [])
    later = true_ns + DAY
    record(made, start_ns=later)
    gone = prune(made, Rules(keep_ns=DAY // 2), now_ns=lambda: later + PERIOD)
    assert [name for name, _ in gone.deleted] == order[:3]


def test_a_file_of_no_frames_that_a_clock_behind_has_named_is_not_old(tmp_path: Path) -> None:
    """Its segment and it were deleted a minute after they were made: nothing in them is the exchange's."""
    made = configure(tmp_path, "BTC_USDT")
    hours = 3600 * SECOND
    now = T0 + 100 * hours
    spool = open_spool(made)
    for n, begin in enumerate((T0, T0 + PERIOD, now)):
        if n < 2:  # started, and could not connect
            spool.append([Frame(begin, None, int(Mt.EVENT), b'{"event":"disconnected"}')])
        else:
            spool.append([frame._replace(ts=frame.ts and frame.rx // 1_000_000) for frame in some_frames(20, begin)])
        spool.tick(begin + PERIOD)
        assert run(made, now_ns=lambda: begin + PERIOD).ok  # noqa: B023
        newest = spooled(made.spool_dir / "btc").readable[-1]
        lifecycle.mark_exported(newest.path, newest.exported | {"at_ns": begin + PERIOD})  # by that clock too
        if n < 2:  # nothing after it tells its age
            assert spool.prune(now + 200 * hours, 6 * hours) == []
    spool.append([Frame(now + 2 * PERIOD, now // 1_000_000, int(Mt.TICKER), b"{}")])
    spool.close()
    assert lifecycle.prune(made.spool_dir / "btc", now + hours, 6 * hours) == []
    gone = lifecycle.prune(made.spool_dir / "btc", now + 7 * hours, 6 * hours)
    assert len(gone) == 3
    before = files(made)
    assert prune(made, Rules(keep_ns=6 * hours), now_ns=lambda: now + hours).deleted == []
    assert files(made) == before
    record(made, start_ns=now + 8 * hours)
    assert run(made, now_ns=lambda: 1 << 62).ok
    assert [name for name, _ in prune(made, Rules(keep_ns=6 * hours), now_ns=lambda: now + 8 * hours).deleted] == before


@pytest.mark.parametrize("error_ms", [300_000.0, None])
def test_nothing_goes_by_age_while_a_collector_says_that_the_clock_is_wrong(
    config: Config, error_ms: float | None
) -> None:
    before = files(config)
    said = {"clock": {"suspect": True, "error_ms": error_ms}}
    server = ControlServer(config.control_dir / "eth.sock", {"status": lambda _: said})
    try:
        report = prune_all(config)
        assert (report.ok, report.deleted, files(config)) == (False, [], before)
        assert "nothing is deleted by age: this host's clock" in report.failures[0]
        said["clock"]["suspect"] = False
        assert prune_all(config).deleted
    finally:
        server.close()


def test_the_newest_is_the_one_with_the_newest_rows(config: Config) -> None:
    """Not the one whose name is the last: a longer period has an earlier one."""
    longer = replace(config, period=Period(60 * SECOND))
    spool = Spool(config.spool_dir / "btc", "btc", "BTC_USDT", longer.period, exports=files(config))
    spool.append([frame._replace(ts=None) for frame in some_frames(5, T0 + 45 * SECOND)])
    spool.tick(T0 + 60 * SECOND)
    spool.close()
    assert run(longer, now_ns=lambda: 1 << 62).ok
    for _, path in segments(config.spool_dir / "btc"):
        path.unlink()
    newest = "btc20260915185200.part2.parquet"
    assert newest in files(config)
    assert newest not in [name for name, _ in prune_all(config).deleted]
    assert files(config) == [newest]


def test_a_file_whose_segment_is_in_the_spool_stays(config: Config) -> None:
    oldest = files(config)[0]
    name = FileName.parse(oldest)
    assert name is not None
    (config.spool_dir / "btc" / f"{name.period}.sqlite").touch()
    assert oldest not in [gone for gone, _ in prune_all(config).deleted]
    assert oldest in files(config)


def test_a_damaged_file_stays_and_is_reported(config: Config) -> None:
    damaged = config.export_dir / files(config)[0]
    table = pq.read_table(damaged)
    pq.write_table(table.slice(0, table.num_rows - 1), damaged)  # with the metadata of the whole
    report = prune_all(config)
    assert not report.ok
    assert damaged.exists()
    assert damaged.name in report.failures[0]
    assert len(report.deleted) == PERIODS - 2


def test_a_file_that_would_take_all_memory_stays_and_keeps_no_other(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `verify` and `import` refuse it: whatever it claims, reading it ends at a bound."""
    greedy = config.export_dir / files(config)[0]

    def read(path: Path) -> Content:
        if path == greedy:
            np.zeros(4 << 30, dtype=np.uint8)  # only promised by the kernel where nothing bounds it
        return read_content(path)

    monkeypatch.setattr("mexc_pipeline.export.retention.read_content", read)
    report = prune_all(config)
    assert [f.partition(": ")[2] for f in report.failures] == [
        "reading it takes more than 1024 MiB of memory: no file of ours does"
    ]
    assert greedy.exists()
    assert len(report.deleted) == PERIODS - 2


def test_only_archived_files_go(config: Config, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    first, second, third, _ = files(config)
    shutil.copy(config.export_dir / first, archive)
    (archive / second).write_bytes((config.export_dir / second).read_bytes()[:-1] + b"\0")
    report = prune_all(config, archive=archive)
    assert [name for name, _ in report.deleted] == [first]
    assert dict(report.kept)[third] == "not yet in the archive"
    assert not report.ok, "a copy that differs is somebody's business"
    assert second in report.failures[0]


@pytest.mark.parametrize("through", ["its own name", "a link"])
def test_the_export_folder_is_no_archive_of_itself(config: Config, tmp_path: Path, through: str) -> None:
    archive = config.export_dir
    if through == "a link":
        archive = tmp_path / "archive"
        archive.symlink_to(config.export_dir)
    before = files(config)
    with pytest.raises(ConfigError, match="is the export folder itself"):
        prune_all(config, archive=archive)
    assert files(config) == before


def test_a_link_to_a_file_is_no_copy_of_it(config: Config, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first, second, third, _ = files(config)
    (archive / first).symlink_to(config.export_dir / first)
    (archive / second).hardlink_to(config.export_dir / second)
    shutil.copy(config.export_dir / third, elsewhere)
    (archive / third).symlink_to(elsewhere / third)  # a copy all the same
    report = prune_all(config, archive=archive)
    assert [name for name, _ in report.deleted] == [third]
    assert [name for name, why in report.kept if "the file itself" in why] == [first, second]
    assert not report.ok, "whoever set it up takes it for an archive"


def test_an_archive_that_is_not_mounted_deletes_nothing(config: Config, tmp_path: Path) -> None:
    before = files(config)
    with pytest.raises(UserError, match="nothing was deleted"):
        prune_all(config, archive=tmp_path / "not-there")
    assert files(config) == before


def test_the_archive_command_decides(config: Config, tmp_path: Path) -> None:
    first, *_ = files(config)
    report = prune_all(
        config, archive_check=("/bin/sh", "-c", f'case "$0" in *{first}) exit 0;; esac; exit 3', "{file}")
    )
    assert [name for name, _ in report.deleted] == [first]
    assert report.ok
    assert "exited 3" in report.kept[0][1]


def test_a_missing_archive_command_deletes_nothing(config: Config) -> None:
    report = prune_all(config, archive_check=("/nowhere/in-archive", "{file}"))
    assert (report.ok, report.deleted) == (False, [])


def test_the_oldest_go_until_enough_is_free(config: Config) -> None:
    before = files(config)

    def free(folder: Path) -> int:
        return 100 * (PERIODS + 1 - len(list(folder.glob("*.parquet"))))

    report = prune(config, Rules(min_free=100), free_bytes=free)
    assert [name for name, _ in report.deleted] == before[:1]
    assert report.ok


def test_a_disk_that_stays_full_is_a_failure(config: Config) -> None:
    report = prune(config, Rules(min_free=1 << 60))
    assert not report.ok
    assert "no file may go" in report.failures[-1]
    assert len(files(config)) == len(files(config, "eth")) == 1


def test_it_waits_for_no_export(config: Config) -> None:
    with SpoolLock(config.data_dir / "export"), pytest.raises(LockedError):
        prune_all(config)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("7", 7), ("2K", 2048), ("3M", 3 << 20), ("20G", 20 << 30), ("1T", 1 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("soon", None, None, None), "--keep"),
        ((None, "20 GB", None, None), "--min-free"),
        ((None, None, None, "rsync"), "not JSON"),
        ((None, None, None, '["rsync"]'), "{file}"),
        ((None, None, None, '"rsync {file}"'), "list of words"),
    ],
)
def test_bad_rules_are_named(texts: tuple[str | None, str | None, Path | None, str | None], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        rules(*texts)
    assert said in str(raised.value)


def test_the_command_reports(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prune.toml"
    file.write_text(
        f"data_dir = {json.dumps(str(config.data_dir))}\nexport_dir = {json.dumps(str(config.export_dir))}\n"
    )
    assert invoke(["prune", "--config", str(file), "--keep", "1s", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["deleted"]) == PERIODS - 1
    assert invoke(["prune", "--config", str(file), "--keep", "soon"]) == 2


def test_the_command_says_how_many_stay_for_their_segment(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing told of them: they went into no judgement."""
    prune = ["prune", "--config", str(tmp_path / "config.toml"), "--keep", "1s"]
    name = FileName.parse(files(config)[1])
    assert name is not None
    (config.spool_dir / "btc" / f"{name.period}.sqlite").touch()
    assert invoke(prune) == 0
    *_, said, held = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{PERIODS - 2} files deleted, ")
    assert held == "3 files stay at any age: their segment is still in the spool (spool_keep)", "and the newest two"
    assert invoke([*prune, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["in_spool"]) == 3
    assert invoke([*prune, "--archive", str(tmp_path / "nofolder")]) == 2
    assert "nofolder is no folder" in capsys.readouterr().err
    for symbol_id in ("btc", "eth"):
        for _, path in segments(config.spool_dir / symbol_id):
            path.unlink()
    assert invoke(prune) == 0
    assert "stay" not in capsys.readouterr().out
