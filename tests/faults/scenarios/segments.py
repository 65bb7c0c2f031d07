"""Segments of the spool and their write-ahead logs altered behind the recorder's back, before they are exported."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from faults.bench import Bench, Outcome, bench, end, pause
from faults.oracle import NAMES, Verdict, read_files
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.waiting import until

ALTERATIONS = 14
IN_USE = 3
UNREAD = (*range(36, 40), *range(52, 56))
"""Bytes of a database's header, the number of free pages and whether pages move, that only who writes goes by."""
IN_ROWS = (
    "INSERT INTO rows SELECT max(seq) + 1, max(rx), 1, 1, x'7b7d' FROM rows",
    "DROP TABLE rows",
    "UPDATE meta SET value = replace(value, 'btc', 'eth') WHERE key = 'id'",
    "UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE key = 'symbol'",
)
LOGS = 4
SMALL = {"altered: bit", "altered: bytes"}
NO_BOUND_NS = 10**18
"""What a write-ahead log loses with its bytes is a tail of any length."""


def segments(folder: Path, seed: int) -> Outcome:
    """Closed segments: none may become a file that holds anything but what was recorded, none may keep others back."""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=200.0, seed=seed)) as sim,
        bench(folder, sim, rng) as place,
    ):
        place.witness.start()
        collector = place.fork("collect", "btc")
        until(lambda: len(list(place.spool.glob("btc/*.sqlite"))) > 5, 60, "some segments")
        end(collector)
        pristine = place.folder / "pristine"
        shutil.copytree(place.spool, pristine)
        place.settle(outcome)
        wanted = {path.name: _rows(path) for path in place.exports.glob("*.parquet")}
        for _ in range(ALTERATIONS):
            shutil.rmtree(place.spool)
            shutil.copytree(pristine, place.spool)
            shutil.rmtree(place.exports)
            place.exports.mkdir()
            _alter_one(place, rng, wanted, outcome)
    _under_its_writer(folder / "in-use", seed, outcome)
    return outcome


def _under_its_writer(folder: Path, seed: int, outcome: Outcome) -> None:
    """The open segment, while it is written to: where it can be read nothing is lost; where it is not what was written
    it is set apart, and recording goes on."""
    rng = random.Random(f"in use {seed}")
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=200.0, seed=seed)) as sim,
        bench(folder, sim, rng, period="5s") as place,
    ):
        place.witness.start()
        collector = place.fork("collect", "btc")
        for n in range(1, IN_USE + 1):
            place.recorded(collector, 40 * n)
            _damage_in_use(place, "replaced", lambda path, inode: _flip_in_header(path, inode, rng))
            outcome.happened("the header of a segment in use altered")
        outcome.expect(end(collector) == 0, f"the collector ended otherwise: {place.said()[-500:]}")
        place.settle(outcome)
        before = {path.name: _rows(path) for path in place.exports.glob("*.parquet")}
        collector = place.fork("collect", "btc")
        for n in range(1, IN_USE + 1):
            place.recorded(collector, 40 * n)
            statement = rng.choice(IN_ROWS)
            _damage_in_use(place, "damaged", lambda path, inode, sql=statement: _change(path, inode, sql))  # type: ignore[misc]
            outcome.happened("a segment in use altered: rows or keys")
        place.recorded(collector, 40 * IN_USE + 40)
        outcome.expect(end(collector) == 0, f"the collector ended otherwise: {place.said()[-500:]}")
        place.run("export", "--once")
        status, said = place.run("verify", "exports")
        outcome.expect(status == 1, f"verify exports ended with {status} beside segments that were set apart: {said}")
        now = {path.name: _rows(path) for path in place.exports.glob("*.parquet")}
        outcome.expect(before.items() <= now.items(), "files of before are not what they were")
        sent = {f.payload for c in sim.connections for f in sim.sent_on(c.number)}
        rows = [row for name in now.keys() - before.keys() for row in now[name]]
        strange = [row[0] for row in rows if row[3] in ("t", "d", "dp") and str(row[4]).encode() not in sent]
        outcome.expect(bool(rows) and not strange, f"{len(rows)} rows, of which nobody sent seq {strange[:5]}")


