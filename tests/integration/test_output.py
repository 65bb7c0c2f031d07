"""Standard error and standard output go away in every way; recording, export and verification go on to their end."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mexc_pipeline.config import load
from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.periods import HOUR_NS
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from mexc_pipeline.simulator.faults import Fault
from support.collecting import Site, check_whole, collecting, site_of
from support.spooled import check, read_rows
from support.spools import T0, fill
from support.standin import stand_in
from support.streams import CLOSED, WAYS, Stream, stream, without_stream
from support.waiting import until

SYMBOLS = ("BTC_USDT", "ETH_USDT")
IDS = ("btc", "eth")


@pytest.fixture(autouse=True)
def _hangups_are_not_ignored() -> Iterator[None]:
    """Whoever runs the tests under nohup would hand that on to what they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(symbols=SYMBOLS, rate=60.0)) as simulator:
        yield simulator


@contextmanager
def started(
    site: Site, args: Sequence[str], errors: Stream, *, out: Any = subprocess.PIPE, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "--debug", *args]
    process = subprocess.Popen(
        [*(without_stream(2) if errors.way == CLOSED else []), *command],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.DEVNULL if errors.fd is None else errors.fd,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def rows(site: Site, symbol_id: str) -> int:
    try:
        status = ask(site.data / "control" / f"{symbol_id}.sock", "status")
    except ControlError:
        return 0
    return sum(status["rows"][name] for name in ("t", "d", "dp"))


def recorded(site: Site, least: int) -> None:
    until(lambda: all(rows(site, i) >= least for i in IDS), 60, f"{least} rows of each symbol")


def check_files(site: Site, sim: Simulator) -> None:
    """Every frame sent is in the files, byte for byte and in order, but for what met the closing socket."""
    for symbol, symbol_id in zip(SYMBOLS, IDS, strict=True):
        tables = [pq.read_table(path) for path in sorted(site.exports.glob(f"{symbol_id}*.parquet"))]
        found = [
            m.encode()
            for table in tables
            for mt, m in zip(table["mt"].to_pylist(), table["m"].to_pylist(), strict=True)
            if mt in ("t", "d", "dp", "dl")
        ]
        sent = [f.payload for f in sim.sent if f.symbol == symbol and b'"channel":"push.' in f.payload]
        assert found == sent[: len(found)]
        assert len(found) > 50
        assert len(sent) - len(found) < 50


@pytest.mark.parametrize("way", WAYS)
def test_run_goes_on_to_its_proven_end(way: str, sim: Simulator, tmp_path: Path) -> None:
    site = site_of(tmp_path, sim, period="5s", symbols=SYMBOLS)
    with stream(way) as errors, started(site, ["run", "--json", "--duration", "9s"], errors) as process:
        recorded(site, 30)
        errors.go_away()
        answer, _ = process.communicate(timeout=110)
        assert process.returncode == 0, answer
    found = json.loads(answer)
    assert found["ok"]
    assert found["problems"] == []
    check_files(site, sim)


def test_one_pipe_for_both_outputs_that_is_closed_after_a_line(sim: Simulator, tmp_path: Path) -> None:
    """`run 2>&1 | head -1`: nobody hears the account, the run goes on to its end."""
    site = site_of(tmp_path, sim, period="5s", symbols=SYMBOLS)
    run = f"{sys.executable} -m mexc_pipeline --config {site.config} run --duration 9s"
    piped = f"{run} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", piped], stdin=subprocess.DEVNULL, capture_output=True, timeout=110, check=False
    )
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 1), done
    check_files(site, sim)


@pytest.mark.parametrize("way", WAYS)
def test_a_collector_records_on(way: str, sim: Simulator, tmp_path: Path) -> None:
    """At every level of detail, through connections that end: there is much to say all along."""
    site = site_of(tmp_path, sim)
    with stream(way) as errors, started(site, ["collect", "btc"], errors) as process:
        store = stand_in(site.data, ["btc"])
        assert store is not None
        until(lambda: rows(site, "btc") >= 30, what="rows")
        store.close()
        errors.go_away()
        for _ in range(3):
            before = rows(site, "btc")
            sim.inject(Fault(kind="close"))
            until(lambda before=before: rows(site, "btc") >= before + 30, what="rows of another connection")  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        assert process.wait(6) == 0
    spooled = [r for r in read_rows(site.spool()) if r.mt in (1, 2, 3)]
    assert [r.seq for r in read_rows(site.spool())] == list(range(1, len(read_rows(site.spool())) + 1))
    assert len(spooled) > 100


