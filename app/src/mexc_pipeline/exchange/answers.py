"""What the exchange's words mean: its answers to what it was asked, and the errors that name no request. Pure.

Shapes as observed on the wire (2026-09): an ``rs.sub.…`` names its channel by its own name alone, ``rs.error`` carries
a text and no more, and neither names a symbol.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from enum import Enum
from typing import NamedTuple

from mexc_pipeline.exchange.channels import topic_of
from mexc_pipeline.exchange.protocol import Control, Subscription, control_of

_ERROR = "rs.error"
_YES = "success"
_UNLISTED = re.compile(r"contract\b.*\b(not exist|doesn't exist|does not exist)", re.IGNORECASE)


class Verdict(Enum):
    """What an answer says: yes, no, or words that are not known."""

    CONFIRMED = "confirmed"
    REFUSED = "refused"
    UNCLEAR = "unclear"


class Reply(NamedTuple):
    """An answer: the verdict, the channel that it is about (None where it does not tell), and what was said."""

    verdict: Verdict
    channel: str | None
    said: str


class Replies:
    """Reads the answers to these subscriptions."""

    def __init__(self, wanted: Iterable[Subscription]) -> None:
        self._channels = {subscription.ack: subscription.channel for subscription in wanted}

    def read(self, name: str, answer: str | None) -> Reply:
        """What an answer says. ``name`` and ``answer`` are the frame's ``channel`` and ``answer`` as
        :class:`~mexc_pipeline.exchange.protocol.Classified` has them."""
        if name == _ERROR:
            return Reply(Verdict.REFUSED, None, answer or name)
        channel = self._channels.get(name)
        said = f"{name}: {answer or 'nothing'}"
        if control_of(name) is not Control.ACK:  # to a request of ours that none is known of
            return Reply(Verdict.UNCLEAR, None, said)
        if answer == _YES:
            return Reply(Verdict.CONFIRMED, channel, said)
        return Reply(Verdict.REFUSED if is_unlisted(answer) else Verdict.UNCLEAR, channel, said)


def is_unlisted(answer: str | None) -> bool:
    """Whether a refusal says that there is no such contract (``Contract [X] not exists`` on the wire, 2026-09;
    ``Contract doesn't exist!`` in the documentation until 2025)."""
    return answer is not None and _UNLISTED.search(answer) is not None


def refused_by(answer: str, channels: Collection[str]) -> Collection[str]:
    """Which of the subscribed channels a refusal is about: the one that its text names, each where it is about the
    contract, none where it does not tell."""
    named = [channel for channel in channels if topic_of(channel) in answer]
    if named:
        return (max(named, key=len),)  # the text that names push.depth.full also names push.depth
    return channels if is_unlisted(answer) else ()
