"""The embedded engine's folder is opened within a deadline, whatever becomes of the engine meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mexc_pipeline.store import opening
from mexc_pipeline.store.embedded import EmbeddedFolder
from support.store_process import MAIN, Process
from support.storing import Recording, wait_for

DECEIVED = f"""
from mexc_pipeline.store import embedded, opening
opening.refused = lambda folder: ""
embedded.EmbeddedFolder.__init__.__defaults__ = (4, 1)
{MAIN}
"""
"""A store that finds nothing wrong with its engine's folder and waits for it no longer than 4 s."""
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def loaded(process: Process, recording: Recording) -> None:
    process.start()
    wait_for(lambda: process.is_up() and process.loaded() == recording.spool.last_seq)


def aside(process: Process) -> list[Path]:
    return list(process.data.glob("clickhouse.broken-*"))


@contextlib.contextmanager
def hung(process: Process) -> Iterator[subprocess.Popen[bytes]]:
    """A store whose engine waits for a FIFO, and holds the interpreter."""
    (process.data / "clickhouse" / "status").unlink(missing_ok=True)
    os.mkfifo(process.data / "clickhouse" / "status")
    asked = [sys.executable, "-c", DECEIVED, str(process.file)]
    with process.log.open("ab") as out, subprocess.Popen(asked, stdout=out, stderr=out) as store:
        try:
            yield store
        finally:
            store.kill()


def test_an_engine_that_does_not_come_up_is_ended_and_its_folder_set_aside_by_the_next_start(tmp_path: Path) -> None:
    process, recording = Process(tmp_path / "store"), Recording(tmp_path / "store" / "data" / "spool")
    with contextlib.closing(process), contextlib.closing(recording):
        recording.add(100)
        loaded(process, recording)
        process.end(signal.SIGTERM)
        before = len(process.text().splitlines())
        with hung(process) as store:
            assert store.wait(30) == -signal.SIGKILL
        said = process.text().splitlines()[before:]
        assert len(said) == 1
        assert "embedded ClickHouse did not open in time, ending" in said[0]
        assert "the next start sets it aside" in said[0]
        assert not aside(process), "the next start does, under the store's lock"
        recording.add(20)
        loaded(process, recording)
        assert len(aside(process)) == 1
        assert (aside(process)[0] / opening.MARK).exists()
        process.end(signal.SIGTERM)
        loaded(process, recording)
        assert len(aside(process)) == 1, "the new folder is not at fault"


def test_a_start_that_is_killed_says_nothing_of_its_folder(tmp_path: Path) -> None:
    """Nor do the signals that a group gets end who waits beside it."""
    process = Process(tmp_path / "store")
    folder = process.data / "clickhouse"
    folder.mkdir(parents=True)
    with contextlib.closing(process):
        with hung(process) as store:
            watcher = wait_for(lambda: next(iter(children(store.pid)), 0))
            wait_for(lambda: blocks(watcher, STOPS))
            for number in STOPS:
                os.kill(watcher, number)
            assert watcher in children(store.pid)
        wait_for(lambda: not Path(f"/proc/{watcher}").exists())
        assert not (folder / opening.MARK).exists()
        assert process.text() == ""


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def blocks(pid: int, numbers: tuple[signal.Signals, ...]) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    return all(blocked >> (number - 1) & 1 for number in numbers)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link_to_a_fifo(path: Path) -> None:
    outside = next(above for above in path.parents if above.name == "clickhouse").with_name("fifo")
    os.mkfifo(outside)
    path.symlink_to(outside)


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 33)


@pytest.mark.parametrize(
    ("name", "put", "why"),
    [
        ("status", _fifo, "status is a FIFO"),
        ("status", Path.mkdir, "EmbeddedServer"),
        ("data.bin", _link_to_a_fifo, "data.bin is a FIFO"),
        ("t.sql", _huge, "t.sql has 8589934592 bytes"),
        ("sizes.json", _huge, "sizes.json has 8589934592 bytes"),
    ],
)
def test_what_would_hold_the_engine_up_is_not_given_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, put: Callable[[Path], None], why: str
) -> None:
    folder = tmp_path / "engine" / "clickhouse"
    opened = EmbeddedFolder(folder, "ch_mexc")
    engine = opened.engine()
    engine.connect()
    engine.execute("CREATE TABLE t (a UInt8) ENGINE = StripeLog")
    engine.execute("INSERT INTO t VALUES (1)")
    engine.close()
    opened.close()
    path = folder / name if name == "status" else next(folder.rglob(name))
    path.unlink(missing_ok=True)
    put(path)
    with caplog.at_level("ERROR", "mexc_pipeline"):
        opened = EmbeddedFolder(folder, "ch_mexc")
    opened.close()
    assert opened.set_aside is not None
    [record] = caplog.records
    assert why in record.fields["error"]  # type: ignore[attr-defined]


def test_the_deadline_comes_before_systemds() -> None:
    unit = Path(__file__).parents[2] / "roles" / "mexc_pipeline" / "templates" / "mexc-store.service.j2"
    given = next(line for line in unit.read_text().splitlines() if line.startswith("TimeoutStartSec="))
    assert int(given.partition("=")[2]) > opening.WITHIN_S + 20


def test_a_folder_that_had_little_of_the_time_is_not_at_fault(tmp_path: Path) -> None:
    code = (
        "import sys, threading; from pathlib import Path; from mexc_pipeline.store import opening\n"
        "with opening.watched(Path(sys.argv[1]), 1, 60) as begins: begins(); threading.Event().wait()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert b"the next start tries again" in done.stderr
    assert not opening.refused(tmp_path)
