"""``mexc-pipeline dashboard`` beside a real ``run``: its figures are those of what was recorded, and each part that
goes away is seen within seconds, and seen again once it is back."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.control import ControlServer
from mexc_pipeline.health import Kind
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.collecting import Site, collecting, site_of
from support.served import News, answering, details, news
from support.waiting import until

SEEN_S = 5.0
"""Within which it is to be seen that a part has gone; a busy machine is given as much again."""


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=60.0)) as simulator:
        yield simulator


@contextmanager
def running(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """``run``, which ends by itself once it is told to."""
    log = site.folder / "run.log"
    command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "run"]
    with log.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()


def store_of(found: dict[str, Any]) -> str:
    return str(next(kind for name, kind, _ in found["parts"] if name == "Store"))


def newest(port: int) -> int:
    """The seq of the newest row, by the details of a symbol."""
    return int(dict(details(port, "btc")["facts"])["Newest row (seq)"].replace(",", ""))


@pytest.mark.engine
def test_its_figures_are_those_of_the_recording(sim: Simulator, tmp_path: Path) -> None:
    site = site_of(tmp_path, sim, period="8s", extra='[clickhouse]\nmode = "embedded"\n')
    with answering(site, "dashboard") as port, news(port) as stream:
        assert stream.until(lambda found: found["number"])["rows"]["btc"]["state"] == "down"
        with running(site):
            found = stream.until(lambda found: found["rows"]["btc"]["verdict"] == "proven", 90)
            btc = found["rows"]["btc"]
            assert (btc["state"], store_of(found), found["faults"]) == ("live", "ok", 0)
            (site.exports / btc["file"]).stat()
            assert btc["file_age_s"] < 60
            assert btc["backlog"] is not None
            assert 0 <= btc["age_s"] < 5
            began, sent = time.monotonic(), len(sim.sent)
            while time.monotonic() < began + 10:  # what its rate is over
                rate = stream.next()["rows"]["btc"]["rate"]
            expected = (len(sim.sent) - sent) / (time.monotonic() - began)
            assert 0.5 * expected < rate < 2 * expected
            low = max(row.seq for row in site.rows())
            shown = until(lambda: seq if (seq := newest(port)) >= low else None, what="the newest row")
            assert shown <= max(row.seq for row in site.rows())
        stream.until(lambda found: found["rows"]["btc"]["state"] == "down" and store_of(found) == "fault")


def gone(stream: News, wanted: Any) -> dict[str, Any]:
    """The news by which something is seen to have gone, in time."""
    began = time.monotonic()
    found = stream.until(wanted)
    assert time.monotonic() - began < 2 * SEEN_S
    return found


def test_what_goes_away_is_seen_and_seen_again_once_it_is_back(sim: Simulator, tmp_path: Path) -> None:
    site = site_of(tmp_path, sim)
    loaded = {"backlog": 41, "loaded_rx_ns": 1, "differing": 0}
    said: dict[str, Any] = {"engine": "server", "reachable": True, "symbols": {"btc": loaded}}
    handlers = {
        "status": lambda _: said,
        "known": lambda _: {"last_seq": 0, "writer": None},
        "given": lambda _: {"held": []},
    }
    with answering(site, "dashboard") as port, news(port) as stream:
        store = ControlServer(site.data / "control" / "store.sock", handlers)
        with collecting(site, alone=True) as btc:
            found = stream.until(lambda found: found["rows"]["btc"]["state"] == "live")
            assert (found["rows"]["btc"]["backlog"], store_of(found)) == (41, "ok")
            said |= {"reachable": False, "error": "Connection refused"}
            found = gone(stream, lambda found: store_of(found) == "fault")
            assert "Connection refused" in str(found["parts"])
            said["reachable"] = True
            stream.until(lambda found: store_of(found) == "ok")
            store.close()
            found = gone(stream, lambda found: store_of(found) == "fault")
            assert found["rows"]["btc"]["backlog"] is None
            btc.kill()
            found = gone(stream, lambda found: found["rows"]["btc"]["state"] == "down")
            assert found["rows"]["btc"]["age_s"] is found["rows"]["btc"]["rate"] is None
            assert details(port, "btc")["reasons"][0]["todo"] == Kind.DOWN.advice
        store = ControlServer(site.data / "control" / "store.sock", handlers)
        with collecting(site, alone=True):
            found = stream.until(lambda found: found["rows"]["btc"]["state"] == "live" and store_of(found) == "ok")
            assert found["rows"]["btc"]["backlog"] == 41
        store.close()
