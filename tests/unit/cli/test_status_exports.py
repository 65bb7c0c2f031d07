"""Since when a period waits for its file, whatever the clock said when it was recorded."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mexc_pipeline import health, overview
from mexc_pipeline.config import Config, parse
from mexc_pipeline.metrics.server import health_of
from mexc_pipeline.overview import gather
from mexc_pipeline.periods import DAY_NS, HOUR_NS
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.disk_level import Usage
from mexc_pipeline.spool.lifecycle import mark_exported
from mexc_pipeline.spool.segment import UnavailableError, ended_ns, info
from mexc_pipeline.spool.unexported import LOOK_S, Unexported
from mexc_pipeline.spool.walk import in_order
from mexc_pipeline.spool.writer import Spool
from support.small_disk import small_disk


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse(f'symbols = ["BTC_USDT"]\ndata_dir = "{tmp_path}"\nexport_dir = "{tmp_path}/exports"\n', None)


def record(config: Config, *times: int) -> list[Path]:
    """Rows of those times; the segments, in the order of their rows."""
    folder = config.spool_dir / "btc"
    folder.mkdir(parents=True)
    spool = Spool(folder, "btc", "BTC_USDT", config.period, next_rx=times[0])
    for at in times:
        spool.append([Frame(at, 5, Mt.DEAL, b"{}")])
    spool.close()
    return [segment.path for segment in in_order(folder).readable]


def not_exported(config: Config) -> list[float | None]:
    (symbol,) = gather(config)["symbols"]
    return [r["for_s"] for r in symbol["health"]["reasons"] if r["kind"] == health.Kind.NOT_EXPORTED]


@pytest.mark.parametrize("off_ns", [-30 * DAY_NS, -3 * HOUR_NS, 3 * HOUR_NS, 400 * DAY_NS, None])
def test_a_period_of_a_clock_that_was_wrong_waits_since_that_was_noticed(config: Config, off_ns: int | None) -> None:
    """One of 1970 was called not exported for 56 years, until the next export; one of the future never was."""
    now = time.time_ns()
    first, _ = record(config, now + off_ns if off_ns is not None else HOUR_NS, now)
    assert not_exported(config) == []
    noticed = now - 2 * HOUR_NS
    os.utime(first, ns=(noticed, noticed))
    (for_s,) = not_exported(config)
    assert for_s is not None
    assert 2 * 3600 <= for_s < 3 * 3600 + 60


def test_who_may_not_look_into_the_spool_goes_by_what_the_collector_says(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member of the group, for whom what is unknown must not be nothing."""
    record(config, 1, time.time_ns())
    (config.spool_dir / "btc").rename(config.spool_dir.parent / "hidden")
    (config.spool_dir / "btc").symlink_to("nowhere")  # cannot be listed, by whomever
    monkeypatch.setattr(overview, "_status_of", lambda *_: {"state": "live", "unexported_s": 7200.0})
    assert not_exported(config) == [7200.0]


def test_since_when_a_period_waits_is_told_without_opening_what_has_its_file(config: Config) -> None:
    now = time.time_ns()
    first, second, _ = record(config, now - 4 * HOUR_NS, now - 2 * HOUR_NS, now)
    clock = [0.0]
    waits = Unexported(config.spool_dir / "btc", lambda: clock[0])
    ends = [at for path in (first, second) if (at := ended_ns(info(path), now)) is not None]
    assert waits.since_ns(now) == ends[0]
    mark_exported(first, {})
    assert waits.since_ns(now) == ends[0], "it was looked at a moment ago"
    clock[0] += LOOK_S
    assert waits.since_ns(now) == ends[1]
    first.write_bytes(b"not looked at any more")
    clock[0] += LOOK_S
    assert waits.since_ns(now) == ends[1]
    second.unlink()
    clock[0] += LOOK_S
    assert waits.since_ns(now) is None
    clock[0] += LOOK_S
    (config.spool_dir / "btc").rename(config.spool_dir.parent / "hidden")
    (config.spool_dir / "btc").symlink_to("nowhere")
    with pytest.raises(UnavailableError):
        waits.since_ns(now)


def test_a_period_without_a_file_waits_since_its_edge(config: Config) -> None:
    now = time.time_ns()
    edge = now - now % HOUR_NS - 3 * HOUR_NS
    record(config, edge - 5)
    (for_s,) = not_exported(config)
    assert for_s is not None
    assert 3 * 3600 <= for_s < 4 * 3600 + 60, "left open"


@pytest.mark.parametrize("free_mib", [0, 255, 256])
def test_a_disk_of_its_own_that_has_no_room_for_files_is_a_fault(
    config: Config, monkeypatch: pytest.MonkeyPatch, free_mib: int
) -> None:
    """Once only the log had a word of it, until a file was an hour and a half late."""
    config.export_dir.mkdir()
    monkeypatch.setattr(overview, "device", lambda path: path == config.export_dir)
    monkeypatch.setattr(Usage, "of", lambda _: Usage(1 << 40, free_mib << 20))
    found = gather(config)
    told = [(who, reason["text"]) for who, reason in overview.faults_of(found) if reason["kind"] == "disk"]
    text = f"the file system of {config.export_dir} has {free_mib} MiB free, and files need 256 MiB"
    assert told == ([("export", text)] if free_mib < 256 else [])
    assert health_of(found)["faults"].get("disk", 0) == len(told)
    monkeypatch.setattr(overview, "device", lambda _: 1)
    assert gather(config)["export"]["health"]["ok"], "the spool's disk is watched by its collectors"


def test_a_full_disk_for_files_is_no_order(tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    with small_disk(folder, 8):
        config = parse(f'data_dir = "{tmp_path}"\nexport_dir = "{folder}/deeper"\n', None)
        found = gather(config)
    assert found["ok"] is False
    assert [r["kind"] for r in found["export"]["health"]["reasons"]] == ["disk"]
