"""Two symbols, a store and its engine, all of them running, and one thing after another of the one symbol's or of the
engine's damaged or replaced under them: the other symbol's rows, files, tables and answers are whole throughout."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import stat
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from faults.bench import Bench, Outcome, Process, bench, end, pause
from faults.oracle import Verdict, read_files
from faults.scenarios.clickhouse import LOADED_S, LOGGED, answers, query, spoil
from faults.scenarios.neighbours import DAMAGED, HUGE, WHOLE, judge_neighbours
from faults.scenarios.segments import alter
from mexc_pipeline import read
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.waiting import until

EPISODES = 12
PERIOD_S = 4
FLOOD = 300
STOP_S = 15
"""What the store's unit gives it to end (``TimeoutStopSec``)."""
NODES = ("a FIFO", "a folder", "a device", "a link to nowhere", "a link to a folder", "a socket", "huge", "garbage")


class _Place:
    """What runs, so that a part can be started again."""

    def __init__(self, bench: Bench, rng: random.Random, outcome: Outcome) -> None:
        self.bench, self.rng, self.outcome = bench, rng, outcome
        self.whole = bench.fork("collect", WHOLE)
        self.damaged = bench.fork("collect", DAMAGED)
        self.store: Process = bench.start("store")
        self.held: list[socket.socket] = []


def together(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """Each damage is followed by an export, a look at the other symbol by all who can look, and its rows going on."""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT", "ETH_USDT"), rate=60.0, seed=seed)) as sim,
        bench(
            folder,
            sim,
            rng,
            ids=(WHOLE, DAMAGED),
            period=f"{PERIOD_S}s",
            clickhouse='[clickhouse]\nmode = "embedded"\n',
        ) as place,
    ):
        place.witness.start()
        all_of_it = _Place(place, rng, outcome)
        place.recorded(all_of_it.whole, 10, WHOLE)
        place.recorded(all_of_it.damaged, 10, DAMAGED)
        answers(place)
        kinds: list[Callable[[_Place], str]] = [_node, _node, _file, _socket, _flood, _engine]
        try:
            for _ in range(round(EPISODES * size)):
                outcome.happened(rng.choice(kinds)(all_of_it))
                place.fork("export").wait(120)
                _look(all_of_it)
                _goes_on(all_of_it)
        finally:
            for client in all_of_it.held:
                client.close()
        _conclude(all_of_it)
    return outcome


