"""Findings of a verification, for a reader and for a program."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. ``subject`` is a file, table or connection; ``columns`` those that differ."""

    symbol: str
    subject: str
    ok: bool
    text: str
    columns: tuple[str, ...] = ()

    def line(self) -> str:
        """One line for a terminal."""
        return f"{'ok  ' if self.ok else 'FAIL'} {self.symbol} {self.subject}: {self.text}"


@dataclass(slots=True)
class Report:
    """What one verification found; ``notes`` are lines for a reader that judge nothing."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing that was checked failed."""
        return all(finding.ok for finding in self.findings)

    @property
    def exit_status(self) -> int:
        """The exit status: 0 where nothing failed, else 1."""
        return 0 if self.ok else 1

    def lines(self) -> list[str]:
        """Everything a terminal shows."""
        return [*(finding.line() for finding in self.findings), *self.notes]

    def to_json(self) -> dict[str, Any]:
        """The answer of ``--json``: ``name``, ``ok``, ``findings``, ``notes``."""
        return {"name": self.name, "ok": self.ok, **{k: v for k, v in asdict(self).items() if k != "name"}}
