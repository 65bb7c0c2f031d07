"""Folders, links and leftovers in the place of what the spool keeps for itself: recording goes on beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mexc_pipeline.export import main
from mexc_pipeline.spool.names import SegmentName
from mexc_pipeline.spool.pending import Pending
from mexc_pipeline.spool.reserve import Reserve
from support.spools import T0, configure, open_spool, some_frames


def stand_in(path: Path, what: str) -> None:
    match what:
        case "folder":
            path.mkdir()
            (path / "something").touch()
        case "FIFO":
            os.mkfifo(path)
        case "link":
            path.symlink_to("nowhere")
        case _:
            path.write_bytes(b"\x37\x7f\x06\x82" + bytes(5000))


@pytest.mark.parametrize("what", ["folder", "FIFO", "link", "garbage"])
@pytest.mark.parametrize("end", ["-wal", "-shm"])
@pytest.mark.parametrize("kind", ["segment", "pending rows"])
def test_what_lies_beside_a_file_that_is_not_there_yet(tmp_path: Path, what: str, end: str, kind: str) -> None:
    config = configure(tmp_path)
    folder = config.spool_dir / "btc"
    folder.mkdir(parents=True)
    name = SegmentName(T0, 1, config.period.name(T0)).file if kind == "segment" else "pending.db"
    stand_in(folder / (name + end), what)
    if kind == "segment":
        spool = open_spool(config)
        assert len(spool.append(some_frames(5, T0))) == 5
        spool.cut(T0 + 10**9)
        spool.close()
        assert main(config).ok
    else:
        pending = Pending(folder, "BTC_USDT")
        pending.append(some_frames(5, T0))
        pending.remove()
        pending.close()


@pytest.mark.parametrize("what", ["folder", "FIFO", "link", "garbage"])
def test_a_reserve_that_is_none_is_made_anew(tmp_path: Path, what: str) -> None:
    stand_in(tmp_path / "reserve", what)
    reserve = Reserve(tmp_path, 1 << 20)
    assert not reserve.is_held()
    reserve.make()
    assert reserve.is_held()


@pytest.mark.parametrize("what", ["folder", "FIFO", "link", "loop", "garbage"])
def test_pending_rows_that_are_no_file_are_set_apart(tmp_path: Path, what: str) -> None:
    if what == "loop":
        (tmp_path / "pending.db").symlink_to("pending.db")
    else:
        stand_in(tmp_path / "pending.db", what)
    pending = Pending(tmp_path, "BTC_USDT")
    assert pending.set_apart is not None
    assert len(pending.append(some_frames(5, T0))) == 5
    pending.close()


@pytest.mark.parametrize("end", ["-wal", "-shm"])
@pytest.mark.parametrize("what", ["folder", "FIFO", "link", "garbage"])
def test_what_lies_beside_pending_rows_keeps_no_more_from_coming(tmp_path: Path, what: str, end: str) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(some_frames(5, T0))
    pending.close()
    (tmp_path / f"pending.db{end}").unlink(missing_ok=True)
    stand_in(tmp_path / f"pending.db{end}", what)
    again = Pending(tmp_path, "BTC_USDT")
    assert len(again.append(some_frames(5, T0))) == 5
    again.close()
