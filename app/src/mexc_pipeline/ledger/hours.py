"""The ledger: one row per symbol and period with what was received, stored, exported and covered, and totals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from mexc_pipeline.ledger.account import Account
from mexc_pipeline.ledger.acknowledged import Acknowledged, acknowledgement
from mexc_pipeline.ledger.conservation import Conservation
from mexc_pipeline.ledger.coverage import Coverage, Piece, stretches, within
from mexc_pipeline.ledger.order import by_seq
from mexc_pipeline.ledger.repeats import Given, repeats
from mexc_pipeline.ledger.shares import Shares
from mexc_pipeline.rows import MT_NAMES

Verdict = Literal["proven", "waiting", "differs", "hole", "absent"]
_SUMS = ("gaps", "missing", "repaired", "unrepaired", "filled", "unfilled", "reconnects")


@dataclass(slots=True)
class Hour:
    """One period of one symbol, or a stretch of ``periods`` periods without a row.

    ``missing``, ``repaired`` and ``unrepaired`` count versions of the book, ``filled`` trades, ``unfilled`` times in
    which some may be missing. ``seq_missing`` counts rows between the symbol's previous file and this one that are in
    neither, ``acknowledged`` those of them that somebody answered for; ``seq_repeated`` those in both. ``covered_ns``
    and ``socket_ns`` of its length. ``buffered``: rows that had arrived when its table was swapped out; None where no
    store of this host swapped it.
    """

    id: str
    period: str
    start_ns: int
    end_ns: int
    periods: int = 1
    files: list[Conservation] = field(default_factory=list)
    covered_ns: int = 0
    socket_ns: int = 0
    gaps: int = 0
    missing: int = 0
    repaired: int = 0
    unrepaired: int = 0
    filled: int = 0
    unfilled: int = 0
    reconnects: int = 0
    seq_missing: int = 0
    acknowledged: int = 0
    seq_repeated: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Rows per type."""
        return {name: sum(f.counts.get(name, 0) for f in self.files) for name in MT_NAMES.values()}

    def rows(self, side: Literal["received", "stored", "exported"]) -> int | None:
        """Rows in one place; None where it has none of the period's parts."""
        found = [part.rows for f in self.files if (part := getattr(f, side)) is not None]
        return sum(found) if found else None

    @property
    def buffered(self) -> int | None:
        """Rows that had arrived when its tables were swapped out; None where no store of this host swapped one."""
        known = [f.buffered for f in self.files if f.buffered is not None]
        return sum(known) if known else None

    @property
    def minutes(self) -> Shares | None:
        """How many of its files' minutes agree with the exchange's candles; None where no file says."""
        return _counts(f.minutes for f in self.files)

    @property
    def length_ns(self) -> int:
        """Length (ns) of the newest of its periods, as if it were over."""
        return self.files[-1].edge_ns - self.files[-1].start_ns if self.files else self.end_ns - self.start_ns

    @property
    def coverage(self) -> float:
        """Covered time in percent of its length."""
        return 100 * self.covered_ns / (self.end_ns - self.start_ns)

    @property
    def without_socket_s(self) -> float:
        """Seconds without a live socket."""
        return (self.end_ns - self.start_ns - self.socket_ns) / 1e9

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of its files; ``hole`` where rows are missing before it, ``absent`` without rows."""
        found = {f.verdict for f in self.files}
        if "differs" in found:
            return "differs"
        if self.seq_missing > self.acknowledged or self.seq_repeated:
            return "hole"
        if not found:
            return "absent"
        return "waiting" if "waiting" in found else "proven"

    def to_json(self) -> dict[str, Any]:
        """The row of ``--json``."""
        return {
            "id": self.id,
            "period": self.period,
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "periods": self.periods,
            **{side: self.rows(side) for side in ("received", "stored", "exported")},
            "counts": self.counts,
            "dead_letters": self.counts["dl"],
            "first_seq": self.files[0].first_seq if self.files else 0,
            "last_seq": self.files[-1].last_seq if self.files else 0,
            "digests": {f.file: f.digest for f in self.files},
            **{name: getattr(self, name) for name in _SUMS},
            "seq_missing": self.seq_missing,
            "acknowledged": self.acknowledged,
            "seq_repeated": self.seq_repeated,
            "without_socket_s": round(self.without_socket_s, 3),
            "coverage": round(self.coverage, 4),
            "buffered": self.buffered,
            "minutes": None if self.minutes is None else self.minutes._asdict(),
            "verdict": self.verdict,
        }


def hours(
    files: Iterable[Conservation],
    running: Iterable[tuple[str, Piece]] = (),
    until_ns: int = 0,
    accepted: Sequence[Acknowledged] = (),
) -> list[Hour]:
    """The rows of the ledger, by symbol and in the order of recording. A period that a clock that was set back, or
    another length of periods, reached again has a row for each time; no two rows cover the same time by one clock.

    ``running``: what is known of open segments, by symbol: it tells how the hours before went on. A symbol whose
    recording did not end in good order is followed, without rows, until ``until_ns`` (now; 0: unknown), and a period
    that is not over by then ends there.
    """
    open_pieces = dict(running)
    found: list[Hour] = []
    ordered = by_seq(
        list(files), of=lambda f: f.id, name=lambda f: (f.start_ns, f.part, f.period), seq=lambda f: f.first_seq
    )
    for symbol, group in groupby(ordered, key=lambda f: f.id):
        found += _hours(symbol, list(group), open_pieces.get(symbol), until_ns, accepted)
    return found


def _hours(
    symbol: str,
    files: Sequence[Conservation],
    running: Piece | None,
    until_ns: int,
    accepted: Sequence[Acknowledged],
) -> list[Hour]:
    pieces = [Piece(f.first_seq, f.last_seq, f.account or Account()) for f in files]
    coverage = Coverage.of([*pieces, running] if running else pieces)
    found: list[Hour] = []
    numbers = stretches(piece.account for piece in pieces)
    for number in range(numbers[-1] + 1):
        stretch = [file for file, of in zip(files, numbers, strict=True) if of == number]
        later = min((file.start_ns for file, of in zip(files, numbers, strict=True) if of > number), default=until_ns)
        lines: list[Hour] = []
        for start_ns, group in groupby(stretch, key=lambda f: f.start_ns):
            parts = list(group)
            hour = Hour(symbol, parts[0].period, start_ns, max(f.edge_ns for f in parts), files=parts)
            if lines:
                _divide(lines[-1], hour)
                # Where the clock was set back afterwards to before that time, it had not come: nothing is absent.
                if hour.start_ns > lines[-1].end_ns and later >= hour.start_ns:
                    lines.append(_absent(symbol, lines[-1], hour.start_ns))
            elif number:
                hour.start_ns = max(start_ns, min(_first_rx(hour), hour.end_ns - 1))
            lines.append(hour)
        last = lines[-1]
        if number < numbers[-1]:
            last.end_ns = max(last.start_ns + 1, min(last.end_ns, _last_rx(last)))
        elif until_ns:  # a period that was cut and still runs: what is to come of it is not uncovered
            last.end_ns = min(last.end_ns, max(until_ns, _last_rx(last), last.start_ns + 1))
        _cover(lines, coverage.stretch(number))
        found += lines
    _count([hour for hour in found if hour.files], accepted)
    _count_repeats([hour for hour in found if hour.files], running)
    ended = [m.what for p in pieces[-1:] for m in p.account.moments[-1:]] == ["stopped"]
    length = found[-1].length_ns
    if running is None and not ended and until_ns >= found[-1].end_ns + length:
        found.append(_absent(symbol, found[-1], until_ns - (until_ns - found[-1].end_ns) % length))
    return found


def _divide(before: Hour, after: Hour) -> None:
    """Where a shorter or longer period begins within the one before it, the rows tell where the one ends."""
    border = min(before.end_ns, _first_rx(after) or after.start_ns)
    after.start_ns = min(max(after.start_ns, border), after.end_ns - 1)
    before.end_ns = max(before.start_ns + 1, min(before.end_ns, after.start_ns))


def _first_rx(hour: Hour) -> int:
    return next((f.account.first_rx for f in hour.files if f.account and f.account.first_rx), 0)


def _last_rx(hour: Hour) -> int:
    return next((f.account.last_rx for f in reversed(hour.files) if f.account and f.account.last_rx), hour.end_ns)


def _cover(lines: Iterable[Hour], coverage: Coverage) -> None:
    for hour in lines:
        if hour.files:
            hour.covered_ns = within(coverage.covered, hour.start_ns, hour.end_ns)
            hour.socket_ns = within(coverage.sockets, hour.start_ns, hour.end_ns)
            hour.reconnects = sum(hour.start_ns <= at < hour.end_ns for at in coverage.reconnects)


def _count(lines: Iterable[Hour], accepted: Sequence[Acknowledged]) -> None:
    """What the events tell of, and the holes between files."""
    last_seq = 0
    for hour in lines:
        for file in hour.files:
            account = file.account or Account()
            hour.gaps += file.gaps
            hour.missing += account.missing
            hour.repaired += account.repaired
            hour.unrepaired += account.unrepaired
            hour.filled += account.filled
            hour.unfilled += account.unfilled
            if last_seq and file.first_seq:
                step = file.first_seq - last_seq - 1
                hour.seq_missing += max(0, step)
                if step > 0 and acknowledgement(accepted, hour.id, last_seq + 1, file.first_seq - 1):
                    hour.acknowledged += step
            last_seq = max(last_seq, file.last_seq)


def _count_repeats(lines: Sequence[Hour], running: Piece | None) -> None:
    """Rows whose seq another file has too, with the later of both; those that the open segment has given again, with
    the file that has them."""
    hour_of = {file.file: hour for hour in lines for file in hour.files}
    held = [
        Given(hour.id, file.file, file.first_seq, file.last_seq, file.file) for hour in lines for file in hour.files
    ]
    if running is not None and lines:
        held.append(Given(lines[0].id, "", running.first_seq, running.last_seq, ""))
    for repeat in repeats(held):
        hour_of[repeat.other.where or repeat.one.where].seq_repeated += repeat.rows


def _absent(symbol: str, before: Hour, until_ns: int) -> Hour:
    periods = max(1, (until_ns - before.end_ns) // before.length_ns)
    return Hour(symbol, "", before.end_ns, until_ns, periods)


def _sum(known: Iterable[int | None]) -> int | None:
    """Of what is known; None where nothing is."""
    rows = [n for n in known if n is not None]
    return sum(rows) if rows else None


def _counts(known: Iterable[Shares | None]) -> Shares | None:
    """The sum of what is known; None where nothing is."""
    found = [counts for counts in known if counts is not None]
    return Shares(*map(sum, zip(*found, strict=True))) if found else None


def total(of: Sequence[Hour]) -> dict[str, Any]:
    """Sums over hours, and coverage in percent of all their time. None: rows of a place of which nothing is known."""
    length = sum(h.end_ns - h.start_ns for h in of)
    minutes = _counts(h.minutes for h in of)
    return {
        "hours": sum(h.periods for h in of),
        "absent": sum(h.periods for h in of if not h.files),
        **{side: _sum(h.rows(side) for h in of) for side in ("received", "stored", "exported")},
        "dead_letters": sum(h.counts["dl"] for h in of),
        **{name: sum(getattr(h, name) for h in of) for name in _SUMS},
        "seq_missing": sum(h.seq_missing for h in of),
        "acknowledged": sum(h.acknowledged for h in of),
        "seq_repeated": sum(h.seq_repeated for h in of),
        "without_socket_s": round(sum(h.without_socket_s for h in of), 3),
        "coverage": round(100 * sum(h.covered_ns for h in of) / length, 4) if length else 0.0,
        "minutes": None if minutes is None else minutes._asdict(),
    }
