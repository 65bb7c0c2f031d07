"""The supervisor: store first, a collector per symbol, an export after every edge, and an orderly, proven end."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mexc_pipeline import signals
from mexc_pipeline.backoff import Backoff
from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlError
from mexc_pipeline.errors import UserError
from mexc_pipeline.exchange.deadletters import Letters
from mexc_pipeline.health import Kind
from mexc_pipeline.output import say_now
from mexc_pipeline.paths import NotAFileError, regular
from mexc_pipeline.run.account import Closing, Line, Periods, dead_letters, line_of
from mexc_pipeline.run.children import NOT_NOW, REFUSED, Child, Keeper, Lifeline, Lines, how_it_ended
from mexc_pipeline.run.watch import View
from mexc_pipeline.spool.lock import FILE as LOCK_FILE
from mexc_pipeline.spool.lock import named
from mexc_pipeline.spool.segment import SegmentInfo
from mexc_pipeline.spool.walk import exported_files, in_order
from mexc_pipeline.store.client import compared as store_compared
from mexc_pipeline.store.client import logged, store_status

log = logging.getLogger("mexc_pipeline.run")

TICK_S = 0.1
LOGS_S = 1.0
"""Between two looks at what the store has logged."""
STORE_START_S = 15.0
STORE_ANSWER_S = 2.0
LOCKS_S = 3.0
COLLECTOR_END_S = 10.0
STORE_END_S = 15.0
EXPORT_S = 900.0
EXPORT_AGAIN_S = 30.0
"""How long the last export is tried again where it is refused or killed."""
_REFUSED = "its configuration was refused; its log says why"
STORE_SILENT_S = 60.0
"""How long the end waits for a store that makes no progress."""
SAY_EVERY_S = 5.0

_Name = tuple[str, str]
"""A symbol's id and the name of one of its segment files."""


@dataclass(slots=True)
class Stop:
    """Set by the first signal that asks to end; another SIGINT or SIGTERM kills every child and this process at once.
    SIGHUP never kills: a terminal that is closed sends it more than once."""

    event: threading.Event = field(default_factory=threading.Event)
    children: list[Child] = field(default_factory=list)

    def actions(self) -> dict[int, signals.Action]:
        """What each signal does."""
        asked = signals.ending(self._end)
        return {number: self.event.set if number == signal.SIGHUP else action for number, action in asked.items()}

    def _end(self) -> None:
        if not self.event.is_set():
            self.event.set()
            return
        for child in self.children:
            if child.poll() is None:
                child.kill()
        # Only committed rows count, and those are safe: nothing is left to tidy up.
        say_now("mexc-pipeline: killed by a second signal; the next start picks up everything committed\n")
        os._exit(1)


