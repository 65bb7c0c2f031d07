"""Asks the running store how it stands and what it found of each table, over its control socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlError, ask

LOGGED_S = 30.0


class Logged(NamedTuple):
    """A file's row in ``export_log``: rows of its segment, and what was found of its table (``rows``, ``ok``)."""

    received: int
    compared: Mapping[str, Any]


def store_status(config: Config, timeout_s: float = 5.0) -> dict[str, Any] | None:
    """What the running store says of itself and its symbols; None where none answers."""
    try:
        return ask(config.control_dir / "store.sock", "status", timeout_s)
    except ControlError:
        return None


ASKED = 500
"""Segments asked for at a time."""


def compared(config: Config, symbol_id: str, segments: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What the running store found of these segments' tables (``rows``, ``ok``, ``columns`` …), by file name, as far as
    it remembers; nothing where no store answers."""
    found: dict[str, Mapping[str, Any]] = {}
    for begin in range(0, len(segments), ASKED):
        some = list(segments[begin : begin + ASKED])
        try:
            answer = ask(config.control_dir / "store.sock", "compared", LOGGED_S, id=symbol_id, segments=some)
        except ControlError:
            return found
        found.update(answer["compared"])
    return found


def logged(config: Config, symbol_id: str) -> dict[tuple[str, str], Logged]:
    """``export_log`` of a symbol by file name and digest, from its first file on; empty where no store can say."""
    try:
        answer = ask(config.control_dir / "store.sock", "logged", LOGGED_S, id=symbol_id)
    except ControlError:
        return {}
    return {(file, digest): Logged(received, compared) for file, digest, received, compared in answer["files"]}
