"""The spool folder of a running collector is removed, moved away or loses files: what is received stays in reach."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.collecting import Site, check_whole, collecting, site_of
from support.spooled import check, named, read_segments
from support.waiting import until


def remove(folder: Path) -> None:
    """At once: a folder that is emptied name by name is written to again before it can be removed."""
    folder.rename(folder.with_name("going"))
    shutil.rmtree(folder.with_name("going"))


def remove_data(site: Site) -> None:
    remove(site.data)


def remove_spool(site: Site) -> None:
    remove(site.spool())


def move_data_away(site: Site) -> None:
    site.data.rename(site.data.with_name("away"))


def replace_spool(site: Site) -> None:
    """By a copy, with what the copy took along."""
    copy = site.spool().with_name("copy")
    shutil.copytree(site.spool(), copy)
    site.spool().rename(site.spool().with_name("away"))
    copy.rename(site.spool())


@pytest.mark.parametrize("lose", [remove_data, remove_spool, move_data_away, replace_spool])
def test_what_was_received_goes_into_the_folder_that_is_there_now(tmp_path: Path, lose: Callable[[Site], None]) -> None:
    with Simulator(SimulatorConfig(rate=200)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as collector:
            collector.live(50)
            lose(site)
            assert collector.process.wait(20) == 1, "somebody must start it again, with all that it needs"
            assert "removed or replaced" in collector.said()
        rows = check(site.spool())
        check_whole(rows, sim.sent_on(1))
        with collecting(site) as collector:
            collector.live(20)
            assert collector.stop(10) == 0
    rows = check(site.spool())
    assert [event["clean"] for event in named(rows, "started")] == [True, False]


def test_a_segment_or_a_lock_that_is_removed_costs_nothing(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=200)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as collector:
            collector.live(50)
            (segment,) = site.spool().glob("*.sqlite")
            segment.unlink()
            (site.spool() / "lock").unlink()
            until(lambda: segment.exists() and (site.spool() / "lock").exists(), 20, "both again")
            before = collector.status()
            assert before is not None
            collector.wait(lambda status: status["last_seq"] > before["last_seq"] + 50)
            assert collector.stop(10) == 0
        check_whole(check(site.spool()), sim.sent_on(1))
        assert len(read_segments(site.spool())) == 1


def test_a_collector_that_stands_still_stays_the_only_writer(tmp_path: Path) -> None:
    """Its lock file is removed, as somebody does who takes it for dead; then it goes on."""
    with Simulator(SimulatorConfig(rate=200)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as first:
            first.live(50)
            first.process.send_signal(signal.SIGSTOP)
            (site.spool() / "lock").unlink()
            with collecting(site) as second:
                assert second.process.wait(20) == 1
            assert f"{site.spool()} is in use by" in second.said()
            first.process.send_signal(signal.SIGCONT)
            until((site.spool() / "lock").exists, 20, "the lock file again")
            assert first.stop(10) == 0
        check_whole(check(site.spool()), sim.sent_on(1))


def test_a_collector_that_stood_still_writes_to_no_folder_of_another(tmp_path: Path) -> None:
    """A copy took its folder's place meanwhile, and its own successor goes on in it."""
    with Simulator(SimulatorConfig(rate=200)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as first:
            first.live(50)
            first.process.send_signal(signal.SIGSTOP)
            replace_spool(site)
            with collecting(site) as second:
                second.live(50)
                first.process.send_signal(signal.SIGCONT)
                assert first.process.wait(20) == 1
                second.live(100)
                assert second.stop(10) == 0
        assert not list(site.spool().glob("*.replaced-*"))
        check(site.spool())
