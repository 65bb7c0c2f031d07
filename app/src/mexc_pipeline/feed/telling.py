"""What is said of channels, in the collector's warnings and as faults alike. Pure; seconds are ages.

``channels`` and ``unasked`` are those of :meth:`~mexc_pipeline.feed.feed.Feed.status`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from mexc_pipeline.exchange.channels import DEAL, DEPTH
from mexc_pipeline.exchange.checks import UNVERSIONED
from mexc_pipeline.exchange.silence import RECONNECTING, may_rest
from mexc_pipeline.exchange.times import sentence
from mexc_pipeline.text import ago, duration

ByChannel = Mapping[str, Mapping[str, Any]]

UNLISTED = "waiting: not listed"
"""The state of a symbol of which the socket says that there is no such contract: it may be a listing to come."""
_NAMED = 3
"""Channels that are named in one sentence."""
_RECENT_S = 3600.0
"""What nobody asked for is spoken of for so long after it last came."""


class Told(NamedTuple):
    """A sentence, for how many seconds it has been so, and whether it is a fault or only worth knowing."""

    text: str
    for_s: float
    fault: bool


def unlisted(symbol: str) -> str:
    """The sentence on a symbol in state :data:`UNLISTED`."""
    return f"the exchange does not list {symbol} (yet); it is asked again by itself"


def given_up(channels: ByChannel) -> list[Told]:
    """Sentences on each channel of which nothing more is expected for the time being."""
    others = any(
        "given_up" not in said and said.get("silent_s") is None and not may_rest(name)
        for name, said in channels.items()
    )
    go_on = ", the other channels go on" if others else ""
    found = []
    for name, said in channels.items():
        if "given_up" in said:
            since = float(said.get("given_up_s") or 0.0)
            found.append(Told(f"{name} given up {ago(since)}{go_on}: {said['given_up']}", since, True))
    return found


def silent(channels: ByChannel, unasked: ByChannel) -> list[Told]:
    """Sentences on each other channel that is silent beyond its own pace, where not all are. Deals may rest; but where
    frames came meanwhile that nobody asked for, its data may go by another name; and where others delivered for twice
    its limit, one whose silence is no rest of the market stays away, however short the sessions are in which it would
    be given up."""
    resting = not unasked and all(said.get("silent_s") is not None or may_rest(name) for name, said in channels.items())
    ages = [said["age_s"] for name, said in channels.items() if said.get("age_s") is not None and not may_rest(name)]
    found = []
    for name, said in channels.items():
        silent_s = said.get("silent_s")
        if resting or silent_s is None or "given_up" in said:
            continue
        ever = "" if said.get("age_s") is not None else ", not one since its start"
        answered = f" (answered by: {said['answered']})" if said.get("answered") else ""
        text = f"{name}: no frame for {duration(silent_s)}{ever}{answered}"
        others = [other for other, what in unasked.items() if what["age_s"] < silent_s]
        if others:
            text += f", while these come that nobody asked for: {_named(others, unasked)}; was it renamed?"
        due = name in RECONNECTING or said.get("confirmed") == "none"
        behind_s = silent_s - min(ages, default=silent_s)  # to the newest frame of any: not while there is none at all
        found.append(Told(text, silent_s, bool(others) or (due and behind_s >= 2 * said.get("limit_s", silent_s))))
    return found


def cannot_follow(unversioned: Mapping[str, int], gaps: Mapping[str, Any] | None) -> list[Told]:
    """What is to be told of depth of which it is not known what is missing, or that has no book to build on; both are
    given as :meth:`~mexc_pipeline.feed.feed.Feed.status` has them."""
    found = [
        Told(
            f"{name}: no version can be read in its last {count:,} frames, so that what is missing is not noticed",
            0,
            True,
        )
        for name, count in unversioned.items()
        if count >= UNVERSIONED
    ]
    if no_book := (gaps or {}).get("no_book"):
        text = f"{DEPTH}: no book to build on for {duration(no_book['for_s'])}: {no_book['why']}"
        found.append(Told(text, no_book["for_s"], True))
    return found


def mistimed(said: ByChannel) -> list[Told]:
    """Sentences on channels whose frames have wrong times, as :meth:`~mexc_pipeline.feed.feed.Feed.status` has them."""
    return [
        Told(f"{sentence(name, what['why'], what['late_ms'])}, for {duration(what['for_s'])} now", what["for_s"], True)
        for name, what in said.items()
    ]


def unreadable(said: ByChannel) -> list[Told]:
    """Sentences on types of frames that readers cannot read any more, or not all of it, by the type's name: ``why`` and
    ``for_s``."""
    return [Told(f"the newest frames of type {kind} {what['why']}", what["for_s"], True) for kind, what in said.items()]


def unfilled(trades: Mapping[str, Any] | None) -> list[str]:
    """Sentences where trades may be missing that could not be fetched since the process began, or cannot be so far."""
    if trades is None:
        return []
    found: list[str] = []
    if count := trades["unfilled"]:
        times = "once" if count == 1 else f"{count:,} times"
        found.append(
            f"{DEAL}: trades that may be missing could not be filled, {times} since its start: {trades['why']}"
        )
    if trades["trouble"]:
        found.append(f"{DEAL}: trades that may be missing cannot be filled so far: {trades['trouble']}")
    return found


def ids_shared(trades: Mapping[str, Any] | None) -> list[str]:
    """A sentence where trades share their ids, so that they are told apart without."""
    return (
        [f"{DEAL}: ids are not unique, and trades are told apart without them"]
        if (trades or {}).get("ids_shared")
        else []
    )


def not_asked_for(unasked: ByChannel) -> list[str]:
    """Sentences on frames of channels or symbols that were not subscribed."""
    recent = [name for name, what in unasked.items() if what["age_s"] < _RECENT_S]
    return [f"not asked for, kept as dead letters: {_named(recent, unasked)}"] if recent else []


def paused(said: Mapping[str, float] | None) -> list[str]:
    """Sentences on a reading loop that stood still, where that was in the last hour."""
    if said is None or said["age_s"] >= _RECENT_S:
        return []
    return [f"nothing was read for {duration(said['for_s'])}, {ago(said['age_s'])}: rows after that are late"]


def _named(names: Collection[str], unasked: ByChannel) -> str:
    most = sorted(names, key=lambda name: -unasked[name]["count"])
    shown = ", ".join(f"{name} ({unasked[name]['count']:,} frames)" for name in most[:_NAMED])
    return shown + (f" and {len(most) - _NAMED} more" if len(most) > _NAMED else "")
