"""Two symbols recorded beside each other, and whatever one of them has on the disk damaged: the other one is whole, and
the damaged one goes on being recorded. Of the whole one, files that its collector holds open are removed meanwhile."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from faults.bench import LATE_NS, SYMBOLS, Bench, Outcome, bench, end, pause
from faults.oracle import Row, Verdict, check_frames, check_order, check_witness, read_files
from faults.scenarios.segments import alter
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.waiting import until

DAMAGES = 13
PERIOD_S = 2
HUGE = 1 << 33
"""Bytes of a file that has grown without blocks."""
WHOLE, DAMAGED = "eth", "btc"


def neighbours(folder: Path, seed: int) -> Outcome:
    """One damage after another to a collector that was killed; it is started again each time, an export runs beside."""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT", "ETH_USDT"), rate=100.0, seed=seed)) as sim,
        bench(folder, sim, rng, ids=(WHOLE, DAMAGED)) as place,
    ):
        place.witness.start()
        whole = place.fork("collect", WHOLE)
        place.recorded(whole, 10, WHOLE)
        for _ in range(DAMAGES):
            damaged = place.fork("collect", DAMAGED)
            place.recorded(damaged, 10, DAMAGED)
            damaged.kill()
            damaged.wait(10)
            artefact, path = _artefact(place, rng)
            outcome.happened(f"{artefact} {damage(path, rng)}")
            outcome.happened(_take_away(place, rng))
            place.fork("export").wait(60)
        damaged = place.fork("collect", DAMAGED)
        place.recorded(damaged, 20, DAMAGED)
        outcome.expect(whole.poll() is None, f"collector {WHOLE} ended: {place.said()[-500:]}")
        for process in (damaged, whole):
            status = end(process)
            outcome.expect(status == 0, f"a collector ended with {status}: {place.said()[-500:]}")
        judge_neighbours(place, outcome)
    return outcome


def _take_away(place: Bench, rng: random.Random) -> str:
    """Something that the collector of the other one holds open loses its name. Only the segment of the running period
    is held; near its edge it may be closed already, and then it would be a loss."""
    left = PERIOD_S - time.time() % PERIOD_S
    if left < PERIOD_S / 2:
        pause(left)
    spool = place.spool / WHOLE
    newest = until(lambda: _running(spool), 30, f"a segment of the running period of {WHOLE}")
    parts = {
        "the segment": newest,
        "the log": newest.with_name(newest.name + "-wal"),
        "the lock": spool / "lock",
    }
    name, path = rng.choice(list(parts.items()))
    path.unlink(missing_ok=True)
    return f"{name} in use removed"


def _running(spool: Path) -> Path | None:
    """The segment of the running period, once there is one and its edge is not near."""
    now = time.time()
    path = spool / time.strftime("%Y%m%d%H%M%S.sqlite", time.gmtime(now // PERIOD_S * PERIOD_S))
    return path if now % PERIOD_S < PERIOD_S / 2 and path.exists() else None


def _artefact(place: Bench, rng: random.Random) -> tuple[str, Path]:
    """Something that the symbol has, or could have, on the disk."""
    spool = place.spool / DAMAGED
    segments = sorted(spool.glob("*.sqlite"), key=lambda path: path.stat().st_mtime_ns)
    newest = segments[-1] if segments else spool / "2026112500.sqlite"
    files = sorted(place.exports.glob(f"{DAMAGED}*.parquet"))
    things = {
        "the newest segment": newest,
        "a segment": rng.choice(segments or [newest]),
        "a write-ahead log": newest.with_name(newest.name + "-wal"),
        "a log's index": newest.with_name(newest.name + "-shm"),
        "pending rows": spool / "pending.db",
        "the log of pending rows": spool / "pending.db-wal",
        "the lock": spool / "lock",
        "the reserve": spool / "reserve",
        "the control socket": place.data / "control" / f"{DAMAGED}.sock",
        "an export under way": place.exports / f".{DAMAGED}20261125000000.parquet.tmp",
        "a file": rng.choice(files or [place.exports / f"{DAMAGED}20261125000000.parquet"]),
        "notes of swaps": place.data / "store" / f"{DAMAGED}.swaps",
    }
    return rng.choice(list(things.items()))


ODD = ("a folder", "a FIFO", "a link to nowhere")


def damage(path: Path, rng: random.Random, also: Sequence[str] | None = None) -> str:
    """Whatever can stand there instead; a lock that is held is damaged in its content: what it locks is the file
    itself. ``also``: what may stand there that is no file."""
    path.parent.mkdir(exist_ok=True)
    if path.is_file() and path.stat().st_size and rng.random() < 0.5:
        return alter(path, rng)
    kinds = ["emptied", "garbage", "huge"]
    if also is None:
        also = ODD if path.name != "lock" else ()
    kind = rng.choice([*kinds, *also])
    if path.is_dir():
        shutil.rmtree(path)
    elif path.name != "lock" or kind in ODD:
        path.unlink(missing_ok=True)
    match kind:
        case "emptied":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(rng.randbytes(rng.randrange(1, 100_000)))
        case "huge":
            path.touch()
            os.truncate(path, HUGE)
        case "a folder":
            path.mkdir()
            (path / "something").touch()
        case "a FIFO":
            os.mkfifo(path)
        case _:
            path.symlink_to("nowhere")
    return kind


def judge_neighbours(place: Bench, outcome: Outcome) -> None:
    """Files and rows of the whole symbol are right; of the damaged one nothing is there that was not sent."""
    place.witness.stop()
    place.run("export", "--once")
    _, said = place.run("verify", "exports", "--json")
    findings = json.loads(next(line for line in said.splitlines() if line.startswith('{"ok"')))["exports"]["findings"]
    wrong = [f for f in findings if not f["ok"] and f["symbol"] != DAMAGED]
    outcome.expect(not wrong, f"verify exports: {wrong[:3]}")
    status, said = place.run("ledger")
    outcome.expect("unexpected" not in said, f"ledger ended with {status}: {said[-300:]}")
    until(lambda: not place.sim.open_connections, 20, "the end of all connections")
    verdict = Verdict()
    rows = read_files(place.exports, WHOLE, verdict)
    verdict.rows = len(rows)
    check_order(rows, verdict)
    mine = [c for c in place.sim.connections if place._is_of(c.number, SYMBOLS[WHOLE])]
    sent = [f for c in mine for f in place.sim.sent_on(c.number)]
    late_ns = LATE_NS + 2 * place.witness.longest_gap_ns
    served = place.sim.specifications(SYMBOLS[WHOLE])
    check_frames(rows, mine, sent, SYMBOLS[WHOLE], verdict, late_ns=late_ns, served=served)
    check_witness(rows, place.witness.rows, verdict)
    outcome.expect(bool(rows), f"{WHOLE}: nothing was recorded at all")
    outcome.verdict.add(verdict)
    _judge_damaged(place, outcome)


def _judge_damaged(place: Bench, outcome: Outcome) -> None:
    """Rows may be missing, and files that were damaged themselves are another scenario's; what is in the others was
    sent, and stands there once."""
    rows: list[Row] = []
    for path in sorted(place.exports.glob(f"{DAMAGED}*.parquet")):
        alone = place.folder / "alone"
        shutil.rmtree(alone, ignore_errors=True)
        alone.mkdir()
        if not path.is_file() or path.stat().st_size >= HUGE:
            continue
        shutil.copy2(path, alone)
        verdict = Verdict()
        try:
            found = read_files(alone, DAMAGED, verdict)
        except (OSError, ValueError, KeyError):
            continue  # no Parquet file any more
        if not verdict.violations:
            rows += found
    sent = {f.payload for c in place.sim.connections for f in place.sim.sent_on(c.number)}
    strange = [row.seq for row in rows if row.mt in ("t", "d", "dp") and row.m not in sent]
    outcome.expect(not strange, f"{DAMAGED}: rows that nobody sent, seq {strange[:5]}")
    twice = [seq for seq, n in Counter(row.seq for row in rows).items() if n > 1]
    outcome.expect(not twice, f"{DAMAGED}: rows twice, seq {twice[:5]}")
    outcome.notes["rows of the damaged one"] = len(rows)
