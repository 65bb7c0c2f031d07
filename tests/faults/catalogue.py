"""Every scenario with what it is meant to show, how often the campaign runs it, and how often a sample does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.bench import Outcome
from faults.scenarios import crashes


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
)