def test_what_a_reader_missed_is_said_when_it_reads_again() -> None:
    script = (
        "import logging, sys\nfrom mexc_pipeline import logs, output\nout = output.take_over(logs.dropped)\n"
        "logs.setup()\n"
        "log = logging.getLogger('mexc_pipeline.feed')\nfor n in range(5000): log.info(f'phrase {n} ' + 'x' * 100)\n"
        "print(out.lost, flush=True)\nsys.stdin.readline()\nout.end(30)\n"
    )
    with stream("unread") as errors:
        errors.go_away()
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.fd,
            env={**os.environ, "MEXC_PIPELINE_LOG": "json"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        lost = int(process.stdout.readline())
        assert 1000 < lost < 5000
        errors.come_back()
        process.communicate(b"\n", timeout=60)
        assert process.returncode == 0
        until(lambda: "could not be written" in errors.text, what="the line that tells of it")
    found = [json.loads(line) for line in errors.text.splitlines()]
    assert len(found) == 5000 - lost + 1
    said = found[-1]
    assert (said["level"], said["lines"], said["reason"]) == ("warning", lost, "its reader is too slow")


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("env", "as_json", "name"),
    [
        (C_LOCALE, False, "plain"),
        (C_LOCALE, True, "plain"),
        ({"PYTHONIOENCODING": "latin-1:strict"}, False, "Überraschung – 価格"),
        ({"PYTHONIOENCODING": "ascii:strict"}, True, "Überraschung – 価格"),
    ],
    ids=["C", "C json", "latin-1", "ascii json"],
)
def test_run_needs_no_particular_locale(
    env: dict[str, str], as_json: bool, name: str, sim: Simulator, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    site = site_of(folder, sim, period="5s", symbols=SYMBOLS)
    more = ["--json"] if as_json else []
    with stream("gone") as errors, started(site, ["run", "--duration", "6s", *more], errors, env=env) as process:
        answer, _ = process.communicate(timeout=110)
        assert process.returncode == 0, errors.text
    if as_json:
        assert json.loads(answer)["ok"]
    else:
        assert b"all verified" in answer
    assert "Traceback" not in errors.text
    check_files(site, sim)


@pytest.mark.parametrize("way", ["full", "gone", "closed"])
def test_standard_output_that_takes_no_account_changes_no_exit_status(way: str, sim: Simulator, tmp_path: Path) -> None:
    site = site_of(tmp_path, sim, period="5s", symbols=SYMBOLS)
    with stream(way) as out, stream("gone") as errors:
        command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "run", "--duration", "8s"]
        process = subprocess.Popen(
            [*(without_stream(1) if way == CLOSED else []), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if out.fd is None else out.fd,
            stderr=errors.fd,
        )
        out.go_away()
        assert process.wait(110) == 0, errors.text
        until(lambda: "\n" in errors.text, what="log lines")
    said = [line for line in errors.text.splitlines() if "standard output" in line]
    assert len(said) == (0 if way == "gone" else 1), errors.text
    assert "Traceback" not in errors.text
    assert "Exception ignored" not in errors.text
    check_files(site, sim)


def test_a_closed_terminal_ends_run_in_order(sim: Simulator, tmp_path: Path) -> None:
    """The kernel sends SIGHUP to the session's leader when the last hand is off the terminal."""
    site = site_of(tmp_path, sim, period="5s", symbols=SYMBOLS)
    leader, follower = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "run"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(follower)
    drain = subprocess.Popen(["cat"], stdin=leader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(leader)
    try:
        recorded(site, 60)
        drain.kill()  # the window is closed
        drain.wait()
        assert process.wait(110) == 0
    finally:
        for left in (drain, process):
            if left.poll() is None:
                left.kill()
                left.wait()
    check_files(site, sim)


def test_hangups_never_kill_run_and_under_nohup_change_nothing(sim: Simulator, tmp_path: Path) -> None:
    site = site_of(tmp_path, sim, period="5s", symbols=SYMBOLS)
    with stream("gone") as errors, started(site, ["run", "--json"], errors) as process:
        recorded(site, 60)
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
        answer, _ = process.communicate(timeout=110)
        assert process.returncode == 0, errors.text
    assert json.loads(answer)["ok"]
    check_files(site, sim)
    command = ["nohup", sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "run", "--json"]
    ignoring = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        before = rows(site, "btc")
        until(lambda: rows(site, "btc") > before, 60, "rows")
        ignoring.send_signal(signal.SIGHUP)
        now = rows(site, "btc")
        until(lambda: rows(site, "btc") > now + 100, 60, "recording to go on")
        assert ignoring.poll() is None
        ignoring.send_signal(signal.SIGTERM)
        answer, _ = ignoring.communicate(timeout=110)
        assert ignoring.returncode == 0
        assert json.loads(answer)["ok"]
    finally:
        if ignoring.poll() is None:
            ignoring.kill()
        ignoring.communicate()


def test_a_simulator_whose_reader_is_gone_simulates_on() -> None:
    with stream("full") as out, stream("gone") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "mexc_pipeline", "simulate", "--port", "0"], stdout=out.fd, stderr=errors.fd
        )
        until(lambda: "standard output: No space left" in errors.text, what="its complaint")
        assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 0


