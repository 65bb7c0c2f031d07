"""Who may only read can lock what he reads: of what the recorder locks itself, its group may read nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlServer
from mexc_pipeline.export import main
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
