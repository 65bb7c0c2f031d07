"""Which refused commits are the disk's, and which a recording's own. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mexc_pipeline.spool.disk_level import REFUSED_S


class RefusedCommits(NamedTuple):
    """For how many ``seconds`` commits have been refused (0: they are not), and ``why``, where it is not for want of
    room."""

    seconds: float
    why: str | None


def of_the_disk(refusals: Sequence[RefusedCommits]) -> RefusedCommits:
    """What of the refusals of all recordings of a process (at least one) the disk is judged by. They share its room, so
    want of that is everybody's; any other reason is the disk's only where no recording can commit."""
    for_room = max((refusal.seconds for refusal in refusals if refusal.why is None), default=0.0)
    return RefusedCommits(for_room, None) if for_room > 0 else min(refusals, key=lambda refusal: refusal.seconds)


def holds_alone(refusal: RefusedCommits, is_held: bool) -> bool:
    """Whether a recording is to receive nothing although the disk takes what the others write: refused for
    :data:`~mexc_pipeline.spool.disk_level.REFUSED_S`, and from then on until a commit succeeds."""
    return refusal.seconds >= REFUSED_S or (is_held and refusal.seconds > 0)
