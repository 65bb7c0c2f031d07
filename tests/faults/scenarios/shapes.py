"""An exchange that sends other shapes: what arrives is kept, what cannot be understood is said by whoever is asked, and
the readers give what the frames hold or say which frame they could not read, and what in it."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from faults import channels
from faults.bench import Bench, Outcome, Process, bench, end, pause, settings_of
from faults.oracle import Row, Verdict, read_files
from mexc_pipeline import read
from mexc_pipeline.errors import UserError
from mexc_pipeline.simulator import Fault, Simulator
from support.oracle import unpacked
from support.waiting import until

EPISODES = 12
MOMENTS = 6
TOO_MANY, LEAST = 0.01, 10
"""Dead letters among all frames from which on they must be said, as the user guide has it."""

ANY = (
    *(f"ts={kind}" for kind in ("us", "ns", "s", "float", "text", "zero", "null", "absent")),
    "rename=ts:time",
    "rename=symbol:s",
    "rename=channel:c",
    "set=channel:push.unheard",
    "drop=symbol",
    "text=data",
    "number=data",
    "exponent=data",
    "digits=data:9",
    "digits=data:40",
    "digits=data:140",
    "set=note:[]",
    "list=data",
    "rename=data:d",
    "gzip",
    "zlib",
    "deflate",
    "ts=us; gzip",
    "shift=ts:28800000",
    "set=ts:1700000000000",
)
OF_TIME = ("shift=ts:28800000", "shift=ts:-3600000", "set=ts:1700000000000", "ts=absent")
_TIMES_SAID = ("the exchange's clock", "ts stands still", "no ts any more")
"""What is said of times that stay wrong."""
OF_CHANNELS: dict[str, tuple[str, ...]] = {
    "deal": ("rename=data.p:price", "drop=data.v", "digits=data.p:12", "digits=data.t:140", "set=data:null",
             "object=data", "set=data.i:99999999999999999999999999999999999999", "set=data.T:300",
             "set=data.t:1788335243261000"),
    "ticker": ("rename=data.lastPrice:last", "drop=data.bid1", "digits=data.lastPrice:39", "set=data.fairPrice:-1e999",
               "set=data:[]", "text=data.volume24", "set=data.timestamp:1731137509"),
    "depth": ("set=data.asks:null", "drop=data.bids", "set=data.asks:[]", "digits=data.asks:12", "digits=data.bids:140",
              "text=data.asks", "rename=data.asks:a", "set=data.version:null", "digits=data.version:140",
              "set=data.bids:[[1]]", "set=data.cts:text", "rename=data.version:v"),
}  # fmt: skip
_DEPTHS = {"full20": "depth.full", "merged": "depth"}
FRAMES = ("bad_json", "not_object", "unknown_channel", "foreign_symbol", "invalid_utf8", "ts_null", "ts_missing",
          "empty", "binary", "rs_error", "client_id", "extra_pong", "ts_type")  # fmt: skip
_CLEAN = re.compile(
    r"seq \d+ in btc\d+[\w.]*\.parquet\)?:? .*\S|no snapshot of the book|are in no file \(at seq \d+ in btc"
)
_LEFT_OUT = re.compile(
    r"\d+ frames could not be decoded and were left out \(seq \d+ first\): .*\S"
    r"|times that are not in Unix milliseconds are null: [\d,]+ \w"
)


@dataclass(slots=True)
class _Said:
    """What happened to the shapes of one recording."""

    depth: str
    counted_anew: bool = False
    versions_back: bool = False
    restarted: list[str] = field(default_factory=list)


def shapes(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """One collector after another, the exchange's frames another way every second; then everybody is asked. In some
    runs every channel is on."""
    rng = random.Random(seed)
    outcome = Outcome()
    said = _Said(rng.choice(("full20", "merged")))
    are_all_on = channels.are_all_on(seed)
    extra = channels.table(said.depth) if are_all_on else f'[channels]\ndepth = "{said.depth}"'
    changes = channels.CONTRACTS if are_all_on else ()
    outcome.notes["depth"] = said.depth
    with (
        Simulator(settings_of(seed, rng.choice((60.0, 150.0)), changes)) as sim,
        bench(folder, sim, rng, period="5s", exchange=extra) as place,
    ):
        if are_all_on:
            place.channels = channels.types(said.depth)
            channels.old_prices(sim)
            outcome.notes["channels"] = "all"
        elif said.depth == "merged":
            place.channels = {"push.ticker": 1, "push.deal": 2, "push.depth": 3}
        place.shaped = True
        place.witness.start()
        collector = place.fork("collect", "btc")
        place.recorded(collector, 20)
        for _ in range(round(EPISODES * size)):
            collector = _episode(place, sim, collector, rng, outcome, said)
            outcome.expect(collector.poll() is None, f"the collector ended: {place.said()[-400:]}")
        _status_says(place, outcome)
        status = end(collector)
        outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
        place.settle(outcome)
        _verify_says(place, outcome)
        _readers(place, rng, outcome, said)
        _run_says(place, sim, rng, outcome, said.depth)
    return outcome


def _episode(
    place: Bench, sim: Simulator, collector: Process, rng: random.Random, outcome: Outcome, said: _Said
) -> Process:
    before = (place.status() or {"last_seq": 0})["last_seq"]
    draw = rng.random()
    channel: str | None = None
    if draw < 0.4:
        shape = rng.choice(ANY)
        channel = rng.choice((None, None, "ticker", "deal"))
        sim.inject(Fault("shape", value=shape, channel=channel, seconds=(seconds := rng.uniform(0.4, 1.2))))
        pause(seconds)
        name = f"{shape}{f' of {channel}' if channel else ''}"
    elif draw < 0.65:
        kind = rng.choice(list(OF_CHANNELS))
        channel = _DEPTHS[said.depth] if kind == "depth" else kind
        shape = rng.choice(OF_CHANNELS[kind])
        sim.inject(Fault("shape", value=shape, channel=channel, seconds=(seconds := rng.uniform(0.4, 1.2))))
        pause(seconds)
        name = f"{shape} of {channel}"
    elif draw < 0.8:
        name = rng.choice(FRAMES)
        for _ in range(rng.choice((1, 5, 30))):
            sim.inject(Fault(name))
    elif draw < 0.9:
        sim.inject(Fault("resend_deals", value=str(rng.choice((5, 50))), seconds=20))
        name = "deals again after a restart"
        if rng.random() < 0.5:
            status = end(collector)
            outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
            collector = place.fork("collect", "btc")
            place.recorded(collector, 5)
        else:
            sim.inject(Fault("close"))
            name = "deals again after a reconnect"
        said.restarted.append(name)
        before = 0
    elif said.depth == "merged" and draw < 0.97:
        sim.inject(Fault("reset_versions", value=str(rng.choice((1, 1000)))))
        said.counted_anew = True
        name = "versions that begin low after a reconnect"
    else:
        sim.inject(Fault("version_back", count=3))
        said.versions_back = True
        name = "versions that go back"
    outcome.happened(name)

    def more() -> bool:
        status = place.status()
        return status is not None and status["last_seq"] > before + 15

    until(more, 60, f"recording after {name}")
    return collector


def _status_says(place: Bench, outcome: Outcome) -> None:
    """The collector's own numbers are of the last ten minutes, so of all since its start."""
    until(lambda: place._has_caught_up("btc"), 60, "an empty inbox")
    rows = (place.status() or {})["rows"]
    dead, frames = rows["dl"], sum(count for name, count in rows.items() if name not in _NO_FRAMES)
    status, text = place.run("status")
    outcome.expect("times wrong" not in text, f"status speaks of times that were wrong for a second: {text[:300]}")
    if dead >= LEAST and dead >= frames * TOO_MANY:
        outcome.expect(
            status == 1 and "dead letters" in text,
            f"status ended with {status} beside {dead} of {frames}: {text[:300]}",
        )
        _note(outcome, "said by status")
    elif not dead:
        outcome.expect(
            "FAULT btc: dead letters" not in text, f"status speaks of dead letters without any: {text[:300]}"
        )


