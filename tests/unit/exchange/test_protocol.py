"""Subscriptions and the classification of frames, against an oracle written with the json module."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mexc_pipeline.exchange.deadletters import Letters, Reason, meant, reason
from mexc_pipeline.exchange.options import Channels
from mexc_pipeline.exchange.protocol import (
    MAX_CLASSIFIED,
    Classifier,
    Control,
    content,
    decompressed,
    subscriptions,
    unwrap,
)
from mexc_pipeline.rows import Mt, is_utf8, wrap
from mexc_pipeline.simulator import Fault, wire
from mexc_pipeline.simulator.samples import frames as real_frames
from support.examples import examples
from support.oracle import ALL_CHANNELS, CHANNELS, EXTRA, Ambiguous, expected

NOW = 1_789_498_336_785
EVERYTHING = Channels(
    depth=("full20", "merged"),
    funding=True,
    index_price=True,
    fair_price=True,
    kline="Min1",
    contract=True,
    extra=("sub.depth.step",),
)
CLASSIFIER = Classifier("BTC_USDT", subscriptions("BTC_USDT", Channels()))
OF_EVERYTHING = {name: Classifier(name, subscriptions(name, EVERYTHING)) for name in ("BTC_USDT", "BTC_USD")}
SUBSCRIBED = frozenset(ALL_CHANNELS)


def agrees(opcode: int, payload: bytes) -> None:
    """Assert that classifier and oracle say the same of a frame, whatever is subscribed, and that what is wrong with a
    dead letter is told likewise."""
    _agree(CLASSIFIER, opcode, payload, "BTC_USDT", CHANNELS)
    for name, classifier in OF_EVERYTHING.items():
        _agree(classifier, opcode, payload, name, ALL_CHANNELS)


def _agree(classifier: Classifier, opcode: int, payload: bytes, symbol: str, channels: dict[str, int]) -> None:
    found = classifier.classify(opcode, payload)
    try:
        want = expected(opcode, payload, symbol, channels)
    except Ambiguous:
        return  # the contract does not say; it must only not raise
    if want is None:
        assert (found.control is not None, found.mt) == (True, Mt.EVENT), (opcode, payload)
        return
    assert found.control is None or found.mt is Mt.DEAD_LETTER, (opcode, payload)
    assert (found.mt, found.ts, found.m) == want, (opcode, payload)
    if found.control is None:
        sound = reason(found.m, symbol, channels) is Reason.NONE
        assert sound == (found.mt is not Mt.DEAD_LETTER), (opcode, payload)


def test_subscriptions_are_the_documented_requests() -> None:
    def asked(**channels: object) -> list[dict[str, object]]:
        return [json.loads(s.request) for s in subscriptions("BTC_USDT", Channels(**channels))]  # type: ignore[arg-type]

    btc = {"symbol": "BTC_USDT"}
    assert asked() == [
        {"method": "sub.ticker", "param": btc, "gzip": False},
        {"method": "sub.deal", "param": btc, "gzip": False},
        {"method": "sub.depth.full", "param": {**btc, "limit": 20}, "gzip": False},
    ]
    assert asked(ticker=False, deal="each", depth="each") == [
        {"method": "sub.deal", "param": {**btc, "compress": False}, "gzip": False},
        {"method": "sub.depth", "param": {**btc, "compress": False}, "gzip": False},
    ]
    assert asked(ticker=False, deal="off", depth="merged") == [{"method": "sub.depth", "param": btc, "gzip": False}]
    assert asked(ticker=False, deal="off", depth="full5")[0]["param"] == {**btc, "limit": 5}
    assert asked(ticker=False, deal="off", depth=("full50", "each")) == [
        {"method": "sub.depth.full", "param": {**btc, "limit": 50}, "gzip": False},
        {"method": "sub.depth", "param": {**btc, "compress": False}, "gzip": False},
    ]
    assert asked(
        ticker=False, deal="off", depth=(), funding=True, index_price=True, fair_price=True, kline="Min60",
        contract=True, extra=("sub.depth.step",),
    ) == [
        {"method": "sub.funding.rate", "param": btc, "gzip": False},
        {"method": "sub.index.price", "param": btc, "gzip": False},
        {"method": "sub.fair.price", "param": btc, "gzip": False},
        {"method": "sub.kline", "param": {**btc, "interval": "Min60"}, "gzip": False},
        {"method": "sub.contract", "gzip": False},
        {"method": "sub.depth.step", "param": btc, "gzip": False},
    ]  # fmt: skip
    inverse = {s.channel: s for s in subscriptions("BTC_USD", EVERYTHING)}
    assert json.loads(inverse["push.index.price"].request)["param"] == btc, "an inverse contract has the linear index"
    assert json.loads(inverse["push.fair.price"].request)["param"] == {"symbol": "BTC_USD"}
    assert {s.channel: int(s.mt) for s in inverse.values()} == ALL_CHANNELS
    full = subscriptions("BTC_USDT", Channels())[2]
    assert (full.channel, full.ack, full.mt) == ("push.depth.full", "rs.sub.depth.full", Mt.DEPTH)


@settings(max_examples=examples(200))
@given(st.sampled_from([1, 2]), st.binary(max_size=80))
@example(1, b"")
@example(1, b"[" * 100_000)
@example(1, b"{" * 5000)
@example(1, b'{"a":' * 5000)
def test_any_bytes_are_classified_as_the_oracle_says(opcode: int, payload: bytes) -> None:
    agrees(opcode, payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TIMES = st.sampled_from([NOW, NOW // 1000, NOW * 10, -NOW, 0, True, None, str(NOW), NOW + 0.5, 1.7e12, [NOW]]) | JSON
NAMES = st.sampled_from(["BTC_USDT", "BTC_USD", "ETH_USDT", "btc_usdt", None, 5, ""]) | JSON
TOPICS = st.sampled_from(
    [
        *ALL_CHANNELS,
        "push.none",
        "pong",
        "clientId",
        "rs.sub.ticker",
        "rs.sub.",
        "rs.error",
        "rs.unsub.deal",
        None,
        5,
        "",
    ]
)
_NAMED = st.fixed_dictionaries({}, optional={"symbol": NAMES, "contractSize": JSON})
DATA = JSON | _NAMED | st.lists(_NAMED | JSON, max_size=2)
ENVELOPES = st.fixed_dictionaries(
    {}, optional={"symbol": NAMES, "channel": TOPICS | JSON, "ts": TIMES, "data": DATA, "extra": JSON}
)


@st.composite
def near_frames(draw: st.DrawFn) -> bytes:
    """Envelopes, often good ones, spelled in odd ways and sometimes damaged."""
    value = draw(ENVELOPES)
    if draw(st.booleans()):
        value |= {
            "symbol": draw(st.sampled_from(["BTC_USDT", "BTC_USDT", "BTC_USD"])),
            "channel": draw(st.sampled_from(sorted(ALL_CHANNELS))),
        }
        if draw(st.booleans()) and value["channel"] in ("push.contract", EXTRA):
            del value["symbol"]
    if draw(st.booleans()):
        value["ts"] = NOW
    text = json.dumps(
        value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 0])), sort_keys=draw(st.booleans())
    )
    payload = text.encode("utf-8", "surrogatepass")
    damage = draw(st.integers(0, 3))
    if damage == 1:
        at = draw(st.integers(0, len(payload)))
        payload = payload[:at] + draw(st.binary(max_size=2)) + payload[at + draw(st.integers(0, 2)) :]
    elif damage == 2:
        payload = draw(st.sampled_from([b"\xef\xbb\xbf", b" \n", b"\x00"])) + payload
    return payload


@settings(max_examples=examples(300))
@given(near_frames())
def test_frames_and_almost_frames_are_classified_as_the_oracle_says(payload: bytes) -> None:
    agrees(1, payload)


BASE = b'{"symbol":"BTC_USDT","data":%s,"channel":"push.ticker","ts":%s%s}'


@pytest.mark.parametrize(
    ("payload", "mt", "ts"),
    [
        (BASE % (b"{}", b"1789498336785", b""), Mt.TICKER, NOW),
        (BASE % (b"not inspected", b"1789498336785", b""), Mt.DEAD_LETTER, None),
        (BASE % (b"[1,2,[]]", b"1789498336785", b""), Mt.TICKER, NOW),
        (BASE % (b'"\xff"', b"1789498336785", b""), Mt.DEAD_LETTER, None),
        (BASE % (b'"\\ud800"', b"1789498336785", b""), Mt.DEAD_LETTER, None),
        (BASE % (b'"\\ud83d\\ude00"', b"1789498336785", b""), Mt.TICKER, NOW),
        (BASE % (b"NaN", b"1789498336785", b""), Mt.DEAD_LETTER, None),
        (BASE % (b'"a\nb"', b"1789498336785", b""), Mt.DEAD_LETTER, None),
        (BASE % (b"1", b"null", b""), Mt.DEAD_LETTER, None),
        (BASE % (b"1", b'"1789498336785"', b""), Mt.DEAD_LETTER, None),
        (BASE % (b"1", b"1789498336785.0", b""), Mt.DEAD_LETTER, None),
        (BASE % (b"1", b"178949833678", b""), Mt.DEAD_LETTER, None),
        (BASE % (b"1", b"-789498336785", b""), Mt.DEAD_LETTER, None),
        (BASE % (b"1", b"0789498336785", b""), Mt.DEAD_LETTER, None),
        (BASE % (b"1", b" 1789498336785 ", b""), Mt.TICKER, NOW),
        (BASE.replace(b',"ts":%s%s', b"") % b"1", Mt.TICKER, None),
        (BASE.replace(b"BTC", b"ETH") % (b"1", b"1789498336785", b""), Mt.DEAD_LETTER, NOW),
        (BASE.replace(b"push", b"pull") % (b"1", b"1789498336785", b""), Mt.DEAD_LETTER, NOW),
        (BASE.replace(b"push.ticker", b"push\\u002eticker") % (b"1", b"1789498336785", b""), Mt.TICKER, NOW),
        (b'{"channel":"rs.error","data":"no","ts":1789498336785}', Mt.DEAD_LETTER, NOW),
        (b'{"channel":"push.ticker","symbol":5,"ts":1789498336785}', Mt.DEAD_LETTER, NOW),
        (b"[]", Mt.DEAD_LETTER, None),
        (b"", Mt.DEAD_LETTER, None),
    ],
)
def test_the_edges_of_the_rule(payload: bytes, mt: Mt, ts: int | None) -> None:
    found = CLASSIFIER.classify(1, payload)
    assert (found.control, found.mt, found.ts) == (None, mt, ts)
    agrees(1, payload)


def test_a_frame_is_a_frame_up_to_one_mebibyte() -> None:
    pad = b'"%s"' % (b"x" * (MAX_CLASSIFIED - len(BASE % (b'""', b"1789498336785", b""))))
    largest = BASE % (pad, b"1789498336785", b"")
    assert len(largest) == MAX_CLASSIFIED == 1_048_576
    assert CLASSIFIER.classify(1, largest).mt is Mt.TICKER
    larger = largest.replace(b"xx", b"xxx", 1)
    found = CLASSIFIER.classify(1, larger)
    assert (found.mt, found.ts, found.m) == (Mt.DEAD_LETTER, NOW, larger)


@pytest.mark.parametrize(
    ("payload", "control"),
    [
        (b'{"channel":"pong","data":1789498336785,"ts":1789498336785}', Control.PONG),
        (b'{"channel":"rs.sub.depth","data":"success","ts":1789498321789}', Control.ACK),
        (b'{"channel":"clientId","data":"0a1b","ts":1789498321789}', Control.CLIENT_ID),
    ],
)
def test_control_frames_are_told_apart(payload: bytes, control: Control) -> None:
    assert CLASSIFIER.classify(1, payload).control is control
    assert CLASSIFIER.classify(2, payload).mt is Mt.DEAD_LETTER, "a binary frame is never a control frame"


@pytest.mark.parametrize("channel", ["pong", "rs.sub.deal", "clientId"])
@pytest.mark.parametrize(
    "rest",
    [
        '"symbol":"BTC_USDT"', '"symbol":null', '"data":[{"p":1}]', '"data":{"asks":[]}', f'"data":"{"x" * 300}"',
        f'"data":[{"1," * 150}1],"data":"success"', '"data":"success","deals":[{"p":1}]',
        '"data":"success","p":100.5,"v":2',
        '"channel":"push.deal","data":[1]', '"data":[1],"data":"success"', '"data":1,"dat\\u0061":2',
        '"data":1,"ts":[1]',
    ],
)  # fmt: skip
def test_a_control_frame_that_holds_more_is_kept_and_acted_on(channel: str, rest: str) -> None:
    payload = f'{{{rest},"channel":"{channel}","ts":{NOW}}}'.encode()
    plain = CLASSIFIER.classify(1, payload)
    assert plain.mt is Mt.DEAD_LETTER
    assert plain.m == payload
    packed = CLASSIFIER.classify(2, gzip.compress(payload))
    assert packed.mt is Mt.DEAD_LETTER
    assert content(packed.m) == payload


def test_what_the_exchange_answers_is_passed_on() -> None:
    ack = CLASSIFIER.classify(1, b'{"channel":"rs.sub.deal","data":"success","ts":1}')
    assert (ack.channel, ack.answer) == ("rs.sub.deal", "success")
    error = CLASSIFIER.classify(1, b'{"channel":"rs.error","data":"Contract [X] not exists","ts":1789498321790}')
    assert (error.control, error.mt, error.answer) == (None, Mt.DEAD_LETTER, "Contract [X] not exists")
    odd = CLASSIFIER.classify(1, b'{"channel":"rs.error","data":{"a":[1]},"ts":1789498321790}')
    assert odd.answer == "{'a': [1]}"


WORDS = st.sampled_from(['"success"', "1789498336785", "null", "true", '"a,\\"b\\":{"'])
OTHERS = st.sampled_from(["[1]", "{}", '{"p":1}', "[[]]"])
KEYS = st.sampled_from(["channel", "data", "ts"])


@settings(max_examples=examples(300))
@given(
    st.sampled_from(['"pong"', '"rs.sub.deal"', '"clientId"']),
    st.lists(
        st.tuples(KEYS | st.sampled_from(["p", "deals", "symbol", "Data", "", "data "]), WORDS | OTHERS), max_size=5
    ),
    st.sampled_from([",", " ,\n"]),
)
def test_a_control_frame_is_passed_over_only_where_it_says_nothing_else(
    channel: str, members: list[tuple[str, str]], comma: str
) -> None:
    pairs = [*members, ("channel", channel)]
    payload = ("{" + comma.join(f'"{key}":{value}' for key, value in pairs) + "}").encode()
    keys = [key for key, _ in pairs]
    bare = sorted(keys) == sorted({*keys} & {"channel", "data", "ts"}) and all(
        value[0] not in "[{" for _, value in pairs
    )
    found = CLASSIFIER.classify(1, payload)
    assert found.mt is (Mt.EVENT if bare else Mt.DEAD_LETTER)
    assert bare or found.m == payload


STORED = st.builds(
    b'{"base64":"%s","opcode":%d}'.__mod__,
    st.tuples(st.sampled_from([b"AAAA", b"", b"A", b"!", b"H4sIAAAAAAAAAwMAAAAAAAAAAAA="]), st.integers(-1, 17)),
)


@settings(max_examples=examples(300))
@given(
    st.sampled_from([0, 1, 2, 3, 7]),
    st.recursive(
        st.binary(max_size=40) | st.text(max_size=20).map(str.encode) | STORED | near_frames(),
        lambda inner: (
            st.builds(wrap, st.integers(0, 15), inner) | st.tuples(inner, st.binary(max_size=2)).map(b"".join)
        ),
        max_leaves=4,
    ),
)
@example(1, b'{"base64":"AAAA","opcode":1}')
@example(1, b'{"base64":"AAAA","opcode":2}')
@example(1, wrap(1, gzip.compress(b"{}")))
def test_of_what_is_stored_the_frame_that_came_can_be_told(opcode: int, payload: bytes) -> None:
    found = CLASSIFIER.classify(opcode, payload)
    if found.mt is Mt.EVENT:
        return  # not stored
    assert (unwrap(found.m) or (1, found.m)) == (opcode, payload)
    text = decompressed(payload) if opcode == 2 or (opcode == 1 and not is_utf8(payload)) else None
    assert content(found.m) == (payload if text is None else text)
    agrees(opcode, payload)


@given(st.sampled_from([1, 2]), st.binary(max_size=200))
def test_a_wrapped_frame_can_be_unwrapped(opcode: int, payload: bytes) -> None:
    m = wrap(opcode, payload)
    assert unwrap(m) == (opcode, payload)
    assert set(json.loads(m)) == {"base64", "opcode"}


@pytest.mark.parametrize(
    "m",
    [b"", b"{}", b'{"base64":5,"opcode":1}', b'{"base64":"a","opcode":1}', b'{"base64":"","opcode":1,"x":1}', b"[1]"],
)
def test_other_dead_letters_are_not_unwrapped(m: bytes) -> None:
    assert unwrap(m) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [(k, "") for k in ("bad_json", "not_object", "unknown_channel", "foreign_symbol", "invalid_utf8", "huge", "ts_null",
                       "empty", "rs_error", "binary")]
    + [("ts_type", v) for v in ("string", "float", "short", "bool")],
)  # fmt: skip
def test_every_bad_frame_the_simulator_knows_is_a_dead_letter(kind: str, value: str) -> None:
    opcode, payload = wire.fault_frame(Fault(kind, value=value), "BTC_USDT", NOW)
    found = CLASSIFIER.classify(opcode, payload)
    assert (found.control, found.mt) == (None, Mt.DEAD_LETTER)
    assert payload in (found.m, (unwrap(found.m) or (0, b""))[1]), "the frame is kept whole"
    agrees(opcode, payload)


DOCUMENTED_CONTRACT = (
    b'{"channel":"push.contract","data":{"symbol":"BTC_USDT","contractSize":0.0001,"priceScale":1,"volScale":0,'
    b'"priceUnit":0.1,"volUnit":1,"minVol":1,"maxVol":2000000,"minLeverage":1,"maxLeverage":500,"makerFeeRate":0,'
    b'"takerFeeRate":0.0002,"state":0},"ts":1789498336785}'
)
"""No capture: the fields are the documentation's (official futures WebSocket page, 2026-04)."""


