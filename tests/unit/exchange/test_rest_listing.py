"""Whether the exchange lists a symbol, read from its answers."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.collector import preflight
from mexc_pipeline.exchange.rest import Listing, detail_path, read_listing, refusal


def ok(data: object) -> bytes:
    return json.dumps({"success": True, "code": 0, "data": data}).encode()


@pytest.mark.parametrize(
    ("status", "body", "verdict", "said"),
    [
        (200, ok({"symbol": "BTC_USDT"}), "listed", "listed"),
        (200, ok([{"symbol": "ETH_USDT"}, {"symbol": "BTC_USDT"}]), "listed", "listed"),
        (200, ok([{"symbol": "ETH_USDT"}]), "unlisted", "not among its 1 contracts"),
        (200, ok({"symbol": "ETH_USDT"}), "unlisted", "not among"),
        (200, b'{"success":false,"code":1001,"message":"Contract does not exist"}', "unlisted", "does not exist"),
        (200, b'{"success":false,"code":510,"message":"Requests are too frequent"}', "unknown", "code 510"),
        (200, b'{"success":"true","data":[]}', "unknown", "no code"),
        (200, ok([]), "unknown", "without contracts"),
        (200, ok({}), "unknown", "without contracts"),
        (200, ok([{"symbol": ["BTC_USDT"]}, {"symbol": {}}, 1, None]), "unknown", "without contracts"),
        (200, ok(None), "unknown", "without contracts"),
        (403, b"<html>Access Denied", "unknown", "HTTP 403"),
        (404, ok({"symbol": "BTC_USDT"}), "unknown", "HTTP 404"),
        (200, b"<html>", "unknown", "not JSON"),
        (200, b"[1]", "unknown", "not an object"),
        (200, b"[" * 100_000, "unknown", "not JSON"),
        (200, b'{"success":true,"data":[' + b"[]," * 500_000 + b"0]}", "unknown", "more than 500,000 values"),
    ],
)
def test_only_a_clear_answer_refuses_a_symbol(status: int, body: bytes, verdict: str, said: str) -> None:
    found = read_listing("BTC_USDT", status, body)
    assert found.verdict == verdict
    assert said in found.said


@given(st.sampled_from([200, 500]), st.binary(max_size=60))
def test_no_answer_raises(status: int, body: bytes) -> None:
    assert read_listing("BTC_USDT", status, body).verdict == "unknown"


def test_the_path_names_the_symbol() -> None:
    assert detail_path("BTC_USDT") == "/api/v1/contract/detail?symbol=BTC_USDT"


def test_it_is_asked_until_the_answer_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "AGAIN_MOST_S", 40.0)
    answers = [Listing("unlisted", "code 1001"), *[Listing("unknown", "code 510")] * 5, Listing("listed", "listed")]
    asked, waited = iter(answers), []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            return False

    taken: list[Listing] = []
    preflight.until_listed("BTC_USDT", lambda: next(asked), taken.append, Stop())
    assert taken == answers
    assert waited == [5, 10, 20, 40, 40, 40]


def test_it_is_not_asked_while_the_exchange_asks_for_patience() -> None:
    looks = iter([0.0, 100.0, 100.0, 30.0, 0.0])  # before and after the first question, twice meanwhile, before another
    answers = iter([Listing("unknown", "HTTP 429"), Listing("listed", "listed")])
    waited: list[float | None] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            return False

    taken: list[Listing] = []
    preflight.until_listed("BTC_USDT", lambda: next(answers), taken.append, Stop(), lambda: next(looks))
    assert [listing.verdict for listing in taken] == ["unknown", "listed"]
    assert waited == [100.0, 30.0]


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [(1001, "gone", "code 1001: gone"), (1001, None, "code 1001"), (1001, "", "code 1001"), (None, None, "no code")],
)
def test_what_an_answer_does_not_say_is_left_away(code: int | None, message: str | None, said: str) -> None:
    assert refusal(code, message) == said
