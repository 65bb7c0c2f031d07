"""What a recording says of itself as it begins is what its spool then has."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mexc_pipeline.collector.recording import Recording
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.pending import Pending, started
from support.spools import T0, configure, fill, some_frames


def test_the_line_that_it_records_counts_what_is_not_numbered_yet(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(tmp_path)
    fill(config)
    symbol = config.symbols[0]
    folder = config.spool_dir / symbol.id
    left = Pending(folder, symbol.name)
    left.append([Frame(T0, None, Mt.EVENT, started("1", None)), *some_frames(30, T0)])
    left.close()
    with SpoolLock(folder) as lock:
        recording = Recording(config, symbol, lock)
        recording.open()
        recording.begin([])
        assert recording._opening is not None
        spool = recording._opening.spool.result(60)
        with caplog.at_level(logging.INFO):
            recording._opened(recording._opening.spool)
        (said,) = [record.fields for record in caplog.records if record.msg == "recording"]  # type: ignore[attr-defined]
        assert (said["last_seq"], said["pending"]) == (spool.last_seq, 32), "its own `started` row comes last of them"
        assert not {"next_seq", "clean"} & said.keys()
        spool.close()
