"""Files altered behind the recorder's back: truncated, a bit flipped, deleted, swapped. ``verify`` must say so."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from faults.bench import Bench, Outcome, bench, end
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
    return outcome


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
