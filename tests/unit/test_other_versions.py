"""Processes of two versions beside each other, and those that cannot be asked: neither is an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline import control
from mexc_pipeline.control import ControlError, ControlServer
from mexc_pipeline.egress import uses
from mexc_pipeline.export.clock import wrong_clock
from mexc_pipeline.spool.last_seq import given_elsewhere
from support.spools import configure, open_spool


def test_a_store_without_the_commands_is_said_to_be_of_another_version(tmp_path: Path) -> None:
    config = configure(tmp_path)
    open_spool(config).close()
    store = ControlServer(config.control_dir / "store.sock", {"status": lambda _: {}})
    try:
        with pytest.raises(ControlError, match=r"^store does not know given; it runs another version, restart it"):
            given_elsewhere(config, "btc", config.spool_dir / "btc")
        with pytest.raises(ControlError, match=r"^store does not know exits; it runs another version, restart it"):
            uses.logged(config.control_dir, 0)
    finally:
        store.close()


@pytest.mark.parametrize(
    "answer", [{}, {"rows": []}, {"rows": [], "alive": 5}, {"rows": [["btc"]], "alive": []}, {"rows": 1, "alive": []}]
)
def test_exits_in_another_shape_are_no_answer(tmp_path: Path, answer: dict[str, Any]) -> None:
    config = configure(tmp_path)
    store = ControlServer(config.control_dir / "store.sock", {"exits": lambda _: answer})
    try:
        with pytest.raises(ControlError, match="not understood"):
            uses.logged(config.control_dir, 0)
    finally:
        store.close()


def test_a_clock_that_cannot_be_asked_for_is_not_right(tmp_path: Path) -> None:
    config = configure(tmp_path)
    assert wrong_clock(config) is None  # no collector runs

    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise control.ControlError("busy")

    collector = ControlServer(config.control_dir / "btc.sock", {"status": refuse})
    try:
        said = wrong_clock(config)
    finally:
        collector.close()
    assert said is not None
    assert said.startswith("nothing is deleted by age")
    assert said.endswith("btc: busy")
