"""Units, files and their rights on the collector hosts."""

from __future__ import annotations

import json
import re

import pytest
from testinfra.host import Host

from deploy import site

TIMERS = ("mexc-export.timer", "mexc-verify.timer", "mexc-prune.timer", "mexc-restarts.timer")
MOST_EXPOSED = 1.5
METRICS = "127.0.0.1:9464"
_ASK = """
import json, sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=30)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
"""
_MAY = """
import json, os, sys
def tried(path, flags):
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return type(error).__name__
    return "opened"
print(json.dumps({path: tried(path, os.O_RDONLY) for path in sys.argv[1:]}))
"""


def test_every_collector_runs_and_starts_at_boot(collector: Host) -> None:
    """A symbol whose unit is not enabled is recorded until the first reboot and never after."""
    for symbol_id in site.symbols(collector):
        unit = collector.service(f"mexc-collector@{symbol_id}.service")
        assert unit.is_running, symbol_id
        assert unit.is_enabled, symbol_id


@pytest.mark.parametrize(
    "unit", ["mexc-store.service", "mexc-metrics.service", "mexc-collectors.target", "mexc.target", *TIMERS]
)
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
        "mexc-metrics.service",
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
    collectors = [f"mexc-collector@{i}.service" for i in site.symbols(collector)]
    for unit in ("mexc-store.service", "mexc-metrics.service", *collectors):
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


@pytest.mark.parametrize("user", ["mexc", "mexc-metrics"])
def test_nobody_can_log_in_as_the_recorder(collector: Host, user: str) -> None:
    """A service's user that has a shell is a door."""
    assert collector.user(user).shell in ("/usr/sbin/nologin", "/bin/false")


def asked(host: Host, path: str) -> tuple[int, str]:
    """What the metrics of a host answer on it: status and text."""
    status, text = site.run_json(host, f"{site.PYTHON} -c %s %s", _ASK, f"http://{METRICS}{path}")
    return int(status), str(text)


def test_the_metrics_have_every_symbol(collector: Host) -> None:
    """Numbers that lack a symbol look like a symbol without trouble."""

    def complete() -> bool:
        status, text = asked(collector, "/metrics")
        assert status == 200, text
        for symbol_id, symbol in site.symbols(collector).items():
            labels = f'{{id="{symbol_id}",symbol="{symbol}"}}'
            assert re.search(rf"^mexc_frames_total{re.escape(labels)} [1-9]", text, re.MULTILINE), text
            assert f"mexc_symbol_healthy{labels} 1.0" in text
        for part in ("store", *site.symbols(collector)):
            assert f'mexc_scrape_success{{part="{part}"}} 1.0' in text
        assert "mexc_clickhouse_reachable 1.0" in text
        return True

    assert site.until("a number of every symbol", complete, 120)


def test_the_health_of_a_host_is_that_of_its_status(collector: Host) -> None:
    """Whoever looks at one number must not be told otherwise than the operator."""

    def well() -> bool:
        status, text = asked(collector, "/healthz")
        said = json.loads(text)
        assert (status, said["ok"], said["faults"]) == (200, True, {}), text
        assert said["symbols"] == len(site.symbols(collector))
        return True

    assert site.until("a healthy host", well, 120)
    assert collector.run("mexc-pipeline status").rc == 0


def test_the_metrics_are_answered_on_loopback_only(collector: Host) -> None:
    """Nobody has set a password: whoever is not on the machine may not ask."""
    lines = collector.check_output("ss -H -l -n -t").splitlines()
    port = METRICS.rpartition(":")[2]
    assert {found for found in (line.split()[3] for line in lines) if found.endswith(f":{port}")} == {METRICS}
    allowed = collector.check_output("systemctl show --value -p IPAddressAllow mexc-metrics.service").split()
    assert set(allowed) == {"127.0.0.0/8", "::1/128"}


def test_the_metrics_read_neither_the_recording_nor_a_secret(collector: Host) -> None:
    """It is the one part that others talk to: what it may read is what a hole in it would give away, or lock."""
    unit = "mexc-metrics.service"
    pid = collector.check_output("systemctl show --value -p MainPID %s", unit)
    fields = dict(line.split(":", 1) for line in collector.file(f"/proc/{pid}/status").content_string.splitlines())
    user, group = (collector.check_output(f"id -{which} mexc-metrics") for which in "ug")
    recorder = collector.check_output("id -g mexc")
    assert set(fields["Uid"].split()) == {user}
    assert set(fields["Gid"].split()) == {group}
    assert set(fields["Groups"].split()) - {group} == {recorder}
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    data = site.configuration(collector)["data_dir"]
    shut = [
        *(f"{data}/spool/{symbol_id}" for symbol_id in site.symbols(collector)),
        *(f"{data}/{name}" for name in ("spool", "store", "export")),
        "/etc/mexc-pipeline/clickhouse-password",
    ]
    open_ = [site.CONFIG, f"{data}/control"]
    as_metrics = f"setpriv --reuid={user} --regid={group} --groups={recorder} --no-new-privs --bounding-set=-all"
    words = " ".join(["%s"] * (1 + len(shut) + len(open_)))
    found = site.run_json(collector, f"{as_metrics} {site.PYTHON} -c {words}", _MAY, *shut, *open_)
    assert found == dict.fromkeys(shut, "PermissionError") | dict.fromkeys(open_, "opened")
    assert collector.check_output("systemctl show --value -p ReadWritePaths %s", unit) == ""
