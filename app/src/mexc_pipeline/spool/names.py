"""What segments, and the files that they become, are called: ``<period>.sqlite`` in the folder of a symbol, and
``<id><period>.parquet`` in ``export_dir``, each with ``.part<n>`` before its end where a period was cut."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mexc_pipeline.periods import parse_name

MOST_PARTS = 10**8
"""Of a period, in which others may be named so by nobody but us: a file of more says nothing of the next one's name,
which would be longer than any that is looked for."""
_SEGMENT = re.compile(r"(\d{10}|\d{14})(?:\.part([1-9]\d{0,8}))?\.sqlite", re.ASCII)
_ID = "[a-z](?:[a-z0-9]{0,18}[a-z])?"
_FILE = re.compile(rf"({_ID})(\d{{10}}|\d{{14}})(?:\.part([1-9]\d{{0,8}}))?\.parquet")


def is_symbol_id(name: str) -> bool:
    """Whether a symbol's folder can have that name."""
    return re.fullmatch(_ID, name) is not None


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """Which stretch a segment covers: start of the period (Unix ns) and, for what follows a cut, the part from 2.

    ``part`` is 1 for the first segment of a period, also where it is never cut.
    """

    start_ns: int
    part: int = 1
    period: str = ""

    @property
    def file(self) -> str:
        """The name of the segment's file."""
        return f"{self.period}.sqlite" if self.part == 1 else f"{self.period}.part{self.part}.sqlite"

    @classmethod
    def parse(cls, file: str) -> SegmentName | None:
        """The name of a segment file, None for any other file."""
        match = _SEGMENT.fullmatch(file)
        if match is None:
            return None
        try:
            return cls(parse_name(match[1]), int(match[2] or 1), match[1])
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file's name says: symbol id, period (name and start in Unix ns), part (1 for a plain file)."""

    id: str
    start_ns: int
    period: str
    part: int
    plain: bool

    @classmethod
    def parse(cls, file: str) -> FileName | None:
        """The name of an exported file, None for any other file."""
        match = _FILE.fullmatch(file)
        if match is None:
            return None
        try:
            start = parse_name(match[2])
        except ValueError:
            return None
        return cls(match[1], start, match[2], int(match[3] or 1), match[3] is None)
