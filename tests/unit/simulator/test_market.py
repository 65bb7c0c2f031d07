"""The simulated market: exact numbers, a book that remembers, frames that look like the real ones."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.simulator import samples
from mexc_pipeline.simulator.book import Book, Commit, Levels, Side
from mexc_pipeline.simulator.frames import Style, SymbolFeed, channel_of, stream_of
from mexc_pipeline.simulator.market import MarketSettings, contract
from mexc_pipeline.simulator.numbers import respell, spell, to_decimal
from mexc_pipeline.simulator.tickers import AllTickers
from support.examples import examples

NOW = 1_790_000_000_000
ALL_STREAMS = (
    "ticker", "deal", "deal.each", "depth", "depth.each", "depth.full.5", "depth.full.10", "depth.full.20",
    "depth.full.50", "index.price", "fair.price", "funding.rate", "kline.Min1", "depth.step.10",
)  # fmt: skip


def feed(symbol: str = "BTC_USDT", seed: int = 7, rate: float = 500.0, style: Style | None = None) -> SymbolFeed:
    return SymbolFeed(contract(symbol), seed, MarketSettings(rate=rate), style or Style(), NOW)


def run(subject: SymbolFeed, streams: tuple[str, ...], ticks: int) -> list[tuple[str, bytes]]:
    out: list[tuple[str, bytes]] = []
    for n in range(ticks):
        out += [(push.stream, push.payload) for push in subject.tick(0.01, NOW + 10 * n, streams)]
    return out


@given(st.integers(-(10**15), 10**15), st.integers(0, 12), st.integers(0, 2**32))
def test_every_spelling_of_a_price_has_exactly_its_value(units: int, scale: int, seed: int) -> None:
    text = spell(units, scale)
    assert Decimal(text) == to_decimal(units, scale)
    again = respell(text, Random(seed))
    assert Decimal(again) == to_decimal(units, scale)
    assert json.loads(again, parse_float=Decimal) == to_decimal(units, scale)


def test_the_three_unusual_spellings_all_occur() -> None:
    spelled = {respell(text, Random(seed)) for seed in range(200) for text in ("75480", "0.08009")}
    assert {"7.548E+4", "0.080090", "0.0800900"} <= spelled
    assert any(text.endswith("0" * 30) for text in spelled)


commands = st.lists(st.tuples(st.sampled_from(["asks", "bids"]), st.integers(1, 12), st.integers(0, 3)), max_size=60)


@given(commands)
def test_any_retained_version_of_the_book_can_be_rebuilt(steps: list[tuple[Side, int, int]]) -> None:
    book = Book(version=1000, retain=40)
    book.seed("asks", 5, 9, 1)
    seen: dict[int, Levels] = {1000: book.at(1000)}
    for side, tick, quantity in steps:
        change = book.commit(side, tick, quantity, min(quantity, 1), cts=NOW)
        seen[change.version] = book.at(change.version)
    for version, levels in seen.items():
        if version >= book.oldest():
            assert book.at(version) == levels
        else:
            with pytest.raises(LookupError, match="not within"):
                book.at(version)
    with pytest.raises(LookupError):
        book.at(book.version + 1)


def test_the_book_never_crosses_and_versions_are_consecutive() -> None:
    subject = feed()
    book, last = subject.market.book, subject.market.book.version
    moved = {book.best("asks")}
    for n in range(3000):
        for change in subject.market.tick(0.01, NOW + 10 * n).commits:
            assert isinstance(change, Commit)
            assert change.version == last + 1
            last = change.version
        assert book.best("bids") < book.best("asks")
        assert min(book.size("asks"), book.size("bids")) >= 100
        assert max(book.size("asks"), book.size("bids")) < 1000
        moved.add(book.best("asks"))
    assert len(moved) > 20


@given(st.integers(0, 2**31), st.sampled_from(["BTC_USDT", "DOGE_USDT", "NEW_USDT"]))
@settings(max_examples=examples(5), deadline=None)
def test_same_seed_and_ticks_give_identical_frames(seed: int, symbol: str) -> None:
    assert run(feed(symbol, seed), ALL_STREAMS, 30) == run(feed(symbol, seed), ALL_STREAMS, 30)
    assert run(feed(symbol, seed), ALL_STREAMS, 30) != run(feed(symbol, seed + 1), ALL_STREAMS, 30)


def test_what_is_rendered_does_not_change_the_market() -> None:
    alone = [f for s, f in run(feed(), ("depth.full.20",), 300) if s == "depth.full.20"]
    among_others = [f for s, f in run(feed(), ALL_STREAMS, 300) if s == "depth.full.20"]
    assert alone == among_others


def keys(value: Any) -> Any:
    """Key order of all objects; the first item stands for a list."""
    if isinstance(value, dict):
        return [(key, keys(item)) for key, item in value.items()]
    return keys(value[0]) if isinstance(value, list) and value and isinstance(value[0], dict) else None


def is_older_form(frame: Any) -> bool:
    """Real frames from before deals were a list with ids and depth had `cts`."""
    data = frame["data"]
    if frame["channel"] == "push.deal":
        return isinstance(data, dict) or "i" not in data[0]
    return frame["channel"] == "push.depth.full" and "cts" not in data


@pytest.mark.parametrize("style", [Style(), Style(candle_self_trades=False, candle_real=False)])
def test_candles_are_those_of_the_trades(style: Style) -> None:
    """Made again from the frames of deals, with nothing of the simulator's."""
    subject = feed(rate=9.0, style=style)
    trades: dict[int, list[dict[str, Any]]] = {}
    last: dict[int, dict[str, Any]] = {}
    for n in range(4 * 60 * 2):
        for push in subject.tick(0.5, NOW + 500 * n, ("deal", "kline.Min1")):
            data = json.loads(push.payload, parse_float=Decimal)["data"]
            if push.channel == "deal":
                for deal in data:
                    trades.setdefault(deal["t"] // 60_000 * 60, []).append(deal)
            else:
                last[data["t"]] = data
    before = None
    whole = sorted(last)[:-1]
    assert len(whole) >= 3
    for start in whole:
        made, shown = trades[start], last[start]
        counting = [d for d in made if style.candle_self_trades or d["M"] != 1]
        assert len(counting) > 9
        assert shown["q"] == sum(d["v"] for d in counting)
        assert shown["a"] == sum(d["p"] * d["v"] * Decimal("0.0001") for d in counting)
        prices = [Decimal(d["p"]) for d in made]
        first, end = min(d["t"] for d in made), max(d["t"] for d in made)
        assert shown["c"] in {d["p"] for d in made if d["t"] == end}
        if before is not None:
            assert shown["o"] == before
            assert (shown["h"], shown["l"]) == (max(*prices, before), min(*prices, before))
        if style.candle_real:
            assert (shown["rh"], shown["rl"], shown["rc"]) == (max(prices), min(prices), shown["c"])
            assert shown["ro"] in {d["p"] for d in made if d["t"] == first}
        assert ("ro" in shown) is style.candle_real
        before = shown["c"]


def test_frames_have_the_key_order_of_the_real_ones() -> None:
    rendered: dict[str, list[Any]] = {}
    for _, payload in run(feed(), ALL_STREAMS, 400):
        frame = samples.parse(payload)
        rendered.setdefault(frame["channel"], []).append(keys(frame))
    checked = set()
    for real in map(samples.parse, samples.frames()):
        if real["channel"].startswith("push.") and not is_older_form(real):
            assert keys(real) in rendered[real["channel"]], real["channel"]
            checked.add(real["channel"])
    assert checked == {f"push.{channel_of(stream)}" for stream in ALL_STREAMS}


def test_merged_depth_continues_and_is_unordered() -> None:
    frames = [json.loads(f)["data"] for _, f in run(feed(), ("depth",), 3000)]
    assert len(frames) > 50
    for before, after in pairwise(frames):
        assert after["begin"] == before["end"] + 1
        assert after["version"] == after["end"] >= after["begin"]
    asks = [[level[0] for level in f["asks"]] for f in frames]
    assert any(prices != sorted(prices) and prices != sorted(prices, reverse=True) for prices in asks)
    assert all(len(set(prices)) == len(prices) for prices in asks)


def test_merged_deals_are_newest_first_and_hold_the_unmerged_ones() -> None:
    frames = run(feed(), ("deal", "deal.each"), 2000)
    merged = [json.loads(f)["data"] for s, f in frames if s == "deal"]
    each = [json.loads(f)["data"] for s, f in frames if s == "deal.each"]
    assert max(map(len, merged)) > 1
    assert {len(items) for items in each} == {1}
    flat = [item["i"] for items in merged for item in reversed(items)]
    assert flat == [item["i"] for items in each for item in items]
    assert flat == sorted(flat, key=int)
    assert len(set(flat)) == len(flat)
    assert all(isinstance(item["i"], str) and isinstance(item["cts"], str) for items in merged for item in items)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (Style(deal_form="object"), {"p", "v", "T", "O", "M", "t", "i", "cts"}),
        (Style(deal_id="int"), {"p", "v", "T", "O", "M", "t", "i", "cts"}),
        (Style(deal_id="absent", deal_cts=False), {"p", "v", "T", "O", "M", "t"}),
    ],
)
def test_older_forms_of_a_deal(style: Style, expected: set[str]) -> None:
    _, payload = run(feed(style=style), ("deal",), 200)[0]
    data = json.loads(payload)["data"]
    assert isinstance(data, dict if style.deal_form == "object" else list)
    item = data if isinstance(data, dict) else data[0]
    assert set(item) == expected
    if style.deal_id == "int":
        assert isinstance(item["i"], int)


