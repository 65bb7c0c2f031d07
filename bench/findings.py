"""What docs/performance.md says. Words only: each figure in a sentence is looked up in the results."""

from __future__ import annotations

from bench.model import Report
from bench.paper import need
from bench.table import rounded

BARE, COMMITTED, SYNCED = (
    "bare websocket-client",
    "the same, each frame committed to SQLite",
    "the same, each frame synced",
)
ORIGINAL, EMBEDDED, SERVER = "the original's shape", "chDB embedded", "ClickHouse 18.16"
ZSTD, PANDAS, DUCKDB = "Zstd 1 (ours)", "pandas and json", "DuckDB JSON"


class _Row:
    """The figures of one row, as words: three significant digits and the unit."""

    def __init__(self, report: Report, name: str) -> None:
        self._result = report.results[name]

    def value(self, what: str, who: str = "ours") -> float:
        """KeyError where it was not measured."""
        found = self._result.value(what, who)
        if found is None:
            raise KeyError(f"{self._result.row}: {what!r} of {who}")
        return found

    def plain(self, what: str, who: str = "ours") -> str:
        return rounded(self.value(what, who))

    def __call__(self, what: str, who: str = "ours") -> str:
        self.value(what, who)
        unit = next(f.unit for f in self._result.figures if (f.what, f.who) == (what, who))
        unit = {"×": "times"}.get(unit, unit).partition("/frame")[0].partition("/trade")[0]
        return f"{self.plain(what, who)} {unit}".rstrip()


def findings(report: Report) -> str:
    """The page. KeyError or ValueError where a figure was not measured."""
    sections = (_method, _flood, _live, _symbols, _clickhouse, _files, _reading, _targets)
    text = "\n".join((_INTRO, *(section(report) for section in sections), _KEPT))
    blocks = (block.strip("\n") for block in text.split("\n\n"))
    return "\n\n".join(b if b.startswith(("    ", "- ")) else b.replace("\n", " ") for b in blocks) + "\n"


def evidence(report: Report) -> dict[str, str]:
    """What README's table of evidence says of speed: claim → what came of it."""
    ingest, live, export = (_Row(report, name) for name in ("ingest", "live", "export"))
    return {
        "it keeps up": f"{ingest('flat out for 60 s')} from socket to synced spool; at 40 frames/s "
        f"{live('receive to durable p99')} (p99) to durable, {live('receive to queryable p99')} to queryable, "
        f"{live('memory of a collector')} a symbol",
        "a file is proven quickly": export("end to end"),
    }


_INTRO = """# Performance

What the recorder costs and how fast it is, beside what a user would take instead. `make performance` takes each figure
on this page from [the results that are kept](performance/results.json); [the tables](performance/tables.md) hold all of
them and say how each was measured.

![CPU per frame, batch sizes, flush intervals, symbols](images/performance.svg)
"""


def _method(report: Report) -> str:
    machine = report.machine
    return f"""## How to read the figures

Measured {machine["at"]} at revision {machine["revision"]} on one machine ({machine["processor"]}) that the bundled
simulator, the recorder, ClickHouse and the peers share. What is compared runs in turns, seconds or minutes apart.
**Compare ratios and CPU per frame**; rates and delays are those of that machine at that moment. Where the load before
the run was not near zero, the run can judge CPU, memory and loss, but neither rates nor delays; it was
{machine["load before"]}.

    make bench ARGS=--long                         # every row; needs Debian's clickhouse-server
    make bench ROWS="export read"                  # some of them
    make performance RESULTS=reports/bench.json    # keep these results and write the pages from them
    make performance                               # write the pages from the results that are kept
"""


