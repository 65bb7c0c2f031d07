"""What the running parts say of themselves, asked over their control sockets in the background."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mexc_pipeline import health
from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.text import with_advice

RATE_WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class View:
    """One symbol at one moment; ``rate`` is market frames a second, ``frame_age_s`` None before the first one.

    ``state`` and ``faults`` are its health's, ``away`` what those say of channels that stay away; ``why`` is what is
    known of why nothing comes. ``backlog`` is rows not yet in ClickHouse (None: store does not say).
    """

    id: str
    symbol: str
    state: str
    rows: dict[str, int] = field(default_factory=dict)
    rate: float = 0.0
    last_seq: int = 0
    frame_age_s: float | None = None
    segment: str = ""
    backlog: int | None = None
    reconnects: int = 0
    faults: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    why: str = ""

    @property
    def frames(self) -> int:
        """Market frames since its collector started."""
        return health.market_frames(self.rows)


@dataclass(frozen=True, slots=True)
class Overview:
    """All symbols and the store at one moment."""

    views: tuple[View, ...]
    store: str


def view_of(
    symbol_id: str,
    name: str,
    status: Mapping[str, Any] | None,
    store: Mapping[str, Any] | None,
    rate: float,
    silent_s: float | None = None,
) -> View:
    """A symbol's view from its collector's and the store's ``status`` (None: no answer)."""
    loaded = ((store or {}).get("symbols") or {}).get(symbol_id) or {}
    backlog = loaded.get("backlog")
    if status is None:
        return View(symbol_id, name, "down", backlog=backlog)
    found = health.of_symbol(status, loaded, silent_s=silent_s)
    faults = tuple(with_advice(reason.text, reason.todo) for reason in found.reasons)
    told = [str(text) for text in status.get("warnings") or ()]
    return View(
        id=symbol_id,
        symbol=name,
        state=found.state,
        rows=dict(status.get("rows") or {}),
        rate=rate,
        last_seq=int(status.get("last_seq") or 0),
        frame_age_s=(status.get("market") or {}).get("age_s"),
        segment=str(status.get("segment") or ""),
        backlog=backlog,
        reconnects=int(status.get("reconnects") or 0),
        faults=faults,
        away=tuple(reason.text for reason in found.reasons if reason.kind is health.Kind.CHANNEL),
        warnings=tuple(text for text in told if not any(reason.is_said_by(text) for reason in found.reasons)),
        why=health.said(status),
    )


def store_text(status: Mapping[str, Any] | None) -> str:
    """The store in a word or two."""
    if status is None:
        return "down"
    return "ok" if status.get("reachable") else f"ClickHouse does not answer: {status.get('error') or '?'}"


class Rate:
    """Frames a second over the last :data:`RATE_WINDOW_S`, from totals that are looked at now and then."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, int]] = deque(maxlen=64)

    def of(self, now: float, total: int | None) -> float:
        """The rate at a moment (monotonic s); 0.0 until there are two totals. ``total``: frames since the process
        began, None where it did not answer: unknown is not zero, or all of them would seem to have come since."""
        if total is None:
            self._totals.clear()
            return 0.0
        if self._totals and total < self._totals[-1][1]:
            self._totals.clear()  # a new process counts from zero
        self._totals.append((now, total))
        while len(self._totals) > 2 and now - self._totals[0][0] > RATE_WINDOW_S:
            self._totals.popleft()
        began, first = self._totals[0]
        return (total - first) / (now - began) if now > began else 0.0


class Watcher:
    """Asks every part for its status once a period, in a thread of its own: a silent part delays nobody else."""

    def __init__(self, config: Config, every_s: float = 1.0) -> None:
        self._config = config
        self._every_s = every_s
        self._stop = threading.Event()
        self._rates = {s.id: Rate() for s in config.symbols}
        self._snapshot = Overview(tuple(View(s.id, s.name, "starting") for s in config.symbols), "starting")
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Stop asking, and wait up to 10 s for the thread."""
        self._stop.set()
        if self._thread.ident is not None:  # else the start of the run failed before it
            self._thread.join(timeout=10)

    @property
    def snapshot(self) -> Overview:
        """The newest answers."""
        return self._snapshot  # replaced whole, never changed

    def _loop(self) -> None:
        while not self._stop.wait(self._every_s):
            self._snapshot = self._look()

    def _look(self) -> Overview:
        store = self._ask("store")
        views: list[View] = []
        for symbol in self._config.symbols:
            status = self._ask(symbol.id)
            views.append(view_of(symbol.id, symbol.name, status, store, self._rate(symbol.id, status), symbol.silent_s))
        return Overview(tuple(views), store_text(store))

    def _ask(self, who: str) -> dict[str, Any] | None:
        try:
            return ask(self._config.control_dir / f"{who}.sock", "status", timeout_s=1.0)
        except ControlError:
            return None  # shown as down; the supervisor says why

    def _rate(self, symbol_id: str, status: Mapping[str, Any] | None) -> float:
        total = health.market_frames(status.get("rows") or {}) if status else None
        return self._rates[symbol_id].of(time.monotonic(), total)
