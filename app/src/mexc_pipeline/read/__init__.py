"""Reading exported files back as pandas DataFrames.

All functions take a symbol (id such as ``btc``, or the exchange's name ``BTC_USDT``), a half-open stretch of time
``start`` ≤ rx < ``end`` (ISO 8601 text, datetime, ``pandas.Timestamp`` or Unix nanoseconds; without a zone it is UTC;
None is open) and the folder of the files, and read plain and part files alike. Columns are Arrow-backed. Numbers are
exact decimals unless ``floats=True``, of the type named below where all fit it, else of a wider one.
``frames(…, imported=True)`` reads files of the v4 pipeline instead (``export_dir/imported``, or ``export_dir`` itself):
there ``rx`` and ``seq`` are null, time means ``ts``, and ``m`` is not a frame, so that only ``frames`` reads them.

Rows are in seq order. ``rx`` goes back in it only where the recorder's clock was set back by more than a minute (its
``clock`` event with ``restarted``): ``df.attrs["set_back"]`` lists the seqs at which it does, and a warning says so.
``seq`` goes back only where files have the same rows: ``df.attrs["repeated"]`` lists the seqs, and a warning says so.

Frames that cannot be decoded, and those with a number of more than 38 digits before or behind its point, are left
out, counted in ``df.attrs["skipped"]``, the first hundred seqs listed in ``df.attrs["skipped_seq"]``, and warned of
(:class:`LeftOutWarning`). ``df.attrs["missing"]`` counts frames that lack a field the exchange has always sent, or have
null for it; where all do, a warning says so. A time
of other than 13 digits is not known to be in milliseconds: its column is null, ``df.attrs["untimed"]`` counts them by
the exchange's name of the field, and a warning says so.
``df.attrs["dead_letters"]`` counts the dead letters in the stretch, ``df.attrs["dead_letter_reasons"]`` says what is
wrong with them; one in a hundred frames and more are warned of (:class:`DeadLetterWarning`). Those whose only fault is
their ``ts`` are decoded with the others. ``df.attrs["unknown_types"]`` counts the rows in the stretch whose type this
version does not know, and a :class:`LeftOutWarning` says where they were left out. UserError where a symbol has no
files, FileError for an unreadable file and one in which a row lacks a value, ArgumentError (a UserError and a
ValueError) for an argument that is none.
"""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mexc_pipeline.exchange.deadletters import SHARE, TYPES, meant, reason
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.exchange.trades import is_trade
from mexc_pipeline.export.order import Placed
from mexc_pipeline.export.parquet import SCHEMA, metadata
from mexc_pipeline.ledger.minutes import counted
from mexc_pipeline.read import decode, moment
from mexc_pipeline.read import minutes as minute_by_minute
from mexc_pipeline.read.arguments import ArgumentError, flags, level_count, row_types
from mexc_pipeline.read.decode import Skipped
from mexc_pipeline.read.files import Instant, Unknown, bounds, find, instant_ns, repeated, set_back, tables
from mexc_pipeline.read.numbers import unified
from mexc_pipeline.read.rebuild import GapError
from mexc_pipeline.rows import FRAME_TYPES, MT_NAMES, Mt

__all__ = [
    "ArgumentError",
    "DeadLetterWarning",
    "GapError",
    "Instant",
    "LeftOutWarning",
    "StaleBookWarning",
    "book",
    "completeness",
    "contracts",
    "fair_price",
    "frames",
    "funding",
    "index_price",
    "klines",
    "tickers",
    "trades",
]

_CHANNELS = {name: tuple(channel for channel in TYPES if TYPES[channel] == name) for name in TYPES.values()}
_FRAMES = tuple(MT_NAMES[mt] for mt in (*FRAME_TYPES, Mt.CONTRACT, Mt.DEAD_LETTER))
_NO_ACCIDENT = 10
"""Changes of a book in succession that lack the same side."""


class LeftOutWarning(UserWarning):
    """Frames, or times in them, could not be read and are not in what was read."""


class StaleBookWarning(UserWarning):
    """The book of an instant may have changed before it without a row that tells: nothing was received, or no file
    holds it."""