def _verify_says(place: Bench, outcome: Outcome) -> None:
    status, text = place.run("verify", "exports")
    outcome.expect(status == 0, f"verify exports ended with {status}: {text[-400:]}")
    for path in sorted(place.exports.glob("btc*.parquet")):
        rows = [row for row in read_files_of(path) if row.mt not in ("ev", "r")]
        frames = [row for row in rows if row.mt not in _NO_FRAMES]
        dead = sum(row.mt == "dl" for row in frames)
        warned = [line for line in text.splitlines() if line.startswith(f"warn btc {path.name}: ")]
        if must := dead >= LEAST and dead >= len(frames) * TOO_MANY:
            right = any(f": {dead:,} of " in line for line in warned)
        else:
            kinds = Counter(map(_kind, rows))
            right = bool(warned) == any(
                (n := kinds[True, kind]) >= LEAST and n >= (n + kinds[False, kind]) * TOO_MANY
                for kind in _KINDS.values()
            )
        outcome.expect(right, f"verify exports on {path.name}, {dead} of {len(frames)} dead: {text[-500:]}")
        _note(outcome, "said by verify", must)


_KINDS = {
    "push.ticker": "t",
    "push.deal": "d",
    "push.depth": "dp",
    "push.depth.full": "dp",
    "push.funding.rate": "f",
    "push.index.price": "i",
    "push.fair.price": "p",
    "push.kline": "k",
    "push.contract": "c",
}
_NO_FRAMES = ("ev", "r", "c")
"""Rows that are no frames of the market."""


