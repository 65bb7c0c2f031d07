"""What ``status`` and ``run`` say when the exchange is gone or sends another shape, and that it passes by itself."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.simulator import Simulator, SimulatorConfig
from mexc_pipeline.simulator.faults import Fault
from support.collecting import Site, collecting, site_of
from support.streams import stream
from support.waiting import until

END = "end of what was shown"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=60.0)) as simulator:
        yield simulator


def status(site: Site, *more: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "status", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


def on_a_terminal(site: Site, columns: int) -> str:
    """What ``status`` shows there."""
    with stream("hung up") as terminal:
        assert terminal.fd is not None
        termios.tcsetwinsize(terminal.fd, (24, columns))
        command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "status"]
        subprocess.run(command, stdout=terminal.fd, timeout=60, check=False)
        subprocess.run(["echo", END], stdout=terminal.fd, timeout=60, check=True)
        until(lambda: END in terminal.text, 10, "all of it")
        return re.sub(r"\x1b\[[0-9;]*m", "", terminal.text.partition(END)[0]).replace("\r\n", "\n")


def of_btc(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(status(site, "--json")[1])["symbols"][0]
    return found


def test_an_exchange_that_is_gone_is_said_since_when_and_its_return_ends_it(sim: Simulator, tmp_path: Path) -> None:
    site = site_of(tmp_path, sim, extra='[health]\nsilent = "3s"')
    with collecting(site) as collector:
        collector.live(20)
        before = of_btc(site)
        assert before["health"] == {"state": "live", "ok": True, "reasons": []}
        sim.inject(Fault(kind="refuse_connect", seconds=8))
        sim.inject(Fault(kind="close"))
        gone = until(lambda: (found := of_btc(site))["health"]["reasons"] and found, what="the fault")
        (reason,) = gone["health"]["reasons"]
        assert gone["health"]["state"] == reason["kind"] == "connecting"
        assert reason["for_s"] >= 3
        assert "refused" in reason["text"]
        ages = {name: channel["age_s"] for name, channel in gone["collector"]["channels"].items()}
        assert set(ages) == set(before["collector"]["channels"]), "the table of last frames stays"
        assert all(age is not None and age >= 3 for age in ages.values())
        code, text = status(site)
        assert code == 1
        first = text.splitlines()[0]
        assert first.startswith("FAULT btc: connecting: no market frame for")
        assert "since" in text
        shown = on_a_terminal(site, 80)
        assert shown.startswith("FAULT btc: connecting: no market frame for")
        wide = [
            line for line in shown.splitlines() if len(line) > 80 and str(tmp_path) not in line
        ]  # a path stays whole
        assert wide == []
        until(lambda: of_btc(site)["health"]["ok"], 60, "recording again")
        assert collector.stop() == 0


def test_a_run_without_an_exchange_says_why_and_one_of_dead_letters_is_no_success(
    sim: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    gone = Site(tmp_path / "gone", "ws://127.0.0.1:1/edge", "http://127.0.0.1:1")
    code, answer = _run(gone, "4s")
    assert code == 1
    (problem,) = [line for line in answer["problems"] if "no market frame" in line]
    assert problem.startswith("btc: no market frame was received (")
    assert "refused" in problem
    sim.inject(Fault(kind="shape", value="ts=text", seconds=3600))
    (tmp_path / "dead").mkdir()
    code, answer = _run(site_of(tmp_path / "dead", sim), "6s")
    assert [line["verdict"] for line in answer["periods"]] == ["verified"], "every byte is kept and proven"
    assert code == 1
    assert any("are dead letters (100.0 %" in line for line in answer["problems"]), answer["problems"]


def test_dead_letters_are_a_fault_in_status(sim: Simulator, tmp_path: Path) -> None:
    site = site_of(tmp_path, sim)
    sim.inject(Fault(kind="shape", value="ts=text", channel="deal", seconds=3600))
    with collecting(site) as collector:
        reason = until(
            lambda: [r for r in of_btc(site)["health"]["reasons"] if r["kind"] == "dead letters"], what="the fault"
        )[0]
        assert "ts " in reason["text"]
        assert status(site)[0] == 1
        collector.process.send_signal(signal.SIGTERM)
        assert collector.process.wait(6) == 0


def test_a_channel_that_is_given_up_is_said_in_its_row(sim: Simulator, tmp_path: Path) -> None:
    sim.inject(Fault("retired", channel="depth.full", value="param error"))
    site = site_of(tmp_path, sim)
    with collecting(site) as collector:
        collector.event("given_up")
        collector.live(20)
        code, out = status(site)
        rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("BTC_USDT ")}
        assert code == 1
        assert re.search(r"  given up \d+\.\d s ago  +never$", rows["push.depth.full"]), out
        assert re.search(r"  (ack|data)  +\d+\.\d s ago$", rows["push.ticker"]), out
        assert collector.stop() == 0


PAGE = b"<html>\r\n<h1>Just a moment\x1b[2J</h1>" + b"x" * 400
CLEANED = "<html>\\r\\n<h1>Just a moment\\x1b[2J</h1>xx"


@pytest.mark.parametrize(
    ("http", "headers", "said"),
    [
        ("200", "Content-Type: text/html", "HTTP 200"),
        ("302", "Location: wss://moved.example.com/edge", "HTTP 302"),
        ("429", "Retry-After: 70", "HTTP 429"),
        ("503", "", "HTTP 503"),
    ],
)
def test_what_is_answered_in_place_of_a_handshake_is_said_by_the_command(
    http: str, headers: str, said: str, sim: Simulator, tmp_path: Path
) -> None:
    sim.inject(Fault("refuse_handshake", value=http, headers=headers, payload=PAGE))
    site = site_of(tmp_path, sim)
    with collecting(site) as collector:
        collector.event("disconnected", count=1 if http == "429" else 2)
        code, out = status(site)
        words = " ".join(out.split())
        assert code == 1
        assert said in words
        assert CLEANED in words
        assert "x" * 200 not in out
        assert "\x1b" not in out
        assert http != "302" or "a redirect to wss://moved.example.com/edge, which is not followed" in words
        refusal = of_btc(site)["collector"]["refusal"]
        assert refusal["status"] == int(http)
        assert refusal["location"] == ("wss://moved.example.com/edge" if http == "302" else None)
        assert refusal["body"].startswith(CLEANED)
        assert len(refusal["body"]) == 200
        assert collector.stop() == 0


def _run(site: Site, duration: str) -> tuple[int, dict[str, Any]]:
    command = [
        sys.executable,
        "-m",
        "mexc_pipeline",
        "--config",
        str(site.config),
        "run",
        "--duration",
        duration,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    return done.returncode, json.loads(done.stdout)