def test_full_depth_is_best_first_and_never_goes_back() -> None:
    for limit in (5, 10, 20, 50):
        frames = [json.loads(f)["data"] for _, f in run(feed(), (f"depth.full.{limit}",), 300)]
        versions = [f["version"] for f in frames]
        assert versions == sorted(versions)
        for data in frames:
            asks, bids = [a[0] for a in data["asks"]], [b[0] for b in data["bids"]]
            assert len(asks) == len(bids) == limit
            assert asks == sorted(asks)
            assert bids == sorted(bids, reverse=True)
            assert bids[0] < asks[0]


def test_the_natural_mix_of_rates() -> None:
    subject = SymbolFeed(contract("BTC_USDT"), 3, MarketSettings(), Style(), NOW)
    frames = run(subject, ALL_STREAMS, 20_000)
    per_second = {s: sum(1 for name, _ in frames if name == s) / 200 for s in ALL_STREAMS}
    wanted = {"ticker": 0.36, "deal": 4.7, "depth.full.20": 3.75, "depth": 5.0, "index.price": 1.8}
    for stream, rate in wanted.items():
        assert per_second[stream] == pytest.approx(rate, rel=0.15)


def test_subscription_topics() -> None:
    assert stream_of("deal", {"compress": False}) == "deal.each"
    assert stream_of("depth", {"compress": True}) == "depth"
    assert stream_of("depth.full", {}) == "depth.full.20"
    assert stream_of("depth.full", {"limit": 7}) is None
    assert stream_of("surprise", {}) is None
    with pytest.raises(ValueError, match="unknown stream"):
        channel_of("surprise")


def test_the_first_tickers_frame_is_the_full_list_and_can_be_oversized() -> None:
    tickers, feeds = AllTickers(1, rows=1269), {"BTC_USDT": feed()}
    (first,) = tickers.tick(0.01, NOW, feeds, lambda: 0)
    assert len(json.loads(first)["data"]) == 1269
    assert 250_000 < len(first) < 450_000
    later = [f for n in range(500) for f in tickers.tick(0.01, NOW, feeds, lambda: 0)]
    assert len(later) == 2
    assert all(200 < len(json.loads(f)["data"]) < 1000 for f in later)
    tickers.full_next()
    (huge,) = tickers.tick(0.01, NOW, feeds, lambda: 2_000_000)
    assert len(huge) > 2_000_000
    json.loads(huge)
