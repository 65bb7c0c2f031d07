"""Whether the files hold what the exchange sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sent:
    """One connection as the exchange saw it; ``frames`` are hashes of what was sent whole."""

    number: int
    peer: str
    opened_ns: int
    closed_ns: int | None
    end: str
    symbol: str | None
    frames: list[str]

    @property
    def address(self) -> str:
        return self.peer.rpartition(":")[0]


def compare(connections: Sequence[Sent], frames: Sequence[str]) -> int:
    """Assert that the exported frames are what was sent, each once and in order; returns how many were compared.

    At the end of a connection the last frames may never have reached us, and of the newest connection the files hold
    what is exported so far. Nothing else may be missing, and nothing may be there besides.
    """
    at = 0
    for connection in connections:
        for frame in connection.frames:
            if at < len(frames) and frames[at] == frame:
                at += 1
            else:
                break  # the rest of this connection must not turn up later: the next one's first frame is due
    assert at == len(frames), f"exported frame {at + 1} of {len(frames)} is not the one that was sent next"
    return at