def _damage_in_use(place: Bench, becomes: str, damage: Callable[[Path, int], None]) -> None:
    """Again and again: a commit that comes at the same time writes over it. Never what was written in its place, which
    may already have its name: a copy that is damaged before anything is committed to it is set apart with its rows."""
    folder = place.spool / "btc"
    before = len(list(folder.glob(f"*.sqlite.{becomes}-*[0-9]")))

    def noticed() -> bool:
        with contextlib.suppress(sqlite3.Error, FileNotFoundError):
            # There may be none: the one was set apart, and the next is not there yet.
            newest = max(folder.glob("*.sqlite"), key=lambda path: path.stat().st_mtime_ns, default=None)
            inode = 0 if newest is None else newest.stat().st_ino
            if len(list(folder.glob(f"*.sqlite.{becomes}-*[0-9]"))) > before:
                return True
            if newest is not None:
                damage(newest, inode)
        return False

    until(noticed, 60, f"a segment that is {becomes}")


def _flip_in_header(path: Path, inode: int, rng: random.Random) -> None:
    """A bit of what a commit goes by and no reader, once the log has been moved into the file; of that file alone."""
    with contextlib.closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
    ) as db:
        if json.loads(db.execute("SELECT value FROM meta WHERE key = 'state'").fetchone()[0]) != "open":
            return
        # Its writer looks at the file again; between two commits it would rightly find what it never said of itself.
        db.executescript("BEGIN; INSERT INTO meta VALUES ('', ''); DELETE FROM meta WHERE key = ''; COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        fd = os.open(path, os.O_RDWR)
        try:
            at, bit = rng.choice(UNREAD), 1 << rng.randrange(8)
            if os.fstat(fd).st_ino == inode:
                os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ bit]), at)
        finally:
            # Closing it gives up locks of this process alone, which writes nothing more.
            os.close(fd)


