"""A recording that was stopped in order is told from one that goes on, was killed, or left rows without a seq."""

from __future__ import annotations

from pathlib import Path

from mexc_pipeline.events import Stopped
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.ending import stopped_at
from mexc_pipeline.spool.lifecycle import seal_left_open
from mexc_pipeline.spool.pending import Pending
from mexc_pipeline.spool.walk import segments
from support.spools import SECOND, T0, configure, open_spool, some_frames


def test_when_it_was_stopped_in_order(tmp_path: Path) -> None:
    config = configure(tmp_path)
    folder = config.spool_dir / "btc"
    assert stopped_at(folder) is None, "nothing was ever recorded"
    spool = open_spool(config)
    spool.append(some_frames(8, T0))
    assert stopped_at(folder) is None, "it goes on, or was killed"
    spool.append([Frame(T0 + SECOND, None, Mt.EVENT, Stopped(reason="disk full").m)])
    assert stopped_at(folder) is None, "it means to go on"
    spool.append([Frame(T0 + 2 * SECOND, None, Mt.EVENT, Stopped().m)])
    spool.close()
    assert stopped_at(folder) == T0 + 2 * SECOND
    seal_left_open(folder, T0 + 60 * SECOND)
    assert stopped_at(folder) == T0 + 2 * SECOND, "also once an export has closed its segment"
    left = Pending(folder, "BTC_USDT")
    left.append(some_frames(1, T0 + 70 * SECOND))
    left.close()
    assert stopped_at(folder) is None, "a later process was killed before its rows were numbered"


def test_an_older_end_is_not_taken_for_that_of_a_segment_that_cannot_be_read(tmp_path: Path) -> None:
    config = configure(tmp_path)
    folder = config.spool_dir / "btc"
    spool = open_spool(config)
    spool.append([*some_frames(8, T0), Frame(T0 + SECOND, None, Mt.EVENT, Stopped().m)])
    spool.tick(T0 + 11 * SECOND)
    assert stopped_at(folder) == T0 + SECOND
    spool.append(some_frames(8, T0 + 11 * SECOND))
    spool.close()
    _, (_, path) = segments(folder)
    path.write_bytes(b"no database" * 999)
    assert stopped_at(folder) is None
