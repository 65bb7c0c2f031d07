"""One large frame at a time, whoever reads it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.blobs import LARGE
from mexc_pipeline.spool.segment import SegmentReader
from mexc_pipeline.spool.walk import segments
from mexc_pipeline.store import large as large_frames
from mexc_pipeline.store.engine import EngineError
from mexc_pipeline.store.large import one_at_a_time
from support.storing import Recording


def test_the_second_waits_until_the_first_is_done() -> None:
    came = threading.Event()

    def second() -> None:
        with one_at_a_time() as large:
            large()
            came.set()

    with one_at_a_time() as large:
        large()
        large()
        beside = threading.Thread(target=second)
        beside.start()
        assert not came.wait(0.1)
    assert came.wait(10)
    beside.join()


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_frames, "_WAIT_S", 0.01)
    with one_at_a_time() as large:
        large()
        with pytest.raises(EngineError, match="no room"), one_at_a_time() as other:
            other()
    with one_at_a_time() as large:  # what was waited for in vain is not given back
        large()


def test_small_frames_wait_for_nobody() -> None:
    with one_at_a_time() as large:
        large()
        with one_at_a_time():
            pass


def test_a_reader_says_before_it_takes_a_large_frame(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    sizes = [10, LARGE - 1, LARGE, 10, 3 * LARGE]
    recording.spool.append(
        [Frame(recording.now + n, None, int(Mt.DEAD_LETTER), b"x" * size) for n, size in enumerate(sizes)]
    )
    ((_, path),) = segments(recording.folder)
    said: list[int] = []
    with SegmentReader(path) as reader:
        first = reader.read(0, 2, large=lambda: said.append(0))
        assert reader.has_large()
        assert not said
        rest = reader.read(first.seq[-1], large=lambda: said.append(1))
        again = [block.m for block in reader.blocks(0, 1)]
    recording.close()
    assert said == [1, 1]
    assert [len(m) for m in [*first.m, *rest.m]][-len(sizes) :] == sizes
    assert [m for (m,) in again] == [*first.m, *rest.m]


def test_a_segment_of_small_frames_has_none(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.add(50)
    ((_, path),) = segments(recording.folder)
    with SegmentReader(path) as reader:
        assert not reader.has_large()
    recording.close()