class DeadLetterWarning(UserWarning):
    """Much of what arrived in the stretch that was read was not understood when it was recorded."""


def frames(
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    export_dir: Path | str,
    types: Sequence[str] | None = None,
    imported: bool = False,
) -> pd.DataFrame:
    """Rows as they are in the files, in seq order.

    Columns: ``ts`` timestamp[ms, UTC], the frame's own time; ``mt`` string, one of t ticker, d deal, dp depth, dl dead
    letter, ev event, r repaired, f funding, i index price, p fair price, k kline, c contract, x other; ``m`` string,
    the frame as sent; ``rx`` timestamp[ns, UTC], when it was received; ``seq`` uint64. ``types`` picks row types.
    """
    flags(imported=imported)
    types = row_types(types)
    files = find(symbol, export_dir, start, end, imported=imported)
    stretch = _Stretch(files, start, end, types, imported=imported)
    df = _pandas(pa.concat_tables([*stretch] or [_nothing()]))
    stretch.tell(df, 3)
    return df


def trades(
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    export_dir: Path | str,
    floats: bool = False,
) -> pd.DataFrame:
    """One row per trade, frames in seq order and trades in the order of the wire (within a frame not by time).

    Columns: ``rx``, ``ts``, ``seq`` of the frame; ``n`` int32, position in it from 0; ``time`` timestamp[ms, UTC] of
    the trade; ``price`` decimal128(19, 12) in the quote currency; ``volume`` decimal128(18, 6) in contracts; ``side``
    string, the taker's: buy or sell; ``open_type`` int8: 1 opens a position, 2 reduces one, 3 neither;
    ``self_trade`` bool; ``id`` string, null in frames before 2026; ``cts`` timestamp[ms, UTC], the matching engine's,
    null before mid-2026; ``filled`` bool: the socket did not bring it, it was fetched over REST, at its ``rx``, and
    stands in a row of its own. Fields: official futures WebSocket page, 2026-04, and observed on the wire, 2026-09.
    """
    flags(floats=floats)
    source = _Stretch(find(symbol, export_dir, start, end), start, end, ["d", "r"], meant_too=True)
    return _decoded(source, lambda table, skipped: decode.trades(table, skipped, floats=floats))


def tickers(
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    export_dir: Path | str,
    floats: bool = False,
) -> pd.DataFrame:
    """One row per ticker frame; what a frame leaves out is null.

    Columns: ``rx``, ``ts``, ``seq``; ``time`` timestamp[ms, UTC], last trade; prices, decimal128(19, 12): ``last``,
    ``bid``, ``ask``, ``fair`` (mark), ``index``, ``high24``, ``low24``, ``max_bid``, ``min_ask`` (price limits);
    decimal128(38, 18): ``volume24`` and ``open_interest`` in contracts, ``amount24`` in the quote currency,
    ``funding_rate`` and ``change_rate24`` as fractions, ``change24`` as a price.
    """
    flags(floats=floats)
    source = _Stretch(find(symbol, export_dir, start, end), start, end, ["t"], meant_too=True)
    return _decoded(source, lambda table, skipped: decode.tickers(table, skipped, floats=floats))


def funding(
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    export_dir: Path | str,
    floats: bool = False,
) -> pd.DataFrame:
    """One row per funding frame, which come about each minute whether the rate has changed or not.

    Columns: ``rx``, ``ts``, ``seq`` of the frame; ``rate`` decimal128(38, 18), the fraction that is paid at the next
    settlement as it stands; ``next_settle`` timestamp[ms, UTC], when that is. The wire calls the rate ``rate``, the
    documentation ``fundingRate``: both are read. Fields: official futures WebSocket page, 2026-04, and observed on the
    wire, 2026-09.
    """
    return _simple(symbol, start, end, export_dir, "f", decode.funding, floats)


def index_price(
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    export_dir: Path | str,
    floats: bool = False,
) -> pd.DataFrame:
    """One row per frame of the index price; of an inverse contract (``BTC_USD``) it is the linear one's.

    Columns: ``rx``, ``ts``, ``seq`` of the frame; ``price`` decimal128(19, 12) in the quote currency. The first frame
    of a connection may repeat an old price with its old ``ts``. Fields: official futures WebSocket page, 2026-04, and
    observed on the wire, 2026-09.
    """
    return _simple(symbol, start, end, export_dir, "i", decode.prices, floats)


