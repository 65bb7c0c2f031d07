"""Every scenario with what it is meant to show, how often the campaign runs it, and how often a sample does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.bench import Outcome
from faults.scenarios import artefacts, clickhouse, clock, crashes, disk, frames, sockets


@dataclass(frozen=True, slots=True)
class Scenario:
    """``target``: tries that a full campaign must reach; ``runs``: times it is run for that; ``sample``: of these in
    ``make faults``."""

    name: str
    promise: str
    fault: str
    run: Callable[[Path, int], Outcome]
    target: int
    runs: int
    sample: int = 1


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "kill",
        "A committed row is in a file, once, byte for byte; seq has no hole",
        "kill -9 of collector or exporter at a seeded call",
        crashes.kills,
        1000,
        110,
        6,
    ),
    Scenario(
        "power",
        "A committed row survives a power loss; nothing half written is taken for whole",
        "power loss: what was not fsynced is dropped, torn, reordered",
        crashes.power,
        200,
        26,
        4,
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
        "sockets",
        "Whatever a connection does, what came whole over it is recorded once, in order",
        "sockets: reset, half frame, stalls, slow reader, burst, server close, refused, mute, TLS failure",
        sockets.sockets,
        200,
        18,
        3,
    ),
    Scenario(
        "clock",
        "rx never goes back and no row joins a closed period, whatever the clock does",
        "clock: steps of an hour and less, at the edge, slew",
        clock.clock,
        100,
        18,
        3,
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
        "embedded",
        "The same for the embedded engine",
        "embedded engine: store killed, its folder damaged or deleted",
        clickhouse.embedded,
        40,
        10,
        1,
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
        "The same over a real connection, with a kill in between",
        "bad frames among good ones over the socket",
        frames.wire,
        10_000,
        8,
        1,
    ),
    Scenario(
        "artefacts",
        "A file altered by hand is noticed by its content",
        "a Parquet file truncated, deleted, swapped, bits flipped",
        artefacts.artefacts,
        200,
        12,
        2,
    ),
)
