"""The pure parts of the probe: what is gathered, what is masked, what a line of the bundle holds."""

from __future__ import annotations

import gzip
import json
import zlib
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.errors import UserError
from mexc_pipeline.exchange.options import Channels
from mexc_pipeline.exchange.protocol import Classifier, subscriptions
from mexc_pipeline.probe.bundle import BundleWriter, as_line, masked
from mexc_pipeline.probe.judge import ProbeReport, judge
from mexc_pipeline.probe.observe import Observer
from mexc_pipeline.probe.records import Answered, Closed, Opened, Received, Record, Refused, Sent, Unreached

BTC = "BTC_USDT"
BOOK = '{{"symbol":"BTC_USDT","data":{{"asks":[],"bids":[],"version":{}}},"channel":"push.depth.full","ts":{}}}'


def observer() -> Observer:
    return Observer({BTC: Classifier(BTC, subscriptions(BTC, Channels()))}, 1_700_000_000_000.0)


def report(*records: Record) -> ProbeReport:
    seen = observer()
    for record in records:
        seen.see(record)
    return judge(seen, "wss://x/edge", "https://x", "direct", [BTC], 60.0, False)


def asked(conn: int, at: float = 0.0, topic: str = "depth.full") -> list[Record]:
    return [
        Opened(at, conn, BTC),
        Sent(at, conn, json.dumps({"method": f"sub.{topic}", "param": {"symbol": BTC}})),
        Received(at + 1, conn, 1, b'{"channel":"rs.sub.%b","data":"success","ts":1700000000000}' % topic.encode()),
    ]


def book(conn: int, at: float, version: int) -> Received:
    return Received(at, conn, 1, BOOK.format(version, 1_700_000_000_000 + int(at) - 5).encode())


def texts(found: ProbeReport) -> list[str]:
    return [finding.text for finding in found.findings]


def test_delay_and_clock_are_counted_from_the_frames() -> None:
    found = report(*asked(1), book(1, 100, 7), book(1, 200, 8))
    assert found.verdict == "as expected"
    assert found.channels[0].delay_ms == (5.0, 5.0)
    assert found.channels[0].versions == "continuous"


NOW = 1_700_000_000_000
HOUR = 3_600_000
PINGS = [
    Answered(at, "/api/v1/contract/ping", 200, {}, b'{"success":true,"code":0,"data":%d}' % (NOW + at), 4.0)
    for at in (10, 20)
]


def deal(at: int, ts: int, t: int | str) -> Received:
    item = {"p": 1, "v": 1, "T": 1, "O": 3, "M": 2, "t": t, "i": str(at)}
    frame = {"symbol": BTC, "data": [item], "channel": "push.deal", "ts": NOW + at + ts}
    return Received(float(at), 1, 1, json.dumps(frame).encode())


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([deal(100 * n, -20, NOW + 100 * n) for n in range(1, 12)], []),
        (
            [deal(100 * n, 8 * HOUR, NOW + 100 * n) for n in range(1, 12)],
            ["push.deal: ts is 8.0 h ahead of the exchange's clock in 10 of 10"],
        ),
        (
            [deal(100 * n, -20, NOW + 100 * n - 3 * HOUR) for n in range(1, 12)],
            ["push.deal: data[].t is 3.0 h behind the exchange's clock in 10 of 10"],
        ),
        (
            [deal(100 * n, -20, 1000 * (NOW + 100 * n)) for n in range(1, 12)],
            ["push.deal: data[].t is in microseconds in 10 of 10; expected milliseconds"],
        ),
        (
            [deal(2000 * n, -2000 * n, NOW + 2000 * n) for n in range(1, 13)],
            ["push.deal: ts stood still for 20 s while frames came"],
        ),
        ([deal(100, -HOUR, NOW), deal(200, -20, NOW), deal(300, HOUR, NOW), deal(400, -20, NOW)], []),
    ],
)
def test_times_that_cannot_be_are_a_difference(frames: list[Record], said: list[str]) -> None:
    """But for one odd frame, and what a connection begins with."""
    found = report(*asked(1, topic="deal"), *PINGS, *frames)
    assert [text for text in texts(found) if "push.deal" in text] == said
    if "clock" in "".join(said):
        assert not texts(report(*asked(1, topic="deal"), *frames)), "the clock is not known"