def _flood(report: Report) -> str:
    f = _Row(report, "ingest")
    return f"""## One collector under a flood

For a minute one collector received, committed and synced {f("flat out for 60 s")} while the store loaded what it wrote.
Over all takes the number of frames lost, repeated or altered is {f("frames lost, repeated or altered, all takes")}.

A frame costs the collector {f("flat out: CPU of collector")} of CPU. A *bare websocket-client*, which stores nothing,
spends {f("flat out: CPU", BARE)}; *picows*, which only counts frames and is the least that Python can spend,
{f("flat out: CPU", "picows alone")}; *ccxt.pro*, which keeps a book and stores nothing,
{f("flat out: CPU", "ccxt.pro")}; the client that this recorder replaces (one INSERT per message, nothing synced)
{f("flat out: CPU", ORIGINAL)}.
At a steady 20,000 frames/s, where commits are smaller, it is {f("20,000 frames/s: CPU of collector")} for the collector
and {f("20,000 frames/s: CPU of store")} for the store.
"""


def _live(report: Report) -> str:
    f, flood, batch = _Row(report, "live"), _Row(report, "ingest"), report.results["batch"].curves
    commit = next(p for p in batch["spool: rows per commit"] if p["rows"] == 1)["CPU µs/row"]
    dearer = f.value("CPU of a collector") / flood.value("flat out: CPU of collector")
    return f"""## At the exchange's pace

At 40 frames/s for each of three symbols a frame is durable {f("receive to durable p50")} after it was received
(median; p99 {f("receive to durable p99")}), and a query finds it after {f("receive to queryable p50")} (p99
{f("receive to queryable p99")}). The first is the disk's sync, the second the interval at which the store looks for new
rows. With the embedded engine the p99 are {f("receive to durable p99, embedded engine")} and
{f("receive to queryable p99, embedded engine")}.

A collector takes {f("memory of a collector")}; three collectors, the store and an export together
{f("memory of all, collectors, store, export")} and {f("CPU of all")}, with the embedded engine
{f("memory of all, collectors, store, export, embedded engine")} and {f("CPU of all, embedded engine")}.

At this pace a frame costs the collector {f("CPU of a collector")}, {rounded(dearer)} times what it costs in a flood,
for each frame is a wake-up and a commit of its own, and caches are cold after every pause. A commit of one row takes
{rounded(commit)} µs where one follows another. On the same stream a bare reader spends {f("CPU of one reader", BARE)} a
frame, one that syncs each frame to a plain file {f("CPU of one reader", SYNCED)}, one that commits each to SQLite
{f("CPU of one reader", COMMITTED)}.

The collector thus costs {f("CPU of a collector divided by bare websocket-client")} what a bare reader costs, where a
reader that does nothing but commit, on one thread, already costs
{f("CPU divided by bare websocket-client", COMMITTED)}. The rest is the wake-up of a second thread, and what looks at
each frame: continuity, stalls, digest, statistics. One thread would be cheaper, but a frame that comes during a sync
would get its receive time late, and a slow disk would hold up the reading.

Flame graphs show where the time goes, function by function: the [collector](images/flame-collector.svg) and the
[store](images/flame-store.svg) under a flood, the [collector at 40 frames/s](images/flame-collector-live.svg), and
[the collector before](images/flame-collector-before.svg) plain text messages were taken straight from what was read
ahead. `python -m bench.profile` draws them anew, with `--rate 40` at the live pace.
"""


def _symbols(report: Report) -> str:
    f, paper = _Row(report, "fifty"), need(report, 1000)
    each = f.value("50 symbols: memory of collectors") / 50
    return f"""## Many symbols

A collector is a process that knows of no other, so cost grows in proportion: at 10 frames/s each, fifty symbols take
{f("50 symbols: CPU of collectors and store")} and with ClickHouse {f("50 symbols: CPU with ClickHouse")}, which is
{f("a symbol's CPU, at 50")} per symbol, {f("a symbol's CPU, at 50 divided by at 3")} what it is with three. The
collectors take {rounded(each)} MB each, the store {f("50 symbols: memory of the store")}.

On paper, {paper.symbols:,} symbols need {rounded(paper.cores)} cores, {rounded(paper.memory_gb)} GB of memory and
{rounded(paper.files_gb_day)} GB of files a day. A machine of two cores carries about {rounded(paper.symbols_per_vm)}
symbols with ClickHouse beside them; a store, which is one process, about {rounded(paper.symbols_per_store)}.
[What is full first](performance/tables.md#on-paper) says what to do then.
"""


