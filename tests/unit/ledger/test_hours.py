"""Coverage, gaps and holes, hour by hour, out of what the events say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.ledger.account import Account, ChannelMoment, Moment, WrongTimes
from mexc_pipeline.ledger.conservation import Conservation, Side
from mexc_pipeline.ledger.coverage import Coverage, Piece, within
from mexc_pipeline.ledger.hours import Hour, hours, total
from support.spools import event

S = 1_000_000_000
T = 1_789_498_320 * S
A = "a" * 64


def at(seconds: float) -> int:
    return T + round(seconds * S)


def piece(
    first: int, last: int, begin: float, end: float, *moments: tuple[float, str] | tuple[float, str, float]
) -> Piece:
    told = [Moment(at(m[0]), m[1], at(m[2]) if len(m) > 2 else 0) for m in moments]
    return Piece(first, last, Account(at(begin), at(end), moments=told))


def seconds(spans: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [((a - T) / S, (b - T) / S) for a, b in spans]


ORDERLY = [(0.0, "started"), (1.0, "connected"), (2.0, "subscribed"), (3.0, "subscribed")]


def test_covered_is_from_the_last_subscribed_to_the_end_of_the_connection() -> None:
    found = Coverage.of([piece(1, 9, 0, 9, *ORDERLY, (7.0, "disconnected"), (8.0, "connected"), (8.5, "subscribed"))])
    assert seconds(found.sockets) == [(1, 7), (8, 9)]
    assert seconds(found.covered) == [(3, 7), (8.5, 9)]
    assert found.reconnects == [at(8)]


def test_segments_go_on_where_the_one_before_ended() -> None:
    found = Coverage.of([piece(1, 9, 0, 10, *ORDERLY), piece(10, 20, 10, 20), piece(21, 22, 20, 29, (25, "stopped"))])
    assert seconds(found.covered) == [(3, 25)]


def test_after_a_kill_nothing_is_covered_until_subscribed_again() -> None:
    found = Coverage.of([piece(1, 20, 0, 9, *ORDERLY, (6.0, "started", 4.5), (7.0, "connected"), (8.0, "subscribed"))])
    assert seconds(found.covered) == [(3, 4.5), (8, 9)]
    assert seconds(found.sockets) == [(1, 4.5), (7, 9)]
    assert found.reconnects == [], "a new process is not a reconnect"


def test_a_segment_sealed_long_after_a_kill_ends_with_its_last_frame() -> None:
    """``started`` of the next process names the sealed row as the last one, which has the edge's time."""
    again = piece(10, 20, 26, 29, (26.0, "started", 10.0), (27.0, "connected"), (28.0, "subscribed"))
    found = Coverage.of([piece(1, 9, 0, 4.5, *ORDERLY), again])
    assert seconds(found.covered) == [(3, 4.5), (28, 29)]


def test_nothing_is_assumed_about_files_that_are_missing() -> None:
    found = Coverage.of([piece(1, 9, 0, 5, *ORDERLY), piece(100, 120, 20, 29)])
    assert seconds(found.covered) == [(3, 5), (20, 29)]
    found = Coverage.of([piece(100, 120, 20, 29, (22, "subscribed"), (24, "disconnected"))])
    assert (seconds(found.sockets), seconds(found.covered)) == ([(20, 24)], [(22, 24)])
    found = Coverage.of([piece(100, 120, 20, 29, (22, "connected"), (23, "subscribed"))])
    assert seconds(found.covered) == [(23, 29)]


AWAY = "push.depth.full"


def told(first: int, last: int, begin: float, end: float, *events: tuple[float, str, str]) -> Piece:
    """A piece by its events: the second, the name, and the channel."""
    account = Account()
    for second, what, channel in events:
        account.event(at(second), event(what, **({"channel": channel} if channel else {})))
    account.rows(at(begin), at(end))
    return Piece(first, last, account)


BEGUN = [(0.0, "started", ""), (1.0, "connected", ""), (2.0, "subscribed", "push.deal")]


def test_time_in_which_a_channel_was_given_up_is_not_covered() -> None:
    found = Coverage.of([told(1, 9, 0, 30, *BEGUN, (10.0, "given_up", AWAY), (25.0, "resumed", AWAY))])
    assert seconds(found.covered) == [(2, 10), (25, 30)]
    assert seconds(found.sockets) == [(1, 30)], "the connection was there"
    assert found.given_up == {}