def test_the_real_frames_of_our_channels_are_never_dead_letters() -> None:
    seen: set[Mt] = set()
    for frame in (*real_frames(), DOCUMENTED_CONTRACT):
        value = json.loads(frame)
        inner = value["data"] if isinstance(value["data"], dict) else {}
        symbol = str(value.get("symbol") or inner.get("symbol", "BTC_USDT"))
        for channels in (Channels(), Channels(depth="merged"), EVERYTHING):
            wanted = subscriptions(symbol, channels)
            found = Classifier(symbol, wanted).classify(1, frame)
            if json.loads(frame)["channel"] in {s.channel for s in wanted}:
                assert found.mt is not Mt.DEAD_LETTER
                seen.add(found.mt)
            want = expected(1, frame, symbol, {s.channel: int(s.mt) for s in wanted})
            assert (found.control is not None) == (want is None)
    assert seen == {
        Mt.TICKER, Mt.DEAL, Mt.DEPTH, Mt.FUNDING, Mt.INDEX_PRICE, Mt.FAIR_PRICE, Mt.KLINE, Mt.CONTRACT, Mt.OTHER,
    }  # fmt: skip


CONTRACT = '{"channel":"push.contract","data":%s,"ts":1789498336785%s}'


@pytest.mark.parametrize(
    ("payload", "mt"),
    [
        (CONTRACT % ('{"symbol":"BTC_USDT","state":0}', ""), Mt.CONTRACT),
        (CONTRACT % ('{"symbol":"BTC_USDT","state":0}', ',"symbol":null'), Mt.CONTRACT),
        (CONTRACT % ('{"state":0}', ',"symbol":"BTC_USDT"'), Mt.CONTRACT),
        (CONTRACT % ('[{"symbol":"ETH_USDT"},7,{"symbol":"BTC_USDT"}]', ""), Mt.CONTRACT),
        (CONTRACT % ('{"symbol":"BTC_USDT"}', ',"symbol":"ETH_USDT"'), Mt.OTHER),
        (CONTRACT % ('{"symbol":"ETH_USDT","state":0}', ""), Mt.OTHER),
        (CONTRACT % ('[{"symbol":"ETH_USDT"}]', ""), Mt.OTHER),
        (CONTRACT % ('{"symbol":5}', ""), Mt.OTHER),
        (CONTRACT % ("[]", ""), Mt.OTHER),
        ('{"channel":"push.contract"}', Mt.OTHER),
        (CONTRACT % ('{"symbol":"BTC_USDT"}', ',"symbol":5'), Mt.DEAD_LETTER),
        ('{"channel":"push.contract","data":{"symbol":"BTC_USDT"},"ts":"soon"}', Mt.DEAD_LETTER),
        ('{"channel":"push.depth.step","data":{}}', Mt.OTHER),
        ('{"channel":"push.depth.step","symbol":"ETH_USDT","data":{}}', Mt.OTHER),
        ('{"channel":"push.depth.step","symbol":["ETH_USDT"],"data":{}}', Mt.DEAD_LETTER),
        ('{"channel":"push.index.price","symbol":"BTC_USDT","data":{"price":1}}', Mt.INDEX_PRICE),
        ('{"channel":"push.index.price","symbol":"BTC_USD","data":{"price":1}}', Mt.DEAD_LETTER),
        ('{"channel":"push.fair.price","data":{"price":1}}', Mt.DEAD_LETTER),
        ('{"channel":"push.none","symbol":"BTC_USDT","data":{}}', Mt.DEAD_LETTER),
    ],
)
@pytest.mark.parametrize("pack", [None, gzip.compress])
def test_channels_that_have_another_symbol_or_none(payload: str, mt: Mt, pack: Callable[[bytes], bytes] | None) -> None:
    text = payload.encode()
    opcode, sent = (1, text) if pack is None else (2, pack(text))
    assert OF_EVERYTHING["BTC_USDT"].classify(opcode, sent).mt is mt
    agrees(opcode, sent)


