"""A whole ``run`` on a machine that has no file handle, process or thread to give for a while: nothing ends, what is
wanted is tried again, and rows, files and the end are as without it."""

from __future__ import annotations

import contextlib
import json
import random
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from faults.bench import SYMBOLS, Bench, Outcome, Process, bench, pause, settings_of
from mexc_pipeline.simulator import Fault, Simulator
from support.waiting import until

EPISODES = 7
PERIOD_S = 10
SHORTEST_S, LONGEST_S = 1.0, 8.0
AT_END_S = 3.0
"""A collector that is told to end has five seconds."""
SPARE = (0, 0, 0, 1, 2, 4, 7)
"""How many handles, or threads, there are still to be had."""
RUN_END_S = 180.0
PIDS = Path("/sys/fs/cgroup/pids")
"""Where limits on the number of processes and threads are made that bind root too (cgroup v1, else v2)."""
TAKEN_FOR_DAMAGE = ("set apart", "differs from", "loading it anew", "loading it again", "refused and skipped")
"""What the log says of a table, or a row, that is not as it should be: here all of them are. But for a current table
whose insert was broken off: it has a part of those rows, as such a table notes them piece by piece, and is rightly
loaded anew; so is one of which that is noticed when it is compared at its end, with fewer rows than its segment."""
CUTS = (
    Fault(kind="reset"),
    Fault(kind="abort"),
    Fault(kind="close"),
    Fault(kind="refuse_connect", seconds=1.5),
    Fault(kind="refuse_handshake", seconds=1.5, value="503"),
)


class _Tasks:
    """A group of processes whose number, with that of their threads, can be limited; where the system makes none it
    does nothing."""

    def __init__(self, name: str) -> None:
        within = PIDS if PIDS.is_dir() else PIDS.parent
        self._folder: Path | None = within / name
        try:
            self._folder.mkdir()
            (self._folder / "pids.max").write_text("max")
        except OSError:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            self._folder = None

    @property
    def can_be_limited(self) -> bool:
        return self._folder is not None

    def add(self, pid: int) -> None:
        if self._folder is not None:
            (self._folder / "cgroup.procs").write_text(str(pid))

    def limit(self, spare: int | None) -> None:
        """To so many more than there are now; None: to no number."""
        if self._folder is not None:
            now = int((self._folder / "pids.current").read_text())
            (self._folder / "pids.max").write_text("max" if spare is None else str(now + spare))

    def refusals(self) -> int:
        if self._folder is None:
            return 0
        return int((self._folder / "pids.events").read_text().split()[1])

    def close(self) -> None:
        if self._folder is not None:
            until(lambda: not (self._folder / "cgroup.procs").read_text(), 20, "the end of a run's processes")  # type: ignore[operator]
            self._folder.rmdir()