def test_a_channel_stays_given_up_over_connections_and_files_until_it_is_back_or_the_process_ends() -> None:
    pieces = [
        told(1, 9, 0, 10, *BEGUN, (5.0, "given_up", AWAY), (6.0, "given_up", "push.deal"), (8.0, "disconnected", "")),
        told(10, 19, 10, 20, (11.0, "given_up", AWAY), (12.0, "connected", ""), (13.0, "subscribed", "push.ticker")),
        told(20, 29, 20, 30, (21.0, "resumed", AWAY)),
    ]
    found = Coverage.of(pieces)
    assert (seconds(found.covered), found.given_up) == ([(2, 5)], {"push.deal": at(6)})
    assert Coverage.of(pieces[:2]).given_up == {AWAY: at(5), "push.deal": at(6)}
    assert Coverage.of(pieces[1:2]).given_up == {AWAY: at(11)}, "each file tells it again"
    again = told(30, 39, 30, 40, (31.0, "started", ""), (32.0, "connected", ""), (33.0, "subscribed", "push.deal"))
    found = Coverage.of([*pieces, again])
    assert (seconds(found.covered), found.given_up) == ([(2, 5), (33, 40)], {})
    assert Coverage.of([pieces[0], told(90, 99, 50, 60)]).given_up == {}, "nothing is assumed"


def test_a_channel_that_stalled_is_known_until_more_is_known_of_it() -> None:
    stalled = (5.0, "stalled", AWAY)
    assert Coverage.of([told(1, 9, 0, 10, *BEGUN, stalled)]).stalled == {AWAY: at(5)}
    assert seconds(Coverage.of([told(1, 9, 0, 10, *BEGUN, stalled)]).covered) == [(2, 10)]
    for what in ("given_up", "resumed"):
        assert Coverage.of([told(1, 9, 0, 10, *BEGUN, stalled, (6.0, what, AWAY))]).stalled == {}
    anew = [(second + 6, what, channel) for second, what, channel in BEGUN]
    assert Coverage.of([told(1, 9, 0, 10, stalled, *anew)]).stalled == {}
    assert Coverage.of([told(1, 9, 0, 10, *BEGUN, (5.0, "stalled", "push.deal"))]).stalled == {}, "deals may rest"


WHATS = st.sampled_from(["connected", "subscribed", "disconnected", "stopped"])


@given(st.lists(st.tuples(st.integers(0, 50), WHATS), max_size=30), st.integers(1, 10))
def test_cutting_a_recording_anywhere_changes_nothing(steps: list[tuple[int, str]], cut: int) -> None:
    now, told = 0.0, [Moment(at(0), "started")]
    for gap, what in steps:
        now += gap
        told.append(Moment(at(now), what))
    whole = Coverage.of([Piece(1, 100, Account(at(0), at(now), moments=told))])
    n = min(cut, len(told))
    first, second = told[:n], told[n:]
    split = Coverage.of(
        [
            Piece(1, 50, Account(at(0), first[-1].at_ns, moments=first)),
            Piece(51, 100, Account(second[0].at_ns if second else at(now), at(now), moments=second)),
        ]
    )
    assert (split.sockets, split.covered, split.reconnects) == (whole.sockets, whole.covered, whole.reconnects)
    length = within(whole.covered, at(0), at(now))
    assert 0 <= length <= within(whole.sockets, at(0), at(now)) + length
    assert length <= round(now * S)