def test_the_index_price_of_an_inverse_contract_is_the_linear_ones() -> None:
    of_inverse = OF_EVERYTHING["BTC_USD"].classify
    text = b'{"symbol":"%s","data":{"symbol":"BTC_USDT","price":76027.1},"channel":"%s","ts":1789498540911}'
    assert of_inverse(1, text % (b"BTC_USDT", b"push.index.price")).mt is Mt.INDEX_PRICE
    assert of_inverse(1, text % (b"BTC_USD", b"push.index.price")).mt is Mt.DEAD_LETTER
    assert of_inverse(1, text % (b"BTC_USDT", b"push.fair.price")).mt is Mt.DEAD_LETTER
    assert of_inverse(1, text % (b"BTC_USD", b"push.fair.price")).mt is Mt.FAIR_PRICE


@pytest.mark.parametrize(
    ("symbol", "payload", "why", "kind"),
    [
        ("BTC_USDT", CONTRACT.replace("1789498336785", "0") % ('{"symbol":"BTC_USDT"}', ""), Reason.TS, "c"),
        ("BTC_USDT", CONTRACT.replace("1789498336785", "0") % ('{"symbol":"ETH_USDT"}', ""), Reason.TS, "x"),
        ("BTC_USDT", CONTRACT % ("{}", ',"symbol":7'), Reason.SYMBOL, "x"),
        ("BTC_USDT", '{"channel":"push.depth.step","ts":null}', Reason.TS, "x"),
        ("BTC_USDT", '{"channel":"push.depth.step","symbol":7}', Reason.SYMBOL, "x"),
        ("BTC_USD", '{"channel":"push.index.price","symbol":"BTC_USDT","ts":1}', Reason.TS, "i"),
        ("BTC_USD", '{"channel":"push.index.price","symbol":"BTC_USD"}', Reason.SYMBOL, "i"),
        ("BTC_USDT", '{"channel":"push.funding.rate","symbol":"BTC_USDT","ts":1}', Reason.TS, "f"),
        ("BTC_USDT", '{"channel":"push.none","symbol":"BTC_USDT"}', Reason.CHANNEL, None),
    ],
)
def test_dead_letters_of_these_channels_have_a_true_reason(
    symbol: str, payload: str, why: Reason, kind: str | None
) -> None:
    found = OF_EVERYTHING[symbol].classify(1, payload.encode())
    assert found.mt is Mt.DEAD_LETTER
    assert reason(found.m, symbol, SUBSCRIBED) is why
    letters = Letters()
    letters.add(found.m, symbol, SUBSCRIBED)
    assert letters.meant == ({kind: 1} if kind else {})
    channel = json.loads(payload)["channel"]
    assert meant(found.m, symbol, SUBSCRIBED) == (channel if why is Reason.TS else None)