class _Machine:
    """A ``run``, its processes by name, and what they may have."""

    def __init__(self, place: Bench, run: Process, tasks: _Tasks) -> None:
        self.place, self.run, self._tasks = place, run, tasks
        self._usual = resource.getrlimit(resource.RLIMIT_NOFILE)

    def processes(self) -> dict[int, str]:
        """Pid and name (``run``, ``store``, ``export``, a symbol's id) of those that are there."""
        found = {self.run.pid: "run"}
        for task in Path(f"/proc/{self.run.pid}/task").glob("*"):
            with contextlib.suppress(OSError):
                for pid in (task / "children").read_text().split():
                    args = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                    found[int(pid)] = next((a for a in args[3:] if a in ("store", "export", *self.place.ids)), "run")
        return found

    @contextlib.contextmanager
    def scarce(self, whom: str, handles: int | None, tasks: int | None) -> Iterator[None]:
        """While it lasts the named one, or ``all``, gets so many more handles than it has, and all of them together so
        many more processes and threads. None: as many as they like."""
        if tasks is not None:
            self._tasks.limit(tasks)
        for pid, name in self.processes().items() if handles is not None else ():
            if whom in (name, "all"):
                self._handles(pid, handles)
        try:
            yield
        finally:
            self._tasks.limit(None)
            # The first is whose children the others are: from then on none begins with less.
            for pid in self.processes():
                self._handles(pid, None)

    def _handles(self, pid: int, spare: int | None) -> None:
        soft, hard = self._usual
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if spare is not None:
                held = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
                free = (fd for fd in range(soft) if fd not in held)
                soft = next(fd for n, fd in enumerate(free) if n == spare)  # the first that cannot be had
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def scarce(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """One shortage after another, at a random moment or over a period's edge, in half of them while connections are
    cut; the last one, in half of the runs, while it ends."""
    rng = random.Random(seed)
    outcome = Outcome()
    ids = tuple(SYMBOLS)[: rng.choice((2, 3))]
    settings = replace(settings_of(seed, rng.choice((60.0, 200.0))), symbols=tuple(SYMBOLS[i] for i in ids))
    with (
        Simulator(settings) as sim,
        contextlib.closing(_Tasks(f"{folder.name}")) as tasks,
        bench(folder, sim, rng, ids=ids, period=f"{PERIOD_S}s") as place,
    ):
        place.all_trades = True
        place.witness.start()
        run = place.start("run")
        tasks.add(run.pid)
        machine = _Machine(place, run, tasks)
        for symbol_id in ids:
            place.recorded(run, 10, symbol_id)
        for _ in range(round(EPISODES * size)):
            _episode(machine, rng, outcome, tasks)
            _goes_on(machine, outcome)
        sim.clear_faults()
        status = _end(machine, rng, outcome, tasks)
        outcome.expect(status == 0, f"run ended with {status}: {place.said()[-1500:]}")
        blamed = [said for said in _said(place) if any(words in said for words in TAKEN_FOR_DAMAGE)]
        outcome.expect(not blamed, f"what could not be read for a while is taken for damaged: {blamed[:3]}")
        outcome.notes |= {"symbols": len(ids), "processes or threads refused": tasks.refusals()}
        place.judge(outcome)
    return outcome


def _said(place: Bench) -> Iterator[str]:
    short = set[str]()
    for line in place.log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            said = json.loads(line)
            if said.get("rows", 0) < said.get("segment_rows", 0):
                short.add(said["table"])
            if said.get("table") not in short:
                yield f"{said['msg']}: {said.get('table')} {said.get('error')}"


def _drawn(rng: random.Random, tasks: _Tasks) -> tuple[str, int | None, int | None]:
    """Of what there is how much."""
    what = rng.choice(("handles", "handles", "tasks", "both")) if tasks.can_be_limited else "handles"
    return (
        {"handles": "handles", "tasks": "processes or threads", "both": "handles, processes or threads"}[what],
        None if what == "tasks" else rng.choice(SPARE),
        None if what == "handles" else rng.choice(SPARE),
    )


def _episode(at: _Machine, rng: random.Random, outcome: Outcome, tasks: _Tasks) -> None:
    what, handles, threads = _drawn(rng, tasks)
    whom = "all" if handles is None else rng.choice(("run", "store", "export", rng.choice(at.place.ids), "all"))
    length_s = rng.uniform(SHORTEST_S, LONGEST_S)
    name = f"no {what} for {'a collector' if whom in at.place.ids else whom}"
    if whom == "export":
        until(lambda: "export" in at.processes().values(), 3 * PERIOD_S, "an export")
        pause(rng.uniform(0.0, 0.3))
    elif rng.random() < 0.5:
        time.sleep((-rng.uniform(0.0, length_s) - time.time()) % PERIOD_S)
        name += " over an edge"
    with at.scarce(whom, handles, threads):
        if rng.random() < 0.5:
            before_s = rng.uniform(0.0, length_s / 2)
            pause(before_s)
            at.place.sim.inject(rng.choice(CUTS))
            name += ", connections cut"
            length_s -= before_s
        pause(length_s)
    outcome.happened(name)


def _goes_on(at: _Machine, outcome: Outcome) -> None:
    outcome.expect(at.run.poll() is None, f"run ended: {at.place.said()[-800:]}")
    before = {i: (at.place.status(i) or {}).get("last_seq", 0) for i in at.place.ids}
    for symbol_id, seq in before.items():

        def more(symbol_id: str = symbol_id, seq: int = seq) -> bool:
            status = at.place.status(symbol_id)
            return status is not None and status["last_seq"] > seq + 10

        until(more, 60, f"recording of {symbol_id} going on")
    until(lambda: at.place.status("store") is not None, 60, "the store's answer")


def _end(at: _Machine, rng: random.Random, outcome: Outcome, tasks: _Tasks) -> int | None:
    """SIGTERM, and the exit status; None where it does not end."""
    with contextlib.ExitStack() as shortage:
        if rng.random() < 0.5:
            what, handles, threads = _drawn(rng, tasks)
            whom = "all" if handles is None else rng.choice(("run", "store", "all"))
            shortage.enter_context(at.scarce(whom, handles, threads))
            outcome.happened(f"no {what} for {whom} at the end")
        at.run.send_signal(signal.SIGTERM)
        pause(rng.uniform(0.0, AT_END_S))
    try:
        return at.run.wait(RUN_END_S)
    except subprocess.TimeoutExpired:
        return None
