"""Candles against trades: any trades make a candle that agrees, and whatever happens to one of them is found."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.exchange.candles import MINUTE_MS
from mexc_pipeline.ledger.evidence import evidence
from mexc_pipeline.ledger.minutes import Minute, Minutes, counted
from mexc_pipeline.ledger.shares import Shares, from_text, to_text, whole
from mexc_pipeline.rows import Mt
from support.examples import examples

SYMBOL = "BTC_USDT"
SIZE = Fraction(1, 10_000)
BEGIN = 1_790_000_040_000
"""A minute begins."""
SUBSCRIBED = b'{"event":"subscribed","channel":"push.deal","by":"ack"}'


@dataclass(frozen=True)
class Trade:
    t: int
    p: Fraction
    v: int
    own: bool = False
    i: int | None = 0


def spelled(number: Fraction) -> str:
    text = f"{Decimal(number.numerator) / Decimal(number.denominator):f}"
    assert Fraction(text) == number
    return text


def item(trade: Trade) -> str:
    number = "" if trade.i is None else f',"i":"{trade.i}"'
    flag = 1 if trade.own else 2
    return f'{{"p":{spelled(trade.p)},"v":{trade.v},"T":1,"O":3,"M":{flag},"t":{trade.t}{number},"cts":"1"}}'


def deals(trades: Sequence[Trade], ts: int) -> bytes:
    return f'{{"symbol":"{SYMBOL}","data":[{",".join(map(item, trades))}],"channel":"push.deal","ts":{ts}}}'.encode()


def candles(trades: Iterable[Trade], minutes: Sequence[int]) -> bytes:
    """What REST gives, by an arithmetic of its own: fractions, and every trade of a minute looked at at once."""
    of: dict[int, list[Trade]] = defaultdict(list)
    for trade in trades:
        of[trade.t // MINUTE_MS * MINUTE_MS].append(trade)
    columns: dict[str, list[str]] = defaultdict(list)
    close = Fraction(1)
    for start in minutes:
        made = sorted(of[start], key=lambda trade: trade.t)
        prices = [trade.p for trade in made] or [close]
        columns["time"].append(str(start // 1000))
        columns["open"].append(spelled(close))
        columns["high"].append(spelled(max([*prices, close])))
        columns["low"].append(spelled(min([*prices, close])))
        columns["close"].append(spelled(prices[-1]))
        columns["vol"].append(str(sum(trade.v for trade in made)))
        columns["amount"].append(spelled(sum((trade.p * trade.v * SIZE for trade in made), Fraction(0))))
        for name, price in zip(
            ("realOpen", "realHigh", "realLow", "realClose"),
            (prices[0], max(prices), min(prices), prices[-1]),
            strict=True,
        ):
            columns[name].append(spelled(price))
        close = prices[-1]
    return ("{" + ",".join(f'"{name}":[{",".join(values)}]' for name, values in columns.items()) + "}").encode()


Row = tuple[int, bytes, int]
"""Type, frame, and the exchange's time of it."""


def depth(ts: int) -> Row:
    return Mt.DEPTH, b"{}", ts


def judged(rows: Iterable[Row], size: Decimal | None = Decimal("0.0001")) -> dict[int, Minute]:
    checker = Minutes(SYMBOL, size)
    for seq, (mt, m, ts) in enumerate(rows, 1):
        checker.goes_on(seq, seq)
        checker.take(evidence(SYMBOL, ts * 1_000_000 + 77_000_000, ts, mt, m))
    return {minute.start_ms: minute for minute in checker.result()}


MINUTES = 4
STARTS = [BEGIN + n * MINUTE_MS for n in range(MINUTES)]
prices = st.integers(1, 10**7).map(lambda ticks: Fraction(ticks, 10))


