"""The account of a run: every period it touched or found left over, received = stored = exported, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mexc_pipeline.config import Config
from mexc_pipeline.exchange.deadletters import LEAST, Letters
from mexc_pipeline.health import unread_in_a_run
from mexc_pipeline.rows import FRAME_TYPES, MT_NAMES, Mt
from mexc_pipeline.spool.names import SegmentName
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, SegmentReader
from mexc_pipeline.spool.walk import Unreadable, looked_at, recorded, segments

_EXPORTED = ("rows", "digest", "bytes")
_DEAD = MT_NAMES[Mt.DEAD_LETTER]


@dataclass(frozen=True, slots=True)
class Line:
    """One period (or part of one) of one symbol.

    ``received`` counts rows in the spool, ``stored`` rows compared in ClickHouse, ``exported`` rows read back from the
    file (None: not done). ``ratio`` is bytes of frames over bytes of the file. ``verdict`` is ``verified`` or what is
    wrong.
    """

    id: str
    symbol: str
    period: str
    part: int | None
    counts: dict[str, int]
    first_seq: int
    last_seq: int
    received: int
    stored: int | None
    exported: int | None
    bytes: int
    ratio: float | None
    digest: str
    file: str
    verdict: str

    @property
    def ok(self) -> bool:
        """Whether the period is verified."""
        return self.verdict == "verified"


@dataclass(frozen=True, slots=True)
class Closing:
    """What a run says at its end; ``problems`` are one line each and belong to no single period."""

    lines: list[Line]
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether every period is verified and nothing else is wrong."""
        return not self.problems and all(line.ok for line in self.lines)


def line_of(
    segment: SegmentInfo, compared: Mapping[str, Any] | None, file_problem: str | None, store_problem: str | None = None
) -> Line:
    """Judge one segment.

    ``compared`` is what store says of it (``rows``, ``ok``, ``columns``), None where it says nothing;
    ``file_problem`` is what verification of its file found, None where it is right. A period of no rows has no file
    and needs none.
    """
    exported = segment.exported
    rows = exported.get("rows") if segment.state == "exported" else None
    stored = compared.get("rows") if compared is not None else None
    if segment.state == "open":
        verdict = "still open"
    elif segment.state != "exported":
        verdict = "not exported"
    elif not segment.rows:
        verdict, stored = "verified", 0
    elif file_problem is not None:
        verdict = file_problem
    elif exported.get("digest") != segment.digest or rows != segment.rows:
        verdict = "file differs from the spool"
    elif compared is None:
        verdict = f"not compared in ClickHouse{f' ({store_problem})' if store_problem else ''}"
    elif not compared.get("ok"):
        verdict = f"ClickHouse differs in {', '.join(compared.get('columns', [])) or 'content'}"
    elif stored != segment.rows:
        verdict = f"ClickHouse holds {stored} rows"
    else:
        verdict = "verified"
    size = int(exported.get("bytes") or 0)
    return Line(
        id=segment.id,
        symbol=segment.symbol,
        period=segment.name.period,
        part=segment.name.part if segment.is_part else None,
        counts=segment.counts,
        first_seq=segment.first_seq,
        last_seq=segment.last_seq,
        received=segment.rows,
        stored=stored,
        exported=rows,
        bytes=size,
        ratio=round(segment.bytes / size, 2) if size else None,
        digest=segment.digest,
        file=segment.file,
        verdict=verdict,
    )


