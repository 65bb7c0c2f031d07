"""What is known of a symbol outside its spool folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline.config import Config, parse
from mexc_pipeline.control import NOT_UNDERSTOOD, ControlError, ControlServer
from mexc_pipeline.export.newest import newest_seq
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool import last_seq as module
from mexc_pipeline.spool.last_seq import LastSeq, ask_last_seq
from mexc_pipeline.spool.segment import NUMBERED
from mexc_pipeline.spool.writer import Spool
from support.examples import examples
from support.exported import write_export


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


def file(config: Config, name: str, to: int, rows: int = 1, said: Mapping[str, str] | None = None) -> Path:
    return write_export(config.export_dir / name, to, rows, said)


def ask(config: Config, *own: str) -> LastSeq:
    return ask_last_seq(config, config.symbols[0].id, frozenset(own))


def test_nothing_is_known_and_the_missing_store_is_said(config: Config) -> None:
    found = ask(config)
    assert (found.seq, found.exports, found.writer) == (0, (), None)
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
        assert ask(config) == LastSeq(55, names, None, ())
    assert asked == [{"cmd": "known", "id": "btc"}]
    with store(config, last_seq=70, writer=None):
        assert ask(config).seq == 70


def test_a_file_of_an_earlier_name_may_hold_the_newest_rows(config: Config) -> None:
    """After a clock was set back, or the period was made longer."""
    file(config, "btc20261121200030.parquet", 40)
    file(config, "btc20261121200000.part2.parquet", 90)
    file(config, "btc20271225110000.parquet", 60)
    with store(config, last_seq=0, writer=None):
        assert ask(config).seq == 90


def test_files_that_cannot_be_read_are_unknown_and_named(config: Config) -> None:
    file(config, "btc2026112119.parquet", 9)
    pq.write_table(pa.table({"seq": [1]}), config.export_dir / "btc2026112120.parquet")
    (config.export_dir / "btc2026112121.parquet").write_bytes(b"broken")
    with store(config, last_seq=0, writer=None):
        found = ask(config)
    assert found.seq == 9
    assert [line.split(":")[1].rsplit("/")[-1] for line in found.unknown] == [
        "btc2026112120.parquet", "btc2026112121.parquet",
    ]  # fmt: skip
    assert not found.is_enough(has_segments=False, waited_s=1.0)


@pytest.mark.parametrize("last_seq", [(1 << 62) - 20, 10**30, -5, 41])
def test_a_last_seq_that_the_rows_do_not_bear_out_is_unknown(config: Config, last_seq: int) -> None:
    """Once a recording went on from there: its seq ran out, or its process ended, at each start again."""
    file(config, "btc2026112119.parquet", 9)
    lying = file(config, "btc2026112120.parquet", 40, said={"last_seq": str(last_seq)})
    both = {"first_seq": str(last_seq), "last_seq": str(last_seq)}
    consistent = file(config, "btc2026112121.parquet", 50, said=both)
    with store(config, last_seq=0, writer=None):
        found = ask(config)
    assert found.seq == 9
    assert [str(lying) in line or str(consistent) in line for line in found.unknown] == [True, True]


def test_rows_that_leave_no_room_to_number_on_are_unknown(config: Config) -> None:
    file(config, "btc2026112119.parquet", 9)
    file(config, "btc2026112120.parquet", NUMBERED - 1)
    assert newest_seq(config.export_dir, "btc") == (NUMBERED - 1, [])
    path = file(config, "btc2026112121.parquet", NUMBERED)
    why = f"{path}: its metadata does not say which rows it holds; move it away"
    assert newest_seq(config.export_dir, "btc") == (NUMBERED - 1, [why])


def test_a_file_of_another_id_says_nothing_of_this_one(config: Config) -> None:
    file(config, "eth2026112119.parquet", 9)
    file(config, "eth2026112120.parquet", 5000, said={"id": "btc"})
    assert newest_seq(config.export_dir, "eth") == (9, [])


def test_many_unknown_files_are_counted(config: Config) -> None:
    for hour in range(12):
        (config.export_dir / f"btc20261121{hour:02}.parquet").write_bytes(b"broken")
    last_seq, unknown = newest_seq(config.export_dir, "btc")
    assert (last_seq, len(unknown), unknown[-1]) == (0, 6, "and 7 more files")


SAID = st.one_of(
    st.integers(0, 50).map(str), st.integers().map(str), st.integers(0, 1 << 64).map(str), st.text(max_size=6),
    st.sampled_from(["31", "40", "10", "٤٠", "4_0", " 40", "040", "9" * 5000]),
)  # fmt: skip


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.fixed_dictionaries({}, optional={"first_seq": SAID, "last_seq": SAID, "rows": SAID}))
def test_only_what_the_rows_bear_out_counts_whatever_a_file_says(config: Config, said: dict[str, str]) -> None:
    file(config, "btc2026112119.parquet", 9)
    path = file(config, "btc2026112120.parquet", 40, rows=10)
    true = {"first_seq": "31", "last_seq": "40", "rows": "10"}
    assert newest_seq(config.export_dir, "btc") == (40, [])
    table = pq.read_table(path)
    file(config, "btc2026112120.parquet", 40, 10, said)
    assert pq.read_table(path).equals(table)
    last_seq, unknown = newest_seq(config.export_dir, "btc")
    if true | said == true:
        assert (last_seq, unknown) == (40, [])
    else:
        assert (last_seq, [str(path) in line for line in unknown]) == (9, [True])


def test_a_reader_that_fails_is_said(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    file(config, "btc2026112119.parquet", 9)
    monkeypatch.setattr(module, "FILES_S", 0.001)
    found = ask(config)
    assert found.seq == 0
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
     {"last_seq": NUMBERED}, {"last_seq": (1 << 62) - 20}, {"last_seq": 10**30}, {"last_seq": -1},
     {"last_seq": 7, "writer": "me"}, {"last_seq": 7, "writer": [1]}, {"last_seq": 7, "writer": {"age_s": {}}}],
)  # fmt: skip
def test_an_answer_in_another_shape_is_unknown_and_stops_nothing(config: Config, answer: dict[str, Any]) -> None:
    with store(config, **answer):
        assert ask(config) == LastSeq(0, (), None, (f"tables: {NOT_UNDERSTOOD}",))


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
