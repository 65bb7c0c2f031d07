"""Every scenario with what it is meant to show, how often the campaign runs it, and how often a sample does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.bench import Outcome
from faults.scenarios import (
    artefacts,
    candles,
    clickhouse,
    clock,
    crashes,
    disk,
    exchange,
    frames,
    hosts,
    mounts,
    neighbours,
    output,
    scarce,
    segments,
    shapes,
    slow,
    sockets,
    tables,
    together,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """``target``: tries that a full campaign must reach; ``runs``: times it is run for that; ``sample``: of these in
    ``make faults`` (0: too long for it)."""

    name: str
    promise: str
    fault: str
    run: Callable[[Path, int], Outcome]
    target: int
    runs: int
    sample: int = 1
    needs_root: bool = False


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "kill",
        "A committed row is in a file, once, byte for byte; seq has no hole",
        "kill -9 of collector or exporter at a seeded call",
        crashes.kills,
        1000,
        44,
        4,
    ),
    Scenario(
        "busy",
        "What was received a quarter of a second before is in a file, from a process's first frame on",
        "kill -9 of a collector in its first seconds, on a machine with eight busy processes, the store away, late or "
        "silent",
        crashes.busy,
        100,
        9,
        1,
    ),
    Scenario(
        "power",
        "A committed row survives a power loss; nothing half written is taken for whole",
        "power loss: what was not fsynced is dropped, torn, reordered",
        crashes.power,
        200,
        20,
        3,
    ),
    Scenario(
        "disk",
        "A disk that refuses delays rows and files and loses none",
        "disk full, read-only or failing, for the spool and the exports, at a seeded call",
        disk.disk,
        100,
        25,
        3,
    ),
    Scenario(
        "slow",
        "However long commits take, a row has the time of its receipt and lies in its own period; an orderly end waits",
        "writes, syncs and names that take up to 3 s, at the edges of periods, over cuts, exports and orderly ends",
        slow.slow,
        100,
        12,
        1,
    ),
    Scenario(
        "spool",
        "A full spool disk stops the feed in good order, is said, loses nothing received; recording goes on by itself",
        "a small file system under the spool filled up, at once or little by little; the collector killed there",
        mounts.spool,
        40,
        10,
        1,
        needs_root=True,
    ),
    Scenario(
        "sockets",
        "Whatever a connection does, what came whole over it is recorded once, in order",
        "sockets: reset, half frame, stalls, slow reader, burst, server close, refused, mute, TLS failure; a SOCKS "
        "proxy gone, deals sent again; the process stopped for seconds",
        sockets.sockets,
        200,
        18,
        2,
    ),
    Scenario(
        "exchange",
        "A channel that is no longer served costs the others nothing; whatever form frames come in, and however often "
        "sessions are ended or refused, what came whole is recorded once, in order",
        "a channel retired (silent, refused, acked only), frames compressed, sessions ended, handshakes answered by "
        "429, 503, 403, 302, 200, odd or compressed answers about the contract",
        exchange.exchange,
        200,
        16,
        1,
    ),
    Scenario(
        "candles",
        "No minute's trades differ from the exchange's candle where nothing was taken or altered; without a candle it "
        "is unknown",
        "connections ended, the collector killed, frames compressed, answers for candles late, refused by 510 and 429, "
        "empty, short, a page, garbage, or never there",
        candles.candles,
        60,
        6,
        1,
    ),
    Scenario(
        "shapes",
        "Frames of another shape are kept as they came; too many dead letters are said by status, verify and readers, "
        "times that stay wrong by run; a reader gives what the frames hold, or names the frame and what in it cannot "
        "be read",
        "ts in microseconds, as text, 0, null or absent, hours ahead, years behind, fields renamed, dropped, retyped, "
        "numbers of 140 digits, sides null or absent, versions that begin low, deals again, unknown channels, no JSON",
        shapes.shapes,
        100,
        12,
        1,
    ),
    Scenario(
        "hosts",
        "While one of several addresses of the exchange serves, recording goes on by it, and status says by which",
        "addresses where nobody listens before and among three of which some close, are mute, redirect, refuse, show a "
        "page or talk nonsense, changed at any time under a connection that delivers",
        hosts.hosts,
        100,
        14,
        1,
    ),
    Scenario(
        "clock",
        "Whatever the clock does, recording, files and tables go on, rx goes back only with a word, nothing is pruned",
        "clock: steps of milliseconds to years, both ways, at the start, at the edge, slew",
        clock.clock,
        100,
        18,
        3,
    ),
    Scenario(
        "clock over TLS",
        "The same over TLS, where a certificate refused for its dates is said as clock or certificate",
        "clock: the same, over TLS",
        clock.secure,
        100,
        18,
        1,
    ),
    Scenario(
        "clickhouse",
        "ClickHouse in trouble delays neither rows nor files, and ends up holding what they hold",
        "ClickHouse server killed, stopped, frozen, damaged, late, its disk full, read-only or failing, a reply lost, "
        "a table dropped; store killed",
        clickhouse.server,
        100,
        18,
        1,
    ),
    Scenario(
        "outage",
        "A server that is away for a minute at a time under load delays neither rows nor files",
        "ClickHouse server stopped for 60 s",
        tables.outage,
        10,
        5,
        0,
    ),
    Scenario(
        "refused",
        "A row that ClickHouse will not take is skipped there, counted, said, and in its file; the others are loaded",
        "ClickHouse refuses one row, in whatever batch",
        tables.refused,
        10,
        10,
        1,
    ),
    Scenario(
        "tables",
        "A sealed table altered by hand is noticed before it goes, set apart and loaded again; the file is the spool's",
        "a sealed table dropped, a row of it altered, deleted, doubled",
        tables.altered,
        20,
        4,
        1,
    ),
    Scenario(
        "index",
        "ClickHouse's own records stop nothing: export_log, only an index, is written again",
        "export_log, egress_log, collector_stats, refused_rows emptied, dropped or made with other columns, of two "
        "symbols; the store's lock altered, emptied, grown or a FIFO",
        tables.forgotten,
        5,
        5,
        1,
    ),
    Scenario(
        "embedded",
        "The embedded engine in trouble delays neither rows nor files, and ends up holding what they hold",
        "embedded engine: store killed, its folder damaged or deleted, files of it FIFOs or huge",
        clickhouse.embedded,
        40,
        10,
        1,
    ),
    Scenario(
        "mounts",
        "A disk that is really full, of the exports or of either engine, delays files and tables and loses no row",
        "a small file system filled up: of the exports, the embedded engine, the server",
        mounts.mounts,
        40,
        12,
        3,
        needs_root=True,
    ),
    Scenario(
        "frames",
        "No frame is lost because it could not be understood; none is taken for what it is not",
        "bad frames, made up and mutated, through classifier, spool and export",
        frames.parts,
        1_000_000,
        40,
        2,
    ),
    Scenario(
        "wire",
        "No frame over a connection is lost because it could not be understood, with a kill in between",
        "bad frames among good ones over the socket",
        frames.wire,
        10_000,
        8,
        1,
    ),
    Scenario(
        "artefacts",
        "A file altered by hand is noticed by its content",
        "a Parquet file truncated, deleted, swapped, bits flipped; beside two symbols that are recorded what was "
        "acknowledged, the lock of exports, the file of attempts: altered, emptied, grown, a folder, a FIFO, a link",
        artefacts.artefacts,
        200,
        12,
        2,
    ),
    Scenario(
        "segments",
        "A segment altered by hand becomes no file but one with the rows as received, and holds up no other",
        "a closed segment truncated, deleted, bits flipped, pages overwritten, before its export; an open one's "
        "header, rows and keys altered while its collector writes to it",
        segments.segments,
        100,
        8,
        1,
    ),
    Scenario(
        "logs",
        "What a damaged write-ahead log leaves is in order and unaltered; recording goes on and says so",
        "the write-ahead log of a killed collector truncated, deleted, bits flipped",
        segments.logs,
        20,
        6,
        1,
    ),
    Scenario(
        "neighbours",
        "Whatever is damaged of one symbol, the other one is whole, and the damaged one goes on being recorded",
        "of two symbols one's segments, logs, pending rows, lock, reserve, control socket, files and notes altered, "
        "truncated, deleted, emptied, grown, or a folder, a FIFO, a link in their place; the other's segment, log or "
        "lock removed while its collector holds them",
        neighbours.neighbours,
        100,
        8,
        1,
    ),
    Scenario(
        "together",
        "While all runs: whatever of one symbol, of the engine's folder or of the control sockets is damaged or "
        "replaced, the other symbol's rows, files, tables and answers are whole",
        "a FIFO, folder, device, link, socket, giant or garbage under any name in any folder, files altered while "
        "others are read, control sockets removed, replaced, flooded, the engine's folder damaged",
        together.together,
        100,
        10,
        1,
        needs_root=True,
    ),
    Scenario(
        "output",
        "Output for people can neither end nor delay the work",
        "standard error closed, full, without a reader, unread, hung up, suspended, of collector and run",
        output.output,
        100,
        15,
        1,
    ),
    Scenario(
        "scarce",
        "A machine without a file handle, process or thread to give for a while ends nothing that runs: what is wanted "
        "is tried again, rows, files and the end are as without it",
        "no file handles for run, the store, an export, a collector or all, no processes or threads, for up to 8 s: at "
        "any moment, over periods' edges, while connections are cut, at the end",
        scarce.scarce,
        50,
        8,
        1,
    ),
)
