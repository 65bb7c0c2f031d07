"""When candles are asked for, and what becomes of an answer."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline import config
from mexc_pipeline.egress.dial import EgressError, dial
from mexc_pipeline.egress.http import HttpAnswer, RestClient
from mexc_pipeline.exchange.rest import RestRefusedError, kline_path, read_klines
from mexc_pipeline.feed.candles import Candles, due_s

NOW = 1_790_000_040.0
HOUR = 3600.0
KLINES = {"time": [1_790_000_040], "vol": [7], "amount": [1.5], "open": [1], "high": [1], "low": [1], "close": [1]}


def body(data: Any) -> bytes:
    return json.dumps({"success": True, "code": 0, "data": data}, separators=(",", ":")).encode()


class GivenRest(RestClient):
    """Answers that the test gives, one for each question; the last one again and again."""

    def __init__(self, *answers: bytes | None) -> None:
        settings = config.parse("", None)
        super().__init__(settings.symbols[0].egress, settings.exchange, dial)
        self.answers = list(answers)
        self.asked: list[str] = []

    def get(self, path: str, within_s: float = 5.0) -> HttpAnswer:
        self.asked.append(path)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise EgressError("not reached")
        return HttpAnswer(200, {}, answer, self.url, time.time_ns(), time.time_ns())


@given(
    st.floats(10**9, 4 * 10**9),
    st.sampled_from([1.0, 5.0, 60.0, 300.0, 900.0, HOUR, 6 * HOUR]),
    st.from_regex("[a-z]{1,8}", fullmatch=True),
)
def test_the_next_time_is_just_before_an_end_and_always_at_the_same_second(now: float, every: float, name: str) -> None:
    due = due_s(now, every, name)
    assert now < due <= now + every + 0.001
    early = -due % every
    assert early == pytest.approx(-due_s(NOW, every, name) % every, abs=0.01)
    if every >= 300:
        assert 11.9 < early <= 52.1, "all minutes but the last are over by 8 seconds or more, and there is time left"
    assert due_s(due, every, name) == pytest.approx(due + every, abs=0.01)


def test_symbols_do_not_ask_all_at_once() -> None:
    seconds = {round(due_s(NOW, HOUR, name)) for name in ("btc", "eth", "sol", "doge", "xrp", "link", "ltc", "ada")}
    assert len(seconds) >= 6


def test_what_is_asked_is_the_time_since_the_one_before_the_last_answer() -> None:
    rest = GivenRest(body(KLINES))
    candles = Candles("BTC_USDT", "btc", rest, lambda m: None, lambda: True, HOUR, lambda: NOW)
    assert json.loads(candles.fetch()) == KLINES
    start = int(NOW) - 2 * 3600 - 600
    assert rest.asked == [kline_path("BTC_USDT", start)] == [
        f"/api/v1/contract/kline/BTC_USDT?interval=Min1&start={start}"
    ]  # fmt: skip


def run(rest: GivenRest, connected: bool = True, wanted: int = 1) -> list[bytes]:
    """What is kept by the time that the questions were asked."""
    kept: list[bytes] = []
    stop, asked = threading.Event(), threading.Event()

    def connection() -> bool:
        if len(rest.asked) + len(kept) >= wanted or not connected:
            asked.set()
        return connected

    def keep(m: bytes) -> None:
        kept.append(m)
        asked.set()

    candles = Candles("BTC_USDT", "btc", rest, keep, connection, 1.0)
    running = threading.Thread(target=candles.run, args=(stop,))
    running.start()
    assert asked.wait(30)
    stop.set()
    running.join(30)
    assert not running.is_alive()
    return kept


def test_an_answer_is_kept_byte_for_byte() -> None:
    data = b'{ "time" : [1790000040], "vol":[7.000000000000000000000000000000],"more":"\xc3\xa9" }'
    assert run(GivenRest(b'{"success":true,"code":0,"data":%s}' % data)) == [data]


def test_nothing_is_asked_without_a_connection() -> None:
    rest = GivenRest(body(KLINES))
    assert run(rest, connected=False) == []
    assert rest.asked == []


def test_what_was_in_vain_is_asked_for_again() -> None:
    rest = GivenRest(None, b'{"success":false,"code":510}', b"<html>", body(KLINES))
    assert len(run(rest, wanted=99)) == 1
    assert len(rest.asked) == 4


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        None,
        {"time": [1], "vol": [1]},
        {"time": [1_790_000_041], "vol": [1]},
        {"time": [1_790_000_040], "vol": [1, 2]},
        {"time": [1_790_000_040], "vol": [1], "amount": []},
        {"time": [1_790_000_040], "vol": ["x"]},
        {"time": [1_790_000_040], "vol": ["NaN"]},
        {"time": [1_790_000_040], "vol": [None]},
        {"time": [1_790_000_040], "vol": [1], "close": [1e300]},
        {"time": [1_790_000_040 + 60 * n for n in range(2001)], "vol": [1] * 2001},
        "time",
    ],
)
def test_what_are_no_candles_is_refused(data: Any) -> None:
    with pytest.raises(RestRefusedError):
        read_klines(200, body(data))


def test_answers_without_end_and_of_no_text_are_refused() -> None:
    for odd in (b'{"success":true,"data":[' + b"0," * 500_000 + b"0]}", b"[" * 100_000):
        with pytest.raises(RestRefusedError):
            read_klines(200, odd)
    with pytest.raises(RestRefusedError):
        read_klines(200, b'{"success":true,"data":{"time":[],"vol":[],"note":"\xff"}}')
    with pytest.raises(RestRefusedError, match="HTTP 403"):
        read_klines(403, b"")
    assert read_klines(200, body({"time": [], "vol": []})) == b'{"time":[],"vol":[]}'
