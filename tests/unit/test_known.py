"""What is known of a symbol outside its spool folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mexc_pipeline.config import Config, parse
from mexc_pipeline.control import NOT_UNDERSTOOD, ControlError, ControlServer
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool import known as module
from mexc_pipeline.spool.known import Known, known
from mexc_pipeline.spool.writer import Spool


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "exports").mkdir()
    return parse(f'data_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"', None)


@contextmanager
def store(config: Config, **answer: Any) -> Iterator[list[dict[str, Any]]]:
    """A store that answers this."""
    asked: list[dict[str, Any]] = []

    def handler(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return answer

    server = ControlServer(config.control_dir / "store.sock", {"known": handler})
    yield asked
    server.close()


def file(config: Config, name: str, last_seq: int | None) -> None:
    metadata = {} if last_seq is None else {"mexc.last_seq": str(last_seq)}
    pq.write_table(pa.table({"seq": [1]}).replace_schema_metadata(metadata), config.export_dir / name)


def ask(config: Config, *own: str) -> Known:
    return known(config, config.symbols[0].id, frozenset(own))


def test_nothing_is_known_and_the_missing_store_is_said(config: Config) -> None:
    found = ask(config)
    assert (found.last_seq, found.exports, found.writer) == (0, (), None)
    assert len(found.unknown) == 1
    assert found.unknown[0].startswith("tables: store is not running")


def test_the_higher_of_files_and_tables_counts(config: Config) -> None:
    file(config, "btc2026112119.parquet", 30)
    file(config, "btc2026112120.part1.parquet", 40)
    file(config, "btc2026112120.part2.parquet", 55)
    file(config, "btcusdc2026112123.parquet", 5000)
    file(config, "eth2026112123.parquet", 6000)
    names = ("btc2026112119.parquet", "btc2026112120.part1.parquet", "btc2026112120.part2.parquet")
    with store(config, last_seq=50, writer=None) as asked:
        assert ask(config) == Known(55, names, None, ())
    assert asked == [{"cmd": "known", "id": "btc"}]
    with store(config, last_seq=70, writer=None):
        assert ask(config).last_seq == 70


def test_a_file_of_an_earlier_name_may_hold_the_newest_rows(config: Config) -> None:
    """After a clock was set back, or the period was made longer."""
    file(config, "btc20261121200030.parquet", 40)
    file(config, "btc20261121200000.part2.parquet", 90)
    file(config, "btc20271225110000.parquet", 60)
    with store(config, last_seq=0, writer=None):
        assert ask(config).last_seq == 90


def test_unreadable_files_are_passed_over_and_said(config: Config) -> None:
    file(config, "btc2026112119.parquet", 9)
    file(config, "btc2026112120.parquet", None)
    (config.export_dir / "btc2026112121.parquet").write_bytes(b"broken")
    assert ask(config).last_seq == 9


def test_a_reader_that_fails_is_said(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    file(config, "btc2026112119.parquet", 9)
    monkeypatch.setattr(module, "FILES_S", 0.001)
    found = ask(config)
    assert found.last_seq == 0
    assert any(problem.startswith("files: ") for problem in found.unknown)


def writer(age_s: float, **more: object) -> dict[str, object]:
    return {"host": "other-host", "spool_id": "theirs", "age_s": age_s, **more}


def test_a_living_writer_elsewhere_is_named(config: Config) -> None:
    with store(config, last_seq=1, writer=writer(5, pid=77)):
        assert ask(config, "ours").writer == "process 77 on other-host, spool theirs, seen 5 s ago"
    with store(config, last_seq=1, writer=writer(5)):
        assert "other-host" in (ask(config).writer or "")


def test_an_old_one_or_our_own_is_none(config: Config) -> None:
    with store(config, last_seq=1, writer=writer(module.WRITER_ALIVE_S + 1)):
        assert ask(config).writer is None
    with store(config, last_seq=1, writer=writer(1)):
        assert ask(config, "theirs").writer is None


def test_a_dead_process_of_this_host_is_none(config: Config) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    with store(config, last_seq=1, writer=writer(1, host=socket.gethostname(), pid=gone.pid)):
        assert ask(config).writer is None
    with store(config, last_seq=1, writer=writer(1, host=socket.gethostname(), pid=os.getpid())):
        assert ask(config).writer is not None


@pytest.mark.parametrize(
    "answer",
    [{}, {"last_seq": None}, {"last_seq": "x"}, {"last_seq": []}, {"last_seq": float("inf")},
     {"last_seq": 7, "writer": "me"}, {"last_seq": 7, "writer": [1]}, {"last_seq": 7, "writer": {"age_s": {}}}],
)  # fmt: skip
def test_an_answer_in_another_shape_is_unknown_and_stops_nothing(config: Config, answer: dict[str, Any]) -> None:
    with store(config, **answer):
        assert ask(config) == Known(0, (), None, (f"tables: {NOT_UNDERSTOOD}",))


@pytest.mark.parametrize("held", [None, 5, [5], [[1, 2]], [["btc", "other", "1", "2", "x"]], "btc", [{}]])
def test_what_others_gave_in_another_shape_is_a_refusal(config: Config, tmp_path: Path, held: object) -> None:
    (tmp_path / "btc").mkdir()
    spool = Spool(tmp_path / "btc", "btc", "BTC_USDT", config.period)
    spool.append([Frame(time.time_ns(), None, Mt.EVENT, b"{}")])
    spool.close()
    server = ControlServer(config.control_dir / "store.sock", {"given": lambda _: {"held": held}})
    try:
        with pytest.raises(ControlError, match="not understood"):
            module.given_elsewhere(config, "btc", tmp_path / "btc")
    finally:
        server.close()
