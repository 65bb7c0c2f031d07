"""Whether services run what lies on the disk: asked of systemd, of /proc and of the recorder itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.repository import ROOT
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
        self.has(unit, f"MainPID={pid}", f"Environment={environment}", reload=reload)

    def has(self, unit: str, *more: str, reload: str = "no", load: str = "loaded", active: str = "active") -> None:
        fields = (f"Id={unit}", f"LoadState={load}", f"ActiveState={active}", f"NeedDaemonReload={reload}", *more)
        self.units.append("\n".join(fields))
        self.systemctl("cat <<'END'\n" + "\n\n".join(self.units) + "\nEND")

    def systemctl(self, does: str) -> None:
        program(self.programs, "systemctl", does)

    def found(self) -> dict[str, tuple[str, str]]:
        """Why, and by which verb it is mended, by unit."""
        told = ended(outdated)
        assert (told.status, told.said) == (0, "")
        found: dict[str, dict[str, str]] = json.loads(told.printed)
        return {unit: (one["why"], one["verb"]) for unit, one in found.items()}

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
    monkeypatch.setattr(outdated, "UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(outdated, "GIVEN", str(tmp_path / "given"))
    read = {unit: tuple(f"{tmp_path}{place}" for place in places) for unit, places in outdated.READ_AT_START.items()}
    monkeypatch.setattr(outdated, "READ_AT_START", read)
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


def _credential(folder: Path, unit: str, name: str, *, given: str, now: str | None) -> None:
    """What systemd gave a unit at its start, and what the file holds now (None: it has gone)."""
    for path, text in ((folder / "given" / unit / name, given), (folder / name, now)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
    (folder / "units").mkdir(exist_ok=True)
    with (folder / "units" / unit).open("a") as file:
        file.write(f"[Service]\nLoadCredential={name}:{folder / name}\n")


MARK = "A=b MEXC_PIPELINE_UNIT=mark"
WHOLE = r"Id=x\nLoadState=loaded\nActiveState=active\nNeedDaemonReload=no\n"


def _written(path: Path, later_s: float = 60.0) -> Path:
    """A file that was written after whatever has started by now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() + later_s, time.time() + later_s))
    return path


def test_what_runs_what_is_on_the_disk_is_not_named(host: Host, pid: int, tmp_path: Path) -> None:
    (tmp_path / "etc" / "tor" / "instances" / "btc").mkdir(parents=True)
    host.runs("mexc-collector@btc.service", pid, MARK)
    host.runs("mexc-store.service", pid, MARK)
    host.runs("mexc-metrics.service", pid)
    _credential(tmp_path, "mexc-metrics.service", "key", given="same", now="same")
    host.runs("tor@btc.service", pid)
    host.runs("tor@eth.service", 0)
    host.runs("mexc-prune.service", pid)
    host.has("mexc-prune.timer")
    host.has("mexc.target")
    host.has("mexc-verify.timer", load="not-found", reload="yes", active="inactive")
    assert host.found() == {}


def test_each_way_of_being_outdated_is_named(host: Host, pid: int, tmp_path: Path) -> None:
    btc = {"id": "btc", "collector": {"outdated": "another configuration", "mended_by": "restart"}}
    doge = {"id": "doge", "collector": {"outdated": "another list", "mended_by": "reload"}}
    host.says(json.dumps({"symbols": [btc, doge], "store": {}}))
    host.runs("mexc-collector@btc.service", pid, MARK)
    host.runs("mexc-collector@doge.service", pid, MARK)
    host.runs("mexc-collector@eth.service", pid, "MEXC_PIPELINE_UNIT=newer")
    host.runs("mexc-collector@sol.service", pid, MARK, reload="yes")
    host.runs("mexc-store.service", pid, MARK)
    host.runs("mexc-metrics.service", pid)
    host.runs("tor@btc.service", pid)
    _credential(tmp_path, "mexc-store.service", "clickhouse-password", given="older", now="newer")
    _credential(tmp_path, "mexc-metrics.service", "certificate", given="same", now="same")
    _credential(tmp_path, "mexc-metrics.service", "key", given="older", now="newer")
    torrc = _written(tmp_path / "etc" / "tor" / "instances" / "btc" / "torrc")
    assert host.found() == {
        "mexc-collector@btc.service": ("another configuration", "restart"),
        "mexc-collector@doge.service": ("another list", "reload"),
        "mexc-collector@eth.service": ("it was started from an older unit file", "restart"),
        "mexc-collector@sol.service": (UNREAD, "restart"),
        "mexc-metrics.service": ("it was given an older key", "restart"),
        "mexc-store.service": ("it was given an older clickhouse-password", "restart"),
        "tor@btc.service": (f"{torrc} was written after it had started", "restart"),
    }


UNREAD = "its unit file was changed and systemd has not read it"