def test_a_store_ends_in_order_when_hung_up(sim: Simulator, tmp_path: Path) -> None:
    site = site_of(tmp_path, sim)
    with stream("gone") as errors, started(site, ["store"], errors) as process:
        until(lambda: (site.data / "control" / "store.sock").exists(), 60, "the store")
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 0, errors.text
        assert "store stopped" in errors.text


def test_an_export_ends_in_order_when_hung_up(sim: Simulator, tmp_path: Path) -> None:
    """In the middle of a file, of which nothing is left; the next run makes it."""
    site = site_of(tmp_path, sim, period="1h")
    fill(load(site.config), rows=200_000, start_ns=T0 // HOUR_NS * HOUR_NS)
    with stream("gone") as errors, started(site, ["export"], errors) as process:
        until(lambda: site.exports.is_dir() and any(site.exports.iterdir()), 60, "a file that is being written")
        process.send_signal(signal.SIGHUP)
        answer, _ = process.communicate(timeout=20)
        assert process.returncode == 0, errors.text
        assert "export stopped" in errors.text
    assert list(site.exports.iterdir()) == [], answer
    with stream("gone") as errors, started(site, ["export"], errors) as process:
        process.communicate(timeout=60)
        assert process.returncode == 0, errors.text
    (file,) = site.exports.glob("*.parquet")
    assert pq.read_metadata(file).num_rows == len(read_rows(site.spool()))


def test_a_collectors_hangup_is_its_reload(sim: Simulator, tmp_path: Path) -> None:
    """It goes on, on the same connection."""
    site = site_of(tmp_path, sim)
    with collecting(site) as collector:
        collector.live(30)
        for _ in range(3):
            before = rows(site, "btc")
            collector.process.send_signal(signal.SIGHUP)
            until(lambda before=before: rows(site, "btc") > before + 30, 60, "recording to go on")  # type: ignore[misc]
        assert collector.stop() == 0
    assert len(sim.connections) == 1
    check_whole(check(site.spool()), sim.sent_on(1))


def test_a_hangup_reads_again_who_shares_the_exits(tmp_path: Path) -> None:
    """By Tor, which does not even have to be there: what is reloaded is the configuration's list of symbols."""

    def write(*deployment: str) -> Site:
        egress = f'[egress]\nmode = "tor"\ndeployment = {json.dumps(deployment)}\n'
        return Site(tmp_path, "wss://contract.example/edge", "https://contract.example", extra=egress)

    def shared() -> list[Any]:
        said = map(json.loads, collector.said().splitlines())
        return [line["among"] for line in said if line["msg"] == "exits repartitioned"]

    with collecting(write("btc", "eth")) as collector:
        collector.wait(lambda s: s["state"] == "connecting")
        write("btc", "eth", "sol")
        collector.process.send_signal(signal.SIGHUP)
        until(shared, 20, "the list that was read again")
        assert shared() == [["btc", "eth", "sol"]]
        assert collector.stop() == 0
