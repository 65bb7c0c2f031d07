"""Rows that arrived before a table was swapped: noted by the store, read by the ledger, by whatever is left."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from mexc_pipeline.ledger.conservation import Conservation
from mexc_pipeline.store.swaps import note, noted
from mexc_pipeline.verify import ledger
from support.spools import configure, fill


def test_what_was_noted_is_read_the_newest_of_each_file(tmp_path: Path) -> None:
    assert noted(tmp_path, "btc") == {}
    (tmp_path / "store").mkdir()
    note(tmp_path, "btc", "a", 3)
    note(tmp_path, "btc", "b", 0)
    note(tmp_path, "eth", "a", 9)
    note(tmp_path, "btc", "a", 4)
    assert noted(tmp_path, "btc") == {"a": 4, "b": 0}


@pytest.mark.parametrize("what", ["FIFO", "folder", "device", "8 GiB"])
def test_whatever_stands_in_its_place_is_not_waited_for(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store" / "btc.swaps"
    path.parent.mkdir()
    match what:
        case "FIFO":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.touch()
            os.truncate(path, 8 << 30)

    def look() -> None:
        note(tmp_path, "btc", "a", 3)
        found.append(noted(tmp_path, "btc"))

    found: list[dict[str, int]] = []
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(30)
    assert found == [{"a": 3} if what == "8 GiB" else {}]


@pytest.mark.parametrize(
    "half", [b'\n{"file":"b","buff', b"\n{}", b"\n[1]", b'\n{"file":"b","buffered":null}', b"\n\xff"]
)
def test_half_a_line_costs_nothing_but_itself(tmp_path: Path, half: bytes) -> None:
    (tmp_path / "store").mkdir()
    note(tmp_path, "btc", "a", 3)
    with (tmp_path / "store" / "btc.swaps").open("ab") as file:
        file.write(half)
    note(tmp_path, "btc", "c", 5)
    assert noted(tmp_path, "btc") == {"a": 3, "c": 5}


def test_a_folder_that_takes_nothing_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        note(tmp_path, "btc", "a", 3)
    assert [record.message for record in caplog.records] == ["swap not noted"]


def test_the_ledger_shows_it_without_a_store(tmp_path: Path) -> None:
    config = configure(tmp_path)
    fill(config, periods=2)
    (config.data_dir / "store").mkdir()
    note(config.data_dir, "btc", "btc20260915185210.parquet", 7)
    rows: list[Conservation] = ledger(config, {})
    assert [row.buffered for row in rows] == [None, 7]