def test_versions_that_begin_lower_after_a_new_connection() -> None:
    found = report(*asked(1), book(1, 100, 7000), Closed(150, 1, 1000, "", True), *asked(2, 160), book(2, 200, 3))
    assert texts(found) == ["push.depth.full: versions began lower after a new connection, once"]


def test_versions_that_are_higher_after_a_new_connection_are_no_gap() -> None:
    found = report(*asked(1), book(1, 100, 7), Closed(150, 1, 1000, "", True), *asked(2, 160), book(2, 200, 900))
    assert found.verdict == "as expected"


def test_a_channel_without_a_frame_is_judged_by_what_is_usual() -> None:
    deal, depth = asked(1, topic="deal"), asked(1)[1:]
    short = report(*deal, *depth, book(1, 100, 7), Closed(20_000, 1, 1000, "", True))
    assert short.verdict == "as expected"
    assert short.notes == ["push.deal: no frame for BTC_USDT, so nothing to judge"]
    long = report(*deal, *depth, Closed(60_000, 1, 1000, "", True))
    assert "push.depth.full: acknowledged, but no frame in 60 s for BTC_USDT" in texts(long)
    assert not any("deal" in text for text in texts(long)), "trades may be rare"


@pytest.mark.parametrize("stops_s", [5, 29])
def test_a_channel_that_stops_is_named(stops_s: int) -> None:
    """In the middle, or when it is asked for again; pongs and acknowledgements come as ever."""
    frames = [book(1, at * 1000, 7 + at) for at in range(1, stops_s + 1)]
    found = report(
        *asked(1), *frames, Closed(30_000, 1, 1000, "", True), *asked(2, 30_100), Closed(60_000, 2, 0, "", True)
    )
    assert texts(found) == [f"push.depth.full: no frame for {60 - stops_s} s for BTC_USDT, after others had come"]


def test_a_silence_without_a_connection_is_not_the_channels() -> None:
    found = report(*asked(1), book(1, 100, 7), Closed(200, 1, 1000, "", True), *asked(2, 50_000), book(2, 50_100, 8))
    assert texts(found) == []


def test_a_failed_connection_is_one_line_and_no_verdict_on_the_exchange() -> None:
    found = report(Unreached(5, 1, BTC, "wss://x: TLS with x: certificate has expired"))
    assert found.verdict == "not reached"
    assert found.lines()[-1].startswith("verdict: not reached: connection: wss://x: TLS with x: certificate has")
    assert "name and TCP were fine" in texts(found)[0]


def test_a_symbol_of_which_nothing_comes_is_one_line_without_advice_on_channels() -> None:
    """Of single channels it says something only where others of the symbol answer."""
    requests = [r for topic in ("ticker", "deal", "depth.full") for r in asked(1, 10, topic) if isinstance(r, Sent)]
    found = report(Opened(0, 1, BTC), *requests, Closed(2_600, 1, 1000, "", True), Opened(2_700, 2, BTC, True))
    assert texts(found) == ["BTC_USDT: no channel acknowledged and no frame in 3 s"]
    short = report(Opened(0, 1, BTC), *requests, Closed(900, 1, 1000, "", True))
    assert texts(short) == ["no market frame on any configured channel in 1 s"]