def fair_price(
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    export_dir: Path | str,
    floats: bool = False,
) -> pd.DataFrame:
    """One row per frame of the fair price, by which positions are marked. Columns as for :func:`index_price`."""
    return _simple(symbol, start, end, export_dir, "p", decode.prices, floats)


def klines(
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    export_dir: Path | str,
    floats: bool = False,
) -> pd.DataFrame:
    """One row per kline frame: the exchange's own candles, each many times while it grows. The last row of an
    ``interval`` and ``start`` is how it stood when the next one began.

    Columns: ``rx``, ``ts``, ``seq`` of the frame; ``interval`` string, Min1 to Month1; ``start`` timestamp[ms, UTC] of
    its window (on the wire in seconds); ``open``, ``high``, ``low``, ``close`` decimal128(19, 12) in the quote
    currency; ``volume`` decimal128(18, 6) in contracts; ``amount`` decimal128(38, 18) in the quote currency; ``ro``,
    ``rh``, ``rl``, ``rc`` decimal128(19, 12), which no documentation explains. Fields: official futures WebSocket page,
    2026-04, and a capture of 2022.
    """
    return _simple(symbol, start, end, export_dir, "k", decode.klines, floats)


def contracts(
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    export_dir: Path | str,
    floats: bool = False,
) -> pd.DataFrame:
    """One row per specification of the contract: the first in the stretch, and each that differs from the one before
    it. ``df.attrs["unchanged"]`` counts those that say again what was said.

    Columns: ``rx``, ``ts``, ``seq`` of the frame; ``symbol``, ``base``, ``quote``, ``settle`` (currency) string;
    ``contract_size`` decimal128(38, 18), of the base currency in one contract; ``price_scale`` int64, digits behind the
    point of a price; ``price_unit`` decimal128(19, 12), the tick; ``volume_scale`` int64; ``volume_unit``,
    ``min_volume``, ``max_volume`` decimal128(18, 6) in contracts; ``min_leverage``, ``max_leverage`` int64;
    ``maker_fee``, ``taker_fee``, ``maintenance_margin``, ``initial_margin`` decimal128(38, 18), fractions; ``state``
    int8: 0 trades, 1 in delivery, 2 delivered, 3 off the exchange, 4 paused; ``hidden``, ``api_allowed`` bool;
    ``opening`` timestamp[ms, UTC]. What a frame leaves out is null. Fields: official futures pages, 2026-04.
    """
    df = _simple(symbol, start, end, export_dir, "c", decode.contracts, floats)
    names = {metadata(file.path).get("symbol", "") for file in find(symbol, export_dir, start, end)}
    df = df[df["symbol"].isna() | df["symbol"].isin(names)]
    said = df.drop(columns=["rx", "ts", "seq"]).astype(object)
    rows = list(said.where(said.notna(), None).itertuples(index=False, name=None))
    news = [n == 0 or row != rows[n - 1] for n, row in enumerate(rows)]
    changed = df[news].reset_index(drop=True)
    changed.attrs = {**df.attrs, "unchanged": len(df) - len(changed)}
    return changed


def _simple(
    symbol: str,
    start: Instant | None,
    end: Instant | None,
    export_dir: Path | str,
    mt: str,
    build: Callable[..., Any],
    floats: bool,
) -> pd.DataFrame:
    """What all rows of one type say."""
    flags(floats=floats)
    source = _Stretch(find(symbol, export_dir, start, end), start, end, [mt], meant_too=True)
    return _decoded(source, lambda table, skipped: build(table, skipped, floats=floats), stacklevel=4)


