"""The words between the tables of docs/performance/tables.md: how each was measured, not what came of it."""

from __future__ import annotations

from bench.paper import Need

INTRO = """# Performance: the tables

Written by `make performance` from [the results that are kept](results.json); what they show is said under
[performance](../performance.md).

The tables show the median of the takes, and lowest to highest in brackets. How it is taken:

- The exchange is the bundled simulator in a process of its own, over loopback without TLS: full depth of 20 levels,
  tickers and deals in the proportion 4 : 1 : 5. Flat out it sends frames rendered in advance as fast as they are read,
  so the rate at which frames are committed is the most that can be sustained.
- The recorder is the installed commands: `collect`, `store`, `export`. A frame counts as recorded once its commit has
  been synced. After every take of the first row the simulator's own log of what it sent is compared with the spool,
  frame by frame.
- CPU is the run time the scheduler gave to all threads of a process (`/proc/PID/task/*/schedstat`). What the kernel
  does for a process in an interrupt or in the sender's context is not in it. Memory is resident (`VmRSS`), peaks are
  `VmHWM`; pages shared between processes count in each.
- The spool lies on the disk of the checkout, not in memory: every sync is a real one.
"""

_INGEST = """## One collector: socket to synced spool

The peers read the same flood, one at a time: *picows alone* counts frames and does nothing else, the least Python can
spend on a frame; *bare websocket-client* is the reader without its check of UTF-8, which would cost more than all the
rest; *ccxt.pro* parses and keeps a book (most book updates of a flood repeat, so it skips them, in its favour), and
stores nothing; *the original's shape* is the default client, `json` and one INSERT per message, and what it stores is
not synced. The store loads ClickHouse meanwhile; its CPU and the server's are shown apart.
"""

_LIVE = """## Live: 40 frames/s a symbol

Three collectors, one store and, at the end, one export, with a reader of ClickHouse that asks for the newest `seq`
every hundredth of a second. Beside them, on the same stream in the same seconds: a bare reader, one that appends each
frame to a plain file and syncs it (the least that *durable* can cost), and the original's shape. Receive to durable is
the collector's own count, from the receive time of the oldest frame of a commit to the end of its sync.

At this pace cost is wake-ups and syncs, not bytes: each frame comes alone. The reader that syncs each frame shows what
of the difference to the bare reader is the kernel's share.
"""

_FIFTY = """## Many symbols

Fifty collectors, each a process of its own, one store. The simulator and ClickHouse run beside them and are not in the
figures unless said.
"""

_SWAP = """## Table swap

One thread inserts into the current table and one queries it without a pause while another swaps it, again and again:
by `EXCHANGE TABLES` (embedded) and one `RENAME` of two tables (18.16, which has no exchange), as the loader does it,
and by renaming first and creating after, as the original did. Every row that was accepted is counted afterwards. Then
the loader's own swap, with all the records it keeps of it, beside a thread that queries.
"""

_BATCH = """## Batch size and flush interval

Left the spool's commits, then inserts into a StripeLog table; CPU is that of the client and the server together. The
flush interval is compared with three symbols' live rate arriving row by row. From 1,000 rows on an insert's fixed cost
is gone; more only delays. The store looks for new rows as often as the queryable target leaves room for, and takes what
there is: at live rates a few rows, after an outage whole batches.
"""

_EXPORT = """## Export

The command as the timer starts it, on a closed segment of the mix: read, digest, write, sync, drop from the page cache,
read back, digest, compare, link. Against it the original's way done today: the whole hour from ClickHouse into pandas,
Snappy, and the number of rows as the only check. Memory does not grow with the hour: rows are streamed in row groups.
"""

_CODEC = """## Codec

The same Arrow table written and read with the file's own layout (row groups of 65,536, delta-packed integers), one
thread, in memory. The frames are the simulator's, so the ratios measure how it makes up books too; no recording of the
real exchange is at hand that could be published. The order of the codecs is what counts: Zstandard 1 is both smaller
and faster than 3 on this text, 6 and 9 buy a few per cent for several times the time.
"""

_BACKLOG = """## Backlog

The spool holds what was recorded while ClickHouse was down; the store starts while three symbols are being recorded.
"""

_READ = """## Reading

A day's file, the mix; the ways agree in the number of trades and their volume. `read.trades` gives exact decimals
unless asked for binary floats; pandas with `json` and DuckDB give binary floats here, and pandas also with exact
numbers. Imports are not counted.
"""

ROWS = {
    "ingest": _INGEST,
    "live": _LIVE,
    "fifty": _FIFTY,
    "swap": _SWAP,
    "batch": _BATCH,
    "export": _EXPORT,
    "codec": _CODEC,
    "backlog": _BACKLOG,
    "read": _READ,
}
"""The rows in the order of the page."""

GROWTH = """## How cost grows

- **With frames per second** of a symbol: up to some hundreds a second each frame is a wake-up and a commit of its own,
  and CPU grows with their number. Above that frames arrive together, a commit takes many, and the price of a frame
  falls by a factor of ten and more, until one core is full. Delay to durable stays at a commit's.
- **With symbols**: linearly. A collector is a process and knows of no other; the store has two threads a symbol, and
  its cost is inserts, at most five a second and symbol, however many rows they take.
- **With hours**: not at all for CPU and memory; commits append to the end of a file, and a segment ends with its hour.
  The disk holds the hours that are kept, the files grow by the hour.
"""

PAPER = """## On paper

From the rows above: CPU and memory a symbol from the row of many symbols, bytes and speed from the export. A symbol
that sends ten times as many frames costs less than ten times the CPU (see the table before) and ten times the disk.
"""


def saturation(need: Need) -> str:
    """Which part is full first, for one report's figures."""
    return f"""Which part is full first:

- **Cores**, on machines of two: about {need.symbols_per_vm:,.0f} symbols each with ClickHouse beside the recorder, so
  {need.vms:,.0f} of them for {need.symbols:,}.
- **The store**, on larger machines. It is one Python process per host and its threads share one interpreter: one core,
  about {need.symbols_per_store:,.0f} symbols. When it falls behind nothing else does: recording and files do not wait
  for it. More hosts, each with its store, are the remedy.
- **Syncs**, on a slow disk: {need.syncs:,.0f} commits a second in all, one for nearly every frame at this pace. A disk
  that syncs in a tenth of a millisecond does ten thousand a second at best, one without a protected cache some
  hundreds. When it is slower, commits take more frames each and the delay to durable grows; nothing is lost.
- **Memory** is a process per symbol, {need.memory_gb:,.0f} GB for {need.symbols:,}: where each core has two gigabytes
  it is never full first.
- **The network and the files** are far from any limit: {need.write_mb_s:,.1f} MB/s, and {need.files_gb_day:,.0f} GB of
  files a day.
"""
