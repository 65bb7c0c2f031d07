"""What a recording says of itself for ``status``: one moment of each of its parts, and the document made of them.
Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mexc_pipeline.collector.opening import OpeningState
from mexc_pipeline.collector.recorder import RecorderState
from mexc_pipeline.config import Symbol
from mexc_pipeline.egress.http import RestState
from mexc_pipeline.exchange.rest import Listing
from mexc_pipeline.feed import telling
from mexc_pipeline.text import with_advice


@dataclass(frozen=True, slots=True)
class RecordingState:
    """One moment of each part of a recording, as the part's own thread published it, or made under its lock."""

    recorder: RecorderState
    opening: OpeningState
    feed: Mapping[str, Any]
    proven: bool
    """Whether the exchange has delivered data of the symbol."""
    statistics: Mapping[str, Any]
    rest: RestState
    listing: Listing
    shared_troubles: tuple[str, ...]
    """What is wrong with the files that the host's collectors share."""
    inbox_bytes: int

    def describe(self, symbol: Symbol) -> dict[str, Any]:
        """The fields of the control socket's ``status``."""
        recorder = self.recorder
        troubles = [trouble for trouble in (recorder.trouble, self.opening.trouble) if trouble]
        return {
            "id": symbol.id,
            "symbol": symbol.name,
            "spool_id": recorder.spool_id,
            "last_seq": recorder.last_seq,
            "last_rx_ns": recorder.last_rx,
            "segment": recorder.segment,
            "inbox_bytes": self.inbox_bytes,
            "pending": recorder.pending,
            **self.feed,
            **self.statistics,
            "rest": self.rest.describe(),
            "listing": self.listing.said,
            "trouble": troubles[0] if troubles else None,
            "warnings": [*troubles, *self._warnings(symbol.name)],
        }

    def _warnings(self, name: str) -> list[str]:
        feed, rest = self.feed, self.rest
        clock = feed["clock"]
        found = [with_advice(clock["warning"], clock["todo"])] if clock["warning"] else []
        if feed["state"] == telling.UNLISTED:
            found.append(telling.unlisted(name))
        else:
            told = telling.given_up(feed["channels"]) + telling.silent(feed["channels"], feed["unasked"])
            told += telling.cannot_follow(feed["unversioned"], feed["gaps"])
            told += telling.mistimed(feed["mistimed"])
            told += telling.unreadable(self.statistics["unreadable"])
            found += [text for text, _, _ in told]
        found += telling.ids_shared(feed.get("trades"))
        found += telling.unfilled(feed.get("trades"))
        found += telling.not_asked_for(feed["unasked"])
        found += telling.paused(feed["paused"])
        if self.listing.verdict != "listed" and not self.proven:
            found.append(f"{name} not confirmed by the exchange's REST: {self.listing.said}")
        if feed["waits"] is not None:
            found.append(f"connects in {feed['waits']['for_s']:.0f} s at the earliest: {feed['waits']['why']}")
        elif feed["refusal"] is not None:
            found.append(feed["refusal"]["said"])
        if rest.patience_s > 0:
            found.append(f"{rest.url} asks for patience: nothing is asked of it for {rest.patience_s:.0f} s")
        found += self.shared_troubles
        if feed["not_connected"] is not None:
            found.append(f"not connected: {feed['not_connected']}")
        return found + [f"not asked for the last seq: {problem}" for problem in self.opening.unknown]
