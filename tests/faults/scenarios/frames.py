"""Frames nobody would send, mutated and made up: through the whole recorder and, in large numbers, its parts."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

from faults import channels
from faults.bench import Outcome, bench, end
from faults.oracle import NAMES, Row, Verdict, check_order, read_files
from mexc_pipeline import config, export
from mexc_pipeline.exchange.protocol import Classifier, subscriptions
from mexc_pipeline.periods import Period
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from mexc_pipeline.simulator.samples import frames as real_frames
from mexc_pipeline.spool.writer import Spool
from support.oracle import Ambiguous, Expected, expected
from support.waiting import until

MADE_UP = 300
THROUGH_PARTS = 25_000
THROUGH_SOCKET = 1_500
BLOCK = 500
HOURS, HOUR_NS = 3, 3600 * 10**9
"""What goes through the parts is spread over so many, so that periods end within it."""

_KEYS = st.sampled_from(["channel", "symbol", "ts", "data", "x", ""])
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["push.ticker", "push.deal", "push.depth.full", "pong", "rs.error", "rs.sub.deal", "BTC_USDT"])
    | st.integers(1_000_000_000_000, 9_999_999_999_999)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(_KEYS, _VALUES, max_size=5)


def made_up(seed: int, count: int) -> list[bytes]:
    """JSON-like texts from Hypothesis."""
    found: list[bytes] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(_OBJECTS | _VALUES, st.booleans())
    def gather(value: object, ascii_only: bool) -> None:
        found.append(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))

    gather()
    return found


def mutated(base: list[bytes], rng: random.Random) -> tuple[int, bytes]:
    """One frame: opcode and payload."""
    data = bytearray(rng.choice(base))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(9):
            case 0:
                del data[at:]
            case 1:
                data[at:at] = rng.randbytes(rng.randint(1, 4))
            case 2:
                del data[at : at + rng.randint(1, 30)]
            case 3 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 4:
                data[at:at] = rng.choice(
                    (b"null", b'"', b"{", b"]", b"\x00", b"\xff", b",", b"1e400", b"\\ud800", b" ")
                )
            case 5:
                data += rng.choice(base)
            case 6:
                data = bytearray(
                    data.replace(b'"ts":1', rng.choice((b'"ts":null,"u":1', b'"ts":-1', b'"ts":1.', b'"ts":"1')))
                )
            case 7:
                data = bytearray(data.replace(b"_USDT", rng.choice((b"_USDC", b"_usdt", b"", b"\xc3"))))
            case _:
                data[at:at] = data[: rng.randint(0, 200)]
    return rng.choice((1, 1, 1, 1, 1, 1, 1, 2)), bytes(data)


_CONTRACTS = [
    b'{"channel":"push.contract","data":{"symbol":"%s","contractSize":0.0001,"state":0},"ts":1789498336785}' % symbol
    for symbol in (b"BTC_USDT", b"ETH_USDT")
]
"""No captures: the fields are the documentation's (official futures WebSocket page, 2026-04)."""


def _base(seed: int) -> list[bytes]:
    base = [f.replace(b"\n", b"") for f in real_frames()] + made_up(seed, MADE_UP)
    return base + _CONTRACTS if channels.are_all_on(seed) else base


