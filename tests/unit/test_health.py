"""One definition of how a symbol's recording is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline import health
from mexc_pipeline.collector.line import StatisticsLine, for_systemd, in_a_line
from mexc_pipeline.collector.statistics import LEGIBLE_S, RECENT_S, Statistics
from mexc_pipeline.config import parse
from mexc_pipeline.errors import ConfigError
from mexc_pipeline.exchange.deadletters import NOT_LOOKED_AT
from mexc_pipeline.feed import telling
from mexc_pipeline.feed.telling import UNLISTED
from mexc_pipeline.health import Kind
from mexc_pipeline.rows import Columns, Mt

LIVE: dict[str, Any] = {
    "state": "live",
    "market": {"age_s": 0.2, "waited_s": 0.2, "limit_s": 30.0},
    "channels": {"push.ticker": {"confirmed": "ack", "age_s": 0.2}},
    "disk": {"level": "ok", "warning": None},
    "clock": {"suspect": False, "warning": None},
    "recent": {"seconds": 600, "frames": {"t": 300, "d": 900}, "dead_letters": {}, "meant": {}},
    "trouble": None,
}


def waited(seconds: float, *, state: str = "live", ever: bool = True) -> dict[str, Any]:
    market = {"age_s": seconds if ever else None, "waited_s": seconds, "limit_s": 30.0}
    return {**LIVE, "state": state, "market": market}


def test_without_a_fault_the_state_is_live_or_quiet() -> None:
    assert health.of_symbol(LIVE) == health.Health("live")
    assert health.of_symbol(waited(12)).state == "quiet"
    assert health.of_symbol(waited(12)).ok
    assert health.of_symbol({**LIVE, "state": "stopping"}).ok


@given(
    st.sampled_from(["live", "connecting"]),
    st.floats(0, 1e6),
    st.floats(1, 1e5) | st.none(),
    st.booleans(),
)
def test_silence_is_a_fault_exactly_from_the_limit_on(
    state: str, seconds: float, silent_s: float | None, ever: bool
) -> None:
    found = health.of_symbol(waited(seconds, state=state, ever=ever), silent_s=silent_s)
    assert found.ok == (seconds < (30.0 if silent_s is None else silent_s))
    if not found.ok:
        (reason,) = found.reasons
        assert reason.kind is (Kind.SILENT if state == "live" else Kind.CONNECTING)
        assert reason.for_s == seconds
        assert ("not one since its start" in reason.text) is not ever


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"problem": "btc is not running"}, Kind.DOWN, "not running"),
        ({"state": "stopped: spool full", "disk": {"warning": "it has stopped"}}, Kind.STOPPED, "has stopped"),
        ({"trouble": "spool: disk I/O error"}, Kind.SPOOL, "I/O"),
        ({"clock": {"suspect": True, "warning": "this host's clock is 90.0 s ahead"}}, Kind.CLOCK, "90.0 s"),
        ({"disk": {"level": "alert", "warning": "92 % full"}}, Kind.DISK, "92 %"),
        ({"channels": {"push.deal": {"given_up": "no", "given_up_s": 70.0}}}, Kind.CHANNEL, "given up 70 s ago"),
    ],
)  # fmt: skip
def test_every_fault_is_said_with_what_to_do(change: dict[str, Any], kind: Kind, said: str) -> None:
    found = health.of_symbol({**LIVE, **change})
    assert (found.state, found.ok) == (kind.value, False)
    assert said in found.reasons[0].text
    assert found.reasons[0].advice


def test_one_advice_stands_once() -> None:
    """What a part says of a fault comes with its own advice, in place of that of the kind."""
    for change, kind in (
        ({"state": "stopped: spool full", "disk": {"warning": "it is full", "todo": "free some"}}, Kind.STOPPED),
        ({"clock": {"suspect": True, "warning": "90.0 s ahead", "todo": "set it (NTP)"}}, Kind.CLOCK),
        ({"disk": {"level": "alert", "warning": "92 % full", "todo": "free some"}}, Kind.DISK),
    ):
        (reason,) = health.of_symbol({**LIVE, **change}).reasons
        assert (reason.kind, reason.text.count(reason.advice)) == (kind, 0)
        assert reason.is_said_by(f"{reason.text}; {reason.advice}")
        assert not reason.is_said_by("something else")


TICKER = {"confirmed": "none", "age_s": None, "silent_s": 121.0, "limit_s": 60.0}


@pytest.mark.parametrize(
    ("channel", "said", "other", "fault"),
    [
        ("push.ticker", TICKER, HERE_S := 0.5, True),
        ("push.ticker", {**TICKER, "confirmed": "ack"}, HERE_S, True),
        ("push.ticker", {**TICKER, "silent_s": 119.0}, HERE_S, False),
        ("push.ticker", TICKER, 100.0, False),  # nothing at all comes: that is another fault
        ("push.ticker", TICKER, None, False),
        ("push.deal", {**TICKER, "silent_s": 1300.0, "limit_s": 600.0}, HERE_S, True),
        ("push.deal", {"confirmed": "ack", "age_s": 1300.0, "silent_s": 1300.0, "limit_s": 600.0}, HERE_S, False),
    ],
)
def test_a_channel_that_stays_away_is_a_fault_however_short_the_sessions(
    channel: str, said: dict[str, Any], other: float | None, fault: bool
) -> None:
    channels = {channel: said, "push.depth.full": {"confirmed": "ack", "age_s": other}}
    found = [r for r in health.of_symbol({**LIVE, "channels": channels}).reasons if r.kind is Kind.CHANNEL]
    assert bool(found) is fault
    assert all(f"{channel}: no frame for" in reason.text for reason in found)


AWAY = {"given_up": "no", "given_up_s": 70.0, "age_s": None}
HERE = {"confirmed": "ack", "age_s": 0.2}
RESTS = {"confirmed": "ack", "age_s": 700.0, "silent_s": 700.0}


@pytest.mark.parametrize(
    ("channels", "go_on"),
    [
        ({"push.ticker": AWAY, "push.deal": HERE}, True),
        ({"push.ticker": AWAY, "push.deal": AWAY}, False),
        ({"push.ticker": AWAY}, False),
        ({"push.ticker": AWAY, "push.deal": RESTS}, False),
        ({"push.ticker": AWAY, "push.deal": RESTS, "push.depth.full": HERE}, True),
        ({"push.ticker": AWAY, "push.contract": HERE, "push.depth.step": HERE}, False),
    ],
)
def test_that_others_go_on_is_said_where_they_do(channels: dict[str, Any], go_on: bool) -> None:
    found = [reason for reason in health.of_symbol({**LIVE, "channels": channels}).reasons if "given up" in reason.text]
    assert len(found) == sum(said is AWAY for said in channels.values())
    assert all(("go on" in reason.text) is go_on for reason in found)


@given(st.floats(0, 1e6), st.booleans())
def test_a_symbol_that_is_not_listed_stays_that_however_long_it_takes(seconds: float, ever: bool) -> None:
    said = {**waited(seconds, state=UNLISTED, ever=ever), "symbol": "NEW_USDT"}
    found = health.of_symbol({**said, "channels": {"push.ticker": AWAY, "push.deal": AWAY}})
    assert found.state == UNLISTED
    (reason,) = found.reasons
    assert "does not list NEW_USDT" in reason.text


@pytest.mark.parametrize(
    ("channels", "unasked", "faults"),
    [
        ({"push.ticker": RESTS, "push.deal": HERE}, {}, []),
        ({"push.ticker": HERE, "push.deal": HERE}, {"push.news": {"count": 5, "age_s": 1.0}}, []),
        ({"push.ticker": RESTS, "push.deal": HERE}, {"push.news": {"count": 5, "age_s": 800.0}}, []),
        (
            {"push.ticker": RESTS, "push.deal": HERE},
            {"push.news": {"count": 5, "age_s": 1.0}},
            ["push.ticker: no frame for 12 min, while"],
        ),
        (
            {"push.ticker": {**RESTS, "age_s": None}, "push.deal": HERE},
            {"push.news": {"count": 5, "age_s": 1.0}},
            ["not one since its start"],
        ),
        (
            {"push.ticker": RESTS, "push.deal": RESTS},
            {"push.news": {"count": 5, "age_s": 1.0}},
            ["push.ticker: no frame", "push.deal: no frame"],
        ),
        ({"push.ticker": AWAY, "push.deal": HERE}, {"push.news": {"count": 5, "age_s": 1.0}}, ["push.ticker given up"]),
    ],
)
def test_a_channel_that_rests_is_a_fault_where_another_came_that_nobody_asked_for(
    channels: dict[str, Any], unasked: dict[str, Any], faults: list[str]
) -> None:
    found = health.of_symbol({**LIVE, "channels": channels, "unasked": unasked}).reasons
    assert len(found) == len(faults)
    assert all(part in reason.text for part, reason in zip(faults, found, strict=True))
    assert all(reason.kind is Kind.CHANNEL for reason in found)


def test_of_a_market_that_rests_nothing_is_said_whatever_else_comes_now_and_then() -> None:
    rest = {"push.ticker": RESTS, "push.contract": HERE, "push.depth.step": HERE}
    assert telling.silent(rest, {}) == []
    (told,) = telling.silent({**rest, "push.funding.rate": HERE}, {})
    assert told.text.startswith("push.ticker: no frame")


@pytest.mark.parametrize(
    ("said", "faults"),
    [
        ({"unversioned": {"push.depth": 9}, "gaps": {"no_book": None}}, []),
        ({"unversioned": {"push.depth": 10}, "gaps": None}, ["no version can be read in its last 10 frames"]),
        ({"gaps": {"no_book": {"for_s": 90.0, "why": "HTTP 503"}}}, ["no book to build on for 90 s: HTTP 503"]),
    ],
)
def test_depth_that_cannot_be_followed_is_a_fault(said: dict[str, Any], faults: list[str]) -> None:
    found = health.of_symbol({**LIVE, **said}).reasons
    assert len(found) == len(faults)
    assert all(part in reason.text for part, reason in zip(faults, found, strict=True))
    assert all(reason.kind is Kind.CHANNEL for reason in found)


def test_times_that_are_wrong_are_a_fault() -> None:
    wrong = {"push.ticker": {"why": "ahead", "late_ms": -28_800_000.0, "ts": 1_790_000_000_000, "for_s": 75.0}}
    (reason,) = health.of_symbol({**LIVE, "mistimed": wrong}).reasons
    assert (reason.kind, reason.for_s) == (Kind.TIMES, 75.0)
    assert reason.text == "push.ticker: ts is 8.0 h ahead of the exchange's clock, for 75 s now"
    assert health.of_symbol({**LIVE, "mistimed": {}}).ok


def test_frames_that_cannot_be_read_are_a_fault_from_the_second_look_until_one_can_be() -> None:
    now = [100.0]
    statistics = Statistics("BTC_USDT", CHANNELS, lambda: now[0])
    ticker = (Mt.INDEX_PRICE, b'{"data":{"price":1.5}}')
    good = b'{"data":[{"p":1,"v":2,"T":1,"O":1,"M":1,"t":1790000000000}]}'
    bad, less = good.replace(b'"p"', b'"price"'), good.replace(b'"T"', b'"side"')

    def reasons(m: bytes, after_s: float) -> list[health.HealthFault]:
        now[0] += after_s
        statistics.committed(block((Mt.DEAL, good), (Mt.DEAL, m), ticker), 10**18)
        return list(health.of_symbol({**LIVE, "unreadable": statistics.snapshot()["unreadable"]}).reasons)

    assert not reasons(bad, 0), "one alone is an oddity"
    assert not reasons(bad, LEGIBLE_S - 1), "not looked at again yet"
    (reason,) = reasons(bad, 1)
    assert (reason.kind, reason.for_s) == (Kind.UNREADABLE, LEGIBLE_S)
    assert reason.text.startswith("the newest frames of type d cannot be read: no p")
    assert "probe" in reason.advice
    assert not reasons(good, LEGIBLE_S)
    assert not reasons(less, LEGIBLE_S)
    (reason,) = reasons(less, LEGIBLE_S)
    assert reason.text == "the newest frames of type d have no T of 1 or 2, as they always had: readers have null"
    assert not reasons(good, LEGIBLE_S)


def test_trades_that_could_not_be_filled_are_worth_a_line() -> None:
    said = {"filled": 3, "unfilled": 0, "why": None, "open": False, "trouble": None, "ids_shared": False}
    assert telling.unfilled(None) == telling.unfilled(said) == []
    (line,) = telling.unfilled({**said, "unfilled": 1, "why": "REST refuses: 510"})
    assert line == "push.deal: trades that may be missing could not be filled, once since its start: REST refuses: 510"
    assert ", 2,000 times since" in telling.unfilled({**said, "unfilled": 2000, "why": "x"})[0]
    (line,) = telling.unfilled({**said, "open": True, "trouble": "REST refuses: 510"})
    assert line == "push.deal: trades that may be missing cannot be filled so far: REST refuses: 510"


def test_the_worst_comes_first() -> None:
    found = health.of_symbol(
        {**waited(99, state="connecting"), "trouble": "x", "disk": {"level": "alert"}},
        {"trouble": "y"},
        unexported_s=9e4,
    )
    assert [r.kind for r in found.reasons] == [
        Kind.SPOOL, Kind.CONNECTING, Kind.DISK, Kind.NOT_EXPORTED, Kind.NOT_LOADED,
    ]  # fmt: skip
    ranks = [health.Health(kind.value, (health.HealthFault(kind, ""),)).rank for kind in Kind]
    assert ranks == sorted(ranks)
    assert health.Health("live").rank > max(ranks)


def test_files_and_tables_that_are_behind() -> None:
    assert health.of_symbol(LIVE, unexported_s=health.EXPORT_S - 1).ok
    assert health.of_symbol(LIVE, unexported_s=health.EXPORT_S).state == "not exported"
    wrong = {"x.sqlite": {"ok": False, "columns": ["m"]}}
    for loaded in ({"trouble": "refused"}, {"skipped_rows": 1}, {"unreadable_segment": "x"}, {"compared": wrong}):
        assert health.of_symbol(LIVE, loaded).state == "not loaded", loaded
    assert health.of_store({"reachable": True}).ok
    assert not health.of_store({"reachable": False, "error": "x"}).ok
    assert not health.of_store({"problem": "x"}).ok


def test_dead_letters_are_judged_by_share_and_by_kind() -> None:
    def judged(frames: dict[str, int], dead: dict[str, int], meant: dict[str, int]) -> health.Health:
        recent = {"seconds": 600.0, "frames": frames, "dead_letters": dead, "meant": meant}
        return health.of_symbol({**LIVE, "recent": recent})

    assert judged({"t": 1000}, {"ts": 9}, {"d": 9}).ok, "a handful is never judged"
    assert judged({"t": 10_000, "d": 5000}, {"ts": 20}, {"d": 20}).ok
    assert "100.0 %" in judged({}, {"ts": 400}, {"t": 400}).reasons[0].text
    # All of a rare kind, which is little of the whole.
    (reason,) = judged({"t": 10_000}, {"ts": 12}, {"d": 12}).reasons
    assert "100.0 % of type d" in reason.text
    assert "ts 12" in reason.text


@pytest.mark.parametrize(
    ("waited_s", "silent_s", "state"), [(1.0, None, "live"), (20.0, None, "quiet"), (20.0, 15.0, "silent")]
)
def test_a_collector_shows_systemd_and_its_log_what_status_shows(
    waited_s: float, silent_s: float | None, state: str
) -> None:
    """Its own events and what nobody understands show nothing of a market going on."""
    market = {"age_s": waited_s, "waited_s": waited_s, "limit_s": 30.0}
    status = {**LIVE, "id": "btc", "last_seq": 9, "rows": {"t": 130, "d": 20, "dl": 500, "ev": 70}, "market": market}
    status |= {"reconnects": 0, "delay_ms": None, "durable_ms": None, "disk": {"used_percent": 1.0}}
    line = in_a_line(status, {"t": 100, "d": 20, "dl": 0, "ev": 0}, 15.0, silent_s)
    fields = line.fields
    assert for_systemd([line], 1) == f"{state}, seq 9, 2.0 frames/s"
    assert fields["state"] == state == health.of_symbol(status, silent_s=silent_s).state
    assert {name: rate for name, rate in fields.items() if name.endswith("_s")} == {
        "t_s": 2.0,
        "dl_s": 33.33,
        "ev_s": 4.67,
    }


def test_of_several_recordings_systemd_shows_how_many_are_in_which_state() -> None:
    lines = [
        StatisticsLine({}, "live", 9, 2.0),
        StatisticsLine({}, "silent", 4, 0.0),
        StatisticsLine({}, "live", 7, 0.5),
    ]
    assert for_systemd(lines, 3) == "2 live, 1 silent, 2.5 frames/s"
    assert for_systemd(lines, 5) == "2 live, 2 ended, 1 silent, 2.5 frames/s"


CHANNELS = {"push.ticker": Mt.TICKER, "push.deal": Mt.DEAL}


def block(*rows: tuple[Mt, bytes]) -> Columns:
    n = len(rows)
    return Columns(list(range(1, n + 1)), [10**18] * n, [10**12] * n, [mt for mt, _ in rows], [m for _, m in rows])


def test_a_change_of_shape_shows_within_minutes_however_much_was_right_before() -> None:
    now = [0.0]
    statistics = Statistics("BTC_USDT", CHANNELS, lambda: now[0])
    good = (Mt.TICKER, b'{"channel":"push.ticker","symbol":"BTC_USDT","ts":1790000000000}')
    bad = (Mt.DEAD_LETTER, b'{"channel":"push.deal","symbol":"BTC_USDT","ts":"1790000000000"}')
    for _ in range(1000):
        now[0] += 10
        statistics.committed(block(*[good] * 30), 10**18)
    for _ in range(20):
        statistics.committed(block(good, bad, (Mt.DEAD_LETTER, b"nonsense"), (Mt.EVENT, b"{}")), 10**18)
    recent = statistics.snapshot()["recent"]
    assert recent["dead_letters"] == {"ts": 20, "not JSON": 20}
    assert recent["meant"] == {"d": 20}
    assert recent["seconds"] <= RECENT_S
    assert recent["frames"]["t"] <= 30 * RECENT_S / 10 + 50
    now[0] += RECENT_S + 1
    assert statistics.snapshot()["recent"]["dead_letters"] == {}
    assert statistics.snapshot()["rows"]["dl"] == 40


def test_a_flood_of_dead_letters_is_counted_and_not_all_looked_at() -> None:
    statistics = Statistics("BTC_USDT", CHANNELS)
    statistics.committed(block(*[(Mt.DEAD_LETTER, b"x")] * 5000), 10**18)
    reasons = statistics.snapshot()["recent"]["dead_letters"]
    assert sum(reasons.values()) == 5000
    assert reasons[NOT_LOOKED_AT] > 4000


@pytest.mark.parametrize(
    ("text", "btc", "eth"),
    [
        ("", None, None),
        ('[health]\nsilent = "90s"', 90.0, 90.0),
        ('[health]\nsilent = "90s"\n[symbol.ETH_USDT.health]\nsilent = "2h"', 90.0, 7200.0),
    ],
)
def test_silence_is_configured_for_all_or_for_one(text: str, btc: float | None, eth: float | None) -> None:
    found = parse(f'symbols = ["BTC_USDT", "ETH_USDT"]\n{text}', None)
    assert [symbol.silent_s for symbol in found.symbols] == [btc, eth]


@pytest.mark.parametrize("text", ['[health]\nsilent = "1x"', '[symbol.BTC_USDT.health]\nsilent = "10ms"'])
def test_a_silence_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"health\.silent"):
        parse(f'symbols = ["BTC_USDT"]\n{text}', None)
