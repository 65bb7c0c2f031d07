"""Names of the files in ``export_dir``: ``<id><period>.parquet`` and ``<id><period>.part<n>.parquet``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mexc_pipeline.config import Config
from mexc_pipeline.periods import parse_name

_NAME = re.compile(r"([a-z](?:[a-z0-9]{0,18}[a-z])?)(\d{10}|\d{14})(?:\.part([1-9]\d{0,8}))?\.parquet")


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
        match = _NAME.fullmatch(file)
        if match is None:
            return None
        try:
            start = parse_name(match[2])
        except ValueError:
            return None
        return cls(match[1], start, match[2], int(match[3] or 1), match[3] is None)


def exported_files(export_dir: Path, symbol_id: str | None = None) -> list[tuple[FileName, Path]]:
    """The exported files of one symbol or of all, by name: id, period, part. Empty where there is no folder.

    The order of their rows is another: see :func:`mexc_pipeline.export.order.in_order`."""
    try:
        names = [path.name for path in export_dir.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [(name, export_dir / file) for file in names if (name := FileName.parse(file)) is not None]
    wanted = [(name, path) for name, path in found if symbol_id in (None, name.id)]
    return sorted(wanted, key=lambda item: (item[0].id, item[0].start_ns, item[0].part))


def wrong_place(config: Config) -> str:
    """Why there is nothing to judge or export here, empty where something may be: what is done to another folder than
    the recorder's, such as from another working directory, must not pass for done."""
    if not config.export_dir.exists():
        if not config.spool_dir.exists():
            return (
                f"there is no such folder, and nothing was recorded in {config.data_dir}; "
                "check data_dir and export_dir, which are relative to where the command is run"
            )
    elif not config.export_dir.is_dir():
        return "not a folder; move it away or set export_dir"
    return ""
