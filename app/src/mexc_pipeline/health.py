"""How a symbol's recording is: one definition for everybody who shows or judges it. Pure.

It is made of what the parts say of themselves over their control sockets; seconds are ages, not times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from mexc_pipeline.exchange.deadletters import SHARE, Letters, too_many
from mexc_pipeline.feed import telling
from mexc_pipeline.spool.disk_level import LEAST_FREE
from mexc_pipeline.text import ago, duration, with_advice

QUIET_S = 10.0
"""Without a market frame for so long a symbol is quiet, as long as that is within its own pace."""
EXPORT_S = 5400.0
"""From a period's end until a missing file is a fault; the timer comes each hour."""
NO_MARKET = frozenset({"dl", "ev", "r", "c"})
"""Types of rows that show nothing of the market going on: kept because of it, told by us, fetched, or standing data."""


class Kind(StrEnum):
    """What can be wrong, the worst first."""

    DOWN = "down"
    STOPPED = "stopped"
    SPOOL = "spool"
    CONNECTING = "connecting"
    UNLISTED = telling.UNLISTED
    SILENT = "silent"
    DEAD_LETTERS = "dead letters"
    UNREADABLE = "unreadable"
    CLOCK = "clock wrong"
    TIMES = "times wrong"
    DISK = "disk"
    CHANNEL = "channel away"
    NOT_EXPORTED = "not exported"
    NOT_LOADED = "not loaded"

    @property
    def advice(self) -> str:
        """What is to be done about it."""
        return _ADVICE[self]


START_AGAIN = "start it again where it is to record"

_RANK = {kind: rank for rank, kind in enumerate(Kind)}
_ADVICE = {
    Kind.DOWN: "start it, or read its log: why did it end?",
    Kind.STOPPED: "recording goes on by itself once there is room",
    Kind.SPOOL: "look at the spool's disk and the collector's log",
    Kind.CONNECTING: "mexc-pipeline doctor tells whether the way or the exchange is gone",
    Kind.UNLISTED: "nothing, where the listing is to come; otherwise correct or remove the symbol",
    Kind.SILENT: "mexc-pipeline probe shows what the exchange sends",
    Kind.DEAD_LETTERS: "every frame is kept; mexc-pipeline probe shows what changed",
    Kind.UNREADABLE: "every frame is kept; a newer version may read it, and mexc-pipeline probe shows what changed",
    Kind.CLOCK: "set it (NTP); nothing is deleted by age meanwhile",
    Kind.TIMES: "every frame is kept, and rx says when it came; mexc-pipeline probe shows what changed",
    Kind.DISK: "make room before recording stops",
    Kind.CHANNEL: "it is asked for again by itself; mexc-pipeline probe shows what there is",
    Kind.NOT_EXPORTED: "mexc-pipeline export says what is in the way",
    Kind.NOT_LOADED: "recording and files go on; look at ClickHouse and the store's log",
}


@dataclass(frozen=True, slots=True)
class HealthFault:
    """One fault: what is the matter, and for how many seconds where that is known."""

    kind: Kind
    text: str
    for_s: float | None = None
    todo: str = ""
    """What to do about it, where that is not what its kind asks for."""

    @property
    def advice(self) -> str:
        """What to do about it."""
        return self.todo or self.kind.advice

    def is_said_by(self, line: str) -> bool:
        """Whether a line, as of a collector's warnings, tells no more than the fault does."""
        return line in (self.text, with_advice(self.text, self.advice))

    def to_json(self) -> dict[str, Any]:
        """The fault in JSON: ``kind``, ``text``, ``for_s``, ``advice``."""
        return {"kind": self.kind.value, "text": self.text, "for_s": self.for_s, "advice": self.advice}