def test_an_account_of_events() -> None:
    account = Account()
    account.rows(5, 7)
    account.rows(8, 9)
    for n, m in enumerate(
        (
            event("started", clean=False, last_rx=3),
            event("connected", peer="x"),
            event("gap", **{"channel": "push.depth", "from": 3, "to": 7, "count": 5}),
            event("repaired", count=3),
            event("unrepaired", count=2),
            event("snapshot", version=7),
            event("mistimed", channel="push.ticker", why="still", for_s=10.0),
            event("mistimed", channel="push.ticker", why="behind", late_ms=70_000, for_s=20.0),
            event("mistimed", channel="push.deal", why="absent", for_s=9.0, ended=True),
            event("mistimed", channel=7),
            event("given_up", channel=AWAY, reason="refused"),
            event("resumed", channel=AWAY, by="ack", after_s=3.0),
            event("given_up", channel=7),
            b'{"event":"gap","count":"many"}',
            b"not json",
        )
    ):
        account.event(n, m)
    assert (account.first_rx, account.last_rx) == (5, 9)
    assert (account.missing, account.repaired, account.unrepaired) == (5, 3, 2)
    assert account.moments == [Moment(0, "started", 3), Moment(1, "connected")]
    assert account.mistimed == {"push.ticker": WrongTimes("behind", 70_000)}
    assert account.channels == [ChannelMoment(10, "given_up", AWAY), ChannelMoment(11, "resumed", AWAY)]
    other = account.copy()
    other.event(9, event("stopped"))
    other.event(9, event("given_up", channel="push.deal", reason="refused"))
    assert len(account.channels) == 2
    other.event(9, event("mistimed", channel="push.deal", why="absent", for_s=9.0))
    assert len(account.moments) == 2
    assert len(account.mistimed) == 1
    assert Account().to_json().keys().isdisjoint({"mistimed", "filled", "channels"}), "as earlier versions wrote it"
    assert Account.of(other.to_json()) == other
    with pytest.raises((KeyError, TypeError, ValueError)):
        Account.of({"moments": [[1]]})
    for mistimed in (7, [1], {"x": 7}, {"x": ["behind", "y"]}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Account.of({**other.to_json(), "mistimed": mistimed})
    for channels in (7, [1], [[1, "given_up"]], [["x", "given_up", AWAY]]):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Account.of({**other.to_json(), "channels": channels})


def entry(n: int, first: int, last: int, account: Account | None = None, part: int = 1) -> Conservation:
    rows = last - first + 1
    return Conservation(
        "btc", f"p{n}", part, f"btcp{n}.{part}", Side(rows, A), None, Side(rows, A), first, last, {"t": rows, "dl": 0},
        gaps=1, start_ns=at(10 * n), edge_ns=at(10 * n + 10), account=account, buffered=3 if part == 1 else None,
    )  # fmt: skip


def account(begin: float, end: float, *moments: tuple[float, str]) -> Account:
    return piece(1, 1, begin, end, *moments).account


def shown(found: list[Hour]) -> list[tuple[str, int, float, str]]:
    return [(h.period, h.periods, round(h.coverage, 2), h.verdict) for h in found]


def test_hours_without_rows_are_shown_as_not_covered() -> None:
    files = [entry(0, 1, 9, account(0, 9, *ORDERLY)), entry(4, 10, 12, account(41, 49, (41.0, "started")))]
    found = hours(files, until_ns=at(75))
    assert shown(found) == [
        ("p0", 1, 60.0, "proven"),
        ("", 3, 0, "absent"),
        ("p4", 1, 0, "proven"),
        ("", 2, 0, "absent"),
    ]
    assert (found[3].start_ns, found[3].end_ns) == (at(50), at(70))
    sums = total(found)
    assert (sums["hours"], sums["absent"], sums["received"], sums["gaps"]) == (7, 5, 12, 2)
    assert sums["coverage"] == round(100 * 6 / 70, 4)


def test_a_recording_that_was_stopped_or_still_runs_is_not_missed() -> None:
    stopped = entry(0, 1, 9, account(0, 9, *ORDERLY, (8.0, "disconnected"), (9.0, "stopped")))
    assert shown(hours([stopped], until_ns=at(500))) == [("p0", 1, 50.0, "proven")]
    running = entry(0, 1, 9, account(0, 9, *ORDERLY))
    later = piece(10, 30, 10, 19)
    assert shown(hours([running], [("btc", later)], at(19))) == [("p0", 1, 70.0, "proven")]


def test_of_a_period_that_still_runs_only_what_is_over_counts() -> None:
    """Half of a period was cut and exported: its other half was called time without a socket before it had come."""
    cut = entry(0, 1, 9, account(0, 5, *ORDERLY, (5.0, "stopped")))
    [hour] = hours([cut], until_ns=at(5))
    assert (hour.end_ns, hour.without_socket_s, hour.coverage) == (at(5), 1.0, 40.0)
    [hour] = hours([cut], until_ns=at(4))
    assert hour.end_ns == at(5), "its rows are later than the clock"
    [hour] = hours([cut], until_ns=at(11))
    assert (hour.end_ns, hour.coverage) == (at(10), 20.0)


def test_parts_are_one_hour_and_holes_are_told_across_parts_and_hours() -> None:
    files = [
        entry(0, 1, 9, account(0, 5, *ORDERLY)),
        entry(0, 10, 12, account(5, 9), part=2),
        entry(1, 20, 22, account(10, 19)),
        entry(2, 22, 24, account(20, 29)),
    ]
    found = hours(files)
    assert [(h.seq_missing, h.seq_repeated, h.verdict) for h in found] == [
        (0, 0, "proven"),
        (7, 0, "hole"),
        (0, 1, "hole"),
    ]
    assert (found[0].rows("exported"), found[0].rows("stored"), found[0].buffered) == (12, None, 3)
    said = found[0].to_json()
    assert (said["first_seq"], said["last_seq"], said["gaps"]) == (1, 12, 2)
    assert said["digests"] == {"btcp0.1": A, "btcp0.2": A}


def test_a_recording_held_for_a_reason_is_followed_until_it_goes_on() -> None:
    account = Account()
    for second, m in [
        (0, event("connected")),
        (1, event("subscribed")),
        (6, event("disconnected", code=1000)),
        (7, event("stopped", reason="spool full")),
    ]:
        account.event(at(second), m)
    assert [m.what for m in account.moments] == ["connected", "subscribed", "disconnected", "held"]
    assert Account.of(account.to_json()) == account
    account.rows(at(0), at(7))
    file = Conservation(
        "btc", "p", 1, "f", exported=Side(8, A), first_seq=1, last_seq=8, counts={"t": 8}, start_ns=at(0),
        edge_ns=at(10), account=account,
    )  # fmt: skip
    found = hours([file], until_ns=at(35))
    assert [(h.verdict, h.periods, round(h.coverage)) for h in found] == [("proven", 1, 50), ("absent", 2, 0)]


def test_rows_given_again_are_counted_once_however_far_the_file_reaches_that_has_them() -> None:
    """A new, empty disk began at seq 2 where an earlier one had come to 100; then the two went on."""
    files = [
        entry(0, 1, 100, account(0, 5, *ORDERLY)),
        entry(1, 2, 9, account(10, 19)),
        entry(2, 10, 12, account(20, 29)),
        entry(3, 101, 110, account(30, 39)),
    ]
    found = hours(files)
    assert [(h.seq_missing, h.seq_repeated) for h in found] == [(0, 0), (0, 8), (0, 3), (0, 0)]
    running = piece(2, 50, 10, 19)
    (only,) = hours(files[:1], [("btc", running)], at(19))
    assert (only.seq_repeated, only.verdict) == (49, "hole")


def test_what_is_told_of_trades_is_counted_apart_from_versions_of_the_book() -> None:
    account = Account()
    told = {"channel": "push.deal", "from": 1788335242156, "to": 1788335243156}
    account.event(at(1), event("filled", **told, count=3))
    account.event(at(2), event("unfilled", **told, reason="at most 100 trades could be asked for"))
    account.event(at(3), event("unfilled", **told, count=9, reason="without ids"))
    account.event(at(4), event("gap", **{"channel": "push.depth", "from": 3, "to": 4, "count": 2}))
    assert (account.missing, account.filled, account.unfilled) == (2, 3, 2)
    assert Account.of(account.to_json()) == account
    assert account.copy() == account
    file = Conservation(id="btc", period="2026", part=1, file="x", start_ns=at(0), edge_ns=at(10), account=account)
    sums = total(hours([file]))
    assert (sums["missing"], sums["filled"], sums["unfilled"]) == (2, 3, 2)


def test_an_account_that_tells_nothing_of_trades_is_that_of_earlier_versions() -> None:
    """Their files are verified by it, key by key."""
    said = Account(first_rx=at(1), last_rx=at(2)).to_json()
    assert list(said) == ["first_rx", "last_rx", "missing", "repaired", "unrepaired", "moments"]
    assert Account.of(said) == Account(first_rx=at(1), last_rx=at(2))