def _kind(row: Row) -> tuple[bool, str]:
    """Whether a frame is a dead letter, and of which type it is or names to be."""
    return (True, _KINDS.get(str(_channel(row)), "")) if row.mt == "dl" else (False, row.mt)


def _run_says(place: Bench, sim: Simulator, rng: random.Random, outcome: Outcome, depth: str) -> None:
    """A run in which nothing was understood, or everything, ends accordingly."""
    shape = rng.choice(("ts=us", "ts=text", "rename=symbol:s", *OF_TIME, "", "", ""))
    of_time = shape in OF_TIME
    if shape:
        # Pongs that are as wrong as the pushes would say that it is this host's clock.
        for channel in ("ticker", "deal", _DEPTHS[depth]) if of_time else (None,):
            sim.inject(Fault("shape", value=shape, channel=channel, seconds=600))
        outcome.happened(f"{shape} all through a run")
    for seconds in (25, 64) if of_time else (4, 16, 64):
        status, text = place.run("run", "--duration", f"{seconds}s", timeout_s=180)
        lines = _answer(text).splitlines()
        times = [line for line in lines if any(words in line for words in _TIMES_SAID)]
        told = bool(times) if of_time else any("are dead letters" in line for line in lines)
        if told or (not of_time and "no market frame was received" not in text):
            break  # else a busy machine, on which it had not connected by its end, or not compared the clocks
    outcome.expect(of_time or not times, f"run with {shape or 'nothing wrong'} speaks of times: {times}")
    outcome.expect((status, told) == (1, True) if shape else (status, told) == (0, False),
                   f"run with {shape or 'nothing wrong'} ended with {status}: {_answer(text)}")  # fmt: skip


def _answer(text: str) -> str:
    """What people are told, without the log."""
    return "\n".join(line for line in text.splitlines() if line and not line.startswith("{"))[-1500:]


def read_files_of(path: Path) -> list[Row]:
    """The rows of one file."""
    alone = path.parent.parent / "alone"
    alone.mkdir(exist_ok=True)
    link = alone / path.name
    link.symlink_to(path)
    try:
        return read_files(alone, "btc", Verdict())
    finally:
        link.unlink()


