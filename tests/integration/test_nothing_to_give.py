"""A machine that has no thread to give for a moment: what asks for one tries again, and the recording goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.collecting import check_whole, collecting, site_of
from support.spooled import events


def no_thread(which: str, until: Path) -> str:
    """Python for a collector's ``first``: threads of which that holds (``self``, or ``asks``, which wants it) cannot be
    started before there is such a file. It is what ``threading`` raises where the kernel refuses (pids.max,
    RLIMIT_NPROC)."""
    return f"""
import threading
from pathlib import Path
begin = threading.Thread.start
def start(self):
    asks = threading.current_thread()
    if ({which}) and not Path({str(until)!r}).exists():
        raise RuntimeError("can't start new thread")
    begin(self)
threading.Thread.start = start
"""


@pytest.mark.parametrize("name", ["time", "attempts", "ending"])
def test_no_thread_to_be_had_ends_neither_a_recording_nor_a_connection_that_delivers(tmp_path: Path, name: str) -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site, first=no_thread(f"self.name == {name!r}", tmp_path / "never")) as btc:
            began = btc.live()["rows"]["dp"]
            assert btc.wait(lambda s: s["rows"]["dp"] > began + 150)["reconnects"] == 0, "its loops have been through"
            assert btc.stop() == 0
        check_whole(site.rows(), sim.sent)
    assert events(site.rows())[-1]["event"] == "stopped"


def test_the_contract_is_asked_for_again_where_no_thread_could_watch_over_the_answer(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    with Simulator(SimulatorConfig()) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site, first=no_thread("asks.name == 'contract'", mended)) as btc:
            assert "new thread" in btc.wait(lambda s: "thread" in s["listing"])["listing"]
            mended.touch()
            assert btc.wait(lambda s: s["rows"]["c"])["listing"] == "listed"
            assert btc.stop() == 0