def book(
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    at: Instant | None = None,
    export_dir: Path | str,
    levels: int | None = None,
    floats: bool = False,
    across_gaps: bool = False,
) -> pd.DataFrame:
    """Books in long form: one row per book, side and level, at most ``levels`` a side.

    With ``at``, the one book of that instant, as of the last row in seq order with rx ≤ ``at``: the newest full-depth
    frame, which has the best levels alone, or, where depth was recorded as ``merged`` or ``each``, rebuilt with every
    level from a snapshot, the frames since, and what was repaired. ``rx``, ``ts`` and ``seq`` are then those of the
    newest frame in it. Where both were recorded it is the rebuilt one; the newest full-depth frame where versions are
    missing in that, where no snapshot lies before, and where incremental frames have stopped (ten full-depth frames,
    or those of a new connection, came after the last). ``df.attrs["channel"]`` tells: ``push.depth`` for a rebuilt
    book, ``push.depth.full`` for a frame. GapError (a UserError) where
    versions are missing on the way, unless ``across_gaps``; ``df.attrs["gaps"]`` lists them. UserError where no
    snapshot lies before. ``df.attrs["rx_ns"]`` is that ``rx`` in Unix ns, ``df.attrs["age_ns"]`` how long before the
    instant it was; where nothing was received between the two, or no file holds it, ``df.attrs["stale"]`` says why
    (else it is empty), and a :class:`StaleBookWarning`. ``df.attrs["missing"]`` counts the changes since the snapshot
    that lack a side, which is no change of it; where all do, the same warning says so.

    Without ``at``, every full-depth frame. Incremental ones say nothing without the book before them: they are left
    out and counted in ``df.attrs["incremental"]``, also where both were recorded.

    Columns: ``rx``, ``ts``, ``seq`` of the frame; ``version`` int64 of the book; ``cts`` timestamp[ms, UTC];
    ``side`` string, ask or bid; ``level`` int32, 1 is the best; ``price`` decimal128(19, 12); ``volume``
    decimal128(18, 6) in contracts; ``orders`` int64.
    """
    flags(floats=floats, across_gaps=across_gaps)
    levels = level_count(levels)
    if at is not None:
        if start is not None or end is not None:
            raise ArgumentError("at is one instant; leave start and end out")
        at_ns = instant_ns(at)
        found = moment.book_at(find(symbol, export_dir), at_ns, across_gaps=across_gaps)
        df = _pandas(moment.table(found.book, levels=levels, floats=floats), found.set_back)
        df.attrs["gaps"] = [tuple(gap) for gap in found.book.gaps]
        df.attrs["missing"] = dict(found.book.absent)
        for side, count in found.book.absent.items():
            if count == found.book.updates >= _NO_ACCIDENT:
                text = (
                    f"none of the {count:,} changes since the book's snapshot has {side}: that side may be out of date"
                )
                warnings.warn(text, StaleBookWarning, stacklevel=2)
        _tell(df, found.dead, found.frames, stacklevel=3)
        _tell_unknown(df, found.unknown, stacklevel=3)
        age = at_ns - found.book.row.rx
        df.attrs |= {"channel": found.book.channel, "rx_ns": found.book.row.rx, "age_ns": age, "stale": found.stale}
        if found.stale:
            text = f"this book is {age / 1e9:.3f} s older than the instant and may have changed since: {found.stale}"
            warnings.warn(text, StaleBookWarning, stacklevel=2)
        return df
    source = _Stretch(find(symbol, export_dir, start, end), start, end, ["dp"], meant_too=True)
    return _decoded(source, lambda table, skipped: decode.book(table, skipped, levels=levels, floats=floats))