def _readers(place: Bench, rng: random.Random, outcome: Outcome, said: _Said) -> None:
    rows = read_files(place.exports, "btc", Verdict())
    dead = sum(row.mt == "dl" for row in rows)
    frames = _asked(outcome, "frames", lambda: read.frames("btc", export_dir=place.exports))
    if frames is not None:
        outcome.expect(frames.seq.tolist() == [row.seq for row in rows], "read.frames gives other rows")
        outcome.expect(
            frames.attrs["dead_letters"] == dead, f"read.frames says {frames.attrs['dead_letters']} of {dead}"
        )
    _trades(place, rows, outcome)
    for mt, name in (("f", "funding"), ("i", "index_price"), ("p", "fair_price"), ("k", "klines")):
        reader = getattr(read, name)
        answer = _asked(outcome, name, lambda reader=reader: reader("btc", export_dir=place.exports))  # type: ignore[misc]
        if answer is not None:
            _all_there(name, rows, mt, answer, outcome)
    contracts = _asked(outcome, "contracts", lambda: read.contracts("btc", export_dir=place.exports))
    if contracts is not None:
        told = len(contracts) + contracts.attrs["unchanged"] + contracts.attrs["skipped"]
        held = sum(row.mt == "c" for row in rows)
        outcome.expect(told >= held, f"read.contracts: {held} rows, {told} given, unchanged or left out")
    tickers = _asked(outcome, "tickers", lambda: read.tickers("btc", export_dir=place.exports))
    if tickers is not None:
        _all_there("tickers", rows, "t", tickers, outcome)
    books = _asked(outcome, "book", lambda: read.book("btc", export_dir=place.exports))
    if books is not None and said.depth == "full20":
        _all_there("book", rows, "dp", books, outcome, empty=True)
    depths = [row for row in rows if row.mt == "dp"]
    for row in rng.sample(depths, min(MOMENTS, len(depths))):
        book = _asked(outcome, "book at", lambda at=row.rx: read.book("btc", at=at, export_dir=place.exports))  # type: ignore[misc]
        if book is not None and said.depth == "full20" and len(book):
            newest = max(r.seq for r in rows if r.rx <= row.rx and _channel(r) == "push.depth.full")
            outcome.expect(int(book.seq.max()) == newest, f"book at {row.rx}: seq {book.seq.max()}, newest is {newest}")
        elif book is not None and len(book) and not said.versions_back:
            _newest_version(rows, row, book, outcome)


def _newest_version(rows: list[Row], row: Row, book: Any, outcome: Outcome) -> None:
    """A book of an instant is of the newest frame that tells a version, also across a version reset."""
    told = [v for r in rows if r.seq <= row.seq and r.mt == "dp" and (v := _version(r)) is not None]
    have = int(book.version.max())
    outcome.expect(not told or have >= told[-1], f"book at {row.rx}: version {have}, the newest is {told[-1:]}")
    _note(outcome, "books at an instant")


