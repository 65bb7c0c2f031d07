"""What MEXC's channels are called, and the row type that a frame of each is. Pure."""

from __future__ import annotations

from mexc_pipeline.rows import Mt

_PUSH = "push."
_ACK = "rs.sub."
_ANSWER = "rs."

TICKER = "push.ticker"
DEAL = "push.deal"
DEPTH = "push.depth"
"""Incremental depth."""
FULL_DEPTH = "push.depth.full"

FUNDING = "push.funding.rate"
INDEX_PRICE = "push.index.price"
FAIR_PRICE = "push.fair.price"
KLINE = "push.kline"
CONTRACT = "push.contract"
"""Of all contracts at once, whatever symbol a connection is for."""

ROW_TYPES = {
    TICKER: Mt.TICKER,
    DEAL: Mt.DEAL,
    DEPTH: Mt.DEPTH,
    FULL_DEPTH: Mt.DEPTH,
    FUNDING: Mt.FUNDING,
    INDEX_PRICE: Mt.INDEX_PRICE,
    FAIR_PRICE: Mt.FAIR_PRICE,
    KLINE: Mt.KLINE,
    CONTRACT: Mt.CONTRACT,
}
"""The row type of each channel's frames; that of any other channel which was subscribed is ``OTHER``."""


def channel_of(topic: str) -> str:
    """The channel that a subscription of ``topic`` delivers."""
    return _PUSH + topic


def topic_of(channel: str) -> str:
    """The topic of a channel; any other name is returned as it is."""
    return channel.removeprefix(_PUSH)


def is_push(channel: str) -> bool:
    """Whether frames of that name are data of a subscription."""
    return channel.startswith(_PUSH)


def ack_of(topic: str) -> str:
    """The name of the answer to a subscription of ``topic``."""
    return _ACK + topic


def acknowledged(name: str) -> str | None:
    """The topic whose subscription frames of that name answer; None for others."""
    return name.removeprefix(_ACK) if name.startswith(_ACK) else None


def is_answer(name: str) -> bool:
    """Whether frames of that name answer a request."""
    return name.startswith(_ANSWER)