def completeness(
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    export_dir: Path | str,
) -> pd.DataFrame:
    """One row per minute: its recorded trades against the exchange's own candle of it, which the recorder fetches once
    an hour and which is in the files like everything else. Time is the exchange's: ``start`` ≤ minute < ``end``.

    Columns: ``minute`` timestamp[ms, UTC], its beginning; ``verdict`` string: ``agrees``, ``differs``, or ``unknown``;
    ``why`` string: of one that differs the fields that do, of one that is unknown the reason, else null; ``rule``
    string: ``all`` or ``without self-trades``, by which trades the candle is made, null where by neither; ``trades``
    int64 that are counted, of them ``self_trades`` and ``filled`` (fetched over REST); ``repeated`` int64 that came
    once more and are not counted. Of each of ``volume`` (contracts), ``amount`` (quote currency; null where a
    contract's size is not known), ``open``, ``high``, ``low``, ``close`` (the trades' own) the trades' figure, the
    exchange's (``candle_…``) and the first less the second (``…_difference``), decimals as of :func:`klines`.

    ``df.attrs["agree"]``, ``["differ"]`` and ``["unknown"]`` count the verdicts.
    """
    low, high = bounds(start, end)
    files = find(
        symbol,
        export_dir,
        None if low is None else max(0, low - minute_by_minute.BEFORE_NS),
        None if high is None else min(high + minute_by_minute.BEHIND_NS, 2**63 - 2),
    )
    found = minute_by_minute.minutes_of(files, low, high)
    df: pd.DataFrame = minute_by_minute.table(found).to_pandas(types_mapper=pd.ArrowDtype)
    df.attrs |= counted(found)._asdict()
    return df


def _paths(files: Sequence[Placed]) -> list[Path]:
    return [file.path for file in files]


class _Stretch:
    """The rows of some types in a stretch of time, table by table, and the dead letters met on the way.

    ``meant_too``: dead letters that would be of these types but for their ``ts`` come along in their places, and of
    what was fetched over REST only trades.
    """

    def __init__(
        self,
        files: Sequence[Placed],
        start: Instant | None,
        end: Instant | None,
        types: Sequence[str] | None,
        *,
        meant_too: bool = False,
        imported: bool = False,
    ) -> None:
        self._paths = _paths(files)
        self._imported = imported
        self._low, self._high = bounds(start, end)
        self._types = types
        self._meant_too = meant_too
        self._channels = {c for t in types or () for c in _CHANNELS.get(t, ())} if meant_too else set()
        self.reasons: Counter[str] = Counter()
        self.frames = 0
        self.unknown = Unknown()

    def __iter__(self) -> Iterator[Any]:
        for path in self._paths:
            symbol = metadata(path).get("symbol", "")
            for table in tables([path], self._low, self._high, imported=self._imported):
                self.unknown.take(table, path)
                yield self._take(table, symbol)

    def _take(self, table: Any, symbol: str) -> Any:
        types = table.column("mt")
        self.frames += pc.sum(pc.is_in(types, pa.array(_FRAMES))).as_py() or 0
        dead = pc.indices_nonzero(pc.equal(types, "dl")).to_pylist()
        come_along: list[int] = []
        letters = table.column("m").take(pa.array(dead, pa.int64())).cast(pa.binary()).to_pylist()
        for n, m in zip(dead, letters, strict=True):
            self.reasons[reason(m, symbol).value] += 1
            if self._channels and meant(m, symbol) in self._channels:
                come_along.append(n)
        if self._types is None:
            return table
        wanted = pc.is_in(types, pa.array(list(self._types), pa.string()))
        if self._meant_too and "r" in self._types:
            wanted = pc.and_(wanted, pc.invert(self._other_than_trades(table)))
        if come_along:
            wanted = pc.or_(wanted, pc.is_in(pa.array(range(len(table))), pa.array(come_along)))
        return table.filter(wanted)

    def _other_than_trades(self, table: Any) -> Any:
        """Which rows were fetched over REST and are changes of the book."""
        fetched = pc.indices_nonzero(pc.equal(table.column("mt"), "r")).to_pylist()
        texts = table.column("m").take(pa.array(fetched, pa.int64())).cast(pa.binary()).to_pylist()
        other = [n for n, m in zip(fetched, texts, strict=True) if not is_trade(content(m))]
        return pc.is_in(pa.array(range(len(table)), pa.int64()), pa.array(other, pa.int64()))

    def tell(self, df: pd.DataFrame, stacklevel: int) -> None:
        """Say how many dead letters and rows of unknown types there are, once all was read."""
        if not self._imported:
            _tell(df, self.reasons, self.frames, stacklevel + 1)
        _tell_unknown(df, self.unknown, stacklevel + 1, left_out=self._types is not None)