@st.composite
def markets(draw: st.DrawFn, ids: bool = True, own: bool = True) -> list[Trade]:
    number = count(16_005_949_540)
    times = sorted(draw(st.lists(st.integers(0, MINUTES * MINUTE_MS - 1), min_size=1, max_size=30)))
    return [
        Trade(
            BEGIN + t,
            draw(prices),
            draw(st.integers(1, 10**6)),
            own and draw(st.booleans()),
            next(number) if ids else None,
        )
        for t in times
    ]


def recorded(trades: Sequence[Trade], answer: bytes, sizes: Iterable[int] = ()) -> list[Row]:
    """A recording from ten seconds before to ten seconds after, deals in frames of so many, newest first in each."""
    rows: list[Row] = [(Mt.EVENT, SUBSCRIBED, BEGIN - 10_000), depth(BEGIN - 10_000)]
    left, of = list(trades), iter(sizes)
    while left:
        taken, left = left[: (n := next(of, 1))], left[n:]
        ts = taken[-1].t + 100
        rows += [(Mt.DEAL, deals(taken[::-1], ts), ts)]
    rows.append(depth(STARTS[-1] + MINUTE_MS + 10_000))
    rows.append((Mt.REPAIRED, answer, STARTS[-1] + MINUTE_MS + 20_000))
    return rows


ALL = [*STARTS, STARTS[-1] + MINUTE_MS]
"""With the one by which the last is known to be over."""


@settings(max_examples=examples(40))
@given(markets(), st.lists(st.integers(1, 5), max_size=30))
def test_any_trades_agree_with_their_candle(trades: list[Trade], sizes: list[int]) -> None:
    found = judged(recorded(trades, candles(trades, ALL), sizes))
    assert [found[start].verdict for start in STARTS] == ["agrees"] * MINUTES
    assert [found[start].rule for start in STARTS] == ["all"] * MINUTES
    assert found[ALL[-1]].verdict == "unknown", "it was still running"
    for start in STARTS:
        assert all(not found[start].difference(name) for name in ("volume", "amount"))
    assert sum(found[start].trades for start in STARTS) == len(trades)


