"""What becomes of missing versions as the exchange's answers come in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.exchange.holes import MOST_EVENTS, Holes, Row, unfinished
from mexc_pipeline.exchange.rest import DepthCommit, RestRefusedError, read_commits, read_snapshot
from mexc_pipeline.rows import Mt
from support.spools import event


def commits(first: int, last: int) -> list[DepthCommit]:
    return [DepthCommit(v, b'{"version":%d}' % v) for v in range(first, last + 1)]


def versions(rows: list[Row]) -> list[int]:
    return [json.loads(m)["version"] for mt, m in rows if mt == Mt.REPAIRED]


def events(rows: list[Row]) -> list[dict[str, Any]]:
    return [json.loads(m) for mt, m in rows if mt == Mt.EVENT]


def test_a_gap_filled_by_one_answer() -> None:
    holes = Holes("push.depth")
    holes.add(11, 14)
    rows = holes.answer(commits(1, 20))
    assert versions(rows) == [11, 12, 13, 14]
    assert events(rows) == [{"event": "repaired", "channel": "push.depth", "from": 11, "to": 14, "count": 4}]
    assert rows[-1][0] == Mt.EVENT, "said when it is done"
    assert len(holes) == holes.given_up == 0


def test_an_answer_that_lags_is_asked_for_again() -> None:
    holes = Holes("push.depth")
    holes.add(11, 14)
    assert holes.answer(commits(1, 10)) == []
    assert holes.answer([]) == []
    assert versions(holes.answer(commits(5, 12))) == [11, 12]
    rows = holes.answer(commits(12, 30))
    assert versions(rows) == [13, 14], "each version once"
    assert [(e["event"], e["from"], e["to"]) for e in events(rows)] == [("repaired", 11, 14)]


def test_what_the_exchange_no_longer_has_is_given_up_at_once() -> None:
    holes = Holes("push.depth")
    holes.add(1, 5)
    holes.add(8, 12)
    rows = holes.answer(commits(10, 30))
    assert versions(rows) == [10, 11, 12]
    gone = "no longer among the exchange's commits"
    assert [(e["event"], e["from"], e["to"], e["count"], e.get("reason")) for e in events(rows)] == [
        ("unrepaired", 1, 5, 5, gone),
        ("repaired", 10, 12, 3, None),
        ("unrepaired", 8, 9, 2, gone),
    ]
    assert (len(holes), holes.given_up) == (0, 9)


def test_tries_are_bounded_whatever_comes() -> None:
    holes = Holes("push.depth", most_tries=3)
    holes.add(11, 12)
    assert [holes.failed("HTTP 403"), holes.answer(commits(1, 10))] == [[], []]
    (said,) = events(holes.failed("HTTP 403"))
    assert (said["event"], said["reason"]) == ("unrepaired", "HTTP 403")
    holes.add(20, 22)
    for _ in range(2):
        assert holes.answer(commits(1, 19)) == []
    (said,) = events(holes.answer(commits(1, 19)))
    assert (said["from"], said["to"], said["reason"]) == (20, 22, "not among the exchange's commits in time")


def test_closing_says_what_was_not_done() -> None:
    holes = Holes("push.depth")
    holes.add(11, 14)
    holes.answer(commits(12, 13))
    assert [(e["event"], e["from"], e["to"]) for e in events(holes.close("stopped"))] == [
        ("repaired", 12, 13),
        ("unrepaired", 11, 11),
        ("unrepaired", 14, 14),
    ]
    assert len(holes) == 0


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), min_size=1, max_size=6),
    st.lists(st.one_of(st.none(), st.tuples(st.integers(1, 80), st.integers(0, 40))), max_size=12),
)
def test_every_missing_version_ends_once(gaps: list[tuple[int, int]], answers: list[tuple[int, int] | None]) -> None:
    """Whatever the answers: a version is either kept and called repaired, or called unrepaired."""
    holes = Holes("push.depth")
    missing: list[int] = []
    at = 0
    for skip, size in gaps:
        first = at + skip
        at = first + size + 1
        holes.add(first, first + size)
        missing += range(first, first + size + 1)
    rows: list[Row] = []
    for answer in answers:
        rows += holes.failed("none") if answer is None else holes.answer(commits(answer[0], sum(answer)))
    rows += holes.close("stopped")
    said = events(rows)
    repaired = [v for e in said if e["event"] == "repaired" for v in range(e["from"], e["to"] + 1)]
    unrepaired = [v for e in said if e["event"] == "unrepaired" for v in range(e["from"], e["to"] + 1)]
    assert sorted(versions(rows)) == sorted(repaired)
    assert sorted(repaired + unrepaired) == missing
    assert len(holes) == 0


def test_commits_are_kept_byte_for_byte_and_put_in_order() -> None:
    newest, oldest = (
        b'{"cts":1789498321765,"asks":[[2384.60,2666,2]],"bids":[],"version":37723308981}',
        b'{ "cts":null, "asks":[],"bids":[[7.548E+4,0,0]], "version":37723308980 }',
    )
    body = b'{"success":true,"code":0,"data":[' + newest + b", " + oldest + b"]}"
    assert read_commits(200, body) == [(37723308980, oldest), (37723308981, newest)]
    book = b'{"cts":null,"asks":[[0.0801,1,1]],"bids":[],"version":7,"timestamp":1789498321765}'
    assert read_snapshot(200, b'{"success":true,"code":0,"data":' + book + b"}") == (7, book)


@pytest.mark.parametrize(
    ("status", "body", "reason", "throttled"),
    [
        (403, b"<HTML>", "HTTP 403", False),
        (429, b"", "HTTP 429", True),
        (200, b"<HTML>", "not JSON", False),
        (200, b'{"success":false,"code":510,"message":"Requests are too frequent"}', "code 510: Requests", True),
        (200, b'{"success":false,"code":1001}', "code 1001", False),
        (200, b'{"success":true,"code":0}', "cannot be read", False),
        (200, b'{"success":true,"data":[{"version":"x"}]}', "cannot be read", False),
        (200, b"[]", "not JSON", False),
    ],
)
def test_other_answers_are_refused(status: int, body: bytes, reason: str, throttled: bool) -> None:
    for read in (read_commits, read_snapshot):
        with pytest.raises(RestRefusedError, match=reason) as refused:
            read(status, body)
        assert refused.value.throttled == throttled


def scattered(count: int) -> list[DepthCommit]:
    return [DepthCommit(2 * v, b'{"version":%d}' % (2 * v)) for v in range(1, count + 1)]


def test_the_work_is_linear_in_what_came() -> None:
    """20,000 versions each by itself once held the collector for more than 15 s."""
    counted = 0

    class Version(int):
        def __le__(self, other: int) -> bool:
            nonlocal counted
            counted += 1
            return super().__le__(other)

    holes = Holes("push.depth")
    holes.add(1, 40_001)
    rows = holes.answer([DepthCommit(Version(c.version), c.m) for c in scattered(20_000)])
    assert len(versions(rows)) == 20_000
    assert counted < 10 * 20_000


def test_what_lies_scattered_is_told_in_few_events_and_counted_whole() -> None:
    holes = Holes("push.depth")
    holes.add(1, 40_001)
    rows = holes.answer(scattered(20_000)) + holes.close("stopped")
    said = events(rows)
    assert len(said) <= 2 * MOST_EVENTS
    for name, count in (("repaired", 20_000), ("unrepaired", 20_001)):
        of = [e for e in said if e["event"] == name]
        assert sum(e["count"] for e in of) == count
        assert (of[0]["from"], of[-1]["to"]) in ((2, 40_000), (1, 40_001))
    assert not unfinished("push.depth", [event("gap", channel="push.depth", **{"from": 1, "to": 40_001}), *[
        m for mt, m in rows if mt == Mt.EVENT
    ]], [])  # fmt: skip


def test_commits_without_a_version_are_left_out_of_an_answer() -> None:
    body = b'{"success":true,"code":0,"data":[{"version":null},{"version":"8"},{},7,{"version":%s},{"version":7}]}'
    assert [c.version for c in read_commits(200, body % (b"9" * 400))] == [7, 8]
    with pytest.raises(RestRefusedError, match="commits that cannot be read"):
        read_commits(200, b'{"success":true,"data":[{"version":null}]}')
    with pytest.raises(RestRefusedError, match="book that cannot be read"):
        read_snapshot(200, b'{"success":true,"data":{"asks":null,"bids":[]}}')
    assert read_snapshot(200, b'{"success":true,"data":{"asks":null,"version":"12"}}').version == 12


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"0," * 600_000 + b"0", "more than 500,000 values"),
        (b'{"version":1},' * 20_000 + b'{"version":1}', "20,001 commits, where 1,000 were asked for"),
    ],
)
def test_an_answer_of_more_than_was_asked_for_is_refused_before_it_is_taken_apart(data: bytes, reason: str) -> None:
    """16 MB of small values took 972 MiB, and nothing else was done for a second or more."""
    with pytest.raises(RestRefusedError, match=reason):
        read_commits(200, b'{"success":true,"data":[' + data + b"]}")
