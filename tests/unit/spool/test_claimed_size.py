"""A size is what one altered bit can make of it: nothing of the spool is read, or copied, as far as that says."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.config import Config
from mexc_pipeline.export import main
from mexc_pipeline.spool import wal
from mexc_pipeline.spool.pending import FILE, Pending
from mexc_pipeline.spool.walk import lost_logs
from support.examples import examples
from support.spools import T0, configure, open_spool, some_frames

HUGE = 3 << 40
STEP = 24 + 4096


def killed(config: Config, commits: int = 5) -> Path:
    """A spool as a process leaves it that is killed: its segment's log has all rows."""
    config.spool_dir.mkdir(parents=True)
    spool = open_spool(config)
    for n in range(commits):
        spool.append(some_frames(4, T0 + n * 10**8))
    left = config.spool_dir / "left"
    shutil.copytree(config.spool_dir / "btc", left)
    spool.close()
    shutil.rmtree(config.spool_dir / "btc")
    left.rename(config.spool_dir / "btc")
    (path,) = (config.spool_dir / "btc").glob("*.sqlite")
    return path


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_a_segment_that_claims_terabytes_is_gone_on_with(tmp_path: Path, end: str) -> None:
    config = configure(tmp_path)
    path = killed(config)
    os.truncate(path.with_name(path.name + end), HUGE)
    spool = open_spool(config)
    assert (spool.recovered.last_seq, spool.recovered.set_apart) == (20, ())
    spool.close()
    report = main(config)
    assert (report.ok, [file.rows for file in report.files]) == (True, [21])
    assert on_disk(path.parent) < 1 << 20


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_pending_rows_that_claim_terabytes_are_gone_on_with(tmp_path: Path, end: str) -> None:
    first = tmp_path / "first"
    first.mkdir()
    pending = Pending(first, "BTC_USDT")
    pending.append(some_frames(5, T0))
    shutil.copytree(first, tmp_path / "btc")
    pending.close()
    os.truncate(tmp_path / "btc" / f"{FILE}{end}", HUGE)
    again = Pending(tmp_path / "btc", "BTC_USDT")
    assert (again.waiting, again.set_apart) == (5, None)
    again.append(some_frames(1, T0 + 10**9))
    again.close()


@pytest.mark.parametrize("size", [6 << 30, HUGE])
def test_of_a_damaged_log_that_claims_terabytes_no_more_is_kept_than_is_there(tmp_path: Path, size: int) -> None:
    config = configure(tmp_path)
    path = killed(config)
    log = path.with_name(f"{path.name}-wal")
    was = log.stat().st_size
    content = bytearray(log.read_bytes())
    content[was // 2] ^= 1
    log.write_bytes(content)
    os.truncate(log, size)
    spool = open_spool(config)
    (kept,) = path.parent.glob("*-wal.damaged-*")
    assert kept.name in spool.recovered.set_apart
    assert kept.stat().st_size == was
    assert on_disk(path.parent) < 1 << 20
    spool.close()


def test_a_copy_for_which_there_is_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(tmp_path)
    path = killed(config)
    log = path.with_name(f"{path.name}-wal")
    content = bytearray(log.read_bytes())
    content[len(content) - 2 * STEP + 100] ^= 1
    log.write_bytes(content)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sendfile", full)
    open_spool(config).close()
    assert lost_logs(path.parent) == []


@given(
    parts=st.lists(
        st.tuples(st.sampled_from(["commit", "frame", "earlier", "zeros", "hole"]), st.integers(1, 12)), max_size=8
    )
)
@settings(max_examples=examples(60), deadline=None)
def test_commits_behind_are_counted_wherever_they_stand(parts: list[tuple[str, int]]) -> None:
    """Holes, zeros and frames of an earlier use of the log between them hide none."""
    salts = b"saltsalt"
    with tempfile.TemporaryDirectory() as made:
        log = Path(made) / "log"
        commits = end = 0
        with log.open("wb") as file:
            file.write(bytes(16) + salts + bytes(8))  # a head that is damaged: the first frame tells the salts
            file.write(bytes(8) + salts + bytes(8) + bytes(4096))
            for what, count in parts:
                for _ in range(count):
                    if what == "hole":
                        file.seek(STEP, os.SEEK_CUR)
                        continue
                    mark = (1).to_bytes(4, "big") if what == "commit" else bytes(4)
                    head = {"earlier": b"?" * 4 + mark + b"earlier!" + bytes(8), "zeros": bytes(24)}.get(
                        what, bytes(4) + mark + salts + bytes(8)
                    )
                    file.write(head + (bytes(4096) if what == "zeros" else b"p" * 4096))
                    if what == "commit":
                        commits, end = commits + 1, file.tell()
            file.truncate()
        assert wal._left_out(log, 0, 4096) == (commits, end)


def test_what_is_no_log_is_looked_at_for_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.write_bytes(os.urandom(64 << 20))
    looks = 0
    pread = os.pread

    def counted(fd: int, size: int, at: int) -> bytes:
        nonlocal looks
        looks += 1
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", counted)
    assert wal._left_out(log, 1, 4096) == (0, 0)
    assert looks < (wal._FOREIGN // STEP) + 10
