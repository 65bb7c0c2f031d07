"""A run's results: figures, each with its unit, spread and target, and curves; as JSON and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.measure import Spread


@dataclass(frozen=True, slots=True)
class Figure:
    """``what`` was measured of ``who``: the median of ``takes``, the lowest and the highest.

    ``target`` says what is asked for, ``met`` whether it was; both empty where nothing is asked.
    """

    what: str
    who: str
    value: float
    unit: str
    low: float
    high: float
    takes: int = 1
    target: str = ""
    met: bool | None = None


@dataclass(slots=True)
class Result:
    """What one row of the table gave. ``curves``: name → list of points, each a dict of plain numbers and words."""

    row: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    revision: str = ""
    at: str = ""

    def add(
        self,
        what: str,
        who: str,
        values: float | Iterable[float],
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Add a figure from one value or several takes; a bound makes it one with a target."""
        spread = Spread.of([values] if isinstance(values, int | float) else values)
        target, met = "", None
        if at_least is not None:
            target, met = f"≥ {at_least:,g}", spread.median >= at_least
        if at_most is not None:
            target, met = f"≤ {at_most:,g}", spread.median <= at_most
        self.figures.append(Figure(what, who, spread.median, unit, spread.low, spread.high, spread.takes, target, met))

    def value(self, what: str, who: str = "ours") -> float | None:
        """The median of a figure, None where it was not measured."""
        return next((f.value for f in self.figures if (f.what, f.who) == (what, who)), None)


@dataclass(slots=True)
class Report:
    """One run of ``make bench``, or several merged row by row."""

    machine: dict[str, str]
    results: dict[str, Result] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a saved report. FileNotFoundError where there is none, ValueError or TypeError where it is another's."""
        data = json.loads(path.read_text())
        results = {
            name: Result(**{**r, "figures": [Figure(**f) for f in r["figures"]]}) for name, r in data["results"].items()
        }
        return cls(data["machine"], results)
