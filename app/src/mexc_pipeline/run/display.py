"""The live summary on standard error: a table that redraws on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mexc_pipeline.run.children import Lines
from mexc_pipeline.run.watch import Snapshot, View
from mexc_pipeline.text import LONG, clean

PLAIN_EVERY_S = 5.0
LIVE_EVERY_S = 0.5
TYPES = ("t", "d", "dp", "dl", "ev", "r")


def age(seconds: float | None) -> str:
    """``0.3 s``; a dash where there is none."""
    return "–" if seconds is None else f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def plain_line(view: View, exported: int) -> str:
    """One symbol on one line."""
    rows = " ".join(f"{kind} {view.rows.get(kind, 0)}" for kind in TYPES if view.rows.get(kind) or kind in TYPES[:4])
    faults = "".join(f"; {fault}" for fault in view.faults)
    return clean(
        f"{view.id:<8} {view.state:<10} frames {view.frames:,} ({view.rate:.1f}/s) {rows} seq {view.last_seq} "
        f"last frame {age(view.frame_age_s)} backlog {'–' if view.backlog is None else view.backlog} "
        f"segment {view.segment or '–'} exported {exported}{faults}",
        LONG,
    )


def live_table(snapshot: Snapshot, exported: Mapping[str, int], heading: str) -> Table:
    """The table a terminal shows."""
    table = Table(
        title=Text(clean(f"{heading} · store {snapshot.store}")),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in ("symbol", "state"):
        table.add_column(name)
    for name in ("frames", "frames/s", *TYPES, "seq", "last frame", "backlog"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("segment", no_wrap=True)
    table.add_column("files", justify="right", no_wrap=True)
    for view in snapshot.views:
        style = "bold red" if view.faults or view.state == "down" else "green" if view.state == "live" else "yellow"
        table.add_row(
            Text(clean(view.symbol)),
            Text(clean(view.state), style=style),
            f"{view.frames:,}",
            f"{view.rate:.1f}",
            *(f"{view.rows.get(kind, 0):,}" for kind in TYPES),
            str(view.last_seq),
            age(view.frame_age_s),
            "–" if view.backlog is None else f"{view.backlog:,}",
            Text(clean(view.segment.removesuffix(".sqlite"))),
            str(exported.get(view.id, 0)),
        )
        for fault in view.faults:
            table.add_row("", Text(clean(fault), style="bold red"))
        for warning in view.warnings:
            table.add_row("", Text(clean(warning), style="yellow"))
    return table


def say(text: str) -> None:
    """A line before anything is shown."""
    sys.stderr.write(f"{clean(text, LONG)}\n")


class Display:
    """Shows snapshots at its own pace, and the lines of children's logs between them."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._shown = 0.0

    @property
    def terminal(self) -> bool:
        return self._console.is_terminal

    @property
    def lines(self) -> Lines:
        """On a terminal children's lines are prefixed and printed above the table; elsewhere they stay as they are."""
        return self._print if self.terminal else self._pass_on

    def start(self) -> None:
        if self.terminal:
            # Standard error is replaced while the table stands, so that log lines appear above it.
            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._live.start()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, snapshot: Snapshot, exported: Mapping[str, int], heading: str) -> None:
        """Show it when it is time again."""
        now = time.monotonic()
        if now - self._shown < (LIVE_EVERY_S if self._live else PLAIN_EVERY_S):
            return
        self._shown = now
        if self._live is not None:
            self._live.update(live_table(snapshot, exported, heading), refresh=True)
            return
        sys.stderr.write("".join(f"{plain_line(view, exported.get(view.id, 0))}\n" for view in snapshot.views))
        sys.stderr.flush()

    def say(self, text: str) -> None:
        """A line of our own."""
        self._console.print(Text(clean(text, LONG)))

    def _pass_on(self, _name: str, line: str) -> None:
        sys.stderr.write(f"{line}\n")

    def _print(self, name: str, line: str) -> None:
        self._console.print(Text(clean(f"{name:<8}│ {line}", LONG)))
