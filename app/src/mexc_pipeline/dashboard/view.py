"""What the page shows, made of what was gathered. Pure.

All that is sent has a bounded size: texts that others wrote are cleaned and cut here, once for every viewer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mexc_pipeline import health, overview
from mexc_pipeline.text import ago, clean, counted, duration

WINDOW_S = 10.0
"""What a rate is taken over."""
REASON = 160
"""Characters of a reason within a table; its details have all of it."""
NAME = 80
"""Characters of a name, as a file's, an address."""
SHOWN = 20
"""Reasons, warnings and channels in the details of a symbol."""
UNKNOWN_YET = "asking"
"""The state of what has not answered since somebody looks."""

COLUMNS = (
    "id",
    "symbol",
    "state",
    "rank",
    "reason",
    "more",
    "rate",
    "delay_ms",
    "age_s",
    "way",
    "backlog",
    "file",
    "file_age_s",
    "verdict",
)
"""What each place in a symbol's row is. ``rank`` sorts the worst first; ``reason`` is that of the worst fault, and
``more`` how many others there are; what is not known is None."""


class Rates:
    """How many frames a second were made durable, over the last :data:`WINDOW_S`; none until there are two counts
    of one process within that time."""

    def __init__(self) -> None:
        self._counts: dict[str, deque[tuple[float, int]]] = {}

    def add(self, key: str, at: float, count: int | None) -> float | None:
        """Take note of a ``count`` at ``at`` (monotonic s; None: not known any more) and give the rate."""
        if count is None:
            self._counts.pop(key, None)
            return None
        known = self._counts.setdefault(key, deque())
        if known and (count < known[-1][1] or at - known[-1][0] > WINDOW_S):
            known.clear()
        known.append((at, count))
        while len(known) > 2 and at - known[1][0] >= WINDOW_S:
            known.popleft()
        began, first = known[0]
        return round((count - first) / (at - began), 2) if at > began else None


def page_of(
    found: Mapping[str, Any],
    disks: Mapping[str, overview.FileSystem],
    rates: Mapping[str, float | None],
    *,
    number: int,
    at: float,
) -> dict[str, Any]:
    """The page of what :func:`mexc_pipeline.overview.gather` found: the ``number``-th, at Unix seconds ``at``."""
    order = {kind.value: rank for rank, kind in enumerate(health.Kind)}
    return {
        "number": number,
        "at": round(at, 3),
        "faults": sum(not symbol["health"]["ok"] for symbol in found["symbols"]),
        "parts": [*_store(found["store"]), *_export(found["export"]), *_disks(disks)],
        "columns": COLUMNS,
        "symbols": [_row(symbol, rates.get(symbol["id"]), order) for symbol in found["symbols"]],
    }


