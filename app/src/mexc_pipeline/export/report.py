"""What an export did, for a reader and for a program."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Exported:
    """One segment that is done. ``state``: written now, ``present`` already and equal, ``empty`` (no rows, no file)
    or ``copied`` (``--copy-to``). ``bytes`` of the file, ``raw_bytes`` of the frames in it."""

    id: str
    segment: str
    file: str | None
    state: Literal["written", "present", "empty", "copied"]
    rows: int = 0
    bytes: int = 0
    raw_bytes: int = 0
    digest: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """One line for a terminal."""
        if self.file is None:
            return f"{self.id}: {self.segment} has no rows, no file"
        ratio = f", ratio {self.raw_bytes / self.bytes:.1f}" if self.bytes else ""
        return f"{self.id}: {self.file} {self.state}, {self.rows:,} rows{ratio}, digest {self.digest[:12]}"


@dataclass(frozen=True, slots=True)
class Failed:
    """Something that could not be done; ``text`` is one line, ``segment`` None where it concerns the whole symbol."""

    id: str
    segment: str | None
    text: str


@dataclass(slots=True)
class ExportReport:
    """Everything one run did. ``stopped``: a signal ended it early, what is left is done by the next run."""

    files: list[Exported] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    stopped: bool = False

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def exit_status(self) -> int:
        return 0 if self.ok else 1

    def lines(self) -> list[str]:
        """What a terminal shows: done first, then failures."""
        done = [f.line() for f in self.files] + [f"{f.id}: {f.text}" for f in self.failures]
        return done or ["nothing to export: every closed segment has its file"]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``: ok, stopped, files, failures."""
        return {"ok": self.ok, "stopped": self.stopped, **{k: v for k, v in asdict(self).items() if k != "stopped"}}
