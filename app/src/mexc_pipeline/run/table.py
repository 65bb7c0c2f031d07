"""The closing table and its JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mexc_pipeline.rendering import rendered
from mexc_pipeline.rows import shown_types
from mexc_pipeline.run.account import Closing, Line, totals
from mexc_pipeline.text import LONG, clean, counted

KINDS = 3
"""Different reasons that the last line gives."""


def closing_json(closing: Closing) -> dict[str, Any]:
    """The answer of ``--json``: ``ok``, ``problems``, ``periods`` (one object each)."""
    return {
        "ok": closing.ok,
        "problems": closing.problems,
        "periods": [{**asdict(line), "ok": line.ok} for line in closing.lines],
    }


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _cells(line: Line, types: Iterable[str]) -> list[str]:
    part = "" if line.part is None else f" part {line.part}"
    return [
        line.symbol,
        f"{line.period}{part}",
        *(f"{line.counts.get(kind, 0):,}" for kind in types),
        f"{line.first_seq}–{line.last_seq}" if line.received else "–",
        f"{line.bytes:,}",
        "–" if line.ratio is None else f"{line.ratio:.1f}",
        line.digest[:12],
        _count(line.received),
        _count(line.stored),
        _count(line.exported),
    ]


def closing_table(closing: Closing) -> Table:
    """One row per symbol and period: rows per type, seq range, bytes, ratio, digest, the three counts, verdict."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    types = shown_types(line.counts for line in closing.lines)
    for name in ("symbol", "period"):
        table.add_column(name, no_wrap=True)
    for name in (*types, "seq", "bytes", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("digest", no_wrap=True)
    for name in ("received", "stored", "exported"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for line in closing.lines:
        style = "green" if line.ok else "bold red"
        table.add_row(*(Text(clean(cell)) for cell in _cells(line, types)), Text(clean(line.verdict), style=style))
    return table


def _why(closing: Closing) -> str:
    """What is wrong, the commonest first."""
    wrong = Counter(line.verdict for line in closing.lines if not line.ok).most_common()
    said = [clean(f"{n} of {counted(len(closing.lines), 'period')} {verdict}", LONG) for verdict, n in wrong[:KINDS]]
    if more := sum(n for _, n in wrong[KINDS:]):
        said.append(f"{counted(more, 'more period')}, see above")
    if closing.problems:
        said.append(f"{counted(len(closing.problems), 'problem')}, see above")
    return "; ".join(said)


def closing_text(closing: Closing) -> str:
    """Table, problems and the one-line result, as wide as they need to be: a narrow window folds lines, it does not
    hide figures."""
    table = closing_table(closing)
    console = Console(highlight=False)
    width = max(console.width, console.measure(table, options=console.options.update(width=500)).maximum)
    rows = totals(closing.lines)
    size = sum(line.bytes for line in closing.lines)
    count = f"{counted(len(closing.lines), 'period')}, {counted(sum(rows.values()), 'row')}, {size:,} bytes"
    if closing.ok:
        verdict = f"{count}: received = stored = exported, all verified"
    else:
        verdict = f"{count}: NOT verified: {_why(closing)}"
    problems = [clean(f"problem: {problem}", LONG) for problem in closing.problems]
    return rendered(table, width) + "\n".join([*problems, verdict])
