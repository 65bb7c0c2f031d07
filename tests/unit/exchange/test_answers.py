"""What the exchange's words mean: which answer is a yes or a no, and which channel a refusal is about."""

from __future__ import annotations

import pytest

from mexc_pipeline.exchange.answers import Replies, Reply, Verdict, refused_by
from mexc_pipeline.exchange.deadletters import Sign, sign
from mexc_pipeline.exchange.options import Channels
from mexc_pipeline.exchange.protocol import Classifier, pong_ms, subscriptions

WANTED = subscriptions("X_USDT", Channels())
CHANNELS = [subscription.channel for subscription in WANTED]
NOT_LISTED = "Contract [X_USDT] not exists"


@pytest.mark.parametrize(
    ("frame", "reply"),
    [
        ('"rs.sub.deal","data":"success"', Reply(Verdict.CONFIRMED, "push.deal", "rs.sub.deal: success")),
        ('"rs.sub.kline","data":"success"', Reply(Verdict.CONFIRMED, None, "rs.sub.kline: success")),
        ('"rs.sub.deal","data":"soon"', Reply(Verdict.UNCLEAR, "push.deal", "rs.sub.deal: soon")),
        ('"rs.sub.deal"', Reply(Verdict.UNCLEAR, "push.deal", "rs.sub.deal: nothing")),
        (
            f'"rs.sub.deal","data":"{NOT_LISTED}"',
            Reply(Verdict.REFUSED, "push.deal", f"rs.sub.deal: {NOT_LISTED}"),
        ),
        ('"rs.error","data":"no"', Reply(Verdict.REFUSED, None, "no")),
        ('"rs.error"', Reply(Verdict.REFUSED, None, "rs.error")),
        ('"rs.unsub.deal","data":"success"', Reply(Verdict.UNCLEAR, None, "rs.unsub.deal: success")),
    ],
)
def test_what_an_answer_says(frame: str, reply: Reply) -> None:
    found = Classifier("X_USDT", WANTED).classify(1, b'{"channel":%s}' % frame.encode())
    assert found.channel is not None
    assert Replies(WANTED).read(found.channel, found.answer) == reply


@pytest.mark.parametrize(
    ("said", "about"),
    [
        ("sub.depth.full: param error", ["push.depth.full"]),
        ("sub.depth: param error", ["push.depth"]),
        ("sub.deal is closed", ["push.deal"]),
        (NOT_LISTED, ["push.ticker", "push.depth", "push.depth.full", "push.deal"]),
        ("too many requests", []),
    ],
)
def test_whom_a_refusal_means(said: str, about: list[str]) -> None:
    assert list(refused_by(said, ["push.ticker", "push.depth", "push.depth.full", "push.deal"])) == about


@pytest.mark.parametrize(
    ("channel", "m", "shown"),
    [
        ("push.deal", b'{"channel":"push.deal","symbol":"X_USDT","ts":1}', Sign("push.deal", None)),
        ("push.deal", b'{"channel":"push.deal","symbol":"Y_USDT"}', Sign(None, "push.deal of another symbol or none")),
        ("push.kline", b'{"channel":"push.kline","symbol":"X_USDT"}', Sign(None, "push.kline")),
        ("push.\x1b", b'{"channel":"push.\\u001b"}', Sign(None, "push.\\x1b")),
        ("pong", b'{"channel":"pong","data":{}}', Sign(None, None)),
        ("clientId", b'{"channel":"clientId","data":{}}', Sign(None, None)),
        ("rs.personal", b'{"channel":"rs.personal"}', Sign(None, None)),
        (None, b"[]", Sign(None, None)),
    ],
)
def test_what_a_dead_letter_shows(channel: str | None, m: bytes, shown: Sign) -> None:
    assert sign(channel, m, "X_USDT", CHANNELS) == shown


def test_a_pong_says_the_time_by_its_ts_or_else_by_its_data() -> None:
    m = b'{"channel":"pong","data":1789498336785}'
    assert (pong_ms(m, 1789498336000), pong_ms(m)) == (1789498336000, 1789498336785)
