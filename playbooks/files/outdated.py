"""Names the services of this host that run with something else than what lies on the disk: one JSON object on standard
output, unit → why. Run as root by the playbooks; Python's standard library only.

A play may end between writing a file and restarting what reads it. The next one finds the file as it should be and
nothing changed, so what runs is compared itself: by the digests that the recorder's processes report, by the
environment and the secret they were given, and for ClickHouse and Tor by what was written after they were started.
"""

# ruff: noqa: T201, S607 - what it prints is its answer; root's own PATH
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

RECORDER = ("mexc-collector@*.service", "mexc-store.service")
OTHERS = {
    "clickhouse-server.service": (
        "/etc/clickhouse-server/config.d",
        "/etc/clickhouse-server/users.d",
        "/etc/systemd/system/clickhouse-server.service.d",
    ),
    "tor@*.service": ("/etc/tor/instances/{instance}", "/etc/systemd/system/tor@.service.d"),
}
PASSWORD = "/etc/mexc-pipeline/clickhouse-password"  # noqa: S105 - where it lies
GIVEN = "/run/credentials/mexc-store.service/clickhouse-password"
TICK_S = 0.02
"""What the kernel's start times are exact to, and a little."""


def main() -> int:
    reports = _reports()
    found = {}
    for unit, state in _running(*RECORDER, *OTHERS).items():
        why = _why(unit, state, reports)
        if why:
            found[unit] = why
    print(json.dumps(found, sort_keys=True))
    return 0


def _why(unit: str, state: dict[str, str], reports: dict[str, str]) -> str | None:
    if state["NeedDaemonReload"] == "yes":
        return "its unit file was changed and systemd has not read it"
    pid = int(state["MainPID"])
    if unit.startswith("mexc-"):
        if _environment(pid) != _configured(state["Environment"]):
            return "it was started from an older unit file"
        if unit == "mexc-store.service" and _read(PASSWORD) != _read(GIVEN):
            return "it was given an older password"
        return reports.get(unit)
    folders = next(paths for name, paths in OTHERS.items() if name.partition("*")[0] in unit)
    instance = unit.partition("@")[2].removesuffix(".service")
    newer = [path for folder in folders for path in _newer(folder.format(instance=instance), _started(pid))]
    return f"{newer[0]} was written after it had started" if newer else None


def _reports() -> dict[str, str]:
    """What the recorder's own command says of its processes, by unit."""
    program = "/usr/local/bin/mexc-pipeline"
    if not Path(program).exists():
        return {}
    done = subprocess.run([program, "status", "--json"], capture_output=True, text=True, check=False, timeout=120)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return {}
    units = {f"mexc-collector@{s['id']}.service": s.get("collector") or {} for s in said.get("symbols", ())}
    units["mexc-store.service"] = said.get("store") or {}
    return {unit: part["outdated"] for unit, part in units.items() if part.get("outdated")}


def _running(*patterns: str) -> dict[str, dict[str, str]]:
    """The properties of the units that have a process."""
    wanted = "Id,MainPID,NeedDaemonReload,Environment"
    done = subprocess.run(
        ["systemctl", "show", "--property", wanted, "--", *patterns], capture_output=True, text=True, check=True
    )
    found = {}
    for block in done.stdout.strip().split("\n\n"):
        state = dict(line.partition("=")[::2] for line in block.splitlines())
        if int(state.get("MainPID") or 0):
            found[state["Id"]] = state
    return found


def _environment(pid: int) -> str:
    """The unit's mark as the process has it."""
    for entry in _read(f"/proc/{pid}/environ").split(b"\0"):
        if entry.startswith(b"MEXC_PIPELINE_UNIT="):
            return entry.partition(b"=")[2].decode()
    return ""


def _configured(environment: str) -> str:
    """The unit's mark as systemd has read it from the disk."""
    for entry in environment.split():
        if entry.startswith("MEXC_PIPELINE_UNIT="):
            return entry.partition("=")[2]
    return ""


def _started(pid: int) -> float:
    """When a process was started, Unix seconds by the present clock."""
    ticks = int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def _newer(folder: str, than: float) -> list[str]:
    return sorted(str(p) for p in Path(folder).glob("**/*") if p.is_file() and p.stat().st_mtime > than + TICK_S)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


if __name__ == "__main__":
    sys.exit(main())