def _tell_unknown(df: pd.DataFrame, unknown: Unknown, stacklevel: int, *, left_out: bool = True) -> None:
    """Say on the frame how many rows of unknown types lie in what was read, and in a warning where they were left out
    of it."""
    df.attrs["unknown_types"] = dict(unknown.counts)
    if unknown.counts and left_out:
        warnings.warn(unknown.said, LeftOutWarning, stacklevel=stacklevel)


def _tell(df: pd.DataFrame, reasons: Counter[str], frames: int, stacklevel: int) -> None:
    """Say on the frame, and in a warning where they are many, how many dead letters lie in what was read."""
    count = reasons.total()
    df.attrs["dead_letters"] = count
    df.attrs["dead_letter_reasons"] = dict(reasons)
    if count and count >= frames * SHARE:
        why = ", ".join(f"{n:,} {name}" for name, n in reasons.most_common())
        text = f"{count:,} of {frames:,} frames in this stretch are dead letters ({why})"
        warnings.warn(text, DeadLetterWarning, stacklevel=stacklevel)


def _nothing() -> Any:
    return SCHEMA.empty_table().set_column(1, "mt", pa.array([], pa.string()))


def _decoded(source: _Stretch, build: Callable[[Any, Skipped], Any], stacklevel: int = 3) -> pd.DataFrame:
    """``stacklevel``: of the caller of the reader, whom warnings are for."""
    skipped = Skipped()
    built: list[Any] = []

    def take(table: Any, left_out: Skipped) -> None:
        built.append(table)
        skipped.add(left_out)

    pending: deque[Future[tuple[Any, Skipped]]] = deque()
    with ThreadPoolExecutor(pa.cpu_count()) as beside:  # Arrow lets the interpreter go while it reads and parses
        for table in source:
            pending.append(beside.submit(_built, build, table))
            if len(pending) > pa.cpu_count():
                take(*pending.popleft().result())
        while pending:
            take(*pending.popleft().result())
    if not built:
        take(*_built(build, _nothing()))
    df = _pandas(pa.concat_tables(unified(built)))
    df.attrs["skipped"] = len(skipped.seqs)
    df.attrs["skipped_seq"] = skipped.seqs[:100]
    df.attrs["incremental"] = skipped.other
    df.attrs["missing"] = dict(skipped.missing)
    df.attrs["untimed"] = dict(skipped.untimed)
    if skipped.seqs:
        text = f"{len(skipped.seqs)} frames could not be decoded and were left out (seq {skipped.seqs[0]} first)"
        text += f": {skipped.why[:200]}" if skipped.why else ""
        warnings.warn(text, LeftOutWarning, stacklevel=stacklevel)
    if gone := [name for name, count in skipped.missing.items() if count == len(df)]:
        warnings.warn(
            f"none of the {len(df):,} rows has {', '.join(gone)}, which the exchange has always sent: null",
            LeftOutWarning,
            stacklevel=stacklevel,
        )
    if skipped.untimed:
        said = ", ".join(f"{count:,} {name}" for name, count in skipped.untimed.items())
        warnings.warn(
            f"times that are not in Unix milliseconds are null: {said}", LeftOutWarning, stacklevel=stacklevel
        )
    source.tell(df, stacklevel + 1)
    return df


def _built(build: Callable[[Any, Skipped], Any], table: Any) -> tuple[Any, Skipped]:
    skipped = Skipped()
    return build(table, skipped), skipped


def _pandas(table: Any, back: Sequence[int] | None = None) -> pd.DataFrame:
    """``back``: seqs at which the clock was set back, where the rows themselves do not tell."""
    df: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    df.attrs["set_back"] = list(set_back(table) if back is None else back)
    df.attrs["repeated"] = repeated(table)
    if df.attrs["repeated"]:
        text = f"seq goes back at {', '.join(map(str, df.attrs['repeated'][:5]))}: rows are there twice"
        warnings.warn(f"{text}; verify exports says in which files", stacklevel=3)
    if df.attrs["set_back"]:
        text = f"the recorder's clock was set back at seq {', '.join(map(str, df.attrs['set_back'][:5]))}: rx goes back"
        warnings.warn(f"{text} there, and what lies before it has times of a clock that was ahead", stacklevel=3)
    return df