@dataclass(slots=True)
class Periods:
    """Which segments this run answers for: those that appear while it runs and those it found not yet exported.

    Made before the first collector starts; ``scan`` is called from time to time, so that a segment pruned while the
    run goes on is still accounted for.
    """

    config: Config
    unreadable: dict[Path, str] = field(default_factory=dict)
    _found: dict[Path, SegmentInfo] = field(default_factory=dict)
    _settled_before: set[Path] = field(default_factory=set)
    _began_at: dict[str, int] = field(default_factory=dict)

    @classmethod
    def begin(cls, config: Config) -> Periods:
        """Take note of what is there before anything is recorded."""
        periods = cls(config)
        periods.scan()
        periods._settled_before = {path for path, found in periods._found.items() if found.state == "exported"}
        for symbol in config.symbols:
            periods._began_at[symbol.id] = max(
                (found.last_seq for found in periods._found.values() if found.id == symbol.id), default=0
            )
        return periods

    def scan(self) -> None:
        """Look at the spool again; an exported segment does not change any more and is not read twice."""
        paths = set(self._paths())
        for gone in [path for path, found in self._found.items() if path not in paths and not found.rows]:
            del self._found[gone]  # made for a row that never came, and removed again
        for gone in [path for path in self.unreadable if path not in paths and path.parent != self.config.spool_dir]:
            del self.unreadable[gone]
        settled = {path for path, found in self._found.items() if found.state == "exported"}
        for one in looked_at(sorted(paths - settled)):
            if isinstance(one, Unreadable):
                self.unreadable[one.path] = str(one.error)
            else:
                self._found[one.path] = _slim(one)
                self.unreadable.pop(one.path, None)

    def _paths(self) -> Iterable[Path]:
        for symbol in self.config.symbols:
            folder = self.config.spool_dir / symbol.id
            self.unreadable.pop(folder, None)
            try:
                found = [path for _, path in segments(folder)]
            except SegmentError as error:
                self.unreadable[folder] = str(error)
                found = [path for path in self._found if path.parent == folder]
            yield from found

    def ours(self) -> list[SegmentInfo]:
        """The segments this run answers for, oldest first within each symbol."""
        order = {symbol.id: place for place, symbol in enumerate(self.config.symbols)}
        mine = [found for path, found in self._found.items() if path not in self._settled_before]
        return sorted(mine, key=lambda found: (order.get(found.id, len(order)), recorded(found)))

    def exported(self, symbol_id: str) -> int:
        """How many of this run's segments of a symbol are exported."""
        return sum(found.id == symbol_id and found.state == "exported" for found in self.ours())

    def waiting(self, now_ns: int, settle_ns: int = 500_000_000) -> list[SegmentName]:
        """Segments that could be exported now: closed ones, and open ones whose edge passed ``settle_ns`` ago."""
        return [
            found.name
            for found in self.ours()
            if found.state == "closed" or (found.state == "open" and found.edge_ns + settle_ns <= now_ns)
        ]

    def silent(self) -> list[str]:
        """Ids of symbols that got no market frame since this run began."""
        return [symbol.id for symbol in self.config.symbols if not self._got_frame(symbol.id)]

    def _got_frame(self, symbol_id: str) -> bool:
        before = self._began_at.get(symbol_id, 0)
        for found in reversed(self.ours()):
            if found.id != symbol_id or found.last_seq <= before or not found.path.exists():
                continue
            with suppress(SegmentError), SegmentReader(found.path) as reader:  # said where it was looked at
                for kind in FRAME_TYPES:
                    newest = reader.tail(kind, 1)
                    if len(newest) and newest.seq[0] > before:
                        return True
        return False


def dead_letters(lines: Iterable[Line], in_file: Callable[[Line], Letters]) -> list[str]:
    """One line for each symbol of whose frames, of all or of one type, too many are dead letters: they are kept and
    verified, and nobody reads them as what they were meant to be. ``in_file`` looks at those of a period."""
    of_symbols: dict[str, list[Line]] = {}
    for line in lines:
        of_symbols.setdefault(line.id, []).append(line)
    found = []
    for symbol_id, of in of_symbols.items():
        rows = totals(of)
        if rows[_DEAD] < LEAST:
            continue
        letters = Letters()
        for line in of:
            if line.counts.get(_DEAD):
                letters.update(in_file(line))
        letters.uncounted(rows[_DEAD] - letters.reasons.total())
        found += [f"{symbol_id}: {text}" for text in unread_in_a_run(rows, letters)]
    return found


def _slim(found: SegmentInfo) -> SegmentInfo:
    """Without what nobody asks of a period at the end: a run of months remembers every one."""
    if found.state != "exported":
        return found
    return replace(found, account={}, exported={key: found.exported.get(key) for key in _EXPORTED})


def totals(lines: Iterable[Line]) -> dict[str, int]:
    """Rows per type over all lines."""
    total = dict.fromkeys(MT_NAMES.values(), 0)
    for line in lines:
        for name, count in line.counts.items():
            total[name] = total.get(name, 0) + count
    return total
