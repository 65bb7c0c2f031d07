"""``run`` as a user starts it, against the simulator: proven to the end, orderly in every kind of end."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mexc_pipeline.config import Config, load
from mexc_pipeline.control import ControlError
from mexc_pipeline.periods import SECOND_NS, Period
from mexc_pipeline.run.supervisor import lock_holder
from mexc_pipeline.simulator.config import SimulatorConfig
from mexc_pipeline.simulator.inprocess import Simulator
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.store.client import logged
from support import waiting
from support.peers import free_port

SYMBOLS = ("BTC_USDT", "ETH_USDT")
IDS = ("btc", "eth")
COUNT = "SELECT count() FROM btc_current"


until = functools.partial(waiting.until, timeout_s=40.0)


@dataclass
class Place:
    """A folder with a configuration for one test."""

    root: Path
    simulator: Simulator

    @property
    def config(self) -> Path:
        return self.root / "test.toml"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def spool(self) -> Path:
        return self.root / "data" / "spool"

    def write(self, symbols: tuple[str, ...] = SYMBOLS, more: str = "") -> None:
        self.config.write_text(
            f'symbols = {json.dumps(symbols)}\ndata_dir = "{self.root}/data"\nexport_dir = "{self.exports}"\n'
            f'period = "5s"\n[exchange]\nwebsocket = "{self.simulator.ws_url}"\nrest = "{self.simulator.rest_url}"\n'
            + more
        )

    @contextlib.contextmanager
    def run(self, *args: str, program: tuple[str, ...] = ("-m", "mexc_pipeline")) -> Iterator[subprocess.Popen[str]]:
        """``run`` with these arguments; what is left of it at the end is killed."""
        with (self.root / "out").open("w") as out, (self.root / "err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, *program, "run", "--json", "--config", str(self.config), *args],
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()  # its children end by their lifeline
                process.wait()

    def ask(self, *args: str) -> str:
        """Standard output of another command."""
        command = [sys.executable, "-m", "mexc_pipeline", "--config", str(self.config), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout, done.stderr
        return done.stdout

    def answer(self) -> dict[str, Any]:
        """The closing JSON on standard output."""
        found: dict[str, Any] = json.loads((self.root / "out").read_text())
        return found

    def err(self) -> str:
        return (self.root / "err").read_text()

    def children(self, process: subprocess.Popen[str]) -> dict[str, int]:
        """Process ids of the running children by what they run (a symbol id, ``store``, ``export``)."""
        found: dict[str, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except (OSError, ValueError):
                continue  # ended meanwhile
            if parent == process.pid and "mexc_pipeline" in words:
                command = words[words.index("mexc_pipeline") + 1 :]
                named = next((word for word in command if word in (*IDS, "store", "export")), None)
                if named is not None:  # a moment after its fork a child still has its parent's command line
                    found[named] = int(entry.name)
        return found

    def sent(self, symbol: str) -> list[bytes]:
        return [frame.payload for frame in self.simulator.sent if frame.symbol == symbol and _is_push(frame.payload)]

    def received(self, symbol_id: str) -> int:
        """Frames in the spool, as far as segments are still there."""
        count = 0
        for path in (self.spool / symbol_id).glob("*.sqlite"):
            with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
                count += db.execute("SELECT count(*) FROM rows WHERE mt <= 4").fetchone()[0]
        return count

    def exported(self, symbol_id: str) -> pa.Table:
        """All exported rows of a symbol in seq order."""
        files = [pq.read_table(path) for path in self.exports.glob(f"{symbol_id}*.parquet")]
        return pa.concat_tables([f.replace_schema_metadata(None) for f in files]).sort_by("seq")


def rows_of(place: Place, symbol_id: str) -> list[str]:
    """``m`` of all exported rows in seq order."""
    found: list[str] = place.exported(symbol_id)["m"].to_pylist()
    return found


def _is_push(payload: bytes) -> bool:
    return b'"channel":"push.' in payload


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Simulator(SimulatorConfig(symbols=SYMBOLS, rate=40.0)) as simulator:
        found = Place(tmp_path, simulator)
        found.write()
        yield found


def test_a_run_proves_every_period_and_exits_0(place: Place) -> None:
    with place.run("--duration", "12s") as process:
        assert process.wait(110) == 0, place.err()
    answer = place.answer()
    assert answer["ok"]
    assert answer["problems"] == []
    for symbol, symbol_id in zip(SYMBOLS, IDS, strict=True):
        lines = [line for line in answer["periods"] if line["id"] == symbol_id]
        assert len(lines) >= 3, "several rotations"
        for before, after in itertools.pairwise(lines):
            assert after["first_seq"] == before["last_seq"] + 1
        for line in lines:
            assert line["received"] == line["stored"] == line["exported"] == line["last_seq"] - line["first_seq"] + 1
        rows = place.exported(symbol_id)
        assert rows["seq"].to_pylist() == list(range(1, len(rows) + 1))
        told = [(mt, m.encode()) for mt, m in zip(rows["mt"].to_pylist(), rows["m"].to_pylist(), strict=True)]
        frames = [m for mt, m in told if mt not in ("ev", "c")]
        assert {m for mt, m in told if mt == "c"} == set(place.simulator.specifications(symbol))
        sent = place.sent(symbol)
        assert len(frames) > 100
        assert frames == sent[: len(frames)], "byte for byte and in order"
        assert len(sent) - len(frames) < 20, "only what was under way when the socket closed"
    for symbol_id in (*IDS, "store"):
        assert not (place.root / "data" / "control" / f"{symbol_id}.sock").exists(), "nothing is left behind"


def test_kill_9_of_run_ends_its_children_within_a_second_and_nothing_is_lost(place: Place) -> None:
    with place.run() as process:
        until(lambda: place.received("btc") > 20 and place.received("eth") > 20, what="frames in the spool")
        children = place.children(process)
        assert {*IDS, "store"} <= set(children)
        process.kill()
        # A second on a machine at rest; the rest of the bound is for one that runs other tests beside.
        until(lambda: not any(map(_alive, children.values())), what="the children to end", timeout_s=4.0)
        process.wait()
    assert [lock_holder(place.spool / symbol_id) for symbol_id in IDS] == [None, None]
    kept = {symbol_id: place.received(symbol_id) for symbol_id in IDS}
    with place.run("--duration", "3s") as process:
        assert process.wait(110) == 0, place.err()
    for symbol_id in IDS:
        rows = place.exported(symbol_id)
        assert rows["seq"].to_pylist() == list(range(1, len(rows) + 1))
        assert len(rows) > kept[symbol_id]


def test_a_run_may_start_in_the_moment_the_one_before_was_killed(place: Place) -> None:
    with place.run() as process:
        until(lambda: place.received("btc") > 20, what="frames in the spool")
        process.kill()
        process.wait()
    with place.run("--duration", "3s") as process:
        assert process.wait(110) == 0, place.err()


@pytest.mark.parametrize("symbols", [SYMBOLS, ("SOL_USDT",)])
def test_a_second_run_beside_the_first_is_refused_at_once(place: Place, symbols: tuple[str, ...]) -> None:
    with place.run() as first:
        until(lambda: place.received("btc") > 20 and place.received("eth") > 20, what="frames in the spool")
        place.write(symbols)
        second = subprocess.run(
            [sys.executable, "-m", "mexc_pipeline", "run", "--json", "--config", str(place.config)],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        said = f"mexc-pipeline: another run records into {place.root}/data: stop it first, or set another data_dir\n"
        assert (second.returncode, second.stdout, second.stderr) == (1, "", said)
        assert not (place.spool / "sol").exists()
        place.write()
        first.send_signal(signal.SIGINT)
        assert first.wait(110) == 0, place.err()
    parts = [line["part"] for line in place.answer()["periods"]]
    assert 2 not in parts, "the other one's end cut nothing"


def in_log(config: Config, symbol_id: str) -> Mapping[tuple[str, str], Any]:
    """Entries of ``export_log`` by file; none while the store does not answer."""
    try:
        return logged(config, symbol_id)
    except ControlError:
        return {}


def test_what_was_stored_is_known_when_its_segment_is_pruned_and_the_store_began_anew(place: Place) -> None:
    with place.run() as process:
        config = load(place.config)
        until(lambda: len(in_log(config, "btc")) > 1, what="two files in export_log")
        first = min(place.exports.glob("btc*.parquet")).name
        for path in place.spool.glob(f"btc/{first[3:17]}.sqlite*"):  # as the collector does a day later
            path.unlink()
        killed = place.children(process)["store"]
        os.kill(killed, signal.SIGKILL)
        until(lambda: place.children(process).get("store", killed) != killed, what="another store")
        until(lambda: in_log(config, "btc"), what="its answer")
        entry = next(
            e for e in json.loads(place.ask("ledger", "--json", "--symbol", "btc"))["entries"] if e["file"] == first
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(110) == 0, place.err()
    assert entry["received"] == entry["stored"] == entry["exported"] > 0, "though segment and table are gone"
    assert entry["digest_spool"] == entry["digest_file"] == entry["digest"]
    line = next(line for line in place.answer()["periods"] if line["file"] == first)
    assert (line["verdict"], line["stored"]) == ("verified", entry["stored"])


@pytest.mark.parametrize("victim", ["btc", "store"])
def test_a_child_that_dies_is_started_again_and_said_so(place: Place, victim: str) -> None:
    """What a collector had received and not committed is gone, whatever is verified after that; a store loads again
    what it had not loaded, and is compared."""
    with place.run("--duration", "12s") as process:
        until(lambda: place.received("btc") > 20, what="frames in the spool")
        killed = place.children(process)[victim]
        os.kill(killed, signal.SIGKILL)
        until(lambda: place.children(process).get(victim, killed) != killed, what=f"another {victim}")
        assert process.wait(110) == (1 if victim == "btc" else 0), place.err()
    assert "child died and will be restarted" in place.err()
    assert "SIGKILL" in place.err()
    answer = place.answer()
    assert {line["verdict"] for line in answer["periods"]} == {"verified"}
    lost = ["btc: its collector ended by itself (SIGKILL): what it had received and not committed is in no file"]
    assert [problem.partition(",")[0] for problem in answer["problems"]] == (lost if victim == "btc" else [])
    rows = place.exported("btc")
    assert rows["seq"].to_pylist() == list(range(1, len(rows) + 1))


def test_a_collector_that_cannot_end_in_time_fails_the_run(place: Place) -> None:
    """It was killed with what it had not committed, and ``run`` said that everything was verified."""
    with place.run() as process:
        until(lambda: place.received("btc") > 20 and place.received("eth") > 20, what="frames in the spool")
        os.kill(place.children(process)["btc"], signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        assert process.wait(110) == 1, place.err()
    answer = place.answer()
    assert {line["verdict"] for line in answer["periods"]} == {"verified"}
    (problem,) = answer["problems"]
    assert problem.startswith("btc: its collector did not end within 10 s and was killed: some of what it had received")


def test_ctrl_c_ends_in_order(place: Place) -> None:
    with place.run() as process:
        until(lambda: place.received("btc") > 20 and place.received("eth") > 20, what="frames in the spool")
        process.send_signal(signal.SIGINT)
        assert process.wait(110) == 0, place.err()
    assert {line["verdict"] for line in place.answer()["periods"]} == {"verified"}


def test_a_second_signal_kills_and_loses_nothing_committed(place: Place) -> None:
    with place.run() as process:
        until(lambda: place.received("btc") > 20, what="frames in the spool")
        children = place.children(process)
        os.kill(children["store"], signal.SIGSTOP)  # so that the orderly end cannot be over too soon
        process.send_signal(signal.SIGTERM)
        until(lambda: "ending: closing" in place.err(), what="the orderly end to begin")
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 1
        until(lambda: not any(map(_alive, children.values())), what="the children to end", timeout_s=3.0)
    assert place.received("btc") > 20


def test_an_altered_file_makes_it_exit_1_and_is_named(place: Place) -> None:
    with place.run("--duration", "14s") as process:
        path: Path = until(lambda: next(iter(sorted(place.exports.glob("btc*.parquet"))), None), what="a first file")
        table = pq.read_table(path)
        m = table["m"].to_pylist()
        m[-1] = m[-1][:-1] + " "
        altered = table.set_column(table.schema.get_field_index("m"), "m", pa.array(m, pa.string()))
        pq.write_table(altered, path, compression="zstd")
        assert process.wait(110) == 1, place.err()
    answer = place.answer()
    assert not answer["ok"]
    assert any(path.name in problem for problem in answer["problems"])
    wrong = [line for line in answer["periods"] if line["verdict"] != "verified"]
    assert [line["file"] for line in wrong] == [path.name]


def test_a_symbol_held_elsewhere_is_said_once_and_fails_the_run(place: Place) -> None:
    with SpoolLock(place.spool / "eth"), place.run("--duration", "8s") as process:
        assert process.wait(110) == 1, place.err()
    answer = place.answer()
    assert any("eth" in problem and str(os.getpid()) in problem for problem in answer["problems"])
    assert {line["verdict"] for line in answer["periods"] if line["id"] == "btc"} == {"verified"}
    assert place.err().count("is not started again") == 1


def test_a_store_that_a_query_keeps_from_starting_starts_after_it(place: Place) -> None:
    query = SpoolLock(place.root / "data" / "store", whose="a query")
    query.__enter__()
    with place.run("--duration", "14s") as process:
        until(lambda: set(IDS) <= set(place.children(process)), what="collectors that do not wait")
        assert "in use by a query" in place.err()
        assert "store" not in place.children(process)
        query.__exit__()
        until(lambda: "store" in place.children(process), what="a store")
        assert process.wait(110) == 0, place.err()
    assert place.answer()["ok"]


def test_a_symbol_the_exchange_does_not_list_fails_the_run_and_no_other(place: Place) -> None:
    place.write(("BTC_USDT", "NOPE_USDT"))
    with place.run("--duration", "8s") as process:
        assert process.wait(110) == 1, place.err()
    problems = place.answer()["problems"]
    assert any("nope" in problem for problem in problems)
    assert not any("btc" in problem for problem in problems)


def test_a_symbol_whose_proxy_is_dead_leaves_the_others_alone_and_never_goes_round_it(place: Place) -> None:
    place.write(more=f'[symbol.ETH_USDT.egress]\nmode = "socks5h://127.0.0.1:{free_port()}"\n')
    with place.run("--duration", "8s") as process:
        assert process.wait(110) == 1, place.err()
    answer = place.answer()
    assert any("eth" in problem for problem in answer["problems"]), "no frame of it came"
    assert all(line["verdict"] == "verified" for line in answer["periods"]), "what there is of both is proven"
    served = place.simulator.specifications("BTC_USDT")
    frames = [m.encode() for m in rows_of(place, "btc") if '"event"' not in m and m.encode() not in served]
    assert frames == place.sent("BTC_USDT")
    assert place.sent("ETH_USDT") == []
    assert len(place.simulator.connections) == 1, "the exchange saw one symbol only"
    ends = [json.loads(m) for m in rows_of(place, "eth") if '"disconnected"' in m]
    assert len(ends) >= 2
    assert all("proxy" in end["reason"] for end in ends[:-1])


def test_a_hard_check_that_fails_stops_it_before_anything_starts(place: Place) -> None:
    place.exports.write_text("in the way")
    with place.run("--duration", "8s") as process:
        assert process.wait(60) == 1
    assert "export_dir writable" in place.err().splitlines()[-1]
    assert not place.spool.exists()


def test_a_foreign_file_in_the_way_is_kept_and_only_that_period_fails(place: Place) -> None:
    """Export says so, is tried again, and everything else goes on."""
    with place.run() as process:
        until(lambda: place.received("btc") > 5, what="frames in the spool")
        period = Period(5 * SECOND_NS)
        foreign = place.exports / f"btc{period.name(period.end(period.start(time.time_ns())))}.parquet"
        foreign.write_bytes(b"somebody else's")
        until(lambda: "export failed and will be tried again" in place.err(), what="a failed export")
        process.send_signal(signal.SIGINT)
        assert process.wait(110) == 1, place.err()
    answer = place.answer()
    wrong = [line["file"] for line in answer["periods"] if line["verdict"] != "verified"]
    assert wrong == [foreign.name]
    assert any("btc" in line["file"] for line in answer["periods"] if line["verdict"] == "verified")
    assert foreign.read_bytes() == b"somebody else's"


def test_without_a_store_recording_and_files_go_on_and_the_end_says_what_is_missing(place: Place) -> None:
    (place.root / "data").mkdir()
    (place.root / "data" / "store").write_text("a file where its folder should be")
    impatient = (
        "from mexc_pipeline.run import supervisor; supervisor.STORE_SILENT_S = 2.0;"
        "from mexc_pipeline.cli import main; main()"
    )
    with place.run("--duration", "8s", program=("-c", impatient)) as process:
        assert process.wait(110) == 1, place.err()
    assert "recording starts without it" in place.err()
    for line in place.answer()["periods"]:
        assert line["received"] == line["exported"]
        assert line["stored"] is None
        assert "not compared in ClickHouse" in line["verdict"]
    assert place.received("btc") > 100


def test_status_and_query_answer_while_it_runs(place: Place) -> None:
    with place.run() as process:
        until(lambda: place.received("btc") > 50, what="frames in the spool")
        status = json.loads(place.ask("status", "--json"))
        assert status["ok"]
        assert {s["collector"]["state"] for s in status["symbols"]} == {"live"}
        until(lambda: json.loads(place.ask("query", "--json", COUNT))["rows"][0][0] > 50, what="rows in ClickHouse")
        verified = json.loads(place.ask("verify", "egress", "--json"))
        assert verified["ok"], verified
        process.send_signal(signal.SIGINT)
        assert process.wait(110) == 0, place.err()
    files = json.loads(place.ask("query", "--json", "SELECT count() FROM export_log"))["rows"][0][0]
    assert files == len(list(place.exports.glob("*.parquet"))), "answered with nothing running"
    ledger = json.loads(place.ask("ledger", "--json"))
    assert {entry["verdict"] for entry in ledger["entries"]} == {"proven"}