def _change(path: Path, inode: int, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db, db:
        state = json.loads(db.execute("SELECT value FROM meta WHERE key = 'state'").fetchone()[0])
        if state == "open" and path.stat().st_ino == inode:
            db.execute(statement)


def _rows(path: Path) -> list[tuple[object, ...]]:
    table = pq.read_table(path)
    columns = (table["seq"], table["rx"].cast("int64"), table["ts"].cast("int64"), table["mt"], table["m"])
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def _alter_one(place: Bench, rng: random.Random, wanted: dict[str, list[tuple[object, ...]]], outcome: Outcome) -> None:
    *closed, _ = sorted(place.spool.glob("btc/*.sqlite"))  # the newest was still open
    names = {path: f"btc{path.stem}.parquet" for path in closed}
    path = rng.choice(closed[1:-1])
    kind = alter(path, rng)
    said = f"{path.name} {kind}"
    status = place.fork("export").wait(60)
    outcome.happened(f"a segment {kind}")
    for other, name in names.items():
        file = place.exports / name
        if file.exists():
            same = _rows(file) == wanted[name]
            outcome.expect(same, f"{said}: {name} holds something else")
            outcome.verdict.frames += len(wanted[name]) if same else 0
        else:
            outcome.expect(other == path, f"{said}: {name} was not exported")
    if kind == "deleted":
        verified = place.fork("verify", "exports").wait(120)
        outcome.expect(verified == 1, f"{said}: verify exports ended with {verified} beside a hole")
    elif kind == "altered: a meta value":
        made = (place.exports / names[path]).exists()
        outcome.expect(status == 1 and not made, f"{said}: believed, export ended with {status}")
    elif (place.exports / names[path]).exists():
        outcome.notes["no row changed"] = outcome.notes.get("no row changed", 0) + 1
    else:
        outcome.notes["not exported"] = outcome.notes.get("not exported", 0) + 1
        outcome.expect(status == 1, f"{said}: not exported, and export ended with {status}")


def _meta(path: Path) -> dict[str, bytes]:
    """What a database of the spool says of itself; nothing of any other file."""
    if path.suffix not in (".sqlite", ".db"):
        return {}
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.text_factory = bytes
            return {key.decode(): value for key, value in db.execute("SELECT key, value FROM meta")}
    except (sqlite3.Error, ValueError):
        return {}  # damaged before


def _alter_meta(path: Path, key: str, value: bytes, rng: random.Random) -> None:
    """One bit of a value is another one."""
    changed = bytearray(value)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meta SET value = CAST(? AS TEXT) WHERE key = ?", (bytes(changed), key))


def alter(path: Path, rng: random.Random) -> str:
    """Do something to a file; what, in words."""
    size = path.stat().st_size
    kinds = ["altered: bit", "altered: bit", "altered: bytes", "altered: a page", "truncated", "deleted"]
    said = _meta(path)
    kind = rng.choice([*kinds, "altered: a meta value", "altered: a meta value"] if said else kinds)
    match kind:
        case "altered: a meta value":
            _alter_meta(path, *rng.choice(sorted(said.items())), rng)
        case "deleted":
            path.unlink()
        case "truncated":
            os.truncate(path, rng.randrange(size))
        case _:
            with path.open("r+b") as file:
                at = rng.randrange(size)
                file.seek(at)
                byte = file.read(1)[0]
                length = 8 if kind == "altered: bytes" else min(4096, size - at)
                file.seek(at)
                file.write(bytes([byte ^ 1 << rng.randrange(8)]) if kind == "altered: bit" else rng.randbytes(length))
    return kind


def logs(folder: Path, seed: int) -> Outcome:
    """The write-ahead log of a collector that was killed: what is left is in order and unaltered, it goes on, and what
    is lost behind a damaged place is told until somebody has looked at it."""
    rng = random.Random(seed)
    outcome = Outcome()
    kinds: list[str] = []
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=300.0, seed=seed)) as sim,
        bench(folder, sim, rng, period="5s") as place,
    ):
        place.witness.start()
        for _ in range(LOGS):
            collector = place.fork("collect", "btc")
            place.recorded(collector, 30)
            pause(rng.uniform(0.0, 1.5))
            collector.kill()
            collector.wait(10)
            for path in place.spool.glob("btc/*-wal"):
                if path.stat().st_size:
                    kinds.append(alter(path, rng))
                    outcome.happened(f"a write-ahead log {kinds[-1]}")
        place.witness.stop()
        seen = set(place.witness.rows.values())
        place.witness.forget_after(0)  # rows whose log was damaged may be gone; of what is seen from now on none may
        place.witness.start()
        kept = _looked_at(place, outcome)
        place.settle(outcome, tail_ns=NO_BOUND_NS)
        rows = read_files(place.exports, "btc", Verdict())
        gone = seen - {hashlib.sha256(row.m).digest() for row in rows}
        if set(kinds) <= SMALL:  # of what is cut off, or gone as a whole, nothing is left to tell of it
            outcome.expect(not gone or bool(kept), f"{len(gone)} committed rows are gone, and nobody says so")
        started = [json.loads(row.m) for row in rows if row.mt not in NAMES.values() and b'"started"' in row.m[:20]]
        outcome.expect(any(not event["clean"] for event in started), "no started row says that a stop was unclean")
    return outcome


def _looked_at(place: Bench, outcome: Outcome) -> list[str]:
    """Logs that were kept for what is lost in them: ``verify`` names each, until it is moved away."""
    collector = place.fork("collect", "btc")
    place.recorded(collector, 30)
    status = end(collector)
    outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
    folder = place.spool / "btc"
    kept = sorted(path.name for path in folder.glob("*-wal.*-*"))
    status, said = place.run("verify", "exports")
    untold = [name for name in kept if name not in said]
    outcome.expect(not untold, f"verify exports does not name {untold}")
    is_lost = any(".damaged-" in name for name in kept)
    outcome.expect(status == int(is_lost), f"verify exports ended with {status}, {kept} being there: {said[-600:]}")
    for name in kept:
        (folder / name).rename(place.folder / name)
    outcome.notes["logs kept for what is lost"] = len(kept)
    return kept