def _asked(outcome: Outcome, what: str, question: Callable[[], Any]) -> Any:
    """The answer; None where it is an error that says frame and what in it, or that there is nothing to answer with."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = question()
        except UserError as error:
            outcome.expect(bool(_CLEAN.search(str(error))), f"read.{what} raises what names no frame: {error}")
            _note(outcome, f"read.{what}: an error that names the frame")
            return None
        except Exception as error:  # noqa: BLE001 - whatever else comes out of a reader is what is looked for
            outcome.expect(False, f"read.{what} raises {type(error).__name__}: {str(error)[:300]}")
            return None
    for warning in caught:
        if issubclass(warning.category, read.LeftOutWarning):
            outcome.expect(bool(_LEFT_OUT.match(str(warning.message))), f"read.{what} warns: {warning.message}")
    dead, frames = answer.attrs["dead_letters"], 0
    if dead and what == "frames":
        frames = int((~answer.mt.isin(["ev", "r"])).sum())
        told = any(issubclass(w.category, read.DeadLetterWarning) for w in caught)
        outcome.expect(told == (dead >= frames * TOO_MANY), f"read.frames on {dead} of {frames} dead: warned is {told}")
    _note(outcome, f"read.{what}: an answer")
    return answer


def _all_there(what: str, rows: list[Row], mt: str, answer: Any, outcome: Outcome, *, empty: bool = False) -> None:
    """Each frame of that type has given rows, or is counted among those left out, or has nothing in it."""
    given = set(answer.seq.tolist())
    missing = [row for row in rows if row.mt == mt and row.seq not in given]
    if empty:
        missing = [row for row in missing if any(_data(row).get(side) for side in ("asks", "bids"))]
    left_out = answer.attrs["skipped"]
    outcome.expect(
        len(missing) <= left_out, f"read.{what}: {len(missing)} frames missing, {left_out} said to be left out"
    )
    listed = set(answer.attrs["skipped_seq"])
    unsaid = [row.seq for row in missing if row.seq not in listed] if left_out <= 100 else []
    outcome.expect(not unsaid, f"read.{what}: seq {unsaid[:5]} are neither there nor said to be left out")


def _trades(place: Bench, rows: list[Row], outcome: Outcome) -> None:
    trades = _asked(outcome, "trades", lambda: read.trades("btc", export_dir=place.exports))
    if trades is None:
        return
    held = {row.seq: deals for row in rows if row.mt == "d" and (deals := _deals(row)) is not None}
    given: dict[int, list[Any]] = {}
    for seq, price, volume in zip(trades.seq.tolist(), trades.price.tolist(), trades.volume.tolist(), strict=True):
        given.setdefault(seq, []).append((price, volume))
    wrong = [seq for seq, deals in given.items() if seq in held and held[seq] != deals]
    outcome.expect(not wrong, f"read.trades gives other prices or volumes than the frames of seq {wrong[:5]}")
    missing = [seq for seq, deals in held.items() if deals and seq not in given]
    left_out = trades.attrs["skipped"]
    outcome.expect(
        len(missing) <= left_out, f"read.trades: {len(missing)} frames missing, {left_out} said to be left out"
    )
    counts = Counter(row.mt for row in rows)
    outcome.notes["dead letters"], outcome.notes["trades"] = counts["dl"], len(trades)


def _value(row: Row) -> dict[str, Any]:
    """The frame as Python's json reads it, numbers exact; empty where it is no object."""
    text = row.m
    with contextlib.suppress(ValueError, TypeError, KeyError):
        wrapped = json.loads(text)
        if isinstance(wrapped, dict) and wrapped.keys() == {"base64", "opcode"}:
            text = unpacked(base64.b64decode(wrapped["base64"])) or b""
        value = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        return value if isinstance(value, dict) else {}
    return {}


def _channel(row: Row) -> Any:
    return _value(row).get("channel")


def _data(row: Row) -> dict[str, Any]:
    data = _value(row).get("data")
    return data if isinstance(data, dict) else {}


def _version(row: Row) -> int | None:
    version = _data(row).get("version")
    if not isinstance(version, Decimal) or version != version.to_integral_value() or version >= 2**63:
        return None
    return int(version)


def _deals(row: Row) -> list[tuple[Decimal, Decimal]] | None:
    """Price and volume of each deal; None where they are not what they have always been."""
    data = _value(row).get("data")
    found: list[tuple[Decimal, Decimal]] = []
    for deal in data if isinstance(data, list) else [data]:
        price, volume = (deal.get("p"), deal.get("v")) if isinstance(deal, dict) else (None, None)
        if not isinstance(price, Decimal) or not isinstance(volume, Decimal):
            return None
        found.append((price, volume))
    return found


def _note(outcome: Outcome, what: str, count: int = 1) -> None:
    outcome.notes[what] = outcome.notes.get(what, 0) + count
