"""Files altered behind the recorder's back: truncated, a bit flipped, deleted, swapped. ``verify`` must say so."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from faults.bench import Bench, Outcome, bench, end
from faults.scenarios.neighbours import damage
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.waiting import until

ALTERATIONS = 20


def artefacts(folder: Path, seed: int) -> Outcome:
    """Several exported files; one alteration after another, each undone before the next."""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=200.0, seed=seed)) as sim,
        bench(folder, sim, rng) as place,
    ):
        place.witness.start()
        collector = place.fork("collect", "btc")
        until(lambda: len(list(place.spool.glob("btc/*.sqlite"))) > 3, 60, "some segments")
        end(collector)
        place.settle(outcome)
        if rng.random() < 0.5:  # a file must give itself away also when the spool is long gone
            place.spool.rename(place.folder / "spool-gone")
            outcome.notes["spool"] = "gone"
        for _ in range(ALTERATIONS):
            _alter(place, rng, outcome)
        outcome.expect(_verify(place) == 0, "verify is not content with files that are whole again")
    _beside(folder / "beside", seed, outcome)
    return outcome


def _beside(folder: Path, seed: int, outcome: Outcome) -> None:
    """What is no symbol's own, or lies beside its rows: whatever stands there, both symbols are recorded whole, what is
    exported is right, and an export that cannot be made says which file is in its way."""
    rng = random.Random(f"beside {seed}")
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT", "ETH_USDT"), rate=100.0, seed=seed)) as sim,
        bench(folder, sim, rng, ids=("eth", "btc")) as place,
    ):
        place.witness.start()
        things = {
            "acknowledged.jsonl": place.data / "acknowledged.jsonl",
            "the lock of exports": place.data / "export" / "lock",
            "the file of attempts": place.data / "control" / "attempts" / "direct",
        }
        rounds = rng.sample([*things, *things], len(things) + 1)
        for name in rounds:
            path = things[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = damage(path, rng, also=("a folder", "a FIFO", "a link to nowhere"))
            outcome.happened(f"{name} {kind}")
            collectors = [place.start("collect", symbol_id) for symbol_id in place.ids]
            for symbol_id, process in zip(place.ids, collectors, strict=True):
                place.recorded(process, 30, symbol_id)
            status, said = place.run("export")
            outcome.expect(
                status == 0 or path.name in said, f"{name} {kind}: export ended with {status}: {said[-300:]}"
            )
            _, said = place.run("verify", "exports", "--json")
            lines = [line for line in said.splitlines() if line.startswith('{"ok"')]
            found = json.loads(lines[0])["exports"]["findings"] if lines else [{"ok": False, "symbol": said[-300:]}]
            wrong = [f for f in found if not f["ok"] and f["symbol"]]
            outcome.expect(not wrong, f"{name} {kind}: verify exports: {wrong[:3]}")
            for process in collectors:
                status = end(process)
                outcome.expect(status == 0, f"{name} {kind}: a collector ended with {status}: {place.said()[-300:]}")
            clear(path)
        place.settle(outcome)


def clear(path: Path) -> None:
    """Take away whatever stands there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _verify(place: Bench) -> int:
    return place.fork("verify", "exports").wait(120)


def _alter(place: Bench, rng: random.Random, outcome: Outcome) -> None:
    files = sorted(place.exports.glob("*.parquet"))
    # neither end of a row of files is missed by what is left when there is no spool to compare with
    path = rng.choice(files[1:-1])
    kept = place.folder / "kept.parquet"
    shutil.copy2(path, kept)
    before = _content(path)
    name = rng.choice(("bit", "bit", "bit", "truncated", "deleted", "swapped", "bytes"))
    size = path.stat().st_size
    match name:
        case "bit":
            _write(path, at := rng.randrange(size), bytes([path.read_bytes()[at] ^ 1 << rng.randrange(8)]))
        case "bytes":
            _write(path, rng.randrange(size - 8), rng.randbytes(8))
        case "truncated":
            os.truncate(path, rng.randrange(size))
        case "deleted":
            path.unlink()
        case _:
            other = rng.choice([p for p in files if p != path])
            shutil.copy2(other, path)
    status = _verify(place)
    harmless = name in ("bit", "bytes") and _content(path) == before
    if harmless:
        outcome.notes["no row or key changed"] = outcome.notes.get("no row or key changed", 0) + 1
    else:
        outcome.happened(f"a file {'altered: ' + name if name in ('bit', 'bytes') else name}")
        outcome.expect(status == 1, f"{path.name} {name}: verify exports ended with {status}")
    shutil.copy2(kept, path)


def _write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def _content(path: Path) -> str:
    """Digest of the rows and keys as PyArrow reads them; empty where it cannot."""
    try:
        table = pq.read_table(path)
        keys = sorted((table.schema.metadata or {}).items())
        rows = table.cast(
            pa.schema([(f.name, pa.string() if f.name in ("m", "mt") else pa.int64()) for f in table.schema])
        )
        return hashlib.sha256(repr((keys, rows.to_pydict())).encode()).hexdigest()
    except (OSError, pa.ArrowException, ValueError):
        return ""
