"""What an export did, for a reader and for a program."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mexc_pipeline.text import counted


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
    """Everything one run did. ``stopped``: a signal ended it early, what is left is done by the next run. ``absent``
    and ``altered``: files made earlier of what is still in the spool that are not in ``export_dir``, or that are
    something else now. ``idle`` says why nothing was there to do."""

    files: list[Exported] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    stopped: bool = False
    absent: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    idle: str = "nothing to export: every closed segment has a file of its name; verify exports reads what is in it"

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def exit_status(self) -> int:
        """The exit status: 0 where nothing failed, else 1."""
        return 0 if self.ok else 1

    def lines(self) -> list[str]:
        """What a terminal shows: done first, then failures, then what became of files made earlier."""
        lines = [f.line() for f in self.files] + [f"{f.id}: {f.text}" for f in self.failures]
        if self.absent:
            them = "it" if len(self.absent) == 1 else "them"
            lines.append(f"{_made(self.absent)} not in export_dir: export --missing makes {them} again")
        if self.altered:
            lines.append(f"{_made(self.altered)} not what was written: verify exports says more")
        return lines or ["stopped before anything was exported" if self.stopped else self.idle]

    def to_json(self) -> dict[str, Any]:
        """The answer of ``--json``: ``ok``, ``stopped``, ``files``, ``failures``, ``absent``, ``altered``."""
        said = {key: value for key, value in asdict(self).items() if key not in ("stopped", "idle")}
        return {"ok": self.ok, "stopped": self.stopped, **said}


def _made(files: list[str]) -> str:
    which = f", such as {files[0]}," if len(files) > 1 else f" ({files[0]})"
    return f"{counted(len(files), 'file')} that {'was' if len(files) == 1 else 'were'} made{which} " + (
        "is" if len(files) == 1 else "are"
    )
