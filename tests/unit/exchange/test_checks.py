"""What the reading thread says of frames that are out of place."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline import events
from mexc_pipeline.exchange.checks import MOST_IDS, UNVERSIONED, Checks, FollowUp
from mexc_pipeline.exchange.depth import MissingVersions
from mexc_pipeline.rows import Mt


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
    assert check(frames[0]) == FollowUp(book=4), "a snapshot to build on"
    assert check(frames[1]) is None
    missing = events.Gap(channel="push.depth", first=7, last=8, count=2)
    assert check(frames[2]) == FollowUp(missing, MissingVersions(7, 8))
    assert checks.newest == 9
    checks.connected()
    missing = events.Gap(channel="push.depth", first=10, last=10, count=1, after="reconnect")
    assert check(b'{"data":{"version":11}}') == FollowUp(missing, MissingVersions(10, 10), 10)
    checks.segment_opened()
    assert check(b'{"data":{"version":12}}') == FollowUp(book=11), "each segment has a book of its own"
    assert check(b"{}") is None
    checks.connected()
    reset = events.Regressed(channel="push.depth", first=12, last=3, anew=True, after="reconnect")
    assert check(b'{"data":{"version":3}}') == FollowUp(reset, book=2, reset_after=12)
    assert check(b'{"data":{"version":4}}') is None


NO_VERSION = [b"{}", b'{"data":{"v":5}}', b'{"data":{"version":5.5}}', b'{"data":{"version":100000000000000000000}}']


@pytest.mark.parametrize("channel", ["push.depth", "push.depth.full"])
@pytest.mark.parametrize("frame", NO_VERSION)
def test_depth_without_versions_is_said_once_and_what_was_missing_meanwhile_is_found(
    channel: str, frame: bytes
) -> None:
    checks = Checks([channel])
    check = checks.by_channel[channel]
    check(b'{"data":{"version":5}}')
    found = [check(frame) for _ in range(3 * UNVERSIONED)]
    assert found[UNVERSIONED - 1] == FollowUp(events.Unversioned(channel=channel, count=UNVERSIONED))
    assert found.count(None) == len(found) - 1
    assert checks.unversioned == {channel: len(found)}
    back = check(b'{"data":{"version":9}}')
    assert checks.unversioned == {channel: 0}
    if channel == "push.depth":
        assert back is not None
        assert back.gap == MissingVersions(6, 8)
    assert [check(frame) for _ in range(UNVERSIONED)][-1] is not None, "once more, where it begins once more"


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deal"), st.integers(0, 30)),
        st.tuples(st.just("time"), st.floats(0.0, 0.6)),
        st.tuples(st.sampled_from(["end", "stop"]), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 6)),
    ),
    max_size=80,
)


@given(_STEPS)
def test_what_came_again_is_said_whole_whatever_kills_took(steps: list[tuple[str, Any]]) -> None:
    """``kill``: the last rows so many were not committed."""
    rows: list[tuple[int, bytes]] = []
    checks, now = Checks(["push.deal"]), 0.0

    def say(at: float) -> None:
        if (m := checks.repeated(at)) is not None:
            rows.append((Mt.EVENT, m))

    for step, value in steps:
        if step == "deal":
            checks.by_channel["push.deal"](deal(value))
            rows.append((Mt.DEAL, deal(value)))
        elif step == "time":
            now += value
            say(now)
        elif step == "kill":
            del rows[len(rows) - min(value, len(rows)) :]
            checks = Checks(["push.deal"], 0, rows)
        else:
            say(math.inf)
            if step == "stop":
                checks = Checks(["push.deal"], 0, rows)
                assert checks.repeated(0.0) is None, "all was said"
            checks.connected()
            rows.append((Mt.EVENT, events.Connected(egress="direct", peer="", local="", url="").m))
    say(math.inf)
    deals = [m for mt, m in rows if mt == Mt.DEAL]
    told = sum(json.loads(m)["count"] for _, m in rows if m.startswith(b'{"event":"repeated"'))
    assert told == len(deals) - len(set(deals))


def test_a_trade_that_was_fetched_is_known_like_one_that_came() -> None:
    fetched = b'{"p":1,"v":1,"T":1,"t":1788335242156,"i":"4"}'
    checks = Checks(["push.deal"], 0, [(Mt.DEAL, deal(3)), (Mt.REPAIRED, fetched)])
    checks.by_channel["push.deal"](deal(5))
    assert checks.repeated(1.0) is None
    checks.by_channel["push.deal"](deal(4))
    assert said(checks.repeated(3.0))["ids"] == ["4"]
