"""Conservation of rows: per file of a symbol, what was received, stored and exported, and whether it is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mexc_pipeline.ledger.account import Account
from mexc_pipeline.ledger.shares import Shares

Verdict = Literal["proven", "waiting", "differs"]


@dataclass(frozen=True, slots=True)
class Side:
    """One place that holds the rows: how many, and their digest where it is known (hex, else empty).

    ``ok`` False where the place itself found that its content differs.
    """

    rows: int
    digest: str = ""
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Conservation:
    """One file's worth of a symbol: a period, or a part of one.

    ``received`` is what the spool recorded, ``stored`` the compared ClickHouse table, ``exported`` the file; None
    where that place does not have it yet, or has it no longer and nothing tells what it had. ``bytes`` is the file's
    size, ``raw_bytes`` the frames in it. ``start_ns`` and ``edge_ns`` bound its period. ``buffered``: rows that had
    arrived when its table was swapped out; None where no store of this host swapped it. ``minutes``: what the file says
    of its trades against the exchange's candles; None where it says nothing.
    """

    id: str
    period: str
    part: int
    file: str
    received: Side | None = None
    stored: Side | None = None
    exported: Side | None = None
    first_seq: int = 0
    last_seq: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    gaps: int = 0
    bytes: int = 0
    raw_bytes: int = 0
    start_ns: int = 0
    edge_ns: int = 0
    account: Account | None = None
    buffered: int | None = None
    minutes: Shares | None = None

    @property
    def digest(self) -> str:
        """The file's digest, else the spool's (hex); empty without either."""
        return next((s.digest for s in (self.exported, self.received) if s is not None and s.digest), "")

    @property
    def ratio(self) -> float | None:
        """Frames' bytes by file bytes; None without a file."""
        return self.raw_bytes / self.bytes if self.bytes else None

    @property
    def verdict(self) -> Verdict:
        """``differs`` where two places disagree, ``waiting`` until there is a file, else ``proven``."""
        sides = [s for s in (self.received, self.stored, self.exported) if s is not None]
        digests = {s.digest for s in sides if s.digest}
        seqs = self.last_seq - self.first_seq + 1 if self.last_seq else 0
        if len({s.rows for s in sides}) > 1 or len(digests) > 1 or not all(s.ok for s in sides):
            return "differs"
        if self.exported is None:
            return "waiting"
        if self.exported.rows != seqs or (self.counts and sum(self.counts.values()) != seqs):
            return "differs"
        return "proven"

    def to_json(self) -> dict[str, Any]:
        """The entry of ``--json``."""
        return {
            "id": self.id,
            "period": self.period,
            "part": self.part,
            "file": self.file,
            **{
                name: None if side is None else side.rows
                for name, side in (("received", self.received), ("stored", self.stored), ("exported", self.exported))
            },
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "counts": dict(self.counts),
            "gaps": self.gaps,
            "minutes": None if self.minutes is None else self.minutes._asdict(),
            "bytes": self.bytes,
            "raw_bytes": self.raw_bytes,
            "digest": self.digest,
            "digest_spool": self.received.digest if self.received is not None else "",
            "digest_file": self.exported.digest if self.exported is not None else "",
            "verdict": self.verdict,
        }
