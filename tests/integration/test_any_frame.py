"""Whatever the spool takes becomes a file: from any frame, through the real spool and export, to what is read back."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mexc_pipeline import read
from mexc_pipeline.exchange.protocol import unwrap
from mexc_pipeline.export import main
from mexc_pipeline.rows import MT_NAMES, Frame
from mexc_pipeline.verify.exports import exports
from support.spools import BOOK, DEAL, SECOND, T0, TICKER, configure, open_spool

REAL = [text.encode() for text in (BOOK, DEAL, TICKER)]
EVENTS = [b'{"event":"%s"%s}' % (name, more) for name, more in itertools.product(
    [b"gap", b"snapshot", b"started", b"stopped", b"repaired", b"regressed", b"\xff"],
    [b"", b',"count":-1', b',"count":"x"', b',"count":1e400', b',"last_rx":null',
     b',"count":' + b"9" * 400, b',"reason":7',
     b',"book":' + b"[" * 2000 + b"]" * 2000],
)]  # fmt: skip
TEXTS = st.one_of(
    st.binary(max_size=60), st.text(max_size=20).map(str.encode), st.sampled_from([*REAL, *EVENTS, b"", b"\x00"])
)
BROKEN = st.tuples(TEXTS, st.integers(0, 200), st.binary(max_size=2)).map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] :])
FRAMES = st.tuples(
    st.one_of(st.none(), st.integers(), st.sampled_from([0, -1, 2**63, -(2**63), 10**13 - 1, 10**13, 10**30])),
    st.integers(1, 6) | st.integers(-1, 300),
    TEXTS | BROKEN,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example([(None, 5, m) for m in EVENTS])
@given(st.lists(FRAMES, min_size=1, max_size=12))
def test_any_frame_becomes_a_row_of_a_proven_file(given_frames: list[tuple[int | None, int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = configure(Path(folder))
        spool = open_spool(config)
        spool.append([Frame(T0 + n, ts, mt, m) for n, (ts, mt, m) in enumerate(given_frames)])
        spool.tick(T0 + 10 * SECOND)
        spool.close()
        assert main(config).ok
        report = exports(config)
        assert report.ok, report.lines()
        rows = read.frames("btc", export_dir=config.export_dir)
        assert len(rows) == len(given_frames) + 1, "and the sealed row"
        times = rows.ts.astype("int64[pyarrow]").to_list()
        for (ts, mt, m), kept, name, at in zip(given_frames, rows.m, rows.mt, times, strict=False):
            assert kept.encode() == m or unwrap(kept.encode()) == (1, m), "as it came, or wrapped whole"
            assert name == MT_NAMES.get(mt, "dl")
            assert at == (ts if ts is not None and 0 <= ts < 10**13 else T0 // 1_000_000)
