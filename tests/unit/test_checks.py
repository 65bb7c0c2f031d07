"""What the reading thread says of frames that are out of place."""

from __future__ import annotations

import json
import math
from typing import Any

from mexc_pipeline import events
from mexc_pipeline.exchange.checks import MOST_IDS, Checks, Found
from mexc_pipeline.exchange.depth import Gap


def deal(number: int) -> bytes:
    return b'{"symbol":"X","data":[{"p":1,"i":"%d","cts":"1"}],"channel":"push.deal","ts":1}' % number


def said(m: bytes | None) -> dict[str, Any]:
    assert m is not None
    found: dict[str, Any] = json.loads(m)
    return found


def test_repeated_deals_are_told_at_once_then_once_a_second_and_all_are_counted() -> None:
    checks = Checks(["push.deal"])
    check = checks.by_channel["push.deal"]
    assert list(checks.by_channel) == ["push.deal"]
    for n in range(100):
        assert check(deal(n)) is None
    assert checks.repeated(10.0) is None
    check(deal(7))
    assert said(checks.repeated(10.0)) == {"event": "repeated", "channel": "push.deal", "count": 1, "ids": ["7"]}
    for n in range(50):
        check(deal(n))
    assert checks.repeated(10.5) is None
    again = said(checks.repeated(11.0))
    assert (again["count"], again["ids"]) == (50, [str(n) for n in range(MOST_IDS)])
    check(deal(3))
    assert said(checks.repeated(math.inf))["count"] == 1, "a connection's end tells the rest"
    check(deal(4))
    assert said(checks.repeated(11.1))["count"] == 1


def test_what_depth_lacks_is_said_and_what_is_to_be_fetched_for_it() -> None:
    checks = Checks(["push.depth", "push.ticker"])
    check = checks.by_channel["push.depth"]
    assert checks.newest == 0
    frames = [b'{"data":{"version":%d},"channel":"push.depth"}' % v for v in (5, 6, 9)]
    assert check(frames[0]) == Found(book=4), "a whole book to build on"
    assert check(frames[1]) is None
    missing = events.Gap(channel="push.depth", first=7, last=8, count=2)
    assert check(frames[2]) == Found(missing, Gap(7, 8))
    assert checks.newest == 9
    checks.connected()
    missing = events.Gap(channel="push.depth", first=10, last=10, count=1, after="reconnect")
    assert check(b'{"data":{"version":11}}') == Found(missing, Gap(10, 10), 10)
    checks.segment_opened()
    assert check(b'{"data":{"version":12}}') == Found(book=11), "each segment has a book of its own"
    assert check(b"{}") is None
    checks.connected()
    anew = events.Regressed(channel="push.depth", first=12, last=3, anew=True, after="reconnect")
    assert check(b'{"data":{"version":3}}') == Found(anew, book=2, anew=12)
    assert check(b'{"data":{"version":4}}') is None
