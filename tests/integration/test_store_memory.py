"""What users' statements and the largest rows may take of the store's memory: it stays within its unit's limit."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mexc_pipeline import control
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.store.service import QUERIES
from support.store_process import Process
from support.storing import Recording, ServerBackend, wait_for

ROLE = Path(__file__).parents[2] / "roles" / "mexc_pipeline" / "defaults" / "main.yml"
ROOM = 64 << 20
"""Between the most that was seen and the unit's MemoryMax."""
HOSTILE = [
    "SELECT range(8000000)",
    "SELECT arrayMap(x -> toNullable(x), range(3000000))",
    "SELECT arrayMap(x -> toString(x), range(1000000))",
    "SELECT arrayMap(x -> range(1), range(2000000))",
    "SELECT arrayMap(x -> tuple(tuple(tuple(tuple(x)))), range(2000000))",
    "SELECT arrayStringConcat(arrayMap(x -> 'xxxxxxxxxxxxxxxx', range(2000000)))",
    "SELECT groupArray(toDate(number)) FROM (SELECT number FROM system.numbers LIMIT 4000000)",
    "SELECT groupArray(toDecimal32(number, 2)) FROM (SELECT number FROM system.numbers LIMIT 4000000)",
    "SELECT range(60000) FROM (SELECT number FROM system.numbers LIMIT 500)",
    "SELECT number, toString(number), (number, number) FROM system.numbers LIMIT 500000",
    f"SELECT {', '.join(['1'] * 40_000)}",
    "SELECT range(8000000), 1",
]
"""Each within what the engine may use and send, or nearly; as objects most take hundreds of megabytes."""


@pytest.fixture
def process(tmp_path: Path, server_backend: ServerBackend) -> Iterator[Process]:
    found = Process(tmp_path / "store", server_backend.server.port)
    yield found
    found.close()


def _allowed() -> int:
    """Bytes of the unit's MemoryMax."""
    found = re.search(r"^mexc_pipeline_store_memory_max: (\d+)M$", ROLE.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 20


def _peak(pid: int) -> int:
    """The most bytes a process ever had resident; 0 of one that is gone."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) << 10 if found else 0


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _ask_at_once(process: Process, statements: Sequence[str]) -> tuple[list[str], int]:
    """What is said of each, and the most that any process took that the store started meanwhile."""
    said: list[str] = []

    def ask(sql: str) -> None:
        try:
            control.ask(process.socket, "query", 300, sql=sql, max_rows=1_000_000)
            said.append("")
        except control.ControlError as error:
            said.append(str(error))

    asking = [threading.Thread(target=ask, args=(sql,)) for sql in statements]
    for thread in asking:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in asking):
        most = max([most, *map(_peak, _children(process.pid))])
        asking[0].join(0.01)
    assert len(said) == len(statements)
    return said, most


@pytest.mark.server
def test_the_store_outlives_every_answer(process: Process) -> None:
    recording = Recording(process.data / "spool")
    process.start()
    wait_for(process.is_up)
    recording.add(2000)
    wait_for(lambda: process.loaded() == recording.spool.last_seq)
    most, refused = 0, 0
    for number in range(0, len(HOSTILE), QUERIES):
        recording.add(100)
        said, taken = _ask_at_once(process, HOSTILE[number : number + QUERIES])
        most, refused = max(most, taken), refused + sum("\n" not in text and "too large" in text for text in said)
        wait_for(lambda: process.loaded() == recording.spool.last_seq)
        assert process.ask("query", sql="SELECT 1", max_rows=1)["rows"] == [[1]]
    assert refused >= len(HOSTILE) // 2, "otherwise nothing was tried"
    assert most > 0, "otherwise nothing was looked at"
    assert _peak(process.pid) + QUERIES * most < _allowed() - ROOM
    recording.close()


SYMBOLS = ("btc", "eth", "sol")


def _add_largest(recording: Recording, count: int) -> None:
    """Frames of the size that the collector is held to; binary ones are kept in base64, which adds a third."""
    for n in range(count):
        recording.now += 1000
        m = random.Random(n).randbytes(60 << 20)
        recording.spool.append([Frame(recording.now, None, int(Mt.DEAD_LETTER), m)])


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_largest_rows_of_every_symbol_are_loaded_compared_and_loaded_again(tmp_path: Path) -> None:
    backend = ServerBackend(tmp_path / "server")
    process = Process(
        tmp_path / "store", backend.server.port, ", ".join(f'"{symbol_id.upper()}_USDT"' for symbol_id in SYMBOLS)
    )
    recordings = [Recording(process.data / "spool", symbol_id) for symbol_id in SYMBOLS]
    for recording in recordings:
        _add_largest(recording, 2)
        recording.add(100)
        recording.end_period()
        recording.add(1)

    def compared() -> bool:
        found = process.ask("status")["symbols"]
        return all(one["compared_segments"] == 1 and not one["differing"] for one in found.values())

    missed: set[str] = set()

    def all_missed() -> bool:
        """Of one symbol they may be there again before those of another are missed."""
        found = process.ask("status")["symbols"]
        missed.update(symbol_id for symbol_id, one in found.items() if not one["compared_segments"])
        return missed == set(SYMBOLS)

    process.start()
    wait_for(process.is_up)
    wait_for(compared, 200, "tables that were compared")
    loading = _peak(process.pid)
    client = backend.server.client()
    for table in [name for (name,) in client.execute("SHOW TABLES FROM ch_mexc") if re.search(r"_[0-9]{6,}", name)]:
        client.execute(f"DROP TABLE ch_mexc.{table}")
    wait_for(all_missed, 60, "tables that are missed")
    wait_for(compared, 200, "tables that were loaded again")
    peak = _peak(process.pid)
    print(f"{loading >> 20} MiB to load and compare, {peak >> 20} MiB to load again as well")  # noqa: T201
    process.close()
    for recording in recordings:
        recording.close()
    backend.close()
    assert peak < _allowed() - ROOM