PACKINGS: list[Callable[[bytes], bytes]] = [
    gzip.compress,
    zlib.compress,
    lambda data: zlib.compress(data, wbits=-15),
    lambda data: gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]),
]


def flushed(data: bytes) -> bytes:
    """A raw deflate stream as the WebSocket extension makes it (RFC 7692, section 7.2.1), its last four bytes left."""
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)


_TEXTS = st.sampled_from(
    [
        b'{"symbol":"BTC_USDT","data":{},"channel":"push.ticker","ts":1795000000000}',
        b'{"symbol":"BTC_USDT","data":[],"channel":"push.deal"}',
        b'{"symbol":"BTC_USDT","data":[],"channel":"push.deal","ts":"x"}',
        b'{"symbol":"ETH_USDT","data":[],"channel":"push.deal","ts":1795000000000}',
        b'{"channel":"rs.sub.deal","data":"success","ts":1795000000000}',
        b'{"channel":"rs.error","data":"no","ts":1795000000000}',
        b'{"channel":"pong","data":1795000000000,"ts":1795000000000}',
        b"[1]",
        "¤".encode(),
    ]
) | st.text(min_size=1).map(lambda text: text.encode("utf-8", "replace"))


@given(_TEXTS, st.sampled_from([*PACKINGS, flushed]), st.sampled_from([1, 2]))
def test_a_compressed_frame_is_what_its_text_is_and_stored_as_it_came(
    text: bytes, pack: Callable[[bytes], bytes], opcode: int
) -> None:
    classify = CLASSIFIER.classify
    packed = pack(text)
    found, plain = classify(opcode, packed), classify(1, text)
    if opcode == 1 and is_utf8(packed):  # the short stream of an empty text
        assert found.m == packed
        return
    assert (found.control, found.mt, found.ts, found.channel, found.answer) == (
        plain.control, plain.mt, plain.ts, plain.channel, plain.answer,
    )  # fmt: skip
    if found.control is None:
        assert found.m == wrap(opcode, packed)
        assert unwrap(found.m) == (opcode, packed)
        assert content(found.m) == text == found.text
    else:
        assert found.m == text, "it is acted on, not stored"


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x1f\x8b\x08\x00", b"\x78\x9c"]))
def test_what_only_looks_compressed_is_a_dead_letter(tail: bytes, head: bytes) -> None:
    classify = CLASSIFIER.classify
    found = classify(2, head + tail)
    assert found.m == wrap(2, head + tail)
    assert (found.control, found.mt) == (None, Mt.DEAD_LETTER)


