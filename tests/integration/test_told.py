"""What is verified and is not as it should be, said where a recording ends: channels that stay away, and frames that
readers cannot read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mexc_pipeline.config import load
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from mexc_pipeline.verify import by_hour, ledger
from mexc_pipeline.verify.exports import exports
from support.collecting import collecting, site_of

REFUSED = Fault("retired", channel="depth.full", value="param error")
RENAMED = Fault("shape", channel="deal", value="rename=data.p:price")
DROPPED = Fault("shape", channel="ticker", value="drop=data.lastPrice")


def test_a_run_without_a_channel_and_with_unreadable_frames_is_no_success_and_verify_says_it_too(
    tmp_path: Path,
) -> None:
    with Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=60.0, faults=(REFUSED, RENAMED, DROPPED))) as sim:
        site = site_of(tmp_path, sim, period="10s")
        command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "run", "--json"]
        done = subprocess.run([*command, "--duration", "25s"], capture_output=True, text=True, timeout=150, check=False)
    answer = json.loads(done.stdout)
    assert {line["verdict"] for line in answer["periods"]} == {"verified"}, "every byte is kept and proven"
    assert done.returncode == 1
    given_up, less, unread = answer["problems"]
    assert given_up.startswith("btc: push.depth.full given up ")
    assert less.startswith("btc: the newest frames of type t have no lastPrice, as they always had: readers")
    assert unread.startswith("btc: the newest frames of type d cannot be read: Object missing required field `p`")
    config = load(site.config)
    found = exports(config)
    assert found.ok
    newest = answer["periods"][-1]["file"]
    warned = [note for note in found.notes if note.startswith("warn ")]
    assert warned[0].startswith(f"warn btc {newest}: push.depth.full: given up since ")
    assert [note for note in warned[1:] if "the newest frames of type d cannot be read" in note]
    assert [note for note in warned[1:] if "the newest frames of type t have no lastPrice" in note]
    hours = by_hour(config, ledger(config, {}))
    assert hours[-1].coverage == 0.0, "not fully subscribed"
    assert hours[-1].socket_ns > 0
    for period in answer["periods"][1:]:
        said = [row for row in site_events(site.exports / period["file"]) if row["event"] == "given_up"]
        assert [row["channel"] for row in said] == ["push.depth.full"], "each file tells it"


def site_events(path: Path) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return [json.loads(m) for mt, m in zip(table["mt"].to_pylist(), table["m"].to_pylist(), strict=True) if mt == "ev"]


def test_frames_that_cannot_be_read_are_a_fault_of_status(tmp_path: Path) -> None:
    first = "from mexc_pipeline.collector import statistics\nstatistics.LEGIBLE_S = 0.2"
    with Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=60.0, faults=(RENAMED, DROPPED))) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site, first=first) as btc:
            status = btc.wait(lambda s: len(s["unreadable"]) > 1)
            assert sorted(status["unreadable"]) == ["d", "t"]
            command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "status"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 1
            said = " ".join(done.stdout.split())
            assert "FAULT btc: unreadable: the newest frames of type d cannot be read: no p" in said
            assert "FAULT btc: unreadable: the newest frames of type t have no lastPrice" in said
            sim.clear_faults()
            btc.wait(lambda s: not s["unreadable"])
            assert btc.stop() == 0