def parts(folder: Path, seed: int) -> Outcome:
    """Classifier, spool and export in this process: what goes in comes out of the file, told apart as json says."""
    rng = random.Random(seed)
    outcome = Outcome()
    base = _base(seed)
    settings = folder / "config.toml"
    settings.write_text(
        f'symbols = ["BTC_USDT"]\ndata_dir = "{folder}/data"\nexport_dir = "{folder}/exports"\nperiod = "1h"\n'
        + (channels.table(*channels.BOTH) if channels.are_all_on(seed) else "")
    )
    subscribed = channels.types(*channels.BOTH) if channels.are_all_on(seed) else None
    loaded = config.load(settings)
    symbol = loaded.symbols[0]
    classify = Classifier(symbol.name, subscriptions(symbol.name, symbol.channels)).classify
    (folder / "data" / "spool" / "btc").mkdir(parents=True)
    spool = Spool(folder / "data" / "spool" / "btc", "btc", symbol.name, Period(loaded.period.length_ns))
    wanted: list[Row] = []
    rx = time.time_ns() - HOURS * HOUR_NS
    for _ in range(THROUGH_PARTS // BLOCK):
        block: list[Frame] = []
        for opcode, payload in (mutated(base, rng) for _ in range(BLOCK)):
            found = classify(opcode, payload)
            is_stored = found.mt is not Mt.EVENT  # a control frame is, where it holds more than such a frame has to say
            try:
                row = expected(opcode, payload, symbol.name, subscribed)
            except Ambiguous:  # a key stands there twice: any type will do, the bytes must stay
                outcome.notes["ambiguous"] = outcome.notes.get("ambiguous", 0) + 1
                row = Expected(int(found.mt), found.ts, payload) if is_stored else None
            outcome.tries += 1
            rx += HOURS * HOUR_NS // THROUGH_PARTS
            if (row is not None) != is_stored:
                outcome.verdict.wrong(f"opcode {opcode} {payload[:120]!r}: {found} where {row} is right", lost=1)
            if is_stored:
                block.append(Frame(rx, found.ts, found.mt, found.m))
            if row is not None:
                wanted.append(Row(len(wanted), rx, NAMES[row.mt], row.m))
        while block:
            block = block[len(spool.append(block)) :]
    spool.cut(time.time_ns())
    spool.close()
    report = export.main(loaded)
    outcome.expect(report.ok, f"the export failed: {report}")
    _compare(folder, wanted, outcome)
    outcome.steps["through the parts"] = outcome.tries
    return outcome


def _compare(folder: Path, wanted: list[Row], outcome: Outcome) -> None:
    verdict = Verdict()
    rows = read_files(folder / "exports", "btc", verdict)
    check_order(rows, verdict)
    frames = [row for row in rows if row.mt != "ev"]
    verdict.frames = verdict.rows = len(frames)
    if len(frames) != len(wanted):
        verdict.wrong(f"{len(wanted)} frames went in, {len(frames)} came out", lost=max(0, len(wanted) - len(frames)))
    for row, right in zip(frames, wanted, strict=False):
        if row[1:] != right[1:]:
            said, should = (f"{each.mt} {each.m[:100]!r} of {each.rx}" for each in (row, right))
            verdict.wrong(f"seq {row.seq} is {said}, should be {should}")
            break
    outcome.verdict.add(verdict)


def wire(folder: Path, seed: int) -> Outcome:
    """The same frames from the simulator's socket among live ones, with a kill in between. In some runs every channel
    is on."""
    rng = random.Random(seed)
    outcome = Outcome()
    base = _base(seed)
    are_all_on = channels.are_all_on(seed)
    table = channels.table(*channels.BOTH) if are_all_on else ""
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=100.0, seed=seed)) as sim,
        bench(folder, sim, rng, period="5s", exchange=table) as place,
    ):
        if are_all_on:
            place.channels = channels.types(*channels.BOTH)
            outcome.notes["channels"] = "all"
        place.witness.start()
        collector = place.fork("collect", "btc")
        place.recorded(collector, 5)
        for number in range(THROUGH_SOCKET):
            opcode, payload = mutated(base, rng)
            outcome.tries += sim.inject(Fault("frame", payload=payload, opcode=opcode, value="" if payload else " "))
            if number == THROUGH_SOCKET // 2:
                collector.kill()
                collector.wait(10)
                collector = place.fork("collect", "btc")
                place.recorded(collector, 5)
        last = (place.status() or {"last_seq": 0})["last_seq"]
        until(lambda: (place.status() or {"last_seq": 0})["last_seq"] > last + 20, 60, "recording after it")
        outcome.expect(end(collector) == 0, f"the collector did not end in order: {place.said()[-400:]}")
        place.settle(outcome)
    outcome.steps["over the socket"] = outcome.tries
    return outcome