@pytest.mark.parametrize("second_asked", [10.0, 120.0])
def test_all_lines_name_the_same_time(second_asked: float) -> None:
    """Requests follow one another; rounded, the time since each may differ from that since the first."""
    deal, depth = asked(1, 10, "deal"), asked(1, second_asked)[1:2]
    found = report(*deal, *depth, Closed(2_600, 1, 1000, "", True))
    assert {text.partition(" in ")[2][:3] for text in texts(found)} == {"3 s"}
    assert len(texts(found)) == 2


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"[]", b"{}", b"1", b'{"channel":1}', b"\x1f\x8b"]), max_size=8)
)
def test_no_frame_breaks_the_probe(payloads: list[bytes]) -> None:
    found = report(*asked(1), book(1, 50, 7), *(Received(60.0, 1, 1, payload) for payload in payloads))
    assert found.frames == 2 + len(payloads)
    assert max(map(len, found.lines()), default=0) <= 80
    assert all(line.isprintable() for line in found.lines())


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda i: (
            st.lists(i, max_size=3)
            | st.dictionaries(st.sampled_from(["data", "ts", "symbol", "asks", "version", "x"]), i, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_no_shape_breaks_the_probe(data: object) -> None:
    for topic in ("depth.full", "deal"):
        frame = json.dumps({"channel": f"push.{topic}", "symbol": BTC, "ts": 1_700_000_000_000, "data": data}).encode()
        found = report(*asked(1, topic=topic), Received(50.0, 1, 1, frame))
        assert found.channels[0].frames == 1
        assert json.dumps(found.to_json())


@given(st.ip_addresses())
def test_addresses_are_masked_wherever_they_stand(address: IPv4Address | IPv6Address) -> None:
    for around in (
        "{}",
        "{}, {}",
        "your ip {} is blocked",
        '{{"ip":"{}"}}',
        "[{}]",
        "({}).",
        "from {}, again",
        "it is {}.",
        "ip:{}",
        "ip={}",
        "[{}]:443",
        "\n{}\n",
    ):
        assert str(address) not in masked(around.format(address, address)) or str(address) in ("0.0.0.0", "::")


@pytest.mark.parametrize(
    "text",
    ['{"p":77526.00,"v":3,"t":1788335242156,"a":[0.08,2868,1]}', "12:30:45", "Thu, 26 Nov 2026 01:02:03 GMT", "v1.2.3"],
)
def test_everything_else_stays(text: str) -> None:
    assert masked(text) == text


@given(st.integers(0, 2**63), st.integers(0, 9))
def test_frames_stay_byte_for_byte(version: int, ts: int) -> None:
    frame = BOOK.format(version, ts)
    assert json.loads(as_line(Received(1.0, 1, 1, frame.encode()))) == {"at": 1.0, "conn": 1, "text": frame}


def test_packed_frames_can_be_read_in_the_bundle() -> None:
    line = json.loads(as_line(Received(1.0, 1, 2, gzip.compress(b"{}"))))
    assert (line["text"], line["packed"]) == ("{}", "gzip")
    line = json.loads(as_line(Received(1.0, 1, 2, zlib.compress(b"{}"))))
    assert (line["text"], line["packed"]) == ("{}", "zlib")
    line = json.loads(as_line(Received(1.0, 1, 1, zlib.compress(b'{"a":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}', wbits=-15))))
    assert (line["packed"], line["opcode"]) == ("deflate", 1)
    assert json.loads(as_line(Received(1.0, 1, 3, b"{}"))) == {"at": 1.0, "conn": 1, "base64": "e30=", "opcode": 3}
    assert json.loads(as_line(Received(1.0, 1, 2, b"\x1f\x8b\xff")))["opcode"] == 2
    assert json.loads(as_line(Received(1.0, 1, 1, b"\xff")))["base64"] == "/w=="


def test_reasons_of_this_machine_are_not_kept() -> None:
    assert b"secret" not in as_line(Unreached(1.0, 1, BTC, "proxy secret:1080: refused"))
    assert b"secret" not in as_line(Closed(1.0, 1, 1006, "secret", False))
    assert b"bye" in as_line(Closed(1.0, 1, 1001, "bye", False))
    assert b"203.0.113.7" not in as_line(Refused(1.0, 1, BTC, 403, {"location": "/from?203.0.113.7"}, b"203.0.113.7"))


def test_a_bundle_is_bounded_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "b.ndjson"
    with BundleWriter(path, [BTC], 60.0, most=1000) as bundle:
        for at in range(100):
            bundle.keep(book(1, at, at))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[-1] == {"full": True}
    assert sum("full" in line for line in lines) == 1
    assert path.stat().st_size < 1500


def test_a_bundle_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "b.ndjson"
    path.write_text("mine")
    with pytest.raises(UserError, match="is there already"), BundleWriter(path, [BTC], 60.0):
        pass
    assert path.read_text() == "mine"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("path", ["ping", "detail?symbol=BTC_USDT", f"depth_commits/{BTC}/20"])
def test_an_answer_of_millions_of_values_is_said_and_not_taken_apart(path: str) -> None:
    """A probe of it took minutes, and gigabytes."""
    body = b'{"success":true,"code":0,"data":[' + b"0," * 7_000_000 + b"0]}"
    found = report(*asked(1), book(1, 50, 7), Answered(60.0, f"/api/v1/contract/{path}", 200, {}, body, 5.0))
    assert any("an answer of more than 500,000 values" in text for text in texts(found))


@pytest.mark.parametrize("deep", [10, 200, 900, 100_000])
def test_nesting_without_end_breaks_nothing(deep: int) -> None:
    frame = b'{"channel":"push.deal","symbol":"BTC_USDT","ts":1700000000000,"data":' + b"[" * deep + b"]" * deep + b"}"
    found = report(*asked(1, topic="deal"), Received(50.0, 1, 1, frame))
    assert found.frames == 2


def test_memory_is_bounded_whatever_an_exchange_names() -> None:
    seen = observer()
    for record in asked(1, topic="deal"):
        seen.see(record)
    for n in range(2_000):
        long = f"{n}" + "x" * 1_000
        for frame in (
            {"channel": f"push.{long}"},
            {"channel": f"rs.{long}", "data": long},
            {"channel": "push.deal", "symbol": long},
            {"channel": "push.deal", "symbol": BTC, "ts": 10**n if n < 900 else 0, "data": [{long: 1}]},
        ):
            seen.see(Received(float(n), 1, 1, json.dumps(frame).encode()))
    channel = seen.channels["push.deal"]
    for names in (seen.strangers, seen.said, channel.foreign, channel.ts, channel.fields.kinds):
        assert len(names) <= 201
        assert max(map(len, names)) < 1_500
    assert len(judge(seen, "", "", "", [BTC], 1.0, False).findings) < 2_000


@pytest.mark.parametrize(
    ("own", "volume", "said"),
    [
        (True, 4, "2 are made of all trades, 0 of those without self-trades, 0 of neither"),
        (False, 4, "0 are made of all trades, 2 of those without self-trades, 0 of neither"),
        (True, 5, "1 are made of all trades, 0 of those without self-trades, 1 of neither (volume)"),
    ],
)
def test_which_trades_candles_are_made_of_is_measured(own: bool, volume: int, said: str) -> None:
    """Two whole minutes of one connection: each has a trade of 3 contracts, and one of 1 that is with oneself."""
    begin = 1_700_000_040_000
    start = begin - 1_700_000_000_000 - 20_000

    def trade(at: int, contracts: int, flag: int) -> Received:
        m = (
            f'{{"symbol":"{BTC}","data":[{{"p":100,"v":{contracts},"T":1,"O":3,"M":{flag},"t":{begin + at}}}],'
            f'"channel":"push.deal","ts":{begin + at}}}'
        )
        return Received(start + 20_000 + at, 1, 1, m.encode())

    def kline(at: int, contracts: int) -> Received:
        window = (begin + at) // 60_000 * 60
        figures = '"o":100,"h":100,"l":100,"c":100,"ro":100,"rh":100,"rl":100,"rc":100'
        m = (
            f'{{"symbol":"{BTC}","data":{{"symbol":"{BTC}","interval":"Min1","t":{window},{figures},'
            f'"a":{contracts * 100},"q":{contracts}}},"channel":"push.kline","ts":{begin + at}}}'
        )
        return Received(start + 20_000 + at, 2, 1, m.encode())

    spare: list[Record] = [
        Opened(start, 2, BTC, True),
        Sent(start, 2, json.dumps({"method": "sub.kline", "param": {"symbol": BTC, "interval": "Min1"}})),
    ]
    records: list[Record] = [*asked(1, start, "deal"), *asked(1, start)[1:], book(1, start + 2, 1), *spare]
    for n in range(2):
        at = 60_000 * n
        of = volume if n else 4
        records += [trade(at + 9_000, 3, 2), trade(at + 19_000, 1, 1), kline(at + 59_000, of if own else of - 1)]
    records += [kline(121_000, 0), book(1, start + 20_000 + 125_000, 2)]
    found = report(*records)
    assert f"candles: of 2 whole minutes of BTC_USDT {said}" in found.notes
    assert found.to_json()["candles"][BTC]["neither"] == (volume == 5)
    assert report(*records[:12]).candles == {}, "nothing was heard behind the first minute"