def _clickhouse(report: Report) -> str:
    swap, backlog, batch = (_Row(report, name) for name in ("swap", "backlog", "batch"))
    ours, theirs = "1,000 swaps", "100 swaps by rename-then-create"
    bad = "failed inserts and queries"
    dear = "CPU of one row an insert divided by that of 1,000"
    return f"""## ClickHouse

At the edge of a period the current table is swapped while inserts and queries go on. Of those, over a thousand swaps,
{swap.plain(f"{ours}: {bad}", EMBEDDED)} failed with the embedded engine and {swap.plain(f"{ours}: {bad}", SERVER)} with
the server; a swap takes {swap(f"{ours}: p99", EMBEDDED)} and {swap(f"{ours}: p99", SERVER)} (p99). Renaming the table
first and creating the next one after, as the original did, failed {swap.plain(f"{theirs}: {bad}", EMBEDDED)} and
{swap.plain(f"{theirs}: {bad}", SERVER)} of them over a hundred swaps.

After an outage the store drains {backlog("drained, start of the store included")},
{backlog("drained divided by the live rate of all three")} the rate at which three symbols go on arriving, and
recording goes on beside it: durable within {backlog("durable p99 of the symbol meanwhile")} (p99).

An insert has a fixed cost. One row an insert takes {batch(dear, SERVER)} the CPU per row of a thousand with the server,
{batch(dear, EMBEDDED)} with the embedded engine; more than a thousand rows an insert mostly delays.
"""


def _files(report: Report) -> str:
    f, codec = _Row(report, "export"), _Row(report, "codec")
    ten = "hour of 10 million rows"
    return f"""## Files

An export reads a segment, writes the file, syncs it, drops it from the page cache, reads it back and compares the
digests, at {f("end to end")} and a peak of {f("peak memory")}. Rows are streamed, so memory does not grow with the
hour: ten million rows are verified after {f(f"{ten}, verified after")}, with a peak of {f(f"{ten}, peak memory")}. The
original's way, a whole hour from ClickHouse into pandas with the number of rows as the only check, makes
{f("end to end", "pandas")} and needs {f("peak memory", "pandas")}.

On the simulator's frames a file is {codec.plain("raw JSON divided by the file", ZSTD)} times smaller than the JSON it
holds, and {codec.plain("smaller than Snappy", ZSTD)} times smaller than with Snappy, at {codec("written", ZSTD)}.
Zstandard 9 would make that {codec.plain("smaller than Snappy", "Zstd 9")} times, at {codec("written", "Zstd 9")}.
"""


def _reading(report: Report) -> str:
    f = _Row(report, "read")
    return f"""## Reading

`read.trades` reads {f("trades read")} of exact decimals, {f("times faster than", PANDAS)} what pandas with `json` and
{f("times faster than", DUCKDB)} what DuckDB's JSON functions read, which give binary floats. It peaks at
{f("peak memory")}, they at {f("peak memory", PANDAS)} and {f("peak memory", DUCKDB)}.
"""


def _targets(report: Report) -> str:
    asked = [figure for result in report.results.values() for figure in result.figures if figure.met is not None]
    missed = [f"{f.what}: {rounded(f.value)} {f.unit}, asked for {f.target}" for f in asked if not f.met]
    listed = "".join(f"\n- {line}" for line in missed) if missed else "\n- none"
    return f"""## Targets

{len(asked) - len(missed)} of {len(asked)} [targets](performance/tables.md#the-targets) are met. Missed:
{listed}
"""


_KEPT = """## What keeps it so

Continuous integration does not time anything: on a shared machine such a test would break, or hide what it looks for.
`tests/unit/feed/test_cost.py` counts instead. The bytecode instructions per frame, from the classifier to the spool's
rows, are the same on every machine; and the CPU of that path is compared with `json.loads` of the same frames in the
same process, in turns, with a bound that noise does not reach and a doubling does.
"""
