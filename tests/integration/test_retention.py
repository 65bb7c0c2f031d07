"""Retention on real files: what goes, and above all what stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mexc_pipeline.cli.app import invoke
from mexc_pipeline.config import Config
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export.job import run
from mexc_pipeline.export.names import FileName
from mexc_pipeline.export.retention import PruneReport, Rules, prune, rules, size_bytes
from mexc_pipeline.spool.lock import LockedError, SpoolLock
from mexc_pipeline.spool.segment import segments
from support.spools import SECOND, configure, fill

PERIOD = 10 * SECOND
PERIODS = 4


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Four files of btc and one of eth; their segments have left the spool but for each symbol's newest."""
    made = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(made, "btc", periods=PERIODS)
    fill(made, "eth", periods=1)
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
