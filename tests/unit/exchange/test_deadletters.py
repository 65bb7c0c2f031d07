"""Why a frame is a dead letter; what its channel would have been."""

from __future__ import annotations

import gzip
import itertools
import json
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline.exchange.deadletters import LEAST, TYPES, Letters, Reason, meant, reason, too_many
from mexc_pipeline.exchange.options import Channels, Deal, Depth
from mexc_pipeline.exchange.protocol import MAX_CLASSIFIED, TEXT, Classifier, subscriptions
from mexc_pipeline.rows import MT_NAMES, Mt

WANTED = subscriptions("X_USDT", Channels())
CHANNELS = frozenset(s.channel for s in WANTED)
CLASSIFY = Classifier("X_USDT", WANTED).classify


def stored(payload: bytes, opcode: int = TEXT) -> bytes:
    """The frame as the recorder keeps it; it must be a dead letter."""
    found = CLASSIFY(opcode, payload)
    assert found.control is None
    assert found.mt == Mt.DEAD_LETTER
    return found.m


def deal(ts: str) -> bytes:
    return b'{"symbol":"X_USDT","data":[{"p":1,"v":2,"t":3}],"channel":"push.deal","ts":%s}' % ts.encode()


@pytest.mark.parametrize(
    ("payload", "opcode", "why"),
    [
        (b"\x00\x01", 2, Reason.BINARY),
        (b'{"channel":"push.deal","symbol":"X_USDT"}', 0, Reason.NO_MESSAGE),
        (gzip.compress(b'{"channel":"push.deal","symbol":"X_USDT"}', mtime=0), 11, Reason.NO_MESSAGE),
        (b"x" * (3 * MAX_CLASSIFIED), 3, Reason.NO_MESSAGE),
        (b"x" * (3 * MAX_CLASSIFIED), 12, Reason.NO_MESSAGE),
        (b'{"symbol":"\xff"}', 1, Reason.NOT_UTF8),
        (b" " * (MAX_CLASSIFIED + 1), 1, Reason.TOO_LARGE),
        (b"\xff" * (3 * MAX_CLASSIFIED), 1, Reason.NOT_UTF8),
        (b"\xff" * (3 * MAX_CLASSIFIED), 2, Reason.BINARY),
        (b" " * (3 * MAX_CLASSIFIED), 1, Reason.TOO_LARGE),
        (b"", 1, Reason.NOT_JSON),
        (b'{"channel":"push.deal"', 1, Reason.NOT_JSON),
        (b"[" * 100_000, 1, Reason.NOT_JSON),
        (b"[1,2]", 1, Reason.NOT_OBJECT),
        (b'{"channel":"rs.error","data":"no"}', 1, Reason.ANSWER),
        (b'{"symbol":"X_USDT","ts":1}', 1, Reason.CHANNEL),
        (b'{"channel":7,"symbol":"X_USDT"}', 1, Reason.CHANNEL),
        (b'{"channel":"push.deals","symbol":"X_USDT","ts":1789498405534}', 1, Reason.CHANNEL),
        (b'{"channel":"push.deal","ts":1789498405534}', 1, Reason.SYMBOL),
        (b'{"channel":"push.deal","symbol":"x_usdt","ts":1789498405534}', 1, Reason.SYMBOL),
        (b'{"channel":"push.deal","symbol":["X_USDT"],"ts":1}', 1, Reason.SYMBOL),
    ],
)
def test_reasons(payload: bytes, opcode: int, why: Reason) -> None:
    assert reason(stored(payload, opcode), "X_USDT", CHANNELS) == why
    assert meant(stored(payload, opcode), "X_USDT", CHANNELS) is None


def test_every_channel_that_can_be_subscribed_has_a_type() -> None:
    for deal, depth in itertools.product(get_args(Deal), get_args(Depth)):
        for wanted in subscriptions("X_USDT", Channels(deal=deal, depth=depth)):
            assert TYPES[wanted.channel] == MT_NAMES[wanted.mt]
    every = Channels(funding=True, index_price=True, fair_price=True, kline="Min1", contract=True)
    found = {TYPES[wanted.channel] for wanted in subscriptions("X_USDT", every)}
    assert found == {"t", "d", "dp", "f", "i", "p", "k", "c"}


@pytest.mark.parametrize("channels", [None, CHANNELS])
def test_what_names_its_channel_is_counted_by_it(channels: frozenset[str] | None) -> None:
    letters = Letters()
    for m in (
        deal("0"),
        b'{"channel":"push.deal","ts":1789498405534}',
        b'{"channel":"push.ticker","symbol":"Y_USDT"}',
        b'{"channel":"push.deals","symbol":"X_USDT"}',
        b'{"channel":"rs.error","data":"push.deal"}',
        b"nonsense",
    ):
        letters.add(stored(m), "X_USDT", channels)
    assert letters.meant == {"d": 2, "t": 1}
    assert letters.reasons["symbol"] == 2
    assert letters.reasons.total() == 6


BAD_TS = ["null", "0", "-1", "1789498405", "1789498405534000", "1789498405534000000", '"1789498405534"', "1.789498e12"]


@pytest.mark.parametrize("ts", [*BAD_TS, "1789498405534.0", "01", "true", "[1789498405534]", '"now"', "17894984055344"])
def test_a_frame_whose_only_fault_is_its_ts_keeps_its_channel(ts: str) -> None:
    if ts == "01":  # is no JSON number at all
        assert reason(stored(deal(ts)), "X_USDT") == Reason.NOT_JSON
        return
    assert reason(stored(deal(ts)), "X_USDT", CHANNELS) == Reason.TS
    assert meant(stored(deal(ts)), "X_USDT") == "push.deal"
    assert meant(stored(deal(ts)), "Y_USDT") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first example builds the strategies
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "channel": st.sampled_from(["push.deal", "push.x", "rs.error", "pong"]) | JSON,
            "symbol": st.sampled_from(["X_USDT", "Y_USDT"]) | JSON,
            "ts": st.sampled_from([1789498405534, 0]) | JSON,
        },
    )
)
def test_reason_and_classification_agree(frame: dict[str, object]) -> None:
    try:
        payload = json.dumps(frame, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # lone surrogates cannot be sent
        return
    found = CLASSIFY(TEXT, payload)
    if found.control is None:
        assert (reason(found.m, "X_USDT", CHANNELS) == Reason.NONE) == (found.mt != Mt.DEAD_LETTER)


@given(st.binary())
def test_any_bytes_have_a_reason(m: bytes) -> None:
    assert reason(m, "X_USDT") in Reason


def test_a_share_is_judged_from_a_handful_on() -> None:
    assert not too_many(0, 0)
    assert not too_many(LEAST - 1, LEAST - 1)
    assert too_many(LEAST, LEAST)
    assert not too_many(LEAST, 100 * LEAST + 1)
    assert too_many(LEAST, 100 * LEAST)
