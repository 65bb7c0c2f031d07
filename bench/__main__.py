"""``python -m bench [ROW…]``: measure, print the table, keep the results as JSON."""

from __future__ import annotations

import argparse
import importlib
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from bench.machine import describe
from bench.model import Report, Result
from bench.site import Place
from bench.table import lines

ROWS = ("ingest", "live", "fifty", "swap", "batch", "export", "codec", "backlog", "read")
ROOT = Path(__file__).parents[1]


def main() -> int:
    """0 where everything was measured, 1 where a row failed; targets missed are shown, they are no failure."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the recorder beside what it is compared with.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of: {', '.join(ROWS)} (all)")
    parser.add_argument("--quick", action="store_true", help="short takes: to try the harness, not to publish")
    parser.add_argument("--long", action="store_true", help="also the hour of 10 million rows (some 5 minutes more)")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench.json")
    options = parser.parse_args()
    unknown = sorted(set(options.rows) - set(ROWS))
    if unknown:
        parser.error(f"unknown row {unknown[0]!r}; choose from {', '.join(ROWS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended too
    report = Report(describe())
    if options.rows and options.out.exists():
        report.results = Report.load(options.out).results  # the rows that are not asked for keep what they have
    failed = False
    folder = options.out.parent / "bench-work"
    for name in options.rows or ROWS:
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        try:
            result: Result = importlib.import_module(f"bench.rows.{name}").run(
                Place(folder, quick=options.quick, long=options.long)
            )
        except Exception:  # noqa: BLE001 - a row that fails must not cost the others' figures; the run fails
            print(f"{name}: could not be measured", file=sys.stderr)
            traceback.print_exc()
            failed = True
            continue
        result.seconds = time.monotonic() - began
        if options.quick:
            result.notes.append("short takes, to try the harness")
        result.revision, result.at = report.machine["revision"], report.machine["at"]
        report.results[name] = result
        print("\n".join(lines(result)), flush=True)
        report.save(options.out)
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
