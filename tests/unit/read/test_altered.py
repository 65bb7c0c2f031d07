"""A file whose rows are not what was written, or of a version to come: no reader gives other rows without a word."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline import read
from mexc_pipeline.config import Config
from mexc_pipeline.errors import UserError
from mexc_pipeline.export import main
from mexc_pipeline.export.parquet import SCHEMA, FileError
from mexc_pipeline.read import LeftOutWarning
from mexc_pipeline.rows import MT_NAMES, Frame, Mt
from support.examples import examples
from support.spools import BOOK, CONTRACT, DEAL, FAIR, FUNDING, INDEX, KLINE, SECOND, T0, TICKER, configure, open_spool

FRAMES = (
    (Mt.DEPTH, BOOK),
    (Mt.DEAL, DEAL),
    (Mt.TICKER, TICKER),
    (Mt.FUNDING, FUNDING),
    (Mt.INDEX_PRICE, INDEX),
    (Mt.FAIR_PRICE, FAIR),
    (Mt.KLINE, KLINE),
    (Mt.CONTRACT, CONTRACT),
    (Mt.DEAL, DEAL),
    (Mt.DEPTH, BOOK.replace("5220571685", "5220571686")),
    (Mt.EVENT, '{"event":"disconnected"}'),
)
READERS: dict[str, Callable[..., pd.DataFrame]] = {
    **{name: getattr(read, name) for name in ("trades", "tickers", "funding", "index_price", "fair_price", "klines")},
    **{name: getattr(read, name) for name in ("contracts", "book")},
    "book at": lambda symbol, export_dir: read.book(symbol, at=T0 + 9 * SECOND, export_dir=export_dir),
    "frames": lambda symbol, export_dir: read.frames(symbol, export_dir=export_dir, types=["d", "dp", "ev"]),
    "stretch": lambda symbol, export_dir: read.trades(symbol, T0, T0 + 9 * SECOND, export_dir=export_dir),
}


@pytest.fixture(scope="module")
def config() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        config = configure(Path(folder))
        spool = open_spool(config)
        spool.append([Frame(T0 + 1000 * n, None, mt, m.encode()) for n, (mt, m) in enumerate(FRAMES)])
        spool.tick(T0 + 10 * SECOND)
        spool.close()
        assert main(config).ok
        yield config


def original(config: Config) -> Path:
    (path,) = config.export_dir.glob("*.parquet")
    return path


def altered(config: Config, to: Path, column: str, row: int, value: object) -> Path:
    """The file with another value in one place."""
    whole = pq.read_table(original(config))
    changed = whole.set_column(SCHEMA.get_field_index(column), SCHEMA.field(column), _column(whole, column, row, value))
    path = to / original(config).name
    pq.write_table(changed.replace_schema_metadata(whole.schema.metadata), path)
    return path


def _column(whole: Any, column: str, row: int, value: object) -> Any:
    kind = SCHEMA.field(column).type
    if column not in ("mt", "m"):
        values = whole.column(column).to_pylist()
        values[row] = value
        return pa.array(values, kind)
    texts = whole.column(column).cast(pa.string()).cast(pa.binary()).to_pylist()
    texts[row] = value.encode() if isinstance(value, str) else value
    text = pc.cast(pa.array(texts, pa.binary()), options=pc.CastOptions(pa.string(), allow_invalid_utf8=True))
    return text.dictionary_encode().cast(kind) if column == "mt" else text


def given_by(reader: str, folder: Path) -> tuple[list[str], pd.DataFrame | None]:
    """What is said, and the result; None where it is an error."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            df = READERS[reader]("btc", export_dir=folder)
        except UserError as error:
            return [str(error)], None
    return [str(one.message) for one in said], df


@pytest.fixture(scope="module")
def known(config: Config) -> dict[str, tuple[list[str], pd.DataFrame | None]]:
    return {reader: given_by(reader, config.export_dir) for reader in READERS}


OTHER_TYPES = st.none() | st.text(max_size=5).filter(lambda text: text not in MT_NAMES.values()) | st.just(b"\xff")
NO_FRAMES = (
    st.none() | st.text(max_size=20) | st.binary(max_size=20) | st.sampled_from(["{}", "[]", "null", '{"data":1}'])
)


CHANGES = st.tuples(st.just("mt"), OTHER_TYPES) | st.tuples(st.just("m"), NO_FRAMES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=examples(200))
@given(reader=st.sampled_from(list(READERS)), row=st.integers(0, len(FRAMES)), change=CHANGES)
def test_no_value_changes_a_result_without_a_word(
    config: Config,
    known: dict[str, tuple[list[str], Any]],
    reader: str,
    row: int,
    change: tuple[str, object],
) -> None:
    said_before, before = known[reader]
    with tempfile.TemporaryDirectory() as folder:
        altered(config, Path(folder), change[0], row, change[1])
        said, after = given_by(reader, Path(folder))
    if after is None or (reader == "frames" and change[0] == "m"):
        return  # `frames` shows a text as it is
    counted = after.attrs.get("skipped") or after.attrs.get("missing") or after.attrs.get("unknown_types")
    assert counted or said != said_before or after.equals(before)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("column", SCHEMA.names)
def test_a_row_that_lacks_a_value_is_named_with_its_file(
    config: Config, tmp_path: Path, column: str, reader: str
) -> None:
    path = altered(config, tmp_path, column, 3, None)
    with pytest.raises(FileError, match=rf"^{path}: row 3 \(from 0\) has no {column}; "):
        READERS[reader]("btc", export_dir=tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_a_type_to_come_is_counted_and_said(config: Config, tmp_path: Path, reader: str) -> None:
    path = altered(config, tmp_path, "mt", 2, "liq")
    with pytest.warns(LeftOutWarning, match=rf"does not know were left out \(1 liq; first seq 3 in {path}\)"):
        df = READERS[reader]("btc", export_dir=tmp_path)
    assert df.attrs["unknown_types"] == {"liq": 1}


@pytest.mark.parametrize(("column", "value", "said"), [("mt", "liq", "of the type liq"), ("m", "{", "cannot be read")])
def test_a_book_behind_which_the_recording_may_have_ended_says_so(
    config: Config, tmp_path: Path, column: str, value: str, said: str
) -> None:
    altered(config, tmp_path, column, len(FRAMES) - 1, value)
    with pytest.warns(UserWarning, match=said):
        df = read.book("btc", at=T0 + 9500, export_dir=tmp_path)
    assert said in df.attrs["stale"]


def test_an_event_that_cannot_be_read_is_said_of_the_book_behind_it(config: Config, tmp_path: Path) -> None:
    altered(config, tmp_path, "m", 10, '{"event":"disconnected"')
    with pytest.warns(LeftOutWarning, match="1 an event that cannot be read; first seq 11"):
        READERS["book at"]("btc", export_dir=tmp_path)


def test_a_depth_frame_that_cannot_be_read_may_have_been_the_newest_full_one(config: Config, tmp_path: Path) -> None:
    altered(config, tmp_path, "m", 9, "{")
    with pytest.raises(read.GapError, match=r"seq 10 .* cannot be read"):
        READERS["book at"]("btc", export_dir=tmp_path)
    df = read.book("btc", at=T0 + 9 * SECOND, export_dir=tmp_path, across_gaps=True)
    assert df.attrs["rx_ns"] == T0, "the one before"
