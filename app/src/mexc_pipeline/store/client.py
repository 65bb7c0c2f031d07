"""Asks the running store how it stands and what it found of each table, over its control socket.

ControlError where it cannot be asked: that is not the same as an answer that has nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mexc_pipeline.config import Config
from mexc_pipeline.control import NOT_UNDERSTOOD, ODD, ControlError, ask

LOGGED_S = 30.0


class Logged(NamedTuple):
    """A file's row in ``export_log``: rows of its segment, and what was found of its table (``rows``, ``ok``)."""

    received: int
    compared: Mapping[str, Any]


def store_status(config: Config, timeout_s: float = 5.0) -> dict[str, Any]:
    """What the running store says of itself and its ``symbols``."""
    answer = ask(config.control_dir / "store.sock", "status", timeout_s)
    if not isinstance(answer.get("symbols"), dict):
        raise ControlError(NOT_UNDERSTOOD)
    return answer


ASKED = 500
"""Segments asked for at a time."""


def compared(config: Config, symbol_id: str, segments: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What the running store found of these segments' tables (``rows``, ``ok``, ``columns`` …), by file name, as far as
    it remembers; of what was told before an error it is known."""
    for begin in range(0, len(segments), ASKED):
        some = list(segments[begin : begin + ASKED])
        answer = ask(config.control_dir / "store.sock", "compared", LOGGED_S, id=symbol_id, segments=some)
        try:
            found = {str(name): {**of_table} for name, of_table in answer["compared"].items()}
        except ODD as error:
            raise ControlError(NOT_UNDERSTOOD) from error
        yield from found.items()


def logged(config: Config, symbol_id: str) -> dict[tuple[str, str], Logged]:
    """``export_log`` of a symbol by file name and digest, from its first file on."""
    answer = ask(config.control_dir / "store.sock", "logged", LOGGED_S, id=symbol_id)
    try:
        return {(file, digest): Logged(int(rows), {**of_table}) for file, digest, rows, of_table in answer["files"]}
    except ODD as error:
        raise ControlError(NOT_UNDERSTOOD) from error
