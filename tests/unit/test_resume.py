"""The version from which the next process goes on."""

from __future__ import annotations

from pathlib import Path

from mexc_pipeline.collector.resume import last_version
from mexc_pipeline.periods import Period
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.writer import Spool

SECOND = 10**9
AT = 1_800_000_000 * SECOND


def record(folder: Path, *frames: tuple[int, Mt, bytes]) -> None:
    """Frames at seconds from a fixed moment; the length of a period is 2 s."""
    spool = Spool(folder, "btc", "BTC_USDT", Period(2 * SECOND))
    for second, mt, m in frames:
        spool.append([Frame(AT + second * SECOND, None, mt, m)])
    spool.close()


def depth(version: int, channel: str = "push.depth") -> bytes:
    return b'{"channel":"%s","data":{"begin":%d,"end":%d}}' % (channel.encode(), version - 1, version)


def test_the_newest_frame_counts_also_of_an_earlier_segment(tmp_path: Path) -> None:
    record(
        tmp_path,
        (0, Mt.DEPTH, depth(7)),
        (1, Mt.DEPTH, depth(9)),
        (2, Mt.TICKER, b'{"channel":"push.ticker"}'),
        (4, Mt.EVENT, b'{"event":"stopped"}'),
    )
    assert last_version(tmp_path) == 9


def test_nothing_is_known_without_incremental_depth(tmp_path: Path) -> None:
    assert last_version(tmp_path / "none") == 0
    record(tmp_path, (0, Mt.DEPTH, depth(7)), (1, Mt.DEPTH, depth(9, "push.depth.full")))
    assert last_version(tmp_path) == 0


def test_a_segment_that_cannot_be_read_ends_the_search(tmp_path: Path) -> None:
    record(tmp_path, (0, Mt.DEPTH, depth(7)), (2, Mt.DEPTH, depth(9)))
    newest = sorted(tmp_path.glob("*.sqlite"))[-1]
    for path in tmp_path.glob(f"{newest.name}*"):
        path.write_bytes(b"no database" * 1000)
    assert last_version(tmp_path) == 0
