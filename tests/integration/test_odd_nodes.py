"""A FIFO, a folder, a socket or a device under a name of ours is named and passed over; nothing waits for it, and what
lies beside it goes on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mexc_pipeline import read
from mexc_pipeline.config import Config
from mexc_pipeline.errors import UserError
from mexc_pipeline.export import main
from mexc_pipeline.spool.walk import segments
from support.spools import configure, fill, open_spool

WITHIN_S = 60
LATER = "btc20260915190000.parquet"


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("something")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"/proc/self/fd/{os.open(path.parent, os.O_RDONLY)}/{path.name}")


NODES: dict[str, Callable[[Path], None]] = {
    "FIFO": os.mkfifo,
    "folder": _folder,
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.fixture(params=list(NODES))
def node(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    return NODES[request.param]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    for symbol in ("btc", "eth"):
        fill(config, symbol, periods=2)
    assert main(config).ok
    return config


def _run(config: Config, *command: str) -> subprocess.CompletedProcess[str]:
    """One command, which must end by itself and without a traceback."""
    path = config.data_dir.parent / "config.toml"
    path.write_text(
        f'symbols = ["BTC_USDT", "ETH_USDT"]\nperiod = "10s"\nspool_keep = "36500d"\n'
        f"data_dir = {json.dumps(str(config.data_dir))}\nexport_dir = {json.dumps(str(config.export_dir))}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mexc_pipeline", "--config", str(path), *command],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr, done.stderr
    return done


def test_in_place_of_a_file(config: Config, node: Callable[[Path], None]) -> None:
    node(config.export_dir / LATER)
    node(config.export_dir / f".{LATER}.tmp")
    found = _run(config, "verify", "exports", "--json")
    assert found.returncode == 1
    wrong = [f for f in json.loads(found.stdout)["exports"]["findings"] if not f["ok"]]
    assert {f["subject"] for f in wrong} == {LATER}, "everything else is sound"
    listed = json.loads(_run(config, "ledger", "--json").stdout)["entries"]
    assert [e["exported"] for e in listed if e["file"] == LATER] == [0]
    assert len(listed) == 5
    assert _run(config, "export").returncode == 0
    _run(config, "prune", "--keep", "1d")
    assert (config.export_dir / LATER).lstat()
    newest = subprocess.run(
        [sys.executable, "-m", "mexc_pipeline.export.newest", str(config.export_dir), "btc"],
        capture_output=True, text=True, timeout=WITHIN_S,
    )  # fmt: skip
    answer = json.loads(newest.stdout)
    assert answer["last_seq"] > 0
    assert [LATER in line for line in answer["unknown"]] == [True], "what may be behind it is unknown"
    for name in ("eth", "ETH_USDT"):
        assert len(read.frames(name, export_dir=config.export_dir)) > 0
    with pytest.raises(UserError, match=LATER):
        read.frames("btc", export_dir=config.export_dir)


@pytest.mark.parametrize("end", ["", "-wal"])
def test_in_place_of_a_segment_or_its_log(config: Config, node: Callable[[Path], None], end: str) -> None:
    fill(config, "eth", periods=1, start_ns=1_789_500_000 * 10**9)
    _, path = segments(config.spool_dir / "btc")[-1]
    if end:
        node(path.with_name(f"{path.name}{end}"))
    else:
        shutil.move(path, config.data_dir / "elsewhere")
        node(path)
    exported = _run(config, "export", "--json")
    assert len(json.loads(exported.stdout)["files"]) == 1, "eth's new period, whatever became of btc's"
    verified = _run(config, "verify", "exports")
    assert path.name in verified.stdout
    ledger = _run(config, "ledger")
    assert path.stem in ledger.stdout
    _run(config, "status")
    spool = open_spool(config, "btc")
    try:
        assert spool.recovered.set_apart
    finally:
        spool.close()
