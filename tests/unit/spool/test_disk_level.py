"""When the spool's disk is nearly full: levels, and the reserve that is held exactly while something is recorded."""

from __future__ import annotations

import errno
import json
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.collector.disk import NO_ROOM, REFUSED, Disk
from mexc_pipeline.spool.disk_level import REFUSED_S, Level, Limits, Usage, judge, no_room
from mexc_pipeline.spool.reserve import FILE, Reserve

MIB = 1 << 20
LIMITS = Limits(80, 90, 64 * MIB)
levels = st.sampled_from(Level)
usages = st.builds(Usage, st.integers(0, 1 << 44), st.integers(0, 1 << 44))
limits = st.builds(
    lambda a, b, reserve: Limits(min(a, b), max(a, b), reserve * MIB),
    st.integers(1, 99),
    st.integers(1, 99),
    st.integers(4, 65536),
)


def test_percent_is_that_of_df() -> None:
    assert Usage(80, 20).percent == 80
    assert Usage(0, 0).percent == 100
    found = Usage.of(Path("/"))
    assert 0 < found.percent < 100


@pytest.mark.parametrize(
    ("before", "used", "free", "refused_s", "after"),
    [
        (Level.OK, 799, 201, 0, Level.OK),
        (Level.OK, 800, 200, 0, Level.WARN),
        (Level.WARN, 795, 205, 0, Level.WARN),
        (Level.WARN, 789, 211, 0, Level.OK),
        (Level.WARN, 900, 100, 0, Level.ALERT),
        (Level.ALERT, 895, 105, 0, Level.ALERT),
        (Level.ALERT, 889, 111, 0, Level.WARN),
        (Level.OK, 985, 15, 0, Level.FULL),
        (Level.ALERT, 984, 16, 0, Level.ALERT),
        (Level.OK, 100, 900, REFUSED_S - 0.1, Level.OK),
        (Level.OK, 100, 900, REFUSED_S, Level.FULL),
        (Level.FULL, 100, 900, 0.1, Level.FULL),
        (Level.FULL, 857, 143, 0, Level.FULL),
        (Level.FULL, 856, 144, 0, Level.WARN),
        (Level.FULL, 100, 900, 0, Level.OK),
    ],
)
def test_levels(before: Level, used: int, free: int, refused_s: float, after: Level) -> None:
    assert judge(before, Usage(used * MIB, free * MIB), LIMITS, refused_s) is after


@given(levels, usages, limits)
def test_a_disk_that_stays_as_it_is_keeps_its_level(before: Level, usage: Usage, limits: Limits) -> None:
    once = judge(before, usage, limits)
    assert judge(once, usage, limits) is once


@given(levels, usages, st.integers(0, 1 << 44), limits)
def test_more_used_is_never_better(before: Level, usage: Usage, more: int, limits: Limits) -> None:
    fuller = Usage(usage.used + more, max(0, usage.free - more))
    assert judge(before, fuller, limits) >= judge(before, usage, limits)


@given(levels, usages, limits, st.floats(0, 60))
def test_recording_goes_on_exactly_where_there_is_room(
    before: Level, usage: Usage, limits: Limits, refused_s: float
) -> None:
    full = judge(before, usage, limits, refused_s) is Level.FULL
    if before is Level.FULL:
        assert full == (refused_s > 0 or usage.free < limits.again)
    else:
        assert full == (refused_s >= REFUSED_S or usage.free < limits.low)


@given(usages, limits)
def test_with_the_reserve_made_again_it_is_not_full_at_once(usage: Usage, limits: Limits) -> None:
    if judge(Level.FULL, usage, limits) is not Level.FULL:
        made = Usage(usage.used + limits.reserve, usage.free - limits.reserve)
        assert judge(Level.OK, made, limits) is not Level.FULL
        assert made.free >= limits.low + limits.reserve


def test_what_is_want_of_room(tmp_path: Path) -> None:
    assert no_room(OSError(errno.ENOSPC, ""))
    assert no_room(OSError(errno.EDQUOT, ""))
    assert not no_room(OSError(errno.EIO, ""))
    assert not no_room(sqlite3.OperationalError("database or disk is full"))
    db = sqlite3.connect(tmp_path / "x.sqlite")
    db.execute("PRAGMA max_page_count=2")
    with pytest.raises(sqlite3.OperationalError) as full:
        db.executescript("CREATE TABLE a (x); CREATE TABLE b (x);")
    db.close()
    assert no_room(full.value)


