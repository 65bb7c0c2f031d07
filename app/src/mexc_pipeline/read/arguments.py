"""What callers give, judged before anything is read: ArgumentError in one line that says what is needed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mexc_pipeline.errors import UserError
from mexc_pipeline.paths import expand
from mexc_pipeline.rows import MT_CODES
from mexc_pipeline.text import clean

_MOST = 200
"""Characters of a value that is shown."""


class ArgumentError(UserError, ValueError):
    """What was given is no such argument."""


def shown(value: object) -> str:
    """Whatever was given, as text for a message of one line."""
    try:
        return clean(repr(value), _MOST)
    except ValueError:  # an integer that is too long to be shown
        return f"a number of {value.bit_length():,} bits" if isinstance(value, int) else type(value).__name__


def name_of(symbol: object) -> str:
    """The symbol as text."""
    if not isinstance(symbol, str):
        raise ArgumentError(f"symbol {shown(symbol)} is no text such as 'btc' or 'BTC_USDT'")
    return symbol


def folder(export_dir: object) -> Path:
    """The folder's path; ``~`` at its head is a home folder. ConfigError for one that no file system takes."""
    if (
        not isinstance(export_dir, str | os.PathLike)
        or not isinstance(given := os.fspath(export_dir), str)
        or not given
    ):
        raise ArgumentError(f"export_dir {shown(export_dir)} is no path of a folder")
    return Path(expand("export_dir", given))


def row_types(types: object) -> tuple[str, ...] | None:
    """The types, each judged; None for all. One text is refused: its letters would be taken for the types."""
    if types is None:
        return None
    choose = f"choose from {', '.join(MT_CODES)}"
    if isinstance(types, str) or not isinstance(types, Iterable):
        raise ArgumentError(f"types {shown(types)} is no list of row types, such as ['dp']; {choose}")
    chosen = tuple(types)
    for one in chosen:
        if not isinstance(one, str) or one not in MT_CODES:
            raise ArgumentError(f"{shown(one)} is not a row type; {choose}")
    return chosen


def level_count(levels: object) -> int | None:
    """How many levels a side; None for all."""
    if levels is None:
        return None
    if not isinstance(levels, int | np.integer) or isinstance(levels, bool) or levels < 1:
        raise ArgumentError(f"levels {shown(levels)} is no whole number of at least 1")
    return int(levels)


def flags(**given: Any) -> None:
    """Check that each is True or False: ``"no"`` would be taken for True."""
    for name, value in given.items():
        if not isinstance(value, bool | np.bool_):
            raise ArgumentError(f"{name} {shown(value)} is neither True nor False")
