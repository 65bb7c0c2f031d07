"""The verdict on an hour: when received, stored and exported agree, and that a count that does not add up differs."""

from __future__ import annotations

import pytest

from mexc_pipeline.ledger.conservation import Conservation, Side

A, B = "a" * 64, "b" * 64


def entry(received: Side | None, stored: Side | None, exported: Side | None) -> Conservation:
    return Conservation("btc", "2026112120", 1, "btc2026112120.parquet", received, stored, exported, 11, 20)


@pytest.mark.parametrize(
    ("received", "stored", "exported", "verdict"),
    [
        (Side(10, A), Side(10), Side(10, A), "proven"),
        (None, None, Side(10, A), "proven"),
        (Side(10, A), Side(10), None, "waiting"),
        (Side(10, A), None, Side(10, B), "differs"),
        (Side(10, A), Side(9), Side(10, A), "differs"),
        (Side(10, A), Side(10, ok=False), Side(10, A), "differs"),
        (None, None, Side(9, A), "differs"),
    ],
)
def test_verdict(received: Side | None, stored: Side | None, exported: Side | None, verdict: str) -> None:
    assert entry(received, stored, exported).verdict == verdict


def test_counts_that_do_not_sum_up_differ() -> None:
    sound = Conservation("btc", "2026112120", 1, "f", exported=Side(2, A), first_seq=1, last_seq=2, counts={"t": 2})
    short = Conservation("btc", "2026112120", 1, "f", exported=Side(2, A), first_seq=1, last_seq=2, counts={"t": 1})
    assert (sound.verdict, short.verdict) == ("proven", "differs")


def test_ratio_and_digest() -> None:
    row = Conservation("btc", "p", 1, "f", Side(1, A), None, None, bytes=10, raw_bytes=95)
    assert (row.ratio, row.digest) == (9.5, A)
    assert Conservation("btc", "p", 1, "f").ratio is None
