"""However many symbols meet, the embedded engine keeps no more threads than the store's bound needs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mexc_pipeline.rows import Columns
from mexc_pipeline.store import embedded
from mexc_pipeline.store.engine import row_table_sql

WORKERS, ROUNDS, ROWS = 8, 5, 500
BLOCK = Columns(list(range(1, ROWS + 1)), [1] * ROWS, [1] * ROWS, [1] * ROWS, [b"x" * 100] * ROWS)


def kept() -> int:
    """Threads of the engine's pool."""
    found = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            found += (task / "comm").read_text().strip() == "ThreadPool"
        except OSError:  # it has just ended
            continue
    return found


def test_threads_do_not_add_up_with_the_symbols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STATEMENTS", 2)
    folder = embedded.EmbeddedFolder(tmp_path / "clickhouse", "ch_mexc")
    meet = threading.Barrier(WORKERS, timeout=60)
    read: list[int] = []

    def work(number: int) -> None:
        engine = folder.engine()
        capabilities = engine.connect()
        for _ in range(ROUNDS):
            table = f"t{number}"
            engine.execute(row_table_sql(table, capabilities))
            meet.wait()
            for _ in range(3):
                engine.insert_block(table, BLOCK, "")
                engine.select(f"SELECT count() FROM {table}")
            meet.wait()
            read.append(sum(len(block) for block in engine.read_blocks(table)))
            engine.execute(f"DROP TABLE {table}")
        engine.close()

    before = kept()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [3 * ROWS] * (WORKERS * ROUNDS)
    assert kept() - before <= 3, "two statements and one table being read"
    folder.close()