def first_page(symbols: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The page before anything has answered, of ids and names: number 0."""
    rows = []
    for symbol_id, name in symbols:
        known = {"id": symbol_id, "symbol": name, "state": UNKNOWN_YET, "rank": len(health.Kind), "reason": ""}
        rows.append([known.get(column) for column in COLUMNS])
    return {"number": 0, "at": None, "faults": None, "parts": [], "columns": COLUMNS, "symbols": rows}


def details_of(symbol: Mapping[str, Any]) -> dict[str, Any]:
    """All that is shown of one symbol: its ``reasons`` with what to do, what else it ``said``, ``facts`` by name, and
    its ``channels``."""
    said, found = symbol["collector"], symbol["health"]
    reasons = [
        {
            "kind": reason["kind"],
            "text": clean(reason["text"]),
            "since": _for(reason["for_s"]),
            "todo": reason["advice"],
        }
        for reason in found["reasons"][:SHOWN]
    ]
    told = {reason["text"] for reason in reasons}
    warnings = [clean(warning) for warning in said.get("warnings") or []]
    if said.get("exchange_said"):
        warnings.append(clean(f"the exchange said: {said['exchange_said']}"))
    if said.get("outdated"):
        warnings.append(clean(f"{said['outdated']}; {said['mended_by']} it"))
    return {
        "id": symbol["id"],
        "symbol": symbol["symbol"],
        "state": clean(found["state"], NAME),
        "reasons": reasons,
        "said": [warning for warning in warnings if not any(text in warning for text in told)][:SHOWN],
        "facts": [[name, value] for name, value in _facts(symbol) if value],
        "channels": [
            [clean(name, NAME), _channel(channel)]
            for name, channel in list((said.get("channels") or {}).items())[:SHOWN]
        ],
    }


def frames_of(symbol: Mapping[str, Any]) -> int | None:
    """How many frames of the market a symbol's collector has made durable since its start; None where it does not
    say."""
    rows = symbol["collector"].get("rows")
    return None if rows is None else health.market_frames(rows)


def _row(symbol: Mapping[str, Any], rate: float | None, order: Mapping[str, int]) -> list[Any]:
    said, found, export = symbol["collector"], symbol["health"], symbol["last_export"] or {}
    worst = found["reasons"][0] if found["reasons"] else None
    values = {
        "id": symbol["id"],
        "symbol": symbol["symbol"],
        "state": clean(found["state"], NAME),
        "rank": order[worst["kind"]] if worst else len(order),
        "reason": clean(worst["text"], REASON) if worst else "",
        "more": max(0, len(found["reasons"]) - 1),
        "rate": rate,
        "delay_ms": (said.get("delay_ms") or {}).get("p50"),
        "age_s": (said.get("market") or {}).get("age_s"),
        "way": _way(said),
        "backlog": (symbol["store"] or {}).get("backlog"),
        "file": clean(export["file"], NAME) if export else None,
        "file_age_s": export.get("age_s"),
        "verdict": _verdict(symbol),
    }
    return [values[column] for column in COLUMNS]


def _way(said: Mapping[str, Any]) -> str | None:
    """How the connection leaves, and where to, or by Tor where it leaves."""
    egress = said.get("egress") or {}
    parts = [part for part in (egress.get("mode"), overview.far_end(egress)) if part]
    return clean(" ".join(map(str, parts)), NAME) if parts else None


def _verdict(symbol: Mapping[str, Any]) -> str | None:
    """A file has its name only once it was read back and compared."""
    if any(reason["kind"] == health.Kind.NOT_EXPORTED.value for reason in symbol["health"]["reasons"]):
        return "a later one is missing"
    if (symbol["store"] or {}).get("differing"):
        return "a table differs"
    return "proven" if symbol["last_export"] else None


def _facts(symbol: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    said, loaded, export = symbol["collector"], symbol["store"] or {}, symbol["last_export"]
    yield "Last market frame", _ago((said.get("market") or {}).get("age_s"))
    yield "Exchange to here", _quantiles(said.get("delay_ms"))
    yield "Received to durable", _quantiles(said.get("durable_ms"))
    yield "Way to the exchange", _way(said)
    yield "Connections after the first", _number(said.get("reconnects"))
    yield "Open gaps of the book", _number((said.get("gaps") or {}).get("open"))
    yield "Newest row (seq)", _number(said.get("last_seq"))
    yield "Rows not numbered yet", _number(said.get("pending"))
    yield "Not in ClickHouse yet", _backlog(said, loaded)
    yield "Tables that differ", _number(loaded.get("differing"))
    if export:
        yield "Last file", clean(f"{export['file']}, {export['bytes']:,} bytes, {ago(export['age_s'])}")
    yield "Verdict", _verdict(symbol)


def _backlog(said: Mapping[str, Any], loaded: Mapping[str, Any]) -> str | None:
    if loaded.get("backlog") is None:
        return None
    behind_s = overview.behind_s(said, loaded)
    return counted(loaded["backlog"], "row") + (f", {duration(behind_s)} behind" if behind_s else "")


def _channel(channel: Mapping[str, Any]) -> str:
    if "given_up_s" in channel:
        return f"given up {ago(channel['given_up_s'])}"
    return f"last frame {_ago(channel.get('age_s')) or 'never'}"


def _store(store: Mapping[str, Any]) -> Iterator[list[str]]:
    if store["health"]["ok"]:
        yield ["Store", "ok", clean(f"ClickHouse ({store.get('engine')}) answers", REASON)]
    for reason in store["health"]["reasons"][:SHOWN]:
        yield ["Store", "fault", clean(f"{reason['text']}; {reason['advice']}")]
    if store.get("outdated"):
        yield ["Store", "note", clean(f"{store['outdated']}; {store['mended_by']} it")]


def _export(export: Mapping[str, Any]) -> Iterator[list[str]]:
    for reason in export["health"]["reasons"][:SHOWN]:
        yield ["Export", "fault", clean(f"{reason['text']}; {reason['advice']}")]


def _disks(disks: Mapping[str, overview.FileSystem]) -> Iterator[list[str]]:
    names = {"spool": "Spool's disk", "exports": "Files' disk"}
    for name, disk in disks.items():
        used = f" of {disk.total / (1 << 30):,.1f} GiB" if disk.total else ""
        yield [names.get(name, name), "ok", f"{disk.free / (1 << 30):,.1f}{used} free"]


def _for(seconds: float | None) -> str:
    return "" if seconds is None else f"for {duration(seconds)}"


def _ago(seconds: float | None) -> str | None:
    return None if seconds is None else ago(seconds, 1)


def _number(value: Any) -> str | None:
    return None if value is None else f"{value:,}"


def _quantiles(found: Mapping[str, float] | None) -> str | None:
    return f"{found['p50']:,.1f} ms, for 99 of 100 below {found['p99']:,.1f} ms" if found else None
