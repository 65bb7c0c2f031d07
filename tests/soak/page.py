"""Writes docs/soak.md and its plot from a run's samples."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from soak.growth import BOUNDS, HOUR_S, MIB, SHORTEST_S, Trend, warm_up
from soak.sampling import Sample

_UNITS = {"rss": "MiB", "pss": "MiB", "bytes": "MiB", "handles": "", "threads": "", "rows": "rows"}
_NAMES = {"rss": "memory (RSS)", "pss": "memory (PSS)", "bytes": "disk", "handles": "handles", "rows": "rows behind"}
_INTRO = """# A long recording

This page is written by `make soak` from the run's own output. It records the bundled simulator with the command that
records the exchange on one machine (`mexc-pipeline run`: a supervisor, a collector process per symbol, a store with the
embedded ClickHouse, an export after every period), samples every process and folder, ends it with SIGTERM, and judges:

- every frame that the simulator logged as sent is in the Parquet files, once, byte for byte and in order, by a
  comparison that uses no code of the recorder; `run` ended with 0, so every file was read back and every table
  compared; `verify exports` proved every file again;
- after a warm-up of ten minutes no process grows in memory, file handles or threads, and neither the spool nor
  ClickHouse's folder on disk, by more than the bound beside it. The slope is that of a straight line through the
  medians of the minutes. Exported files grow by design; `run` remembers each period for the table it ends with, some
  kilobytes for each symbol and period.
"""
_AGAIN = """## Run it yourself

```sh
make soak HOURS=1
make soak HOURS=24
```

Ctrl-C ends it early and judges what there is. It needs disk for two copies of what is sent (the simulator's own log and
the files): about {log:.1f} GB an hour at this rate, all under `reports/soak`, removed when all is well. It exits with 1
where a row is missing or something grows.
"""


def write(
    folder: Path,
    result: dict[str, Any],
    samples: list[Sample],
    found: list[Trend],
    problems: list[str],
    note: str = "",
) -> None:
    """``soak.md`` and ``images/soak.svg`` below ``folder``; ``note`` is what somebody found out about the run."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    plot(images / "soak.svg", result, samples)
    (folder / "soak.md").write_text(text(result, found, problems, note))


def text(result: dict[str, Any], found: list[Trend], problems: list[str], note: str = "") -> str:
    """The page."""
    compared = result["comparisons"]
    hours = result["seconds"] / HOUR_S
    held, files = sum(c["held"] for c in compared), sum(c["files"] for c in compared)
    at = datetime.fromtimestamp(result["at"], UTC).strftime("%Y-%m-%d")
    sent_bytes = result["sent_bytes"] / hours
    well = "No row lost, none repeated; nothing grows by more than its bound."
    lines = [
        _INTRO,
        "## The last run",
        "",
        f"{at}, {result['seconds'] / 60:.1f} minutes at {result['rate']:g} frames/s for each of {len(compared)} "
        f"symbols, a new period every {result['period']}, exported segments kept for {result['keep']}; revision "
        f"{result['revision']}; {result['machine']}, the simulator beside it.",
        "",
        f"**{len(problems)} problems.**" if problems else f"**{well}**",
        "",
        *(f"- {problem.strip()[:500]}" for problem in problems),
        *([""] if problems else []),
        *([note.strip(), ""] if note else []),
        "| symbol | frames sent | frames in files | rows with events | files | connections | not arrived at a break |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {c['symbol']} | {c['sent']:,} | {c['held']:,} | {c['rows']:,} | {c['files']} | {c['connections']} "
            f"| {c['tail']} |"
            for c in compared
        ),
        "",
        f"{held:,} frames in {files} files, {result['exports_bytes'] / MIB:.0f} MiB: "
        f"{result['exports_bytes'] / MIB / hours:.0f} MiB an hour.",
        "",
        "![Memory, handles, threads, disk and backlog over the run](images/soak.svg)",
        "",
        *_table(found, result["seconds"]),
        "",
        _AGAIN.format(log=(sent_bytes + result["exports_bytes"] / hours) / 1e9),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(found: list[Trend], seconds: float) -> list[str]:
    warm = warm_up(seconds)
    said = ", ".join(
        f"{_NAMES.get(measure, measure)} {_number(fixed, measure)}" + (f" or {share:.0%}" if share else "")
        for measure, (fixed, share) in BOUNDS.items()
    )
    lines = [
        f"From minute {warm / 60:.0f} on. Allowed growth per hour: {said} of the median, whichever is more.",
        "",
        "| | | least | median | most | slope per hour | allowed |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    if seconds - warm < SHORTEST_S:
        lines[0] = "Too short a run to judge growth by; the slopes say nothing."
    for trend in sorted(found, key=lambda t: (t.measure not in BOUNDS, list(_UNITS).index(t.measure), t.what)):
        numbers = [_number(v, trend.measure) for v in (trend.least, trend.median, trend.most)]
        numbers += [f"{'+' if trend.slope > 0 else ''}{_number(trend.slope, trend.measure)}"]
        numbers += [_number(trend.bound, trend.measure) if trend.bound is not None else "—"]
        lines.append(f"| {_NAMES.get(trend.measure, trend.measure)} | {trend.what} | {' | '.join(numbers)} |")
    return lines


def _number(value: float, measure: str) -> str:
    unit = _UNITS[measure]
    if unit == "MiB":
        return f"{value / MIB:.1f} MiB"
    return f"{round(value, 1):g}"


def grows(trend: Trend) -> str:
    """One line about something that is not flat."""
    slope, bound = (_number(value, trend.measure) for value in (trend.slope, trend.bound or 0.0))
    return f"{trend.what}: {_NAMES.get(trend.measure, trend.measure)} grows by {slope} an hour, allowed are {bound}"


def plot(path: Path, result: dict[str, Any], samples: list[Sample]) -> None:
    """Six panels over time, one line per process, folder or symbol."""
    panels = (
        ("rss", "memory (RSS), MiB", ("run", "collector", "store")),
        ("pss", "memory (PSS), MiB", ("run", "collector", "store")),
        ("handles", "file handles", ("run", "collector", "store")),
        ("threads", "threads", ("run", "collector", "store")),
        ("bytes", "disk, MiB", ("spool", "clickhouse", "exports")),
        ("rows", "rows not yet in ClickHouse", ("backlog",)),
    )
    series: dict[tuple[str, str], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for sample in samples:
        for measure, unit in _UNITS.items():
            value = getattr(sample, measure)
            if value is not None:
                minutes, values = series[measure, sample.what]
                minutes.append(sample.seconds / 60)
                values.append(value / MIB if unit == "MiB" else float(value))
    with mpl.rc_context({"svg.hashsalt": "soak", "svg.fonttype": "none", "font.size": 8, "path.simplify": True}):
        figure = Figure(figsize=(10, 9), layout="constrained")
        for axes, (measure, title, kinds) in zip(figure.subplots(3, 2).flat, panels, strict=True):
            for (of, what), (minutes, values) in sorted(series.items()):
                if of == measure and what.startswith(kinds):
                    axes.plot(minutes, values, label=what, linewidth=0.9)
            axes.axvline(warm_up(result["seconds"]) / 60, color="0.7", linewidth=0.8, linestyle=":")
            axes.set_title(title, loc="left")
            axes.set_xlabel("minutes")
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False, ncols=2)
        figure.savefig(path, metadata={"Date": None})
