"""Units, files and their rights on the collector hosts."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

from deploy import site

TIMERS = ("mexc-export.timer", "mexc-verify.timer", "mexc-prune.timer", "mexc-restarts.timer")
MOST_EXPOSED = 1.5


def test_every_collector_runs_and_starts_at_boot(collector: Host) -> None:
    """A symbol whose unit is not enabled is recorded until the first reboot and never after."""
    for symbol_id in site.symbols(collector):
        unit = collector.service(f"mexc-collector@{symbol_id}.service")
        assert unit.is_running, symbol_id
        assert unit.is_enabled, symbol_id


@pytest.mark.parametrize("unit", ["mexc-store.service", "mexc-collectors.target", "mexc.target", *TIMERS])
def test_shared_unit_runs_and_starts_at_boot(collector: Host, unit: str) -> None:
    """Without the store nothing can be queried; without a timer nothing is exported, checked or pruned."""
    assert collector.service(unit).is_running
    assert collector.service(unit).is_enabled


def test_no_unit_has_failed(collector: Host) -> None:
    """A failed unit is what an operator looks for first."""
    assert collector.check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_our_units_are_confined(collector: Host) -> None:
    """A hole in what parses the exchange's frames must not become a hole in the machine."""
    units = [f"mexc-collector@{i}.service" for i in site.symbols(collector)]
    units += [f"tor@{i}.service" for i in site.symbols(collector) if collector.service(f"tor@{i}.service").is_running]
    units += [
        "mexc-store.service",
        "mexc-export.service",
        "mexc-verify.service",
        "mexc-prune.service",
        "mexc-restarts.service",
    ]
    assert {unit: level for unit in units if (level := exposure(collector, unit)) > MOST_EXPOSED} == {}


def test_somebody_tells_of_a_clickhouse_that_does_not_stay_up(clickhouse: Host) -> None:
    """There is no collector there, and so nothing else of ours."""
    assert clickhouse.service("mexc-restarts.timer").is_running
    assert clickhouse.service("mexc-restarts.timer").is_enabled
    assert exposure(clickhouse, "mexc-restarts.service") <= MOST_EXPOSED
    assert clickhouse.run("systemctl start mexc-restarts.service").rc == 0


def test_clickhouse_is_confined(clickhouse: Host) -> None:
    """The package's unit is hardly confined at all; the drop-in makes it one of ours."""
    assert exposure(clickhouse, "clickhouse-server.service") <= MOST_EXPOSED


def exposure(host: Host, unit: str) -> float:
    """What ``systemd-analyze security`` says, from 0 (confined) to 10."""
    said = host.run("systemd-analyze security --no-pager %s", unit).stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return float(found[1])


def test_limits_are_set(collector: Host) -> None:
    """One part that grows without bound must not take the machine from the others. (The limit is looked at, not
    tried: test hosts of a machine with legacy control groups do not enforce it.)"""
    for unit in ("mexc-store.service", *(f"mexc-collector@{i}.service" for i in site.symbols(collector))):
        limit = collector.check_output("systemctl show --value --property MemoryMax %s", unit)
        assert limit.isdigit(), f"{unit}: MemoryMax is {limit}"


@pytest.mark.parametrize(
    ("path", "mode", "user", "group"),
    [
        ("/etc/mexc-pipeline/config.toml", 0o640, "root", "mexc"),
        ("/etc/mexc-pipeline/clickhouse-password", 0o400, "root", "root"),
        ("/var/lib/mexc-pipeline/spool", 0o700, "mexc", "mexc"),
        ("/var/lib/mexc-pipeline/store", 0o700, "mexc", "mexc"),
        ("/var/lib/mexc-pipeline/control", 0o750, "mexc", "mexc"),
    ],
)
def test_rights(collector: Host, path: str, mode: int, user: str, group: str) -> None:
    """The recording is written by one user; secrets are read by nobody who need not."""
    found = collector.file(path)
    assert (oct(found.mode), found.user, found.group) == (oct(mode), user, group)


def test_everything_recorded_belongs_to_the_recorder(collector: Host) -> None:
    """A file left by root stops the recorder at the next start, and somebody has to find out why."""
    config = site.configuration(collector)
    strangers = collector.check_output("find %s %s ! -user mexc", config["data_dir"], config["export_dir"])
    assert strangers == ""


def test_nobody_can_log_in_as_the_recorder(collector: Host) -> None:
    """A service's user that has a shell is a door."""
    assert collector.user("mexc").shell in ("/usr/sbin/nologin", "/bin/false")
