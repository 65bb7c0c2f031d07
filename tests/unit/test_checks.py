"""What the reading thread says of frames that are out of place."""

from __future__ import annotations

import json
import math
from typing import Any

from mexc_pipeline.feed.checks import MOST_IDS, Checks


def deal(number: int) -> bytes:
    return b'{"symbol":"X","data":[{"p":1,"i":"%d","cts":"1"}],"channel":"push.deal","ts":1}' % number


def said(m: bytes | None) -> dict[str, Any]:
    assert m is not None
    found: dict[str, Any] = json.loads(m)
    return found


def test_repeated_deals_are_told_at_once_then_once_a_second_and_all_are_counted() -> None:
    checks = Checks(["push.deal"], None)
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


def test_depth_without_a_repairer_is_still_looked_at() -> None:
    checks = Checks(["push.depth", "push.ticker"], None)
    check = checks.by_channel["push.depth"]
    frames = [b'{"data":{"version":%d},"channel":"push.depth"}' % v for v in (5, 6, 9)]
    assert [check(m) for m in frames[:2]] == [None, None]
    assert said(check(frames[2])) == {"event": "gap", "channel": "push.depth", "from": 7, "to": 8, "count": 2}
    checks.connected()
    assert said(check(b'{"data":{"version":11}}'))["after"] == "reconnect"
    assert check(b"{}") is None
