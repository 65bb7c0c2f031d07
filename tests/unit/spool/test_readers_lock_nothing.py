"""Who may only read can lock what he reads: of what the recorder locks itself, its group may read nothing."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mexc_pipeline import config
from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlServer
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.export import main
from mexc_pipeline.export.job import run
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.feed.contracts import WAIT_S, HostContracts
from mexc_pipeline.files import own_lock
from mexc_pipeline.spool.lock import SpoolLock
from support.spools import T0, configure, fill, open_spool, some_frames

MEMBER = 60_001
LOCK_ALL = """
import fcntl, os, sys
os.setgroups([]); os.setuid(int(sys.argv[1]))  # the group stays that of the recorder
got = []
for folder, _, files in os.walk(sys.argv[2]):
    for path in (folder, *(os.path.join(folder, name) for name in files)):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        got.append(path)
        for lock in (fcntl.flock, fcntl.lockf):
            try:
                lock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                pass
print("\\n".join(got), flush=True)
print("", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that all may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def recorded(folder: Path) -> Config:
    """A closed segment, and the folders that processes make as they lock them."""
    config = configure(folder, "BTC_USDT")
    for locked in (config.spool_dir / "btc", config.data_dir / "store"):
        with SpoolLock(locked):
            pass
    fill(config)
    return config


@pytest.mark.as_root
def test_a_member_of_the_group_stops_nothing_by_locks(folder: Path) -> None:
    """Once he kept a symbol from being recorded for as long as he liked: by a read lock on a write-ahead log's index
    while it ran, by a lock on its folder before a start."""
    config = recorded(folder)
    spool = open_spool(config)
    spool.append(some_frames(20, T0 + config.period.length_ns))
    assert main(config).ok
    command = [sys.executable, "-c", LOCK_ALL, str(MEMBER), str(config.data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as member:
        assert member.stdout is not None
        held = {Path(line.strip()) for line in iter(member.stdout.readline, "\n")}
        assert config.data_dir in held, "otherwise nothing was tried"
        assert len(spool.append(some_frames(20, T0 + config.period.length_ns + 10**9))) == 20
        spool.close()
        for own in ("spool/btc", "store", "export"):
            assert not {path for path in held if path.is_relative_to(config.data_dir / own)}
            with SpoolLock(config.data_dir / own):
                pass
        member.communicate("")


STATUS_AS = """
import contextlib, io, os, sys
from mexc_pipeline.cli import main
member = int(sys.argv.pop(1))
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()  # what it imports may be where only root may look
os.setgroups([]); os.setuid(member)
main()
"""


@pytest.mark.as_root
def test_what_processes_take_turns_by_is_nobody_elses_to_lock(folder: Path) -> None:
    """Once he kept each process from the list of contracts for a minute of every hour, and from counting the attempts
    of the others. What an earlier version made is closed to him as well."""
    control = folder / "data" / "control"
    (control / "attempts").mkdir(parents=True)
    shared = (control / "contracts.lock", control / "attempts" / "direct", control / "attempts" / "socks5h-proxy-1080")
    for path in shared[:2]:
        path.touch(0o640)
    for path in shared:
        os.close(own_lock(path))
    command = [sys.executable, "-c", LOCK_ALL, str(MEMBER), str(control)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as member:
        assert member.stdout is not None
        held = {Path(line.strip()) for line in iter(member.stdout.readline, "\n")}
        assert held == {control, control / "attempts"}
        attempts = Attempts(shared[1])
        assert attempts.wait_s("exchange", free=False)[0] == 0.0
        rest = RestClient(config.Egress(), config.ExchangeTable(rest="http://127.0.0.1:1"))
        contracts = HostContracts(control / "contracts", rest, ["http://127.0.0.1:1"])
        began = time.monotonic()
        contracts.ask("BTC_USDT", threading.Event())
        assert (attempts.trouble, contracts.trouble) == (None, None)
        assert time.monotonic() - began < WAIT_S / 2
        member.communicate("")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_file_that_grows_is_nobody_elses_to_lock(tmp_path: Path, mask: int, mode: int) -> None:
    """What a killed export leaves is swept by the next one, unless somebody holds it: its period had no file then."""
    config = configure(tmp_path)
    fill(config)
    modes: list[int] = []

    def hook(step: str) -> None:
        if step in ("created", "block", "written"):
            modes.extend(stat.S_IMODE(path.stat().st_mode) for path in config.export_dir.glob(".*.tmp"))

    before = os.umask(mask)
    try:
        assert run(config, hook=hook).ok
    finally:
        os.umask(before)
    assert set(modes) == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in config.export_dir.iterdir()} == {mode}


@pytest.mark.as_root
def test_a_member_of_the_group_still_sees_status(folder: Path) -> None:
    """What runs tells it; what he may not look into is no error."""
    config = recorded(folder)
    store = ControlServer(config.control_dir / "store.sock", {"status": lambda _: {"reachable": True}}, ("status",))
    settings = folder / "settings.toml"
    settings.write_text(f'symbols = ["BTC_USDT"]\ndata_dir = "{config.data_dir}"\nexport_dir = "{config.export_dir}"\n')
    try:
        done = subprocess.run(
            [sys.executable, "-c", STATUS_AS, str(MEMBER), "--config", str(settings), "status", "--json"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        store.close()
    said = json.loads(done.stdout)
    assert said["store"]["reachable"] is True
    assert "btc is not running" in said["symbols"][0]["collector"]["problem"]
