"""Whether services run what lies on the disk: asked of systemd, of /proc and of the recorder itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.scripts import Ended, ended, program, script

outdated = script("playbooks/files/outdated.py")


class Host:
    """What systemd and the recorder answer there."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.units: list[str] = []
        self.says(json.dumps({"symbols": [{"id": "btc", "collector": {}}], "store": None}))

    def says(self, status: str) -> None:
        program(self.programs, "mexc-pipeline", f"cat <<'END'\n{status}\nEND\nexit 1")

    def runs(self, unit: str, pid: int, environment: str = "", reload: str = "no") -> None:
        fields = (f"Id={unit}", f"MainPID={pid}", f"NeedDaemonReload={reload}", f"Environment={environment}")
        self.units.append("\n".join(fields))
        self.systemctl("cat <<'END'\n" + "\n\n".join(self.units) + "\nEND")

    def systemctl(self, does: str) -> None:
        program(self.programs, "systemctl", does)

    def found(self) -> dict[str, str]:
        told = ended(outdated)
        assert (told.status, told.said) == (0, "")
        found: dict[str, str] = json.loads(told.printed)
        return found

    def trouble(self) -> str:
        told: Ended = ended(outdated)
        assert (told.status, told.printed) == (1, "")
        assert len(told.said.splitlines()) == 1
        return told.said


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{found.programs}:/usr/bin:/bin")
    monkeypatch.setattr(outdated, "PROGRAM", str(found.programs / "mexc-pipeline"))
    monkeypatch.setattr(outdated, "PASSWORD", str(tmp_path / "password"))
    monkeypatch.setattr(outdated, "GIVEN", str(tmp_path / "given"))
    monkeypatch.setattr(outdated, "OTHERS", {"tor@*.service": (str(tmp_path / "tor" / "{instance}"),)})
    return found


@pytest.fixture
def pid() -> Iterator[int]:
    """Of a process that has the unit's mark."""
    environment = {**os.environ, "MEXC_PIPELINE_UNIT": "mark"}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def gone() -> int:
    """Of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


MARK = "A=b MEXC_PIPELINE_UNIT=mark"


def test_what_runs_what_is_on_the_disk_is_not_named(host: Host, pid: int, tmp_path: Path) -> None:
    (tmp_path / "tor" / "btc").mkdir(parents=True)
    host.runs("mexc-collector@btc.service", pid, MARK)
    host.runs("mexc-store.service", pid, MARK)
    host.runs("tor@btc.service", pid)
    host.runs("tor@eth.service", 0)
    assert host.found() == {}


def test_each_way_of_being_outdated_is_named(host: Host, pid: int, tmp_path: Path) -> None:
    host.says(json.dumps({"symbols": [{"id": "btc", "collector": {"outdated": "another configuration"}}], "store": {}}))
    host.runs("mexc-collector@btc.service", pid, MARK)
    host.runs("mexc-collector@eth.service", pid, "MEXC_PIPELINE_UNIT=newer")
    host.runs("mexc-collector@sol.service", pid, MARK, reload="yes")
    host.runs("mexc-store.service", pid, MARK)
    host.runs("tor@btc.service", pid)
    (tmp_path / "given").write_text("older")
    (tmp_path / "password").write_text("newer")
    (tmp_path / "tor" / "btc").mkdir(parents=True)
    torrc = tmp_path / "tor" / "btc" / "torrc"
    torrc.touch()
    os.utime(torrc, (time.time() + 60, time.time() + 60))
    assert host.found() == {
        "mexc-collector@btc.service": "another configuration",
        "mexc-collector@eth.service": "it was started from an older unit file",
        "mexc-collector@sol.service": "its unit file was changed and systemd has not read it",
        "mexc-store.service": "it was given an older password",
        "tor@btc.service": f"{torrc} was written after it had started",
    }


def test_a_process_that_ended_meanwhile_is_not_named(host: Host, gone: int) -> None:
    host.runs("mexc-collector@btc.service", gone, MARK)
    host.runs("tor@btc.service", gone)
    assert host.found() == {}


def test_where_none_of_the_recorder_runs_it_is_not_asked(host: Host, pid: int) -> None:
    (host.programs / "mexc-pipeline").unlink()
    host.runs("tor@btc.service", pid)
    host.runs("mexc-store.service", 0)
    assert host.found() == {}


def test_where_nothing_is_loaded_nothing_is_named(host: Host) -> None:
    host.systemctl("true")
    assert host.found() == {}


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("echo 'Failed to connect to bus' >&2; exit 1", "ended with 1: Failed to connect to bus"),
        ("echo nonsense", "says what is no unit: nonsense"),
        ("printf '\\377\\376'", "says what is no unit"),
        ("printf 'Id=x\\nMainPID=many\\nNeedDaemonReload=no\\n'", "says what is no unit"),
        ("printf 'Id=x\\nMainPID=-1\\nNeedDaemonReload=no\\n'", "says what is no unit"),
        ("exec sleep 60", "did not end within 0.3 s"),
    ],
)
def test_where_systemd_cannot_be_asked_that_is_said(
    host: Host, monkeypatch: pytest.MonkeyPatch, does: str, said: str
) -> None:
    if "sleep" in does:  # only there: on a busy machine the others may take a while
        monkeypatch.setattr(outdated, "WAIT_S", 0.3)
    host.systemctl(does)
    told = host.trouble()
    assert told.startswith("systemctl show ")
    assert said in told


def test_without_systemctl_that_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(host.programs))
    assert host.trouble() == f"systemctl cannot be run: No such file or directory; PATH is {host.programs}\n"


@pytest.mark.parametrize(
    "status",
    ["", "nonsense", "[]", "3", '{"symbols": 3}', '{"symbols": [{}]}', '{"symbols": [], "store": 3}', "[" * 100_000],
)
def test_a_recorder_that_gives_no_status_is_said(host: Host, pid: int, status: str) -> None:
    """Before, nothing was compared then, and nobody was told."""
    host.says(status)
    host.runs("mexc-store.service", pid, MARK)
    assert host.trouble().startswith(f"{outdated.PROGRAM} status --json says what is no status: ")


def test_a_recorder_that_does_not_answer_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outdated, "WAIT_S", 0.3)
    monkeypatch.setattr(outdated, "_running", lambda *_: {"mexc-store.service": {}})
    program(host.programs, "mexc-pipeline", "exec sleep 60")
    assert host.trouble() == f"{outdated.PROGRAM} status --json did not end within 0.3 s; run it by hand to see why\n"


def test_a_unit_that_nobody_asked_for_is_not_judged(host: Host, pid: int) -> None:
    host.runs("other.service", pid)
    assert host.found() == {}
