"""The live summary on standard error: a table that redraws on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mexc_pipeline.rendering import WIDEST
from mexc_pipeline.rows import FIRST_TYPES, MT_NAMES, shown_types
from mexc_pipeline.run.children import Lines
from mexc_pipeline.run.watch import Overview, View
from mexc_pipeline.text import LONG, clean

PLAIN_EVERY_S = 5.0
LIVE_EVERY_S = 0.5


def age(seconds: float | None) -> str:
    """An age in seconds as ``0.3 s``; a dash where there is none."""
    return "–" if seconds is None else f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def plain_line(view: View, exported: int) -> str:
    """The line that shows one symbol where there is no table."""
    shown = (kind for kind in MT_NAMES.values() if view.rows.get(kind) or kind in FIRST_TYPES[:4])
    rows = " ".join(f"{kind} {view.rows.get(kind, 0)}" for kind in shown)
    faults = "".join(f"; {fault}" for fault in view.faults)
    return clean(
        f"{view.id:<8} {view.state:<10} frames {view.frames:,} ({view.rate:.1f}/s) {rows} seq {view.last_seq} "
        f"last frame {age(view.frame_age_s)} backlog {'–' if view.backlog is None else view.backlog} "
        f"segment {view.segment or '–'} exported {exported}{faults}",
        LONG,
    )


_BEFORE, _AFTER = ("symbol", "state", "frames", "frames/s"), ("seq", "last frame", "backlog", "segment", "files")
_DROP = ("segment", *reversed(MT_NAMES.values()), "files", "frames/s", "backlog", "seq", "frames", "last frame")
"""What goes first where the terminal is too narrow; symbol and state always stay."""


def _style(view: View) -> str:
    return "bold red" if view.faults or view.state == "down" else "green" if view.state == "live" else "yellow"


def _cells(view: View, exported: int) -> dict[str, Text]:
    cells = {
        "symbol": clean(view.symbol),
        "frames": f"{view.frames:,}",
        "frames/s": f"{view.rate:.1f}",
        **{kind: f"{view.rows.get(kind, 0):,}" for kind in MT_NAMES.values()},
        "seq": str(view.last_seq),
        "last frame": age(view.frame_age_s),
        "backlog": "–" if view.backlog is None else f"{view.backlog:,}",
        "segment": clean(view.segment.removesuffix(".sqlite")),
        "files": str(exported),
    }
    return {"state": Text(clean(view.state), style=_style(view)), **{name: Text(cell) for name, cell in cells.items()}}


def _table(names: Sequence[str], rows: Sequence[Mapping[str, Text]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, justify="left" if name in ("symbol", "state", "segment") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def live_table(snapshot: Overview, exported: Mapping[str, int], heading: str, width: int) -> Group:
    """What a terminal of so many columns shows: whole columns go until the rest fits, so that no name and no figure is
    cut; what is wrong stands below, folded."""
    rows = [_cells(view, exported.get(view.id, 0)) for view in snapshot.views]
    names = [*_BEFORE, *shown_types(view.rows for view in snapshot.views), *_AFTER]
    wide = Console(width=WIDEST)
    for name in _DROP:
        if wide.measure(_table(names, rows)).maximum <= width:
            break
        if name in names:
            names.remove(name)
    told = [
        _line(f"{view.symbol}: {text}", style)
        for view in snapshot.views
        for texts, style in ((view.faults, "bold red"), (view.warnings, "yellow"))
        for text in texts
    ]
    return Group(_line(f"{heading} · store {snapshot.store}", "italic"), _table(names, rows), *told)


def _line(text: str, style: str) -> Text:
    return Text(clean(text, LONG), style=style, no_wrap=False, overflow="fold")


def say(text: str) -> None:
    """Print a line before anything is shown."""
    sys.stderr.write(f"{clean(text, LONG)}\n")


class Display:
    """Shows snapshots at its own pace, and the lines of children's logs between them."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._shown = 0.0

    @property
    def terminal(self) -> bool:
        """Whether standard error is a terminal."""
        return self._console.is_terminal

    @property
    def lines(self) -> Lines:
        """What takes children's lines: on a terminal they are prefixed and printed above the table, elsewhere they stay
        as they are."""
        return self._print if self.terminal else self._pass_on

    def start(self) -> None:
        """Begin to show; on a terminal log lines appear above the table from now on."""
        if self.terminal:
            # Standard error is replaced while the table stands, so that log lines appear above it.
            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._live.start()

    def close(self) -> None:
        """Take the table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, snapshot: Overview, exported: Mapping[str, int], heading: str) -> None:
        """Show a snapshot of the run, where it is time again."""
        now = time.monotonic()
        if now - self._shown < (LIVE_EVERY_S if self._live else PLAIN_EVERY_S):
            return
        self._shown = now
        if self._live is not None:
            self._live.update(live_table(snapshot, exported, heading, self._console.width), refresh=True)
            return
        sys.stderr.write("".join(f"{plain_line(view, exported.get(view.id, 0))}\n" for view in snapshot.views))
        sys.stderr.flush()

    def say(self, text: str) -> None:
        """Print a line of our own."""
        self._console.print(Text(clean(text, LONG)))

    def _pass_on(self, _name: str, line: str) -> None:
        sys.stderr.write(f"{line}\n")

    def _print(self, name: str, line: str) -> None:
        self._console.print(Text(clean(f"{name:<8}│ {line}", LONG)))
