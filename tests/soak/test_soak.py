"""The long recording itself: it records, ends when told to, judges, and can fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mexc_pipeline.simulator.sentlog import ConnectionLog
from soak.compare import compare
from soak.growth import MIB, slope, trends
from soak.sampling import Sample, descendants, read
from support.waiting import until

TESTS = Path(__file__).parents[1]
HOUR = [float(second) for second in range(0, 3600, 10)]


def soak(out: Path, hours: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "soak", "run", "--hours", str(hours), "--rate", "60", "--period", "2s"]
    return subprocess.Popen(
        [*command, "--keep", "4s", "--every", "0.5", "--out", str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_short_one_records_judges_and_is_written_up(tmp_path: Path) -> None:
    running = soak(tmp_path, 0.004)
    said, _ = running.communicate(timeout=110)
    assert running.returncode == 0, said
    page = (tmp_path / "soak.md").read_text()
    assert "No row lost, none repeated" in page
    assert (tmp_path / "images" / "soak.svg").stat().st_size > 10_000
    compared = json.loads((tmp_path / "result.json").read_text())["comparisons"]
    assert [c["symbol"] for c in compared] == ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
    assert all(c["sent"] == c["held"] > 100 and c["files"] > 1 for c in compared)
    names = {sample.what for sample in read(tmp_path / "samples.csv")}
    assert names >= {
        "run",
        "store",
        "collector btc",
        "collector sol",
        "simulator",
        "spool",
        "clickhouse",
        "backlog eth",
    }


def test_killed_it_leaves_nobody_who_writes_on(tmp_path: Path) -> None:
    """A recorder that was left behind once shared its folders with the next run's."""
    running = soak(tmp_path, 0.1)
    parts = {"run", "simulator", "store", "collector btc", "collector eth", "collector sol"}
    samples = tmp_path / "samples.csv"
    started: dict[int, str] = {}

    def all_at_work() -> bool:
        started.update(descendants(running.pid))
        return samples.exists() and parts <= {sample.what for sample in read(samples)}

    until(all_at_work, 60, "every part at work")
    running.kill()
    running.communicate(timeout=10)
    until(lambda: not [pid for pid in started if at_work(pid)], 10, "their end")


def at_work(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # nobody may have asked a dead one how it ended
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_interrupted_one_judges_what_there_is(tmp_path: Path) -> None:
    running = soak(tmp_path, 5.0)
    samples = tmp_path / "samples.csv"
    until(lambda: samples.exists() and "backlog sol" in samples.read_text(), 60, "samples of all parts")
    until(lambda: len(list((tmp_path / "site" / "exports").glob("*.parquet"))) > 3, 60, "some files")
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=110)
    assert running.returncode == 0, said
    assert all(c["held"] for c in json.loads((tmp_path / "result.json").read_text())["comparisons"])


def of_store(values: list[float]) -> list[Sample]:
    return [Sample(second, "store", rss=round(value)) for second, value in zip(HOUR, values, strict=True)]


@pytest.mark.parametrize(
    ("values", "is_flat"),
    [
        ([400 * MIB for _ in HOUR], True),
        ([400 * MIB + 60 * MIB * (second % 60) / 60 for second in HOUR], True),
        ([min(400 * MIB, second * MIB) for second in HOUR], True),
        ([400 * MIB + 20 * MIB * second / 3600 for second in HOUR], False),
        ([400 * MIB + 60 * MIB * (second % 60) / 60 + 20 * MIB * second / 3600 for second in HOUR], False),
    ],
    ids=["flat", "teeth of a saw", "grows while it warms up", "grows", "a saw that grows"],
)
def test_growth_is_told_from_a_saw(values: list[float], is_flat: bool) -> None:
    (trend,) = trends(of_store(values), 3600.0)
    assert trend.is_flat is is_flat


def test_a_slope_is_per_hour() -> None:
    assert slope([(second, 5.0 * second) for second in HOUR]) == pytest.approx(18_000)


def test_a_short_run_does_not_judge_growth() -> None:
    (trend,) = trends(of_store([second * MIB for second in HOUR])[:60], 600.0)
    assert trend.bound is None


SENT = [b'{"symbol":"BTC_USDT","data":{"n":%d},"channel":"push.deal","ts":1700000000000}' % n for n in range(10)]
CONNECTED = b'{"event":"connected","local":"127.0.0.1:5"}'
ENDED = b'{"event":"disconnected","code":1000,"reason":""}'


def exchanged(tmp_path: Path, m: list[bytes], *, first_seq: int = 1) -> list[str]:
    """What is found where the exchange sent SENT on one connection and a file holds these rows."""
    (tmp_path / "sent").mkdir()
    log = ConnectionLog(1, "127.0.0.1:5", 10, keep=False, folder=tmp_path / "sent")
    for number, payload in enumerate(SENT):
        log.frame(20 + number, 1, "BTC_USDT", payload)
    log.end(10**12, "client (1000)")
    columns = {
        "seq": pa.array(range(first_seq, first_seq + len(m)), pa.uint64()),
        "rx": pa.array(range(len(m)), pa.timestamp("ns", "UTC")),
        "mt": ["ev" if b'"event"' in text else "d" for text in m],
        "m": [text.decode() for text in m],
    }
    pq.write_table(pa.table(columns), tmp_path / "btc20261122000000.parquet")
    return compare("BTC_USDT", "btc", tmp_path / "sent", tmp_path).problems


def test_equal_is_found_equal(tmp_path: Path) -> None:
    assert exchanged(tmp_path, [CONNECTED, *SENT, ENDED]) == []


@pytest.mark.parametrize(
    "m",
    [
        [CONNECTED, *SENT[:4], *SENT[5:], ENDED],
        [CONNECTED, *SENT[:-1], ENDED],
        [CONNECTED, *SENT[:5], *SENT[4:], ENDED],
        [CONNECTED, *SENT, SENT[-1], ENDED],
        [CONNECTED, SENT[1], SENT[0], *SENT[2:], ENDED],
        [CONNECTED, *SENT[:-1]],
        [ENDED],
    ],
    ids=["one lost", "the last lost", "one twice", "the last twice", "two swapped", "cut off", "nothing"],
)
def test_what_differs_is_found(tmp_path: Path, m: list[bytes]) -> None:
    assert exchanged(tmp_path, m)


def test_a_hole_in_seq_is_found(tmp_path: Path) -> None:
    assert exchanged(tmp_path, [CONNECTED, *SENT, ENDED], first_seq=2)