def test_a_broken_stream_is_no_text() -> None:
    text = b'{"symbol":"BTC_USDT","data":{},"channel":"push.ticker","ts":1795000000000}'
    whole = gzip.compress(text)
    assert decompressed(whole) == text
    raw = zlib.compress(text, wbits=-15)
    assert decompressed(flushed(text)) == decompressed(flushed(text)[:-4]) == decompressed(raw) == text
    for cut in range(1, len(raw)):
        assert decompressed(raw[:cut]) is None
    for broken in (whole[:-1], whole[:-9], whole + b"x", whole[:-5] + b"\x00" + whole[-4:], b""):
        assert decompressed(broken) is None


def test_a_stream_of_many_members_is_not_followed_to_its_end() -> None:
    assert decompressed(gzip.compress(b"x") * 40_000) is None


@pytest.mark.parametrize("pack", PACKINGS[:3])
def test_a_bomb_is_not_unpacked(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(64 << 20))
    tracemalloc.start()
    try:
        assert decompressed(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_binary_frame_that_is_not_compressed_stays_a_dead_letter_and_names_its_channel() -> None:
    text = b'{"symbol":"BTC_USDT","data":{},"channel":"push.ticker","ts":1795000000000}'
    found = Classifier("BTC_USDT", subscriptions("BTC_USDT", Channels())).classify(2, text)
    assert (found.mt, found.ts, found.m, found.channel) == (Mt.DEAD_LETTER, None, wrap(2, text), "push.ticker")
    assert content(found.m) == text


@pytest.mark.parametrize("channel", ["rs.error", "rs.sub.deal", "push.deal", "pong"])
def test_frames_nested_to_any_depth_are_classified(channel: str) -> None:
    """Also where the text can be decoded, but not be shown any more."""
    classify = Classifier("X_USDT", subscriptions("X_USDT", Channels())).classify
    for depth in (10, 300, 600, 900, 960, 980, 1000, 1020, 5000):
        nested = b"[" * depth + b"]" * depth
        classify(1, b'{"channel":"%s","symbol":"X_USDT","data":%s}' % (channel.encode(), nested))
