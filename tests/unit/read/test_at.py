"""How old the book of an instant is, and whether anything says that it may have changed unseen."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pandas as pd
import pytest

from mexc_pipeline import read
from mexc_pipeline.config import Config
from mexc_pipeline.export import main
from mexc_pipeline.rows import Frame, Mt
from support.spools import BOOK, DEAL, SECOND, T0, event, open_spool

EV, DP, D = int(Mt.EVENT), int(Mt.DEPTH), int(Mt.DEAL)
LOST = (EV, event("disconnected", code=1006, reason="reset").decode())
BACK = (EV, event("connected", egress="direct", peer="x", local="y", url="z").decode())
BEGUN = (EV, event("started", version="0.1.0", clean=False).decode())
ENDED = (EV, event("stopped").decode())
GIVEN_UP = (EV, event("given_up", channel="push.depth.full", reason="silent").decode())
OTHER_GIVEN_UP = (EV, event("given_up", channel="push.deal", reason="silent").decode())
CLOCK = (EV, event("clock", step_ms=1500.0).decode())
GAP = (EV, event("gap", channel="push.depth", **{"from": 1, "to": 2, "count": 2}).decode())


def record(config: Config, *rows: tuple[float, tuple[int, str]]) -> Path:
    """Rows at seconds after T0, in periods of ten seconds that are sealed as the clock passes them, and their files."""
    spool = open_spool(config)
    for at, (mt, m) in rows:
        rx = T0 + int(at * SECOND)
        spool.tick(rx)
        spool.append([Frame(rx, None, mt, m.encode())])
    spool.tick(T0 + (int(rows[-1][0]) // 10 + 1) * 10 * SECOND)
    spool.close()
    assert main(config).ok
    return config.export_dir


def book_at(folder: Path, at: float) -> tuple[pd.DataFrame, str]:
    """The book, and the one warning or none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        df = read.book("btc", at=T0 + int(at * SECOND), export_dir=folder)
    assert all(w.category is read.StaleBookWarning and w.filename == __file__ for w in caught)
    assert len(caught) == bool(df.attrs["stale"])
    if caught:
        assert str(caught[0].message).endswith(df.attrs["stale"])
    return df, df.attrs["stale"]


FULL, DEALS = (DP, BOOK), (D, DEAL)


def test_an_outage_is_said_until_a_book_comes_again(config: Config) -> None:
    folder = record(
        config, (0, BACK), (1, FULL), (1.5, DEALS), (3, LOST), (6, BACK), (7, DEALS), (8, FULL), (9, DEALS), (9.5, FULL)
    )
    for at, stale in (
        (1, ""),
        (1.2, ""),
        (1.5, ""),
        (2, "nothing was received after seq 3 until `disconnected` at seq 4"),
        (3, "`disconnected` at seq 4 lies between the two"),
        (5, "`disconnected` at seq 4 lies between the two"),
        (7.5, "`disconnected` at seq 4 lies between the two"),
        (8, ""),
        (8.7, ""),
        (9.2, ""),
        (9.5, ""),
        (9.6, "the files end before it, with seq 9"),
        (3600, "the files end before it, with seq 10"),
    ):
        df, said = book_at(folder, at)
        assert said == stale, at
        newest = 9.5 if at >= 9.5 else 8 if at >= 8 else 1
        assert df.attrs["rx_ns"] == T0 + int(newest * SECOND)
        assert df.attrs["age_ns"] == int(at * SECOND) - int(newest * SECOND)
        assert json.dumps(df.attrs), "as pandas needs it to write Parquet"


@pytest.mark.parametrize(
    ("between", "name"),
    [
        (LOST, "disconnected"),
        (ENDED, "stopped"),
        (BEGUN, "started"),
        (GIVEN_UP, "given_up"),
        ((EV, event("stalled", channel="push.depth.full", age_s=40.0).decode()), "stalled"),
        ((EV, event("stalled", channel="push.depth", age_s=40.0).decode()), ""),
        ((EV, event("stalled", reason="asked for").decode()), "stalled"),
        (OTHER_GIVEN_UP, ""),
        (CLOCK, ""),
        (GAP, ""),
        (DEALS, ""),
    ],
)
def test_what_ends_the_stream_of_depth(config: Config, between: tuple[int, str], name: str) -> None:
    folder = record(config, (1, FULL), (2, between), (9, DEALS))
    assert book_at(folder, 3)[1] == (f"`{name}` at seq 2 lies between the two" if name else "")
    before = book_at(folder, 1.5)[1]
    assert before == (f"nothing was received after seq 1 until `{name}` at seq 2" if name else "")


def test_a_kill_that_only_the_next_start_tells_of(config: Config) -> None:
    """Its period is sealed at its end, whenever its last row came; a whole period without a row has no file."""
    folder = record(config, (1, FULL), (32, CLOCK), (32, BEGUN), (33, FULL), (34, DEALS))
    for at in (5, 9.9999, 15, 31):
        stale = book_at(folder, at)[1]
        assert stale.endswith("until `started` at seq 4"), (at, stale)
    assert book_at(folder, 33.5)[1] == ""


def test_recording_that_goes_on_over_an_edge_is_no_end(config: Config) -> None:
    folder = record(config, (1, FULL), (9, FULL), (12, DEALS), (13, FULL))
    assert [book_at(folder, at)[1] for at in (5, 9.5, 10, 11, 12.5, 13)] == [""] * 6


def test_rows_that_are_in_no_file(config: Config) -> None:
    folder = record(config, (1, FULL), (9, FULL), (12, FULL), (22, FULL), (23, DEALS))
    assert book_at(folder, 15)[1] == ""
    sorted(folder.glob("btc*.parquet"))[1].unlink()
    assert book_at(folder, 8)[1] == ""
    assert book_at(folder, 9.5)[1] == "rows 4 to 5 after it are in no file", "they would tell whether it was recorded"
    assert book_at(folder, 15)[1] == "rows 4 to 5 after it are in no file"
    assert book_at(folder, 22.5)[1] == ""