@pytest.mark.parametrize(
    ("unit", "active", "verb"),
    [
        ("mexc-prune.timer", "active", "restart"),
        ("mexc-prune.timer", "inactive", ""),  # stopped by somebody, and stays so
        ("mexc-prune.service", "inactive", ""),  # its next turn is by the new one
        ("mexc-collector@btc.service", "inactive", ""),
        ("mexc.target", "active", ""),  # restarted it would take along what somebody has stopped
    ],
)
def test_what_systemd_has_not_read_is_named_whether_it_runs_or_not(
    host: Host, unit: str, active: str, verb: str
) -> None:
    """A retention made longer went on deleting by the shorter one."""
    host.has(unit, reload="yes", active=active)
    assert host.found() == {unit: (UNREAD, verb)}


@pytest.mark.parametrize(
    ("unit", "place", "verb"),
    [
        ("mexc-prune.service", "etc/systemd/system/mexc-prune.service", "--no-block restart"),
        ("mexc-export.service", "etc/mexc-pipeline/config.toml", "--no-block restart"),
        ("mexc-metrics.service", "etc/mexc-pipeline/config.toml", "restart"),
        ("systemd-journald.service", "etc/systemd/journald.conf.d/mexc-pipeline.conf", "restart"),
        ("clickhouse-server.service", "etc/clickhouse-server/tls/key.pem", "restart"),
        ("clickhouse-server.service", "etc/clickhouse-server/users.d/mexc-pipeline.xml", "restart"),
        ("tor@sol.service", "etc/systemd/system/tor@.service.d/50-hardening.conf", "restart"),
    ],
)
def test_what_was_written_since_its_start_is_named(
    host: Host, pid: int, tmp_path: Path, unit: str, place: str, verb: str
) -> None:
    host.runs(unit, pid)
    path = _written(tmp_path / place)
    assert host.found() == {unit: (f"{path} was written after it had started", verb)}


def test_a_file_that_was_put_there_with_an_older_time_is_named(host: Host, pid: int, tmp_path: Path) -> None:
    """A certificate that is copied on the server keeps the time of its original."""
    host.runs("clickhouse-server.service", pid)
    before = time.time()
    path = tmp_path / "etc" / "clickhouse-server" / "tls" / "key.pem"
    while time.time() < before + 2 * outdated.TICK_S:  # exact to a tick of the kernel's clock
        _written(path, -9e6)
    assert list(host.found()) == ["clickhouse-server.service"]


def test_every_unit_of_the_roles_is_compared() -> None:
    """A unit file that the role writes and nothing compares would stay old after a run that broke off."""
    text = (ROOT / "roles/mexc_pipeline/vars/main.yml").read_text()
    listed = re.split(r"\n(?=[_#])", text.partition("\n_mexc_pipeline_units:")[2])[0]
    units = re.findall(r"(?<=\n  - )\S+", listed)
    asked = {*outdated.REPORTING, *outdated.JOBS, *outdated.TIMERS, *outdated.TARGETS, outdated.METRICS}
    assert {unit.replace("@.", "@*.") for unit in units} == asked
    tasks = "".join(path.read_text() for path in (ROOT / "roles").glob("*/tasks/*.yml"))
    written = re.findall(r'dest: "?(/etc/(?:systemd|tor|clickhouse-server)/[^"\n]+)', tasks)
    paths = {re.sub(r"\{\{ item(\.\w+)? \}\}", "{instance}", path) for path in written}
    assert len(paths) >= 8
    compared = [place for places in outdated.READ_AT_START.values() for place in places]
    assert {path for path in paths if not path.startswith(tuple(compared))} == {
        "/etc/systemd/system/{instance}",  # the units: systemd itself says whether it has read them
        "/etc/systemd/system/mexc-collector@{instance}.service.d/50-instance.conf",  # by the mark in it
        "/etc/systemd/system/tor@default.service",  # masked
        # What watches keeps nothing from being recorded; a run of it that broke off is not noticed so far.
        "/etc/systemd/system/{instance}.service.d/50-monitoring.conf",
        "/etc/systemd/system/prometheus-node-exporter.service.d/50-monitoring.conf",
    }


def test_a_process_that_ended_meanwhile_is_not_named(host: Host, gone: int) -> None:
    host.runs("mexc-collector@btc.service", gone, MARK)
    host.runs("tor@btc.service", gone)
    host.runs("mexc-prune.service", gone)
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
        (f"printf '{WHOLE}MainPID=many\\n'", "says what is no unit"),
        (f"printf '{WHOLE}MainPID=-1\\n'", "says what is no unit"),
        ("printf 'Id=x\\nMainPID=1\\n'", "says what is no unit"),
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
    monkeypatch.setattr(outdated, "_loaded", lambda *_: {"mexc-store.service": {"MainPID": "1"}})
    program(host.programs, "mexc-pipeline", "exec sleep 60")
    assert host.trouble() == f"{outdated.PROGRAM} status --json did not end within 0.3 s; run it by hand to see why\n"


def test_a_unit_that_nobody_asked_for_is_not_judged(host: Host, pid: int) -> None:
    host.runs("other.service", pid)
    assert host.found() == {}
