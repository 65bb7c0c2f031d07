"""``python -m bench.page``: docs/performance.md, tables, picture, and what README and docs/sizing.md say."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import texts
from bench.findings import evidence, findings
from bench.model import Figure, Report, Result
from bench.paper import BUSY, HOURS_KEPT, RATE, mean_frame, need
from bench.plot import draw
from bench.sizing import sizing
from bench.table import number, spread
from support.evidence import with_evidence

ROOT = Path(__file__).parents[1]
KEPT = Path("docs/performance/results.json")
SYMBOLS = (3, 50, 1000)


def main() -> int:
    """0 when the pages are written; one line and 1 where the results do not hold what they say."""
    parser = argparse.ArgumentParser(prog="bench.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / KEPT, help="keep these instead of those kept until now")
    options = parser.parse_args()
    try:
        report = Report.load(options.results)
        written = pages(report)
        draw(report, ROOT / "docs" / "images" / "performance.svg")
    except (FileNotFoundError, KeyError, ValueError) as error:
        print(f"{options.results} does not hold every figure ({error}); run make bench ARGS=--long", file=sys.stderr)
        return 1
    report.save(ROOT / KEPT)
    for name, text in written.items():
        (ROOT / name).write_text(text)
    return 0


def pages(report: Report) -> dict[str, str]:
    """Every text with figures of the bench: path → content. KeyError or ValueError where a figure is missing."""
    return {
        "docs/performance.md": findings(report),
        "docs/performance/tables.md": tables(report),
        "docs/sizing.md": sizing((ROOT / "docs" / "sizing.md").read_text(), report),
        "README.md": with_evidence((ROOT / "README.md").read_text(), evidence(report)),
    }


def tables(report: Report) -> str:
    """All tables on one page. KeyError or ValueError where a row is missing."""
    parts = [
        texts.INTRO,
        *_machine(report),
        "## The targets\n",
        *_targets(report),
    ]
    for name, text in texts.ROWS.items():
        parts += [text, *_row(report.results[name])]
    parts += [texts.GROWTH, *_growth(report), texts.PAPER, *_paper(report)]
    return "\n".join(parts).rstrip() + "\n"


def _machine(report: Report) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for key, value in report.machine.items():
        yield f"| {key} | {value} |"
    own = {(r.revision, r.at) for r in report.results.values()} - {(report.machine["revision"], report.machine["at"])}
    for result in report.results.values():
        if (result.revision, result.at) in own:
            yield f"| row {result.row} | taken by itself: revision {result.revision}, {result.at} |"
    yield ""


def _targets(report: Report) -> Iterator[str]:
    yield "| what | who | measured | target | |"
    yield "|---|---|---:|---|---|"
    for name in texts.ROWS:
        for f in report.results[name].figures:
            if f.met is not None:
                yield f"| {f.what} | {f.who} | {_with_unit(f)} | {f.target} | {'met' if f.met else '**missed**'} |"
    yield ""


def _with_unit(figure: Figure) -> str:
    return f"{spread(figure)} {figure.unit}".rstrip()


def _row(result: Result) -> Iterator[str]:
    """Every figure of a row, then its curves."""
    yield "| what | who | median (lowest–highest) | takes |"
    yield "|---|---|---:|---:|"
    for f in result.figures:
        yield f"| {f.what} | {f.who} | {_with_unit(f)} | {f.takes} |"
    yield ""
    for name, points in result.curves.items():
        if name in ("codecs", "backlog"):
            continue  # the figures have it all
        yield f"**{name}**\n"
        yield "| " + " | ".join(points[0]) + " |"
        yield "|" + "---:|" * len(points[0])
        for point in points:
            yield "| " + " | ".join(number(v) if isinstance(v, int | float) else str(v) for v in point.values()) + " |"
        yield ""
    if result.notes:
        yield "Notes: " + "; ".join(result.notes) + ".\n"


def _growth(report: Report) -> Iterator[str]:
    """CPU per frame at the paces that were measured."""
    many = report.results["fifty"].curves["symbols"][-1]
    ingest, live = report.results["ingest"], report.results["live"]
    yield "| frames/s of a symbol | collector, µs/frame | share of a core |"
    yield "|---:|---:|---:|"
    paces = [
        (10.0, many["collector µs/frame"]),
        (40.0, live.value("CPU of a collector")),
        (20_000.0, ingest.value("20,000 frames/s: CPU of collector")),
        (ingest.value("flat out") or 0.0, ingest.value("flat out: CPU of collector")),
    ]
    for rate, us in paces:
        if us is None:
            raise ValueError("a pace was not measured")
        yield f"| {number(rate)} | {number(us)} | {rate * us / 1e4:.1f} % |"
    yield ""


def _paper(report: Report) -> Iterator[str]:
    needs = [need(report, n) for n in SYMBOLS]
    yield f"At {RATE:g} frames/s a symbol, {mean_frame(report):,.0f} bytes a frame:\n"
    yield "| | " + " | ".join(f"{n.symbols:,} symbols" for n in needs) + " |"
    yield "|---|" + "---:|" * len(needs)
    lines: list[tuple[str, list[float], str]] = [
        ("frames", [n.frames for n in needs], "/s"),
        ("cores: collectors", [n.collector_cores for n in needs], ""),
        ("cores: store", [n.store_cores for n in needs], ""),
        ("cores: ClickHouse", [n.clickhouse_cores for n in needs], ""),
        ("cores in all", [n.cores for n in needs], ""),
        ("memory: collectors and store", [n.memory_gb for n in needs], "GB"),
        ("synced commits", [n.syncs for n in needs], "/s"),
        ("written to the spool", [n.write_mb_s for n in needs], "MB/s"),
        (f"spool, {HOURS_KEPT} hours kept", [n.spool_gb for n in needs], "GB"),
        ("files", [n.files_gb_day for n in needs], "GB a day"),
        ("exporting an hour of all, one after another", [n.export_s for n in needs], "s"),
        (f"machines of 2 cores at {BUSY:.0%}", [n.vms for n in needs], ""),
    ]
    for name, values, unit in lines:
        yield f"| {name} | " + " | ".join(f"{number(v)} {unit}".rstrip() for v in values) + " |"
    yield ""
    yield texts.saturation(needs[-1])


if __name__ == "__main__":
    sys.exit(main())