def test_a_reserve_holds_real_blocks_until_it_is_released(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 8 * MIB)
    assert not reserve.is_held()
    reserve.make()
    assert reserve.is_held()
    assert (tmp_path / FILE).stat().st_blocks * 512 >= 8 * MIB
    assert not Reserve(tmp_path, 9 * MIB).is_held(), "another size is configured"
    reserve.release()
    assert list(tmp_path.iterdir()) == []
    reserve.release()


def test_a_file_with_holes_is_no_reserve(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(8 * MIB)
    reserve = Reserve(tmp_path, 8 * MIB)
    assert not reserve.is_held()
    reserve.make()
    assert reserve.is_held()


class FakeDisk:
    """A file system of 1000 MiB, of which ``others`` use some."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.others = 100

    def usage(self, folder: Path) -> Usage:
        assert folder == self.folder
        own = sum(p.stat().st_blocks * 512 for p in folder.iterdir())
        used = self.others * MIB + own
        return Usage(used, max(0, 1000 * MIB - used))

    def open(self) -> Disk:
        return Disk(self.folder, Limits(80, 90, 16 * MIB), self.usage)


def test_the_reserve_is_held_while_there_is_room(tmp_path: Path) -> None:
    fake = FakeDisk(tmp_path)
    disk = fake.open()
    seen = [(disk.level, (tmp_path / FILE).exists())]
    for others in (100, 790, 850, 890, 979, 981, 981, 961, 965, 870, 100):
        fake.others = others
        disk.look(0.0)
        seen.append((disk.level, (tmp_path / FILE).exists()))
    names = [level.name + ("" if held else " without") for level, held in seen]
    assert names == [
        "OK", "OK", "WARN", "WARN", "ALERT", "ALERT", "FULL without", "FULL without", "ALERT", "ALERT", "WARN", "OK",
    ]  # fmt: skip


def test_the_reserve_is_given_back_at_the_end(tmp_path: Path) -> None:
    fake = FakeDisk(tmp_path)
    disk = fake.open()
    assert (tmp_path / FILE).exists()
    disk.close()
    assert not (tmp_path / FILE).exists()
    disk.close()


def test_symbols_on_one_disk_stop_before_it_is_used_up_and_do_not_stop_again_at_once(tmp_path: Path) -> None:
    """One after the other, each on its own reserve; no more of them go on than there is room for."""
    folders = [tmp_path / name for name in ("btc", "eth", "sol")]
    for folder in folders:
        folder.mkdir()
    taken = {"MiB": 700}

    def usage(_: Path) -> Usage:
        used = taken["MiB"] * MIB + sum(p.stat().st_blocks * 512 for p in tmp_path.rglob(FILE))
        assert used <= 1000 * MIB, "somebody's last words found no room"
        return Usage(used, 1000 * MIB - used)

    disks = [Disk(folder, Limits(80, 90, 16 * MIB), usage) for folder in folders]
    for _ in range(200):
        for disk in disks:
            taken["MiB"] += disk.level is not Level.FULL
            disk.look(0.0)
    assert [disk.level for disk in disks] == [Level.FULL] * 3
    taken["MiB"] -= 60
    for _ in range(10):
        for disk in disks:
            disk.look(0.0)
    levels = [disk.level for disk in disks]
    assert Level.FULL not in levels[:1]
    for disk in disks:
        disk.look(0.0)
    assert [disk.level for disk in disks] == levels, "nobody stops while nothing is written"


def test_a_full_disk_is_said_with_what_to_do(tmp_path: Path) -> None:
    fake = FakeDisk(tmp_path)
    disk = fake.open()
    assert disk.warning() is None
    fake.others = 800
    disk.look(0.0)
    assert "82 % full (184 MiB free)" in (disk.warning() or "")
    assert json.loads(disk.event()) == {"event": "spool_low", "level": "warn", "used_percent": 81.6, "free_mib": 184}
    fake.others = 999
    disk.look(0.0)
    status = disk.status()
    assert f"{status.pop('warning')}; {status.pop('todo')}" == disk.warning()
    assert status == {"level": "full", "used_percent": 99.9, "free_mib": 1, "reserve_mib": 0}
    assert "free some: with 36 MiB free recording goes on by itself" in (disk.warning() or "")
    assert not disk.roomy


@pytest.mark.parametrize("total", [2, 9, 17, 18, 64, 110, 143, 144, 1000])
@pytest.mark.parametrize("reserve", [4, 16, 64, 512])
def test_what_is_advised_can_be_on_a_disk_of_that_size(total: int, reserve: int) -> None:
    limits, usage = Limits(80, 90, reserve * MIB), Usage(total * MIB - MIB, MIB)
    told = limits.too_small(usage)
    assert (told is None) == (limits.again <= total * MIB)
    if told is not None:
        assert f"this disk has {total} MiB in all: record on a larger one" in told
        advised = re.search(r"set spool.reserve_mib to (\d+)", told)
        assert (advised is not None) == (total >= 9), "with the smallest reserve"
        if advised:
            assert Limits(80, 90, int(advised[1]) * MIB).too_small(usage) is None


def test_a_disk_that_is_too_small_is_not_asked_to_be_emptied(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Limits(80, 90, 64 * MIB), lambda _: Usage(10 * MIB, 10 * MIB))
    said = disk.warning() or ""
    assert "recording needs 144 MiB free, and this disk has 20 MiB in all: record on a larger one" in said
    assert "free some" not in said


def test_a_start_on_a_full_disk_uses_the_reserve_that_is_there(tmp_path: Path) -> None:
    fake = FakeDisk(tmp_path)
    fake.open()
    fake.others = 982
    again = fake.open()
    assert again.level is Level.FULL
    assert again.roomy, "a segment can be opened and closed"
    fake.others = 998
    assert not fake.open().roomy


def test_a_reserve_that_cannot_be_made_keeps_recording_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Reserve) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(Reserve, "make", refuse)
        disk = FakeDisk(tmp_path).open()
        assert disk.level is Level.FULL
        assert "the reserve cannot be made: Disk quota exceeded" in (disk.warning() or "")
    assert disk.look(0.0) is Level.OK
    assert disk.warning() is None


@pytest.mark.parametrize("error", [errno.EFBIG, errno.EPERM, errno.EROFS])
def test_a_reserve_refused_for_another_reason_than_room_is_not_called_want_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Nothing that anybody frees makes recording go on."""

    def refuse(_: Reserve) -> None:
        raise OSError(error, os.strerror(error))

    fake = FakeDisk(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Reserve, "make", refuse)
        disk = fake.open()
        assert (disk.level, disk.reason, disk.status()["level"]) == (Level.FULL, REFUSED, "refused")
        said = disk.warning() or ""
        assert f"refuses what is written to it (the reserve cannot be made: {os.strerror(error)})" in said
        assert "mend that" in said
        assert "free" not in said
    assert disk.look(0.0) is Level.OK
    assert disk.warning() is None
    fake.others = 995 * MIB
    assert disk.look(0.0) is Level.FULL
    assert (disk.reason, "is full" in (disk.warning() or "")) == (NO_ROOM, True)


def test_writes_refused_for_long_mean_full_whatever_the_figures_say(tmp_path: Path) -> None:
    disk = FakeDisk(tmp_path).open()
    assert disk.look(REFUSED_S) is Level.FULL
    assert disk.look(REFUSED_S + 1) is Level.FULL
    assert disk.look(0.0) is Level.OK


def test_a_file_system_that_does_not_answer_changes_nothing(tmp_path: Path) -> None:
    fake = FakeDisk(tmp_path)
    answers: list[Callable[[Path], Usage]] = [fake.usage]
    disk = Disk(tmp_path, Limits(80, 90, 16 * MIB), lambda folder: answers[-1](folder))

    def broken(_: Path) -> Usage:
        raise OSError(errno.EIO, "Input/output error")

    answers.append(broken)
    assert disk.look(0.0) is Level.OK
    assert "Input/output error" in (disk.warning() or "")


def test_the_reserve_moves_with_what_is_recorded(tmp_path: Path) -> None:
    """Or is made anew, where it went with its folder."""
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    for folder in (first, second, third):
        folder.mkdir()
    disk = Disk(first, Limits(80, 90, 16 * MIB), lambda _: Usage(100 * MIB, 900 * MIB))
    inode = (first / FILE).stat().st_ino
    disk.move(second)
    assert not (first / FILE).exists()
    assert (second / FILE).stat().st_ino == inode
    (second / FILE).unlink()
    second.rmdir()
    disk.move(third)
    assert (third / FILE).stat().st_size == 16 * MIB
    assert disk.level is Level.OK
    disk.close()
    assert not any(tmp_path.rglob(FILE))
