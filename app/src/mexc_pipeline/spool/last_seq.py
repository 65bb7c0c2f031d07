"""What is known of a symbol outside its spool folder, asked before the first row gets its seq.

The collector itself reads neither Parquet nor ClickHouse: files are read by a short-lived process, tables by the
store process of this host.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mexc_pipeline import config, control
from mexc_pipeline.ledger.repeats import Given, Repeat, repeats
from mexc_pipeline.paths import not_allowed
from mexc_pipeline.spool.segment import NUMBERED
from mexc_pipeline.spool.walk import exported_files, in_order
from mexc_pipeline.text import ago

log = logging.getLogger("mexc_pipeline.spool")

FILES_S = 30.0
STORE_S = 5.0
ANSWER_S = FILES_S + STORE_S
"""How long an empty folder waits for an answer: at a boot the store may come up later than a collector."""
WRITER_ALIVE_S = 45.0
"""A writer counts as alive while its last statistics are no older: three times their interval."""


@dataclass(frozen=True, slots=True)
class LastSeq:
    """What files and tables answered: ``seq``, the last one they have (0 where they have none); ``exports``, the names
    of the symbol's files; ``writer``, who else records the symbol at this moment, None where nobody does; ``unknown``,
    what could not be asked."""

    seq: int
    exports: tuple[str, ...]
    writer: str | None
    unknown: tuple[str, ...]

    def is_enough(self, has_segments: bool, waited_s: float) -> bool:
        """Whether a seq may be given by this. A folder with segments knows its own last seq; an empty one may be new,
        or what a lost disk left, and only the others can tell which."""
        return not self.unknown or has_segments or waited_s >= ANSWER_S


def ask_last_seq(settings: config.Config, symbol_id: str, spool_ids: frozenset[str]) -> LastSeq:
    """Ask the files and the store. ``spool_ids`` are this folder's own, so that it does not find itself alive. It takes
    up to :data:`ANSWER_S` seconds, and never raises for what cannot be asked."""
    unknown: list[str] = []
    exports = tuple(sorted(_files(settings.export_dir, symbol_id, unknown)))
    last = _newest_in_files(settings, symbol_id, unknown) if exports else 0
    writer = None
    try:
        answer = control.ask(settings.control_dir / "store.sock", "known", timeout_s=STORE_S, id=symbol_id)
    except control.ControlError as error:
        unknown.append(f"tables: {error}")
    else:
        try:
            writer = _alive_elsewhere(answer.get("writer"), spool_ids)
            last = max(last, _seq(answer["last_seq"]))
        except control.ODD:  # then nothing is known, which stops no recording
            unknown.append(f"tables: {control.NOT_UNDERSTOOD}")
    return LastSeq(last, exports, writer, tuple(unknown))


def _files(folder: Path, symbol_id: str, unknown: list[str]) -> list[str]:
    """Names of a symbol's files. A folder that cannot be listed is unknown, not empty."""
    try:
        return [path.name for _, path in exported_files(folder, symbol_id)]
    except OSError as error:
        unknown.append(f"files: {not_allowed(folder) or f'{folder}: {error.strerror}'}")
        return []


def own_ids(folder: Path) -> frozenset[str]:
    """The spool ids of a folder's segments."""
    return frozenset(segment.spool_id for segment in in_order(folder).readable)


def given_elsewhere(settings: config.Config, symbol_id: str, folder: Path) -> list[Repeat]:
    """Rows of the folder's segments whose seq another spool has given too, by what ClickHouse has. ControlError where
    the store does not say."""
    answer = control.ask(settings.control_dir / "store.sock", "given", timeout_s=STORE_S, id=symbol_id)
    here = in_order(folder).readable
    ours = {segment.spool_id for segment in here}
    mine = [Given(symbol_id, s.spool_id, s.first_seq, s.last_seq, s.path.name) for s in here]
    try:
        theirs = [given for one in answer["held"] if (given := Given(*one)).source not in ours]
        return repeats([*theirs, *mine])
    except control.ODD as error:
        raise control.ControlError(control.NOT_UNDERSTOOD) from error


def _newest_in_files(settings: config.Config, symbol_id: str, unknown: list[str]) -> int:
    command = [sys.executable, "-m", "mexc_pipeline.export.newest", str(settings.export_dir), symbol_id]
    try:
        done = subprocess.run(command, capture_output=True, timeout=FILES_S, check=True)
        answer = json.loads(done.stdout)
        unknown += [f"files: {line}" for line in answer["unknown"]]
        return _seq(answer["last_seq"])
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        unknown.append(f"files: {said[-1] if said else error}")
        return 0
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        unknown.append(f"files: {error}")
        return 0


def _seq(said: Any) -> int:
    """A last seq as somebody else has it; one of :data:`control.ODD` where it is none."""
    seq = int(said)
    if not 0 <= seq < NUMBERED:
        raise ValueError(f"not a seq: {seq}")
    return seq


def _alive_elsewhere(writer: dict[str, object] | None, spool_ids: frozenset[str]) -> str | None:
    if not writer or writer.get("spool_id") in spool_ids or float(str(writer["age_s"])) > WRITER_ALIVE_S:
        return None
    host, pid = str(writer["host"]), int(str(writer.get("pid", 0)))
    if host == socket.gethostname() and pid and not _runs(pid):
        return None  # of a data folder that is gone
    return f"process {pid or '?'} on {host}, spool {writer['spool_id']}, seen {ago(float(str(writer['age_s'])))}"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