@settings(max_examples=examples(40))
@given(markets(), st.data())
def test_one_dropped_doubled_or_altered_trade_is_found_in_its_minute_and_only_there(
    trades: list[Trade], data: st.DataObject
) -> None:
    answer = candles(trades, ALL)
    at = data.draw(st.integers(0, len(trades) - 1))
    hit = trades[at]
    changed: list[Trade]
    match data.draw(st.sampled_from(["dropped", "doubled", "volume", "price"])):
        case "dropped":
            changed = trades[:at] + trades[at + 1 :]
        case "doubled":
            changed = [*trades[: at + 1], replace(hit, i=1), *trades[at + 1 :]]
        case "volume":
            changed = [*trades[:at], replace(hit, v=hit.v + 1), *trades[at + 1 :]]
        case _:
            changed = [*trades[:at], replace(hit, p=hit.p + Fraction(1, 10)), *trades[at + 1 :]]
    found = judged(recorded(changed, answer))
    where = hit.t // MINUTE_MS * MINUTE_MS
    for start in STARTS:
        assert (found[start].verdict == "differs") is (start == where)
    assert found[where].why
    own = sum((t.p * t.v * SIZE for t in changed if t.t // MINUTE_MS * MINUTE_MS == where), Fraction(0))
    theirs = sum((t.p * t.v * SIZE for t in trades if t.t // MINUTE_MS * MINUTE_MS == where), Fraction(0))
    difference = found[where].difference("amount")
    assert difference is not None
    assert Fraction(difference) == own - theirs


@settings(max_examples=examples(40))
@given(markets(), st.data())
def test_a_trade_that_came_twice_counts_once(trades: list[Trade], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(trades) - 1))
    again = data.draw(st.integers(at, len(trades)))
    twice = [*trades[:again], trades[at], *trades[again:]]
    found = judged(recorded(twice, candles(trades, ALL)))
    assert [found[start].verdict for start in STARTS] == ["agrees"] * MINUTES
    assert [found[start].repeated for start in STARTS] == [
        int(start == trades[at].t // MINUTE_MS * MINUTE_MS) for start in STARTS
    ]


@settings(max_examples=examples(40))
@given(markets(ids=False))
def test_without_ids_trades_that_agree_in_everything_are_two_within_a_connection_and_one_across(
    trades: list[Trade],
) -> None:
    answer = candles([*trades, trades[0]], ALL)
    rows = recorded([trades[0], *trades], answer)
    assert {judged(rows)[start].verdict for start in STARTS} == {"agrees"}
    connected: Row = Mt.EVENT, b'{"event":"connected"}', trades[0].t + 100
    again = judged([*rows[:3], connected, *rows[3:]])
    hit = trades[0].t // MINUTE_MS * MINUTE_MS
    same = sum((t.t, t.p, t.v) == (trades[0].t, trades[0].p, trades[0].v) for t in trades)
    assert again[hit].repeated == same
    assert again[hit].trades == sum(t.t // MINUTE_MS * MINUTE_MS == hit for t in trades) - same + 1


@settings(max_examples=examples(40))
@given(markets())
def test_candles_without_self_trades_agree_and_say_so(trades: list[Trade]) -> None:
    found = judged(recorded(trades, candles([t for t in trades if not t.own], ALL)))
    for start in STARTS:
        mine = [t for t in trades if t.t // MINUTE_MS * MINUTE_MS == start]
        assert found[start].verdict == "agrees"
        assert found[start].rule == ("without self-trades" if any(t.own for t in mine) else "all")


@settings(max_examples=examples(40))
@given(markets())
def test_candles_without_real_prices_reach_to_the_close_before(trades: list[Trade]) -> None:
    answer = json.loads(candles(trades, ALL), parse_float=Decimal)
    plain = {name: values for name, values in answer.items() if not name.startswith("real")}
    found = judged(recorded(trades, json.dumps(plain, default=str).replace('"', "").encode()))
    assert not found or {found[start].verdict for start in STARTS} == {"unknown"}, "no JSON any more"
    text = "{" + ",".join(f'"{name}":[{",".join(map(str, values))}]' for name, values in plain.items()) + "}"
    found = judged(recorded(trades, text.encode()))
    assert [found[start].verdict for start in STARTS] == ["agrees"] * MINUTES


def made(n: int = 40, minutes: int = MINUTES) -> list[Trade]:
    step = minutes * MINUTE_MS // n
    return [Trade(BEGIN + k * step + 7, Fraction(763_760 + k % 7, 10), 3 + k % 5, k % 4 == 0, k + 1) for k in range(n)]


def push(trades: Sequence[Trade], start: int, until: int) -> Row:
    """The candle as it stands at a time."""
    so_far = [t for t in trades if t.t <= until]
    columns = json.loads(candles(so_far, [start]), parse_float=Decimal)
    names = {
        "t": "time", "o": "open", "c": "close", "h": "high", "l": "low", "a": "amount", "q": "vol",
        "ro": "realOpen", "rc": "realClose", "rh": "realHigh", "rl": "realLow",
    }  # fmt: skip
    fields = ",".join(f'"{short}":{columns[long][0]}' for short, long in names.items())
    m = f'{{"symbol":"{SYMBOL}","data":{{"interval":"Min1",{fields}}},"channel":"push.kline","ts":{until}}}'
    return Mt.KLINE, m.encode(), until


def test_a_pushed_candle_counts_once_a_later_one_came() -> None:
    trades = made()
    rows = recorded(trades, b"{}")
    for start in (STARTS[1], STARTS[2]):
        rows += [push(trades, start, start + 30_000), push(trades, start, start + MINUTE_MS)]
    found = judged(rows)
    assert [found[start].verdict for start in STARTS] == ["unknown", "agrees", "unknown", "unknown"]
    assert found[STARTS[2]].why == "the candle was not final"
    assert judged([*rows, push(trades, STARTS[3], STARTS[3] + 1)])[STARTS[2]].verdict == "agrees"


def test_the_last_push_of_a_candle_may_come_before_its_last_trade() -> None:
    trades = made()
    last = max(t.t for t in trades if t.t < STARTS[1] + MINUTE_MS)
    early = push(trades, STARTS[1], last - 1)
    rows = [*recorded(trades, b"{}"), early, push(trades, STARTS[2], STARTS[2] + 1)]
    found = judged(rows)
    assert (found[STARTS[1]].verdict, found[STARTS[1]].why) == (
        "unknown",
        "the last push of the candle came before the last trade",
    )
    answered = judged([*rows, (Mt.REPAIRED, candles(trades, ALL), STARTS[-1])])
    assert answered[STARTS[1]].verdict == "agrees", "what REST gave once it was over counts more"
    assert judged([*rows[:-2], (Mt.REPAIRED, candles(trades, ALL), STARTS[-1]), *rows[-2:]])[STARTS[1]].verdict == (
        "agrees"
    ), "whichever came first"


EVENTS = {
    "disconnected": b'{"event":"disconnected","code":1006,"reason":"x"}',
    "killed": b'{"event":"started","clean":false}',
    "stopped": b'{"event":"stopped"}',
    "stalled": b'{"event":"stalled","channel":"push.deal","age_s":9.0}',
    "left": b'{"event":"stalled","reason":"x"}',
    "given up": b'{"event":"given_up","channel":"push.deal","reason":"x"}',
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_what_was_not_connected_throughout_is_unknown_and_never_differs(event: bytes) -> None:
    trades = made()
    at = STARTS[1] + 20_000
    lost = [t for t in trades if not at <= t.t < at + 5_000]
    assert len(lost) < len(trades)
    rows = recorded(lost, candles(trades, ALL))
    place = next(n for n, row in enumerate(rows) if row[2] > at)
    connected: list[Row] = [(Mt.EVENT, b'{"event":"connected"}', at + 4_900), (Mt.EVENT, SUBSCRIBED, at + 5_000)]
    found = judged([*rows[:place], (Mt.EVENT, event, at), *connected, *rows[place:]])
    assert [found[start].verdict for start in STARTS] == ["agrees", "unknown", "agrees", "agrees"]
    assert found[STARTS[1]].why == "not connected throughout"
    assert found[STARTS[1]].difference("volume"), "how much is missing is said all the same"


def test_the_edges_of_a_minute_need_a_connection_too() -> None:
    """Trades are pushed some tenths of a second after they were made."""
    trades = made()
    rows = recorded(trades, candles(trades, ALL))
    end = STARTS[0] + MINUTE_MS
    over: Row = Mt.EVENT, EVENTS["disconnected"], 0
    again = [(Mt.EVENT, SUBSCRIBED, end + 20_000), *(row for row in rows if row[2] > end + 20_000)]
    for late, verdict in ((-100, "unknown"), (2_900, "unknown"), (3_100, "differs")):
        cut = [row for row in rows if row[2] <= end - 100] + [depth(end + late), over]
        assert judged([*cut, *again])[STARTS[0]].verdict == ("unknown" if late < 0 else "agrees")
        del cut[-3]
        assert judged([*cut, *again])[STARTS[0]].verdict == verdict


def test_rows_that_are_missing_end_what_was_recorded() -> None:
    trades = made()
    rows = recorded(trades, candles(trades, ALL))
    hole = next(n for n, row in enumerate(rows) if row[2] > STARTS[2] + 20_000)
    checker = Minutes(SYMBOL, Decimal("0.0001"))
    for seq, (mt, m, ts) in enumerate(rows, 1):
        if seq != hole:
            checker.goes_on(seq, seq)
            checker.take(evidence(SYMBOL, ts * 1_000_000 + 1_000_000, ts, mt, m))
    found = {minute.start_ms: minute.verdict for minute in checker.result()}
    assert sorted(found[start] for start in STARTS) == ["agrees", "agrees", "agrees", "unknown"]


def test_trades_fetched_over_rest_count_and_what_was_filled_can_agree() -> None:
    trades = made()
    at = STARTS[1] + 20_000
    gone = [t for t in trades if at <= t.t < at + 10_000]
    kept = [t for t in trades if t not in gone]
    rows = recorded(kept, candles(trades, ALL))
    place = next(n for n, row in enumerate(rows) if row[2] > at)
    before, after = max(t.t for t in kept if t.t < at), min(t.t for t in kept if t.t > at)
    broken: list[Row] = [(Mt.EVENT, EVENTS["disconnected"], at), (Mt.EVENT, SUBSCRIBED, at + 10_000)]
    fetched: list[Row] = [(Mt.REPAIRED, item(t).encode(), at + 12_000) for t in gone]
    stretch = f'"channel":"push.deal","from":{before},"to":{after}'
    filled: Row = Mt.EVENT, f'{{"event":"filled",{stretch},"count":{len(gone)}}}'.encode(), at + 12_000
    whole_again = judged([*rows[:place], *broken, *rows[place:], *fetched, filled])
    assert whole_again[STARTS[1]].verdict == "agrees"
    assert whole_again[STARTS[1]].filled == len(gone)
    one_less = judged([*rows[:place], *broken, *rows[place:], *fetched[1:], filled])
    assert one_less[STARTS[1]].verdict == "unknown", "never differs"
    doubtful: Row = Mt.EVENT, f'{{"event":"unfilled",{stretch},"reason":"x"}}'.encode(), at
    assert judged([*recorded(trades, candles(trades, ALL)), doubtful])[STARTS[1]].verdict == "unknown"


def test_amounts_are_compared_where_the_size_of_a_contract_is_known() -> None:
    trades = made()
    answer = json.loads(candles(trades, ALL), parse_float=Decimal)
    answer["amount"] = [value * 2 for value in answer["amount"]]
    text = "{" + ",".join(f'"{name}":[{",".join(map(str, values))}]' for name, values in answer.items()) + "}"
    rows = recorded(trades, text.encode())

    def verdicts(*more: bytes, size: Decimal | None = None) -> list[str]:
        found = judged([*rows, *((int(Mt.CONTRACT), m, BEGIN) for m in more)], size)
        return [f"{found[start].verdict} {found[start].why}".strip() for start in STARTS]

    assert verdicts() == ["agrees"] * MINUTES
    specification = b'{"symbol":"BTC_USDT","contractSize":0.0001}'
    pushed = b'{"channel":"push.contract","data":{"symbol":"BTC_USDT","contractSize":1E-4},"ts":1}'
    assert verdicts(specification, pushed) == ["differs amount"] * MINUTES
    assert verdicts(size=Decimal("0.00020")) == ["agrees"] * MINUTES
    other = b'{"symbol":"BTC_USDT","contractSize":0.001}'
    assert verdicts(specification, other) == ["agrees"] * MINUTES, "which trades were made before is not known"
    unreadable = b'{"symbol":"BTC_USDT","contractSize":[]}'
    assert verdicts(unreadable) == ["agrees"] * MINUTES


def rescaled(answer: bytes, from_ms: int, by: int) -> bytes:
    """The same candles as of a contract that is so many times as large from a minute on."""
    columns = json.loads(answer, parse_float=Decimal)
    columns["amount"] = [
        value * by if time * 1000 >= from_ms else value
        for time, value in zip(columns["time"], columns["amount"], strict=True)
    ]
    return (
        "{" + ",".join(f'"{name}":[{",".join(map(str, values))}]' for name, values in columns.items()) + "}"
    ).encode()


@pytest.mark.parametrize("known", [0, 1, 2, 3])
@pytest.mark.parametrize("changed", [0, 1, 2, 3])
def test_a_contract_that_changes_its_size_makes_no_minute_differ(changed: int, known: int) -> None:
    """It is known up to an hour after it was so, and meanwhile a row says what was known before."""
    trades = made()
    rows = recorded(trades, rescaled(candles(trades, ALL), STARTS[changed], 10))
    for start, size in ((BEGIN - 5_000, "0.0001"), (STARTS[known] + 30_000, "0.001" if known >= changed else "0.0001")):
        place = next(n for n, row in enumerate(rows) if row[2] > start)
        rows.insert(place, (Mt.CONTRACT, b'{"symbol":"BTC_USDT","contractSize":%s}' % size.encode(), start))
    later: Row = Mt.CONTRACT, b'{"symbol":"BTC_USDT","contractSize":0.001}', STARTS[-1] + MINUTE_MS + 30_000
    found = judged([*rows, later], None)
    assert [found[start].verdict for start in STARTS] == ["agrees"] * MINUTES
    for start in STARTS[known + 1 :]:
        if known >= changed:
            assert found[start].own["amount"] == found[start].candle["amount"] is not None, "it is compared again"


def test_amounts_of_binary_floats_may_be_off_by_their_last_digits() -> None:
    trades = [Trade(BEGIN + k * 50, Fraction(763_761 + k * 13, 10), 1 + k % 89, False, k + 1) for k in range(1000)]
    total = sum(float(t.p) * t.v * 0.0001 for t in trades)
    exact = sum((t.p * t.v * SIZE for t in trades), Fraction(0))
    assert Fraction(repr(total)) != exact, "or nothing is shown"
    columns = json.loads(candles(trades, ALL), parse_float=Decimal)

    def verdict(amount: str) -> str:
        columns["amount"][0] = amount
        text = "{" + ",".join(f'"{name}":[{",".join(map(str, values))}]' for name, values in columns.items()) + "}"
        return judged(recorded(trades, text.encode()))[STARTS[0]].verdict

    assert verdict(repr(total)) == "agrees"
    assert verdict(spelled(exact + Fraction(1, 100_000))) == "differs"


def test_trades_of_the_same_millisecond_have_no_order() -> None:
    trades = [Trade(BEGIN + 100, Fraction(1000 + k, 10), 1, False, 9 - k) for k in range(3)] + [
        Trade(BEGIN + 900, Fraction(990 + k, 10), 1, False, 20 - k) for k in range(3)
    ]
    for opened in (0, 1, 2):
        for closed in (3, 4, 5):
            columns = json.loads(candles(trades, ALL), parse_float=Decimal)
            columns["realOpen"][0], columns["realClose"][0] = spelled(trades[opened].p), spelled(trades[closed].p)
            text = "{" + ",".join(f'"{name}":[{",".join(map(str, v))}]' for name, v in columns.items()) + "}"
            assert judged(recorded(trades, text.encode()))[STARTS[0]].verdict == "agrees"
    columns["realOpen"][0] = spelled(trades[3].p)
    text = "{" + ",".join(f'"{name}":[{",".join(map(str, v))}]' for name, v in columns.items()) + "}"
    assert judged(recorded(trades, text.encode()))[STARTS[0]].why == "open"


def test_a_minute_without_trades_agrees_with_an_empty_candle() -> None:
    trades = [t for t in made() if t.t // MINUTE_MS * MINUTE_MS != STARTS[1]]
    found = judged(recorded(trades, candles(trades, ALL)))
    assert (found[STARTS[1]].verdict, found[STARTS[1]].trades) == ("agrees", 0)
    without = candles(trades, [start for start in ALL if start != STARTS[1]])
    found = judged(recorded(trades, without))
    assert (found[STARTS[1]].verdict, found[STARTS[1]].why) == ("unknown", "no candle")


@pytest.mark.parametrize(
    "data",
    ['[{"p":1,"v":1,"t":5}]', '[{"p":"NaN","v":1,"t":1790000040000}]', '[{"v":1,"t":1790000040000}]', "7"],
)
def test_deals_that_cannot_be_read_leave_their_minute_unknown(data: str) -> None:
    trades = made()
    rows = recorded(trades, candles(trades, ALL))
    at = next(n for n, row in enumerate(rows) if row[2] > STARTS[1] + 9_000)
    odd: Row = Mt.DEAL, f'{{"symbol":"{SYMBOL}","data":{data},"channel":"push.deal","ts":1}}'.encode(), rows[at][2]
    found = judged([*rows[:at], odd, *rows[at:]])
    assert [found[start].verdict for start in STARTS] == ["agrees", "unknown", "agrees", "agrees"]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: b'{"base64":"%s","opcode":2}' % base64.b64encode(m),
        lambda m: b'{"base64":"%s","opcode":1}' % base64.b64encode(m + b"\xff"),
        lambda m: m[:-1],
        lambda m: b"[%s]" % m,
        lambda m: m.replace(b'"symbol"', b'"name"'),
        lambda m: m.replace(b'"channel"', b'"topic"'),
    ],
)
def test_a_dead_letter_that_may_have_been_deals_leaves_its_minute_unknown(change: Callable[[bytes], bytes]) -> None:
    """Frames of binary opcode were passed over, and their minutes differed (fault campaign, 2026-11)."""
    trades = made()
    rows = recorded(trades, candles(trades, ALL))
    at = next(n for n, (mt, _, ts) in enumerate(rows) if mt == Mt.DEAL and ts > STARTS[1] + 9_000)
    _, m, ts = rows[at]
    found = judged([*rows[:at], (Mt.DEAD_LETTER, change(m), ts), *rows[at + 1 :]])
    assert [found[start].verdict for start in STARTS] == ["agrees", "unknown", "agrees", "agrees"]


@pytest.mark.parametrize("m", [b'{"channel":"push.unheard","data":[],"ts":1}', b'{"channel":"rs.error","data":"no"}'])
def test_a_dead_letter_that_is_something_else_says_nothing_of_deals(m: bytes) -> None:
    trades = made()
    rows = recorded(trades, candles(trades, ALL))
    found = judged([*rows[:9], (Mt.DEAD_LETTER, m, rows[9][2]), *rows[9:]])
    assert [found[start].verdict for start in STARTS] == ["agrees"] * MINUTES


def test_deals_that_are_dead_letters_for_their_ts_alone_count() -> None:
    trades = made()
    rows = recorded(trades, candles(trades, ALL))
    late = [
        (Mt.DEAD_LETTER, m.replace(b'"ts":', b'"ts":"x","other":'), ts) if mt == Mt.DEAL and n % 3 == 0 else (mt, m, ts)
        for n, (mt, m, ts) in enumerate(rows)
    ]
    found = judged(late)
    assert [found[start].verdict for start in STARTS] == ["agrees"] * MINUTES


hostile = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["data", "t", "q", "p", "v", "i", "M", "time", "vol", "event", "from", "to", "interval", "a"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(st.lists(st.tuples(st.sampled_from(list(Mt)), hostile, st.integers(-(2**62), 2**62)), max_size=12))
@settings(max_examples=examples(60))
def test_any_rows_are_taken(rows: list[tuple[int, Any, int]]) -> None:
    checker = Minutes(SYMBOL)
    for mt, value, ts in rows:
        checker.take(evidence(SYMBOL, ts, ts, mt, json.dumps(value).encode()))
    assert len(checker.result()) <= 4 * 1440 * len(rows) + 1


def test_whole_minutes_and_counts() -> None:
    hour, minute = 3_600_000_000_000, 60_000_000_000
    assert whole(hour, 2 * hour) == 60
    assert whole(hour + 1, 2 * hour) == 59
    assert whole(hour, 2 * hour - 1) == 59
    assert whole(hour + 1, hour + minute) == 0
    assert whole(hour + 1, hour) == 0
    trades = made()
    found = judged(recorded(trades, candles(trades, ALL)))
    assert counted(found.values(), 60) == Shares(MINUTES, 0, 60 - MINUTES)
    assert from_text(to_text(Shares(1, 2, 3))) == Shares(1, 2, 3)
    for text in (None, "", "[]", '{"agree":1,"differ":2}', '{"agree":-1,"differ":0,"unknown":0}', "[" * 10_000):
        assert from_text(text) is None