def lock_holder(folder: Path) -> str | None:
    """Who holds the spool lock of a folder right now, None where nobody does."""
    try:
        fd = regular(folder / LOCK_FILE, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError, NotAFileError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return named(folder)
    finally:
        os.close(fd)
    return None


class Supervisor:
    """Owns every child of one ``run``. Used from one thread; ``stop`` may be set from anywhere."""

    def __init__(
        self,
        config: Config,
        lifeline: Lifeline,
        stop: Stop,
        lines: Lines,
        debug: bool = False,
        start: Callable[[str, Sequence[str], Lifeline, Lines], Child] = Child,
    ) -> None:
        self._start = start
        self.config = config
        self.periods = Periods.begin(config)
        self.stop = stop
        self._lifeline = lifeline
        self._lines = lines
        self._common = [*(["--config", str(config.path)] if config.path else []), *(["--debug"] if debug else [])]
        self._store = Keeper("store", lambda: self._child("store", ["store"]), self._store_refusal, self._store_held)
        self._collectors = [
            Keeper(symbol.id, self._collect(symbol.id), self._collector_refusal(symbol.id)) for symbol in config.symbols
        ]
        self._foreign: set[str] = set()  # symbols somebody else records: theirs to cut, export and answer for
        self._export: Child | None = None
        self._export_backoff = Backoff(random.Random(), first_s=1.0)  # noqa: S311 - spreads tries, keeps no secret
        self._export_not_before = 0.0
        self._scanned = 0.0
        self._refused: dict[str, str] = {}
        """What the machine refuses of what is to be done, and why."""

    def _child(self, name: str, args: list[str]) -> Child:
        child = self._start(name, [*self._common, *args], self._lifeline, self._lines)
        self.stop.children = [known for known in self.stop.children if known.poll() is None] + [child]
        log.info("child started", extra={"fields": {"child": name, "pid": child.pid}})
        return child

    def _collect(self, symbol_id: str) -> Any:
        return lambda: self._child(symbol_id, ["collect", symbol_id])

    def _collector_refusal(self, symbol_id: str) -> Any:
        def refusal(status: int) -> str | None:
            if status == REFUSED:
                return _REFUSED
            who = lock_holder(self.config.spool_dir / symbol_id)
            if who is None:
                return None
            self._foreign.add(symbol_id)
            return f"its spool is held by {who}"

        return refusal

    def _store_refusal(self, status: int) -> str | None:
        return _REFUSED if status == REFUSED else None

    def _store_held(self) -> str | None:
        who = lock_holder(self.config.data_dir / "store")
        return f"ClickHouse is in use by {who}" if who else None

    def _await_locks(self) -> None:
        """Give the children of a run that was killed a moment ago the second they take to end."""
        folders = [self.config.data_dir / "store", *(self.config.spool_dir / s.id for s in self.config.symbols)]
        deadline = time.monotonic() + LOCKS_S
        while time.monotonic() < deadline and any(lock_holder(folder) for folder in folders):
            if self.stop.event.wait(TICK_S):
                return

    # While it runs

    def start(self) -> None:
        """Start store, wait a bounded time until it answers, then start the collectors whether it did or not."""
        self._await_locks()
        deadline = time.monotonic() + STORE_START_S
        while not self.stop.event.is_set() and time.monotonic() < deadline:
            self._tend(self._store)
            if self._store.given_up or self._store.restarts > 1:
                log.error("store does not start; recording starts without it")
                break
            if self._store_answers():
                break
            if self._store.waits:
                log.warning("store has to wait; recording begins without it")
                break
            self.stop.event.wait(TICK_S)
        else:
            log.warning("store is still starting; recording begins without it")
        for keeper in self._collectors:
            self._tend(keeper)

    def _store_answers(self) -> bool:
        try:
            store_status(self.config, STORE_ANSWER_S)
        except ControlError:
            return False
        return True

    def tick(self) -> None:
        """Look after everything once; call it about every ``TICK_S``. What the machine refuses for the moment ends
        nothing that runs: the next call tries it again."""
        for keeper in (self._store, *self._collectors):
            self._tend(keeper)
        self._unless_refused("export", self._tend_export)

    def _tend(self, keeper: Keeper) -> None:
        self._unless_refused(keeper.name, keeper.tend)

    def _unless_refused(self, what: str, do: Callable[[], None]) -> None:
        try:
            do()
        except NOT_NOW as error:
            why = str(error) or type(error).__name__
            if self._refused.get(what) != why:
                self._refused[what] = why
                log.error("the machine refuses, trying again", extra={"fields": {"child": what, "why": why}})
        else:
            self._refused.pop(what, None)

    @property
    def recording(self) -> bool:
        """Whether any symbol is still recorded or will be again."""
        return any(not keeper.given_up for keeper in self._collectors)

    def exported(self) -> dict[str, int]:
        """Segments exported so far per symbol."""
        return {symbol.id: self.periods.exported(symbol.id) for symbol in self.config.symbols}

    def _tend_export(self) -> None:
        now = time.monotonic()
        if self._export is not None:
            status = self._export.poll()
            if status is None:
                return
            child, self._export = self._export, None
            if status == 0:
                self._export_backoff.reset()
                self._export_not_before = now + 1.0
            else:
                wait = round(self._export_backoff.next_s(), 2)
                self._export_not_before = now + wait
                fields = {"ended": how_it_ended(status), "pid": child.pid, "in_s": wait}
                log.warning("export failed and will be tried again", extra={"fields": fields})
        if now - self._scanned < 1.0 and now < self._export_not_before:
            return
        if now - self._scanned >= 1.0:
            self.periods.scan()
            self._scanned = now
        if now >= self._export_not_before and self.periods.waiting(time.time_ns()):
            self._export = self._child("export", ["export"])
            self._export_not_before = now + 1.0

    # The end

    def finish(self, say: Callable[[str], None], last: Mapping[str, View]) -> Closing:
        """End recording, cut and export what is open, wait for the store's comparison, verify every file.

        ``say`` gets a line for each of these steps. ``last`` is what the symbols' collectors said last, by id.
        """
        say("ending: closing sockets and segments")
        problems = self._end_collectors()
        say("ending: exporting what is not exported yet")
        problems += self._export_rest()
        self.periods.scan()
        say("ending: comparing with ClickHouse")
        compared, store_problem = self._await_store(say)
        say("ending: verifying the files")
        ours = self._answered_for()
        files, verify_problems = verify_files(self.config, ours, {i: view.away for i, view in last.items()})
        problems += verify_problems
        problems += [f"{k.name}: {k.given_up or k.refused}" for k in self._collectors if k.given_up or k.refused]
        for symbol_id in self.periods.silent():
            reason = last[symbol_id].why if symbol_id in last else ""
            problems.append(f"{symbol_id}: no market frame was received" + (f" ({reason})" if reason else ""))
        problems += list(self.periods.unreadable.values())
        lines = [
            line_of(
                segment, compared.get(segment.id, {}).get(segment.path.name), files.get(segment.file), store_problem
            )
            for segment in ours
        ]
        problems += self._end_store()
        return Closing(lines, problems + dead_letters(lines, self._dead_letters))

    def _dead_letters(self, line: Line) -> Letters:
        """Those of a period, by its file; what is wrong with the file itself is said elsewhere."""
        from mexc_pipeline.verify.deadletters import in_file

        try:
            return in_file(self.config.export_dir / line.file, line.symbol)
        except (UserError, OSError) as error:
            log.info("dead letters not looked at", extra={"fields": {"file": line.file, "why": str(error)}})
            return Letters()

    def _answered_for(self) -> list[SegmentInfo]:
        return [segment for segment in self.periods.ours() if segment.id not in self._foreign]

    def close(self) -> None:
        """End what still runs: store in order, everything else at once."""
        self._end_store()
        for child in self.stop.children:
            if child.poll() is None:
                child.kill()
                child.wait(5.0)

    def _end_collectors(self) -> list[str]:
        """A line for each symbol of which something received may be in no file, for how its collectors ended."""
        for keeper in self._collectors:
            keeper.tell_to_end()
        problems: list[str] = []
        for keeper in self._collectors:
            how = keeper.wait(COLLECTOR_END_S)
            if keeper.ends:
                ends = ", ".join(f"{times} × {end}" if times > 1 else end for end, times in keeper.ends.items())
                problems.append(
                    f"{keeper.name}: its collector ended by itself ({ends}): what it had received and not committed is "
                    "in no file, nor what was sent until it ran again; its log says why"
                )
            if how is not None:
                problems.append(
                    f"{keeper.name}: its collector {how}: some of what it had received may be in no file; its "
                    "log says how much"
                )
        return problems

    def _end_store(self) -> list[str]:
        """A line where it was not in order; what it had loaded was compared before. Nothing where it has ended."""
        self._store.tell_to_end()
        how = self._store.wait(STORE_END_S)
        if how is None:
            return []
        return [f"store: it {how}: statistics and log entries of the end may be missing; its log says why"]

    def _export_rest(self) -> list[str]:
        if self._export is not None:
            self._export.wait(EXPORT_S)
            self._export = None
        ids = [symbol.id for symbol in self.config.symbols if symbol.id not in self._foreign]
        if not ids:
            return []
        pauses = Backoff(random.Random(), first_s=1.0)  # noqa: S311 - spreads tries, keeps no secret
        deadline = time.monotonic() + EXPORT_AGAIN_S
        while True:
            try:
                status = self._child("export", ["export", "--once", *ids]).wait(EXPORT_S)
            except NOT_NOW as error:
                why = str(error)
            else:
                if not status:
                    return []
                if status > 0 and status != REFUSED:  # it has said what it could not export: no other try would
                    return [f"export --once: {how_it_ended(status)}"]
                why = _REFUSED if status == REFUSED else how_it_ended(status)
            pause = pauses.next_s()
            if time.monotonic() + pause > deadline:
                return [f"export --once: {why}; what has no file yet stays in the spool for the next export"]
            time.sleep(pause)  # nobody announces that a configuration was mended: it is tried

    def _await_store(self, say: Callable[[str], None]) -> tuple[dict[str, dict[str, Any]], str | None]:
        """What store compared, per symbol and segment file; waits as long as that makes progress.

        Store remembers what it compared itself, of the newest segments. The rest is in ``export_log``.
        """
        wanted = {
            (found.id, found.path.name): (found.file, found.digest)
            for found in self._answered_for()
            if found.rows and found.state == "exported"
        }
        compared: dict[str, dict[str, Any]] = {}
        problem: str | None = None
        progress: object = None
        moved = said = time.monotonic()
        logs_read = -LOGS_S
        while True:
            self._tend(self._store)
            try:
                answer = store_status(self.config, STORE_ANSWER_S)
            except ControlError as error:
                problem = self._store.given_up or self._store.waits or str(error)
            else:
                problem = None if answer.get("reachable") else f"it does not answer: {answer.get('error') or '?'}"
                unknown = self._add_compared(wanted, compared)
                if time.monotonic() - logs_read > LOGS_S:
                    unknown += self._add_logged(wanted, compared)
                    logs_read = time.monotonic()
                problem = problem or "; ".join(unknown) or None
                loaded_seq = {symbol_id: loaded.get("loaded_seq") for symbol_id, loaded in answer["symbols"].items()}
                state = (sum(len(found) for found in compared.values()), loaded_seq)
                if state != progress:
                    progress, moved = state, time.monotonic()
            if all(name in compared.get(symbol_id, {}) for symbol_id, name in wanted):
                return compared, problem
            if self._store.given_up or time.monotonic() - moved > STORE_SILENT_S:
                return compared, problem or "store made no progress"
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                done = sum(name in compared.get(symbol_id, {}) for symbol_id, name in wanted)
                say(f"ending: {done} of {len(wanted)} periods compared" + (f"; {problem}" if problem else ""))
            time.sleep(TICK_S)  # nobody announces progress: the store is asked

    def _add_compared(self, wanted: Iterable[_Name], compared: dict[str, dict[str, Any]]) -> list[str]:
        """Add what store remembers of the segments that are not known to be right yet; says what it could not be
        asked."""
        asked: dict[str, list[str]] = {}
        for symbol_id, name in wanted:
            if not compared.get(symbol_id, {}).get(name, {}).get("ok"):
                asked.setdefault(symbol_id, []).append(name)
        unknown: list[str] = []
        for symbol_id, names in asked.items():
            try:
                compared.setdefault(symbol_id, {}).update(store_compared(self.config, symbol_id, names))
            except ControlError as error:
                unknown.append(f"{symbol_id}: {error}")
        return unknown

    def _add_logged(self, wanted: Mapping[_Name, tuple[str, str]], compared: dict[str, dict[str, Any]]) -> list[str]:
        """Add from ``export_log`` what store does not remember; what it does remember is newer. Says what it could not
        be asked."""
        missing = {key: file for key, file in wanted.items() if key[1] not in compared.get(key[0], {})}
        unknown: list[str] = []
        for symbol_id in sorted({symbol_id for symbol_id, _ in missing}):
            try:
                before = logged(self.config, symbol_id)
            except ControlError as error:
                unknown.append(f"{symbol_id}: {error}")
                continue
            for (of, name), file in missing.items():
                if of == symbol_id and file in before:
                    compared.setdefault(symbol_id, {})[name] = dict(before[file].compared)
        return unknown


def verify_files(
    config: Config, ours: Sequence[SegmentInfo], away: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], list[str]]:
    """Re-prove the files of these segments, each from itself, from one to the next, and against the spool.

    What is wrong per file name, and all of it as lines, with what is verified and not as it should be. ``away``: what a
    symbol's collector said last of channels that stay away; where it said nothing, the files do. Files of earlier runs
    are not proven: ``verify exports`` does. What they, or the spool, say they hold is no hole before or between these.
    """
    from mexc_pipeline.verify.exports import NEWEST, against_spool, by_rows, continuity, mistimed, prove
    from mexc_pipeline.verify.exports import away as told_away
    from mexc_pipeline.verify.newest import unreadable

    wanted = {segment.file for segment in ours if segment.rows and segment.state == "exported"}
    files: dict[str, str] = {}
    problems: list[str] = []
    for symbol in config.symbols:
        files_of = exported_files(config.export_dir, symbol.id)
        proofs = by_rows(prove(name, path) for name, path in files_of if path.name in wanted)
        spooled = [segment for segment in ours if segment.id == symbol.id and segment.state == "exported"]
        of_files = [proof.finding for proof in proofs] + against_spool(proofs, spooled, time.time_ns())
        for finding in of_files:
            if not finding.ok:
                files.setdefault(finding.subject, finding.text)
        # A hole is no fault of the files on either side of it.
        following = continuity(proofs, in_others=partial(_are_held, config, symbol.id))
        problems += [f"{f.subject}: {f.text}" for f in of_files + following if not f.ok]
        problems += [f"{symbol.id}: {line}; {Kind.TIMES.advice}" for line in mistimed(proofs)]
        sound = [proof for proof in proofs if not proof.wrong]
        try:
            told = away.get(symbol.id) or told_away(sound)
            problems += [f"{symbol.id}: {line}; {Kind.CHANNEL.advice}" for line in told]
            unread = unreadable([proof.path for proof in sound], NEWEST)
            problems += [f"{symbol.id}: {line}; {Kind.UNREADABLE.advice}" for line in unread]
        except (UserError, OSError) as error:  # they were read a moment ago
            problems.append(f"{symbol.id}: its newest frames not looked at: {error}")
    return files, problems


def _are_held(config: Config, symbol_id: str, first_seq: int, last_seq: int) -> bool:
    """Whether files or segments say that they have all these rows of a symbol."""
    from mexc_pipeline.verify.acknowledge import stretches_of

    spooled = [(segment.first_seq, segment.last_seq) for segment in in_order(config.spool_dir / symbol_id).readable]
    for first, last in sorted([*stretches_of(config, symbol_id), *spooled]):
        if first <= first_seq <= last:
            first_seq = last + 1
    return first_seq > last_seq