def _names(place: Bench) -> list[Path]:
    """Names that something of the symbol will want in the next seconds, or has."""
    edge = (int(time.time()) // PERIOD_S + 1) * PERIOD_S
    period = time.strftime("%Y%m%d%H%M%S", time.gmtime(edge))
    spool, control = place.spool / DAMAGED, place.data / "control"
    return [
        *(spool / f"{period}.sqlite{end}" for end in ("", "-wal", "-shm", "-journal", ".new", ".new-journal")),
        *(place.exports / name for name in (f"{DAMAGED}{period}.parquet", f".{DAMAGED}{period}.parquet.tmp")),
        place.exports / f"{DAMAGED}{period}.part2.parquet",
        spool / "reserve",
        spool / "pending.db",
        spool / "unknown",
        place.data / "store" / f"{DAMAGED}.swaps",
        place.data / "unknown",
        control / "unknown.sock",
        control / "attempts" / "unknown",
        place.data / "clickhouse" / "unknown",
    ]


def _node(at: _Place) -> str:
    path, kind = at.rng.choice(_names(at.bench)), at.rng.choice(NODES)
    if not path.parent.is_dir():
        path = at.bench.spool / DAMAGED / "reserve"
    _put(path, kind, at.rng)
    pause(at.rng.uniform(0.0, PERIOD_S))
    where = path.name.replace(path.name.partition("20")[2] or "\0", "…", 1) if "20" in path.name else path.name
    return f"{kind} as {where}"


def _put(path: Path, kind: str, rng: random.Random) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    match kind:
        case "a FIFO":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
            (path / "something").touch()
        case "a device":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        case "a link to nowhere":
            path.symlink_to("nowhere")
        case "a link to a folder":
            path.symlink_to(path.parent)
        case "a socket":
            with socket.socket(socket.AF_UNIX) as made, _at(path.parent):
                made.bind(path.name)
        case "huge":
            path.touch()
            os.truncate(path, HUGE)
        case _:
            path.write_bytes(rng.randbytes(rng.randrange(1, 50_000)))


@contextlib.contextmanager
def _at(folder: Path):  # type: ignore[no-untyped-def]
    """A socket's name has no more than 107 bytes."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _file(at: _Place) -> str:
    """An exported file of the one symbol, while the other one's are read."""
    files = [p for p in sorted(at.bench.exports.glob(f"{DAMAGED}*.parquet")) if p.is_file() and not p.is_symlink()]
    files = [p for p in files if 0 < p.stat().st_size < HUGE]
    if not files:
        return _flood(at)
    path = at.rng.choice(files)
    if at.rng.random() < 0.6:
        return f"a file {alter(path, at.rng)}"
    kind = at.rng.choice(NODES)
    _put(path, kind, at.rng)
    return f"{kind} in the place of a file"


def _socket(at: _Place) -> str:
    name = at.rng.choice((f"{DAMAGED}.sock", "store.sock"))
    path = at.bench.data / "control" / name
    kind = at.rng.choice(("removed", *NODES))
    if kind == "removed":
        path.unlink(missing_ok=True)
    else:
        _put(path, kind, at.rng)
    return f"{name}: {kind}"


def _flood(at: _Place) -> str:
    """Clients that say nothing, or nonsense, and stay."""
    name = at.rng.choice((f"{DAMAGED}.sock", "store.sock", f"{WHOLE}.sock"))
    for _ in range(FLOOD):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            with _at(at.bench.data / "control"):
                client.connect(name)
            if at.rng.random() < 0.5:
                client.send(at.rng.randbytes(200))
        except OSError:  # full, or no socket any more
            client.close()
            break
        at.held.append(client)
    return f"{name}: flooded"


def _engine(at: _Place) -> str:
    """The engine's folder, its store killed: files of it spoiled, or something else in their places."""
    at.store.kill()
    at.store.wait(10)
    where = at.bench.data / "clickhouse"
    files = [p for p in sorted(where.rglob("*")) if p.is_file() and not p.is_symlink() and 0 < p.stat().st_size < HUGE]
    kind = at.rng.choice(("spoiled", "spoiled", "a node", "gone"))
    if kind == "gone" and where.is_dir():
        where.rename(at.bench.folder / f"gone-{at.rng.getrandbits(40)}")
    for path in at.rng.sample(files, min(len(files), at.rng.choice((1, 3, 20)))) if kind != "gone" else ():
        if kind == "spoiled":
            spoil(path, at.rng)
        else:
            _put(path, at.rng.choice(NODES), at.rng)
    at.store = at.bench.start("store")
    return f"the engine's folder: {kind}"


def _look(at: _Place) -> None:
    """Whoever looks at both finds the whole one whole."""
    place, outcome = at.bench, at.outcome
    said = at.rng.choice(("verify", "ledger", "read", "status"))
    match said:
        case "verify":
            _, text = place.run("verify", "exports", "--json", timeout_s=120)
            lines = [line for line in text.splitlines() if line.startswith('{"ok"')]
            outcome.expect(bool(lines), f"verify exports --json says {text[-400:]}")
            found = json.loads(lines[0])["exports"]["findings"] if lines else []
            wrong = [f for f in found if not f["ok"] and f["symbol"] == WHOLE]
            outcome.expect(not wrong, f"verify exports: {wrong[:3]}")
        case "ledger":
            _, text = place.run("ledger", timeout_s=120)
            outcome.expect("Traceback" not in text and "unexpected" not in text, f"ledger: {text[-400:]}")
        case "status":
            _, text = place.run("status", timeout_s=120)
            outcome.expect("Traceback" not in text and "ETH_USDT" in text, f"status: {text[-400:]}")
        case _:
            rows = read_files(place.exports, WHOLE, Verdict())
            if rows:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    have = read.frames(WHOLE, export_dir=place.exports).seq.tolist()
                outcome.expect(have[: len(rows)] == [r.seq for r in rows], "read.frames of the whole one differs")
    _note(outcome, f"looked at by {said}")


def _goes_on(at: _Place) -> None:
    at.outcome.expect(at.whole.poll() is None, f"collector {WHOLE} ended: {at.bench.said()[-500:]}")
    seen = at.bench.witness.count
    until(lambda: at.bench.witness.count > seen + 10, 60, f"rows of {WHOLE} going on")


def _conclude(at: _Place) -> None:
    """Each part started again finds its place, the other symbol's tables come to hold what its files hold."""
    place, outcome = at.bench, at.outcome
    with contextlib.suppress(ProcessLookupError):
        end(at.damaged, 90)
    try:
        end(at.store, STOP_S)
    except subprocess.TimeoutExpired:  # an engine whose folder is altered beneath it may stand still for good
        _note(outcome, "the store killed, as systemd would")
        at.store.kill()
        at.store.wait(STOP_S)
    except ProcessLookupError:
        pass
    at.damaged, at.store = place.fork("collect", DAMAGED), place.start("store")
    place.recorded(at.damaged, 20, DAMAGED)
    for process in (at.damaged, at.whole):
        status = end(process)
        outcome.expect(status == 0, f"a collector ended with {status}: {place.said()[-500:]}")
    judge_neighbours(place, outcome)
    answers(place)
    files = {path.name for path in place.exports.glob(f"{WHOLE}*.parquet")}

    def verified() -> set[str]:
        with contextlib.suppress(AssertionError):
            return {str(row[0]) for row in query(place, LOGGED) if row[4] == "verified"}
        return set()

    try:
        until(lambda: verified() >= files, LOADED_S, f"every file of {WHOLE} in export_log")
    except AssertionError:
        outcome.expect(False, f"not verified in export_log: {sorted(files - verified())}; {place.said()[-1000:]}")
    status = end(at.store, 90)
    outcome.expect(status == 0, f"the store ended with {status}: {place.said()[-500:]}")


def _note(outcome: Outcome, what: str, count: int = 1) -> None:
    outcome.notes[what] = outcome.notes.get(what, 0) + count