@dataclass(frozen=True, slots=True)
class Health:
    """How something is. ``state`` is the worst fault's kind, or without one ``live``, ``quiet``, ``connecting`` or
    ``stopping``."""

    state: str
    reasons: tuple[HealthFault, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.reasons

    @property
    def rank(self) -> int:
        """A number that sorts the worst first."""
        return _RANK[self.reasons[0].kind] if self.reasons else len(_RANK)

    def to_json(self) -> dict[str, Any]:
        """The health in JSON: ``state``, ``ok``, ``reasons``."""
        return {"state": self.state, "ok": self.ok, "reasons": [reason.to_json() for reason in self.reasons]}


def market_frames(rows: Mapping[str, int]) -> int:
    """Frames of the market among rows by type; or their bytes, among bytes by type."""
    return sum(count for name, count in rows.items() if name not in NO_MARKET)


def of_symbol(
    collector: Mapping[str, Any],
    store: Mapping[str, Any] | None = None,
    *,
    silent_s: float | None = None,
    unexported_s: float | None = None,
) -> Health:
    """A symbol's health.

    ``collector`` is its collector's ``status``, or ``{"problem": …}`` where it does not answer, with ``stopped_s`` ago
    where it stopped in order; ``store`` what the
    store says of the symbol (None: nothing). ``silent_s`` as configured (None: by its pace). ``unexported_s`` is the
    age of the oldest period's end that has no file yet (None: each has).
    """
    found: list[HealthFault] = []
    if "problem" in collector:
        stopped_s = collector.get("stopped_s")
        if stopped_s is None:
            found.append(HealthFault(Kind.DOWN, str(collector["problem"]), todo=str(collector.get("todo", ""))))
        else:
            found.append(HealthFault(Kind.DOWN, "stopped in order", float(stopped_s), START_AGAIN))
        state = Kind.DOWN.value
    else:
        state = str(collector.get("state", "?"))
        found += _recording(collector, state, silent_s)
        if state == "live" and _waited(collector) >= QUIET_S:
            state = "quiet"
        found += _what_it_says(collector)
        if state != telling.UNLISTED:
            found += _channels(collector)
    if unexported_s is not None and unexported_s >= EXPORT_S:
        found.append(
            HealthFault(Kind.NOT_EXPORTED, f"a period that ended {ago(unexported_s)} has no file", unexported_s)
        )
    found += _loading(store or {})
    found.sort(key=lambda reason: _RANK[reason.kind])
    return Health(found[0].kind.value if found else state, tuple(found))


def of_store(status: Mapping[str, Any]) -> Health:
    """The store's own health by its ``status``, or ``{"problem": …}``."""
    if "problem" in status:
        fault = HealthFault(Kind.NOT_LOADED, str(status["problem"]), todo=str(status.get("todo", "")))
        return Health(Kind.NOT_LOADED.value, (fault,))
    if not status.get("reachable"):
        text = f"ClickHouse does not answer: {status.get('error') or 'no reason given'}"
        return Health(Kind.NOT_LOADED.value, (HealthFault(Kind.NOT_LOADED, text),))
    return Health("live")


def of_export_disk(folder: str, free: int) -> Health:
    """The health of a disk that only exported files are on, by the bytes that are free there."""
    if free >= LEAST_FREE:
        return Health("ok")
    text = f"the file system of {folder} has {free >> 20} MiB free, and files need {LEAST_FREE >> 20} MiB"
    todo = "free some (mexc-pipeline prune deletes old files); what waits in the spool is exported then"
    return Health(Kind.DISK.value, (HealthFault(Kind.DISK, text, todo=todo),))


class Unread(NamedTuple):
    """``dead`` of so many frames (dead letters included) are dead letters: of all, or of those of one type."""

    dead: int
    frames: int
    kind: str | None

    @property
    def of(self) -> str:
        """What the frames are."""
        return "frames" if self.kind is None else f"frames of type {self.kind}"

    @property
    def share(self) -> str:
        """How many of them, in percent, as text."""
        return f"{100 * self.dead / self.frames:.1f} %"


def of_dead_letters(rows: Mapping[str, int], letters: Letters) -> list[Unread]:
    """Where dead letters are a fault among those rows by type: of all frames, or else of those of single types. A type
    that has become unreadable shows also where it is little of the whole."""
    dead, good = letters.reasons.total(), market_frames(rows)
    if too_many(dead, dead + good):
        return [Unread(dead, dead + good, None)]
    found = [Unread(count, count + rows.get(kind, 0), kind) for kind, count in letters.meant.items()]
    return [unread for unread in found if too_many(unread.dead, unread.frames)]


def wrong_with(letters: Letters) -> str:
    """What is wrong with dead letters and how many each, the commonest first."""
    return ", ".join(f"{count:,} {name}" for name, count in letters.reasons.most_common())


def unread_in_a_run(rows: Mapping[str, int], letters: Letters) -> list[str]:
    """A sentence for each fault of the rows of a whole run."""
    return [
        f"{unread.dead:,} of {unread.frames:,} {unread.of} are dead letters ({unread.share}; a fault from {SHARE:.0%}; "
        f"{wrong_with(letters)}); {Kind.DEAD_LETTERS.advice}"
        for unread in of_dead_letters(rows, letters)
    ]


def _recording(collector: Mapping[str, Any], state: str, silent_s: float | None) -> list[HealthFault]:
    if state.startswith("stopped"):
        disk = collector.get("disk") or {}
        return [HealthFault(Kind.STOPPED, str(disk.get("warning") or state), todo=str(disk.get("todo") or ""))]
    if state == telling.UNLISTED:  # from its beginning: a name that was mistyped must not look like a recording
        return [
            HealthFault(Kind.UNLISTED, telling.unlisted(str(collector.get("symbol", "the symbol"))), _waited(collector))
        ]
    market = collector.get("market") or {}
    limit = silent_s if silent_s is not None else market.get("limit_s")
    waited = _waited(collector)
    if state == "stopping" or limit is None or waited < limit:
        return []
    since = "" if market.get("age_s") is not None else ", not one since its start"
    text = f"no market frame for {duration(waited)}{since}"
    why = said(collector)
    return [
        HealthFault(
            Kind.CONNECTING if state == "connecting" else Kind.SILENT, f"{text}: {why}" if why else text, waited
        )
    ]


def _waited(collector: Mapping[str, Any]) -> float:
    return float((collector.get("market") or {}).get("waited_s") or 0.0)


def said(collector: Mapping[str, Any]) -> str:
    """What is known of why there is no connection, or nothing on it; empty where nothing is."""
    refusal, waits = collector.get("refusal") or {}, collector.get("waits") or {}
    for answer in (
        refusal.get("said"),
        waits.get("why"),
        collector.get("not_connected"),
        collector.get("exchange_said"),
    ):
        if answer:
            return str(answer)
    return ""


def _what_it_says(collector: Mapping[str, Any]) -> list[HealthFault]:
    found: list[HealthFault] = []
    if collector.get("trouble"):
        found.append(HealthFault(Kind.SPOOL, str(collector["trouble"])))
    clock = collector.get("clock") or {}
    if clock.get("suspect"):
        text = str(clock.get("warning") or "this host's clock is wrong")
        found.append(HealthFault(Kind.CLOCK, text, todo=str(clock.get("todo") or "")))
    disk = collector.get("disk") or {}
    if disk.get("level") == "alert":
        text = str(disk.get("warning") or "the spool's disk is nearly full")
        found.append(HealthFault(Kind.DISK, text, todo=str(disk.get("todo") or "")))
    found += _dead_letters(collector.get("recent") or {})
    return found + [
        HealthFault(Kind.UNREADABLE, text, for_s)
        for text, for_s, _ in telling.unreadable(collector.get("unreadable") or {})
    ]


def _channels(collector: Mapping[str, Any]) -> list[HealthFault]:
    channels = collector.get("channels") or {}
    told = telling.given_up(channels) + telling.silent(channels, collector.get("unasked") or {})
    told += telling.cannot_follow(collector.get("unversioned") or {}, collector.get("gaps"))
    found = [HealthFault(Kind.CHANNEL, text, for_s or None) for text, for_s, fault in told if fault]
    wrong = telling.mistimed(collector.get("mistimed") or {})
    return found + [HealthFault(Kind.TIMES, text, for_s) for text, for_s, _ in wrong]


def _dead_letters(recent: Mapping[str, Any]) -> list[HealthFault]:
    letters = Letters(Counter(recent.get("dead_letters") or {}), Counter(recent.get("meant") or {}))
    within = f"in the last {duration(float(recent.get('seconds') or 0.0))}"
    why = ", ".join(f"{name} {count:,}" for name, count in letters.reasons.most_common())
    found: list[HealthFault] = []
    for unread in of_dead_letters(recent.get("frames") or {}, letters):
        of = "all frames" if unread.kind is None else f"type {unread.kind}"
        found.append(
            HealthFault(Kind.DEAD_LETTERS, f"{unread.dead:,} dead letters, {unread.share} of {of} {within} ({why})")
        )
    return found


def _loading(store: Mapping[str, Any]) -> list[HealthFault]:
    found: list[str] = []
    if store.get("trouble"):
        found.append(str(store["trouble"]))
    if store.get("unreadable_segment"):
        found.append(f"segment {store['unreadable_segment']} cannot be read")
    if store.get("skipped_rows"):
        found.append(f"{store['skipped_rows']} rows refused by ClickHouse")
    found += [
        f"table of {file} differs in {', '.join(compared.get('columns') or []) or compared.get('error') or 'content'}"
        for file, compared in (store.get("compared") or {}).items()
        if not compared.get("ok") and not compared.get("refused")
    ]
    return [HealthFault(Kind.NOT_LOADED, text) for text in found]
