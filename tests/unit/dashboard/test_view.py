"""What the page shows of what was gathered: its figures, what is left out where nothing is known, and texts that others
wrote, cleaned and cut."""

from __future__ import annotations

import json
from typing import Any

from mexc_pipeline.dashboard.view import COLUMNS, REASON, Rates, details_of, first_page, frames_of, page_of
from mexc_pipeline.health import Health, HealthFault, Kind
from mexc_pipeline.overview import FileSystem
from mexc_pipeline.text import json_line
from support.overviews import overview_of, silent, symbol

HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J‮" + "x" * 5000


def rows(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(page["columns"], row, strict=True)) for row in page["symbols"]]


def page(found: dict[str, Any], **rates: float) -> dict[str, Any]:
    return page_of(found, {"spool": FileSystem(10 << 30, 4 << 30)}, rates, number=3, at=1.5)


def test_the_figures_of_a_symbol() -> None:
    found = page(overview_of(symbol("btc", "BTC_USDT"), symbol("eth", "ETH_USDT", silent(45))), btc=41.5)
    btc, eth = rows(found)
    assert btc == {
        "id": "btc",
        "symbol": "BTC_USDT",
        "state": "live",
        "rank": len(Kind),
        "reason": "",
        "more": 0,
        "rate": 41.5,
        "delay_ms": 12.5,
        "age_s": 0.4,
        "way": "tor exit 192.0.2.7",
        "backlog": 7,
        "file": "btc2026112120.parquet",
        "file_age_s": 600.0,
        "verdict": "proven",
    }
    assert (eth["state"], eth["reason"], eth["rate"]) == ("silent", "no market frame for 45 s", None)
    assert eth["rank"] < btc["rank"]
    assert (found["number"], found["at"], found["faults"]) == (3, 1.5, 1)
    assert found["parts"] == [
        ["Store", "ok", "ClickHouse (server) answers"],
        ["Spool's disk", "ok", "4.0 of 10.0 GiB free"],
    ]


def test_what_does_not_answer_has_no_figures() -> None:
    gone = symbol("btc", "BTC_USDT", HealthFault(Kind.DOWN, "not running"))
    gone |= {"collector": {"problem": "not running"}, "store": None, "last_export": None}
    away = Health("not loaded", (HealthFault(Kind.NOT_LOADED, "ClickHouse does not answer: refused"),))
    found = page(overview_of(gone, store=away))
    (row,) = rows(found)
    assert {name for name in COLUMNS if row[name] is not None} == {"id", "symbol", "state", "rank", "reason", "more"}
    assert found["parts"][0][:2] == ["Store", "fault"]
    assert "refused; recording and files go on" in found["parts"][0][2]
    details = details_of(gone)
    assert (details["facts"], details["channels"]) == ([], [])
    assert details["reasons"][0]["todo"] == Kind.DOWN.advice


def test_the_verdict_is_that_of_the_newest_period() -> None:
    late = symbol("btc", "BTC_USDT", HealthFault(Kind.NOT_EXPORTED, "a period that ended 2 h ago has no file"))
    other = symbol("eth", "ETH_USDT")
    other["store"]["differing"] = 1
    assert [row["verdict"] for row in rows(page(overview_of(late, other)))] == [
        "a later one is missing",
        "a table differs",
    ]


def test_all_that_is_told_of_one_symbol() -> None:
    details = details_of(
        symbol("btc", "BTC_USDT", silent(45), warnings=["paused for 3 s", "no market frame for 45 s; x"])
    )
    assert details["reasons"] == [
        {"kind": "silent", "text": "no market frame for 45 s", "since": "for 45 s", "todo": Kind.SILENT.advice}
    ]
    assert details["said"] == ["paused for 3 s"]
    facts = dict(details["facts"])
    assert facts["Not in ClickHouse yet"] == "7 rows, 3 s behind"
    assert facts["Exchange to here"] == "12.5 ms, for 99 of 100 below 60.2 ms"
    assert facts["Last file"] == "btc2026112120.parquet, 1,234,567 bytes, 10 min ago"
    assert details["channels"] == [["push.deal", "last frame 0.4 s ago"], ["push.ticker", "given up 90 s ago"]]


def test_what_others_wrote_is_cut_and_shown() -> None:
    hostile = symbol(
        "btc",
        "BTC_USDT",
        *[HealthFault(Kind.SILENT, HOSTILE)] * 500,
        warnings=[HOSTILE] * 500,
        exchange_said=HOSTILE,
        egress={"mode": "direct", "peer": HOSTILE},
        channels={f"{HOSTILE}{n}": {"age_s": 1.0} for n in range(500)},
    )
    found = page(overview_of(hostile))
    (row,) = rows(found)
    assert len(row["reason"]) <= REASON
    assert row["reason"].startswith("<img src=x onerror=alert(1)>\\x1b[2J\\u202e")
    assert row["more"] == 499
    for shown in (json_line(found), json_line(details_of(hostile))):
        assert "\x1b" not in shown
        assert "\n" not in shown
        assert len(shown) < 40_000
        assert json.loads(shown)


def test_the_page_before_anything_answered() -> None:
    found = first_page([("btc", "BTC_USDT")])
    (row,) = rows(found)
    assert (found["number"], row["symbol"], row["state"], row["rate"]) == (0, "BTC_USDT", "asking", None)


def test_a_rate_is_over_the_last_seconds_and_begins_anew_with_a_process() -> None:
    rates = Rates()
    assert rates.add("btc", 100.0, 1000) is None
    assert rates.add("btc", 101.0, 1040) == 40.0
    for second in range(2, 30):
        found = rates.add("btc", 100.0 + second, 1040)
    assert found == 0.0
    assert rates.add("btc", 130.0, 7) is None
    assert rates.add("btc", 131.0, 17) == 10.0
    assert rates.add("btc", 145.0, 20) is None, "nobody looked for a while"
    assert rates.add("btc", 146.0, None) is None
    assert rates.add("btc", 147.0, 30) is None
    assert rates.add("eth", 147.0, 5) is None


def test_frames_are_those_of_the_market() -> None:
    assert frames_of(symbol("btc", "BTC_USDT", frames=41)) == 41
    assert frames_of({"collector": {"problem": "gone"}}) is None
