"""Faults as text, the sent log, the REST answers and the frames faults are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline import simulator
from mexc_pipeline.errors import ConfigError
from mexc_pipeline.simulator import wire
from mexc_pipeline.simulator.faults import KINDS, Effect, Fault, FaultBoard, parse_fault
from mexc_pipeline.simulator.frames import DealId, Style, SymbolFeed
from mexc_pipeline.simulator.market import MarketSettings, contract
from mexc_pipeline.simulator.rest import Rest
from mexc_pipeline.simulator.sentlog import (
    ConnectionInfo,
    ConnectionLog,
    PoolFrame,
    SentFrame,
    read_connection,
    read_sent_log,
)

NOW = 1_790_000_000_000


def test_a_fault_is_parsed_whole() -> None:
    text = "at=12.5 conn=* symbol=BTC_USDT kind=stall channel=depth for=3 count=2 every=60 value=hold"
    assert parse_fault(text) == Fault(
        "stall", at=12.5, symbol="BTC_USDT", channel="depth", seconds=3.0, count=2, every=60.0, value="hold"
    )
    assert parse_fault("kind=frame opcode=3 value=odd") == Fault("frame", opcode=3, value="odd")
    assert parse_fault("kind=rs_error value='no such thing' conn=4") == Fault("rs_error", conn=4, value="no such thing")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("at=1", "has no kind="),
        ("kind=melt", "'melt' is unknown"),
        ("kind=reset when=1", "'when=1' is not one of"),
        ("kind=reset at=soon", "at takes a number, not 'soon'"),
        ("kind=reset at=-1", "at must not be negative"),
        ("kind=half value=quarter", "takes value=fin|reset, not 'quarter'"),
        ("kind=close value=soon", "whole number"),
        ("kind=close value=99999", "a close code from 1000 to 4999"),
        ("kind=close value=0", "a close code from 1000 to 4999"),
        ("kind=rest_lag value=²", "whole number"),
        ("kind='reset", "No closing quotation"),
        ("kind=refuse_handshake value=101", "403|404"),
        ("kind=stall channel=push.ticker", "channel 'push.ticker' is unknown; known are ticker, deal, depth.full,"),
        ("kind=shape channel= value=gzip", "channel '' is unknown"),
    ],
)
def test_a_wrong_fault_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_fault(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_board_knows_windows_and_counts() -> None:
    board = FaultBoard()
    assert not board
    board.add(Fault("stall", seconds=5, channel="depth"), now=100)
    board.add(Fault("drop", count=2, symbol="BTC_USDT"), now=100)
    assert board.holding("stall", 104, 1, "BTC_USDT", "depth")
    assert not board.holding("stall", 104, 1, "BTC_USDT", "deal")
    assert not board.holding("stall", 105, 1, "BTC_USDT", "depth")
    assert not board.take("drop", 1, "ETH_USDT", "deal")
    assert board.take("drop", 1, "BTC_USDT", "deal")
    board.expire(106)
    assert board
    assert board.take("drop", 1, "BTC_USDT", "deal")
    assert not board.take("drop", 1, "BTC_USDT", "deal")
    assert not board


@pytest.mark.parametrize("kind", [k for k, (effect, _) in KINDS.items() if effect is Effect.SEND and k != "ws_ping"])
def test_every_frame_a_fault_sends(kind: str) -> None:
    opcode, payload = wire.fault_frame(Fault(kind, size=5000, value="x" if kind == "frame" else ""), "BTC_USDT", NOW)
    assert opcode == (wire.OP_BINARY if kind == "binary" else wire.OP_TEXT)
    unreadable = kind in ("bad_json", "empty", "binary", "frame")
    if kind == "invalid_utf8":
        with pytest.raises(UnicodeDecodeError):
            payload.decode()
    elif unreadable:
        with pytest.raises(ValueError):  # noqa: PT011 - UnicodeDecodeError or JSONDecodeError
            json.loads(payload)
    else:
        parsed = json.loads(payload)
        if kind == "huge":
            assert len(payload) == 5000
        if kind in ("ts_null", "ts_type"):
            assert not isinstance(parsed["ts"], int)


@pytest.mark.parametrize(("value", "type_"), [("string", str), ("float", float), ("short", int), ("bool", bool)])
def test_wrong_types_of_ts(value: str, type_: type) -> None:
    ts = json.loads(wire.fault_frame(Fault("ts_type", value=value), "BTC_USDT", NOW)[1])["ts"]
    assert type(ts) is type_
    assert len(str(ts)) != 13 or type_ is str


@given(st.binary(max_size=70_000))
def test_framing(payload: bytes) -> None:
    encoded = wire.encode(wire.OP_TEXT, payload)
    assert encoded[0] == 0x81
    assert encoded.endswith(payload)
    size = encoded[1]
    head = 2 if size < 126 else 4 if size == 126 else 10
    assert len(encoded) == head + len(payload)
    assert (size if head == 2 else int.from_bytes(encoded[2:head], "big")) == len(payload)


def read_connection_of(folder: Path) -> ConnectionInfo:
    return read_connection(folder / "conn-000003.log")


frames = st.lists(
    st.tuples(
        st.integers(0, 2**62), st.sampled_from([1, 2]), st.sampled_from(["", "BTC_USDT"]), st.binary(max_size=300),
        st.booleans(),
    ),
    max_size=20,
)  # fmt: skip


@given(frames, st.integers(1, 7), st.integers(0, 50), st.integers(0, 30))
def test_the_log_file_gives_back_what_memory_holds(
    tmp_path_factory: pytest.TempPathFactory,
    written: list[tuple[int, int, str, bytes, bool]],
    size: int,
    first: int,
    count: int,
) -> None:
    folder: Path = tmp_path_factory.mktemp("log")
    log = ConnectionLog(3, "127.0.0.1:1", 5, keep=True, folder=folder)
    log.flush()
    for frame in written:
        log.frame(*frame)
    pool = [PoolFrame("BTC_USDT", b"%d" % n) for n in range(size)]
    log.pool(pool)
    log.run(77, first, count)
    assert read_connection_of(folder) == ConnectionInfo(3, "127.0.0.1:1", 5), "it has not ended"
    log.end(99, "reset")
    assert read_connection_of(folder) == ConnectionInfo(3, "127.0.0.1:1", 5, "", 99, "reset")
    expected = [SentFrame(3, *frame) for frame in written]
    expected += [SentFrame(3, 77, 1, "BTC_USDT", b"%d" % (n % size), True) for n in range(first, first + count)]
    assert list(log.frames()) == expected
    path = folder / "conn-000003.log"
    assert list(read_sent_log(path)) == expected
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert list(read_sent_log(path)) == expected, "only the end record was cut"


def test_a_log_cut_in_the_middle_of_a_frame_is_read_up_to_there(tmp_path: Path) -> None:
    log = ConnectionLog(1, "p", 0, keep=False, folder=tmp_path)
    log.frame(1, 1, "BTC_USDT", b"first")
    log.frame(2, 1, "BTC_USDT", b"second")
    log.flush()
    path = tmp_path / "conn-000001.log"
    path.write_bytes(path.read_bytes()[:-2])
    assert [frame.payload for frame in read_sent_log(path)] == [b"first"]
    log.end(3, "")
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a simulator's sent log"):
        list(read_sent_log(tmp_path / "other"))


def rest(lag: int = 0, limit: int = 10) -> tuple[Rest, SymbolFeed]:
    feed = SymbolFeed(contract("BTC_USDT"), 1, MarketSettings(rate=100), Style(), NOW)
    for n in range(500):
        feed.tick(0.01, NOW + n, ())
    return Rest({"BTC_USDT": feed}, 1, lag, limit, 2.0), feed


def get(subject: Rest, target: str, now: float = 0.0, lag: int | None = None, stale: bool = False) -> dict[str, object]:
    answer = subject.answer(f"/api/v1/contract/{target}", "127.0.0.1", now, NOW, lag, stale)
    assert answer.status == 200
    parsed = json.loads(answer.body)
    assert isinstance(parsed, dict)
    return parsed


def version(answer: dict[str, object]) -> int:
    data = answer["data"]
    assert isinstance(data, dict)
    return int(data["version"])


def test_rest_throttles_inside_status_200_and_recovers() -> None:
    subject, _ = rest()
    codes = [get(subject, "depth/BTC_USDT", 0.1 * n)["code"] for n in range(12)]
    assert codes == [0] * 10 + [510] * 2
    assert get(subject, "depth/BTC_USDT?limit=20", 1.3)["code"] == 0
    assert get(subject, "depth/BTC_USDT", 2.1)["code"] == 0
    commits = [get(subject, "depth_commits/BTC_USDT/5", 4.0)["code"] for _ in range(21)]
    assert commits == [0] * 20 + [510]


def test_rest_lags_and_goes_back_in_time() -> None:
    subject, feed = rest(lag=50, limit=0)
    newest = feed.market.book.version
    seen = [version(get(subject, "depth/BTC_USDT")) for _ in range(100)]
    assert all(newest - 50 <= v <= newest for v in seen)
    assert seen != sorted(seen)
    assert version(get(subject, "depth/BTC_USDT", lag=300)) == newest - 300
    stale = [version(get(subject, "depth/BTC_USDT", stale=True)) for _ in range(5)]
    assert stale == sorted(set(stale), reverse=True)


def test_rest_commits_are_newest_first_and_one_version_each() -> None:
    subject, feed = rest()
    data = get(subject, "depth_commits/BTC_USDT/100")["data"]
    assert isinstance(data, list)
    newest = feed.market.book.version
    assert [commit["version"] for commit in data] == list(range(newest, newest - 100, -1))
    late = get(subject, "depth_commits/BTC_USDT/3", lag=7)["data"]
    assert isinstance(late, list)
    assert late[0]["version"] == newest - 7


def test_the_other_rest_endpoints() -> None:
    subject, _ = rest()
    assert get(subject, "ping")["data"] == NOW
    assert [c["symbol"] for c in get(subject, "detail")["data"]] == ["BTC_USDT"]  # type: ignore[attr-defined]
    assert get(subject, "detail?symbol=btc_usdt")["data"]["priceUnit"] == 0.1  # type: ignore[index]
    refused = get(subject, "detail?symbol=NOPE_USDT")
    assert (refused["success"], refused["code"]) == (False, 1001)
    deals = get(subject, "deals/BTC_USDT?limit=5")["data"]
    assert isinstance(deals, list)
    assert len(deals) == 5
    assert deals[0]["t"] >= deals[-1]["t"]
    assert get(subject, "ticker?symbol=BTC_USDT")["data"]["symbol"] == "BTC_USDT"  # type: ignore[index]
    assert get(subject, "funding_rate/BTC_USDT")["success"]
    for target in ("nothing", "depth", "depth/BTC_USDT/1"):
        assert subject.answer(f"/api/v1/contract/{target}", "a", 0, NOW).status == 404


def test_the_simulator_shares_no_code_with_what_it_judges() -> None:
    folder = Path(simulator.__file__).parent
    used = {
        line.split()[1]
        for path in folder.glob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(("from mexc_pipeline", "import mexc_pipeline"))
    }
    outside = {name for name in used if not name.startswith("mexc_pipeline.simulator")}
    assert outside == {"mexc_pipeline.errors", "mexc_pipeline.paths"}  # how a file is opened is not judged


@pytest.mark.parametrize("spelled", ["absent", "string", "int"])
def test_rests_trades_are_those_that_were_made(spelled: DealId) -> None:
    """With an id or without, up to the version that REST has come to."""
    settings = MarketSettings(rate=100, keep_deals=True)
    feed = SymbolFeed(contract("BTC_USDT"), 1, settings, Style(rest_deal_id=spelled), NOW)
    subject = Rest({"BTC_USDT": feed}, 1, 0, 0, 2.0)
    for n in range(400):
        feed.tick(0.01, NOW + 10 * n, [])
    made = feed.market.made
    assert made is not None
    assert len(made) > 150

    def shown(**how: Any) -> list[dict[str, Any]]:
        found = get(subject, "deals/BTC_USDT?limit=500", **how)["data"]
        assert isinstance(found, list)
        return found

    newest = shown()
    assert [deal["t"] for deal in newest] == [deal.time for deal in made[:-101:-1]]
    ids = {"absent": None, "string": str(made[-1].number), "int": made[-1].number}
    assert newest[0].get("i") == ids[spelled]
    behind = [deal.time for deal in made if deal.version <= feed.market.book.version - 300]
    assert [deal["t"] for deal in shown(lag=300)] == behind[:-101:-1]
    back = [shown(stale=True)[0]["v"] for _ in range(3)]
    place = len(behind)
    assert back == [made[place - 2 - n].quantity for n in range(3)]
    feed.market.reset_versions(1000)
    assert shown() == newest
