"""Trades that are read and counted many at a time, against the same one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.exchange.candles import Trades, deals
from mexc_pipeline.export.minutes import evidence_in
from mexc_pipeline.export.packed import Packed
from mexc_pipeline.ledger.evidence import evidence
from mexc_pipeline.ledger.minutes import Minutes
from mexc_pipeline.rows import Columns, Mt
from support.examples import examples

SYMBOL = "BTC_USDT"
BEGIN = 1_790_000_040_000
"""A minute begins."""

prices = st.sampled_from(["1", "76376.1", "76376.10", "-2", "1e3", '"7.5"', "0.1234567890123456789"])
odd_prices = st.sampled_from(['"1,2"', "[1,2]", '"NaN"', "1" * 77, "1e99", "null", '"1"  ', '"x\\",\\"y"'])
volumes = st.sampled_from(["1", "3", "1.5", '"2"', str(2**70), "7.0"])
odd_volumes = st.sampled_from(["true", '"x"', "null", "1" * 90])
times = st.integers(-3_000, 3_000).map(lambda n: str(BEGIN + 30 * n))
odd_times = st.sampled_from(["5", "1e12", f'"{BEGIN}"', str(10**13)])
names = st.integers(1, 40).map(lambda n: f'"{n}"')
odd_names = st.sampled_from(
    [
        *('"007"', '"0"', '"-0"', '"-5"', '" 12"', '"\\n3"', '"1,2"', '"1_0"', '""', '"1e2"', '"1.0"', '"x"', '"é"'),
        *('"\\u0663"', "12", "1.0", "null", None),
        *(f'"{2**63 - 1}"', f'"{2**63}"', f"{2**70}", f'"{"9" * 76}"', f'"{"9" * 77}"'),
    ]
)
marks = st.sampled_from(["1", "2", '"1"', "null", None])


def either(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda n: odd if n == 0 else usual)


@st.composite
def frames(draw: st.DrawFn, odd: bool = True) -> bytes:
    if odd and draw(st.integers(0, 15)) == 0:
        return draw(
            st.sampled_from([b"", b"{", b"[]", b'{"data":7}', b'{"data":[{}]}', b"\xff", b'{"data":[]}{"data":[]}'])
        )
    trades = []
    for _ in range(draw(st.integers(0, 4))):
        said = {
            "p": draw(either(prices, odd_prices) if odd else prices),
            "v": draw(either(volumes, odd_volumes) if odd else st.sampled_from(["1", "5"])),
            "T": draw(st.sampled_from(["1", "2"])),
            "M": draw(marks if odd else st.sampled_from(["1", "2"])),
            "t": draw(either(times, odd_times) if odd else times),
            "i": draw(either(names, odd_names) if odd else names),
        }
        trades.append("{" + ",".join(f'"{key}":{value}' for key, value in said.items() if value is not None) + "}")
    return f'{{"symbol":"{SYMBOL}","data":[{",".join(trades)}],"channel":"push.deal","ts":1}}'.encode()


Row = tuple[int, str, Decimal, object, bool]


def plain(trades: Trades) -> list[Row]:
    assert not trades.plain or {type(one) for one in (*trades.volumes, *trades.keys)} <= {int}
    columns = zip(trades.times, trades.prices, trades.volumes, trades.keys, trades.own, strict=True)
    return [(t, price.decode(), Decimal(volume), key, own) for t, price, volume, key, own in columns]


def by_json(m: bytes) -> list[Row]:
    """What a frame of plain numbers holds, by another reader of JSON."""
    said = json.loads(m, parse_float=str)["data"]
    return [(one["t"], str(one["p"]).strip('"'), Decimal(one["v"]), int(one["i"]), one["M"] == 1) for one in said]


def cuts(texts: Sequence[bytes]) -> list[tuple[int, int]]:
    ends = [sum(map(len, texts[: n + 1])) for n in range(len(texts))]
    return [(end - len(m), end) for end, m in zip(ends, texts, strict=True)]


@settings(max_examples=examples(100))
@given(st.lists(frames(odd=False), max_size=12))
def test_trades_are_what_another_reader_of_json_finds(texts: list[bytes]) -> None:
    (found,) = deals(b"".join(texts), cuts(texts))
    assert found is not None
    assert found.trades.plain == bool(found.trades.times)
    assert found.counts == [len(by_json(m)) for m in texts]
    expected = [row for m in texts for row in by_json(m)]
    assert [(t, p.strip('"'), v, i, own) for t, p, v, i, own in plain(found.trades)] == expected


@settings(max_examples=examples(300))
@given(st.lists(frames(), max_size=12))
def test_frames_together_say_what_each_says(texts: list[bytes]) -> None:
    counts: list[int | None] = []
    together: list[Row] = []
    for run in deals(b"".join(texts), cuts(texts)):
        counts += [None] if run is None else run.counts
        together += [] if run is None else plain(run.trades)
    alone = [deals(m, [(0, len(m))])[0] for m in texts]
    assert counts == [None if one is None else one.counts[0] for one in alone]
    assert together == [row for one in alone if one is not None for row in plain(one.trades)]


events = st.sampled_from([b'{"event":"connected"}', b'{"event":"disconnected","code":1006,"reason":"x"}', b"?"])
rows = st.lists(
    st.one_of(
        *[frames().map(lambda m: (Mt.DEAL, m))] * 8,
        st.just((Mt.DEPTH, b"{}")),
        events.map(lambda m: (Mt.EVENT, m)),
        frames().map(lambda m: (Mt.DEAD_LETTER, m)),
    ),
    max_size=25,
)


@settings(max_examples=examples(200))
@given(rows)
def test_a_block_of_rows_is_judged_as_its_rows_are(listed: list[tuple[Mt, bytes]]) -> None:
    ts = [BEGIN + 200 * n for n in range(len(listed))]
    rx = [(at + 7) * 1_000_000 for at in ts]
    seq = list(range(1, len(listed) + 1))
    one_by_one, at_once = Minutes(SYMBOL, Decimal("0.0001")), Minutes(SYMBOL, Decimal("0.0001"))
    for (mt, m), rx_ns, at in zip(listed, rx, ts, strict=True):
        one_by_one.take(evidence(SYMBOL, rx_ns, at, mt, m))
    block = Packed.of(Columns(seq, rx, ts, [int(mt) for mt, _ in listed], [m for _, m in listed]))
    for what in evidence_in(SYMBOL, block) if listed else []:
        at_once.take(what)
    assert at_once.result() == one_by_one.result()


@settings(max_examples=examples(200))
@given(st.lists(st.text("0123456789 -.eE,\n\u0663", max_size=4), max_size=6))
def test_an_id_is_a_number_where_it_is_digits_alone(ids: list[str]) -> None:
    data = [{"p": 1, "v": 1, "t": BEGIN, "i": name} for name in ids]
    m = json.dumps({"data": data}).encode()
    (found,) = deals(m, [(0, len(m))])
    assert found is not None
    assert list(found.trades.keys) == [int(name) if name.isdecimal() else name for name in ids]
