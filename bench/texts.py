"""The words of docs/performance.md; every figure in it comes from the results."""

from __future__ import annotations

from bench.paper import Need

INTRO = """# Performance

The figures on this page are written by `make performance` from the results of `make bench`; the words are not.

    make bench                        # every row, below 10 minutes; needs Debian's clickhouse-server
    make bench ROWS="export read"     # some of them
    make bench ARGS=--long            # also the hour of 10 million rows
    make performance                  # this page and its picture

What is compared runs on the same machine, minutes or seconds apart, in turns (A B A B) where there are several takes;
the table shows the median, and lowest to highest in brackets. **Ratios within one run and CPU per frame are what to
compare. Rates and delays are those of this machine at that moment**: two virtual cores that the simulator, the
recorder, ClickHouse and the peers share.

How it is taken:

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

LIMITS = """*Load before* says how many processes wanted the two cores when the run began. Unless that is near zero,
rates and delays are those of a crowded machine, where others ran most of the time: such a run cannot judge their
targets, neither as met nor as missed. It can judge CPU per frame, memory, and everything about loss; from the CPU per
frame follows what two idle cores would do.
"""

_INGEST = """## One collector: socket to synced spool

The peers read the same flood, one at a time: *picows alone* counts frames and does nothing else, the least Python can
spend on a frame; *bare websocket-client* is the reader without its check of UTF-8, which costs ten times as much as the
rest of it; *ccxt.pro* parses and keeps a book (most book updates of a flood repeat, so it skips them, in its favour),
and stores nothing; *the original's shape* is the default client, `json` and one INSERT per message, and what it stores
is not synced. The store loads ClickHouse meanwhile; its CPU and the server's are shown apart.
"""

_LIVE = """## Live: 40 frames/s a symbol

Three collectors, one store and, at the end, one export, with a reader of ClickHouse that asks for the newest `seq`
every 10 ms. Beside them, on the same stream in the same seconds: a bare reader, one that appends each frame to a plain
file and syncs it (the least that *durable* can cost), and the original's shape. Receive to durable is the collector's
own count, from the receive time of the oldest frame of a commit to the end of its sync.

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

PROFILE = """## Where the time goes

Flame graphs by py-spy under a flood, function by function (open them to zoom): the
[collector](images/flame-collector.svg) and the [store](images/flame-store.svg). `python -m bench.profile` takes them
anew and prints the CPU per frame of each thread; with `--rate 40` at the live pace.

What the profile showed, and what became of it:

- [Before](images/flame-collector-before.svg), `websocket-client` taking frames apart piece by piece was 41 % of the
  collector's time and the classifier 11 %: 17.6 µs a frame in the reading thread, 5.7 in the writing one. Now plain
  text messages are taken straight from what was read ahead and plain pushes decoded in one step; anything else goes the
  old way. The reading thread: 8.1 µs. (Both on the same busy machine, CPU of the threads.)
- What is left of the writing thread's 5.6 µs is SQLite: building pages and the log, outside of the interpreter's lock.
- At 40 frames/s a frame costs forty times what it costs in a flood, and little of that is work. A synced SQLite
  commit takes 65 µs of CPU in a loop and 265 µs when 20 ms pass between two; without the sync 14 and 136; a plain
  write of 4 KB 5 and 33; a hundred multiplications in Python 7 and 50. After every pause caches are cold: what counts
  is how much code a frame passes through, whatever it does, and the wake-ups.
- Therefore the target of 2.5 times the bare reader is out of reach for anything that commits each frame to SQLite: the
  reader that does only that, on one thread, already costs more (*the same, each frame committed to SQLite*). In the
  [profile at 40 frames/s](images/flame-collector-live.svg) 59 % of the time in which a thread does not wait is the
  commit, 18 % the classifier, and the rest is spread over all that looks at a frame: continuity, pace and stalls,
  digest, statistics. Beyond the lone reader come the wake-ups of a second thread. With one thread it would cost less,
  but a frame that comes while another is being synced would get its `rx` late, and a slow disk would hold up the
  reading: not worth it.
- Receive to durable follows the disk, and this one is shared: two hours before the run above *a reader alone that
  syncs each frame* to a plain file had a p99 of 10 ms here, and ours 13 to 20. What is ours to do: a fold of the log
  into the segment, which syncs two files, used to come every half second once the log had ever been 4 MiB; now it
  comes once in 4 MiB, some 11 s at this pace, so that no more than one commit in a hundred can meet it.
- The export's reading was 60 % of its time, an object for each row. Now SQLite joins the values of 2,048 rows to one
  text a column, outside of the interpreter's lock, and reading, digesting and compressing go on side by side: from
  165,000 to 240,000 rows/s within the same minutes. An export no longer imports pandas, which PyArrow does unasked:
  45 MB.
- `read.trades` took the frame-by-frame decoder for every piece of a file, because some deals carry thirty zeros
  behind their numbers, which Arrow counts as digits. They are cut off before, and row groups are decoded side by
  side.
"""

GROWTH = """## How cost grows

- **With frames per second** of a symbol: up to some hundreds a second each frame is a wake-up and a commit of its own,
  and CPU grows with their number. Above that frames arrive together, a commit takes many, and the price of a frame
  falls by a factor of ten and more, until one core is full. Delay to durable stays at a commit's.
- **With symbols**: linearly. A collector is a process and knows of no other; the store has two threads a symbol, and
  its cost is inserts, at most five a second and symbol, however many rows they take.
- **With hours**: not at all for CPU and memory; commits append to the end of a file, and a segment ends with its hour.
  The disk holds the hours that are kept, the files grow by the hour.
"""

PAPER = """## On paper: 1,000 symbols

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
  that syncs in 0.1 ms does 10,000 a second at best, one without a protected cache some hundreds. When it is slower,
  commits take more frames each and the delay to durable grows; nothing is lost.
- **Memory** is a process per symbol, {need.memory_gb:,.0f} GB for {need.symbols:,}: with 2 GB a core never full first.
- **The network and the files** are far from any limit: {need.write_mb_s:,.1f} MB/s, and {need.files_gb_day:,.0f} GB of
  files a day.
"""


GUARD = """## What keeps it so

Continuous integration does not time anything: a shared machine would break such a test, or hide what it looks for.
`tests/unit/test_cost.py` counts instead. The interpreter's own steps (bytecode instructions) per frame from the
classifier to the spool's rows are the same on every machine; and the CPU of that path is compared with `json.loads` of
the same frames in the same process, in turns, with a bound that noise does not reach and a doubling does.
"""
