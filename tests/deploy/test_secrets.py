"""What must not be open, and what must not be seen."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from deploy import site

_OTHERS = {22}  # the operator's way in is not ours to judge
_TRY = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()
    print("connected")
except OSError as error:
    print(type(error).__name__, error)
"""
_LOG_IN = """
import sys
from clickhouse_driver import Client
host, port, secure = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
client = Client(host, port=port, secure=secure, verify=False, user="default", connect_timeout=5)
try:
    print("answered", client.execute("SELECT 1"))
except Exception as error:
    print("refused", type(error).__name__, getattr(error, "code", ""))
"""
_READABLE = (
    "find /etc /var/log /opt/mexc-pipeline /usr/local /tmp -xdev -type f -perm -o+r -size -1000k -exec grep -lF %s {} +"
)


def _ports(host: Host) -> set[tuple[str, int]]:
    """(address, port) that are listened on for others than the machine itself."""
    found = set()
    for entry in host.check_output("ss -H -l -n -t").splitlines():
        address, _, port = entry.split()[3].rpartition(":")
        if not address.startswith("127.") and address != "[::1]" and int(port) not in _OTHERS:
            found.add((address, int(port)))
    return found


def test_a_collector_host_listens_on_nothing(collector: Host) -> None:
    """Nobody has any business connecting to a recorder: Tor and the control sockets are unix sockets."""
    assert _ports(collector) == set()


def test_clickhouse_listens_for_its_collectors_only(clickhouse: Host, collectors: list[Host]) -> None:
    """HTTP, interserver and the other protocols are not used, and what is not open cannot be misused."""
    servers = [site.configuration(host)["clickhouse"] for host in collectors]
    wanted = {int(server["port"]) for server in servers if server["host"] not in ("127.0.0.1", "::1", "localhost")}
    assert {port for _, port in _ports(clickhouse)} == wanted
    assert all(address not in ("0.0.0.0", "*", "[::]") for address, _ in _ports(clickhouse))


def test_the_default_user_is_not_let_in(collector: Host) -> None:
    """The package comes with a user without a password who may do everything."""
    server = site.configuration(collector)["clickhouse"]
    arguments = [str(server["host"]), str(server["port"]), str(server.get("secure", False))]
    said = collector.check_output(f"{site.PYTHON} -c %s %s %s %s", _LOG_IN, *arguments)
    assert said.startswith("refused ServerException"), said


def test_the_default_user_is_not_let_in_at_home(clickhouse: Host) -> None:
    """Neither is anybody who is on the server already."""
    done = clickhouse.run("clickhouse-client --user default --query 'SELECT 1'")
    assert done.rc != 0
    assert "DB::Exception" in done.stderr


def test_no_password_is_in_sight(collector: Host, clickhouse: Host) -> None:
    """Command lines are readable by every user of a machine, and environments end up in reports."""
    password = collector.file("/etc/mexc-pipeline/clickhouse-password").content_string.strip()
    assert len(password) >= 20
    for host in (collector, clickhouse):
        seen = host.check_output("ps -eo args") + host.run("cat /proc/[0-9]*/environ | tr '\\0' '\\n'").stdout
        files = host.run(_READABLE, password).stdout
        assert password not in seen, site.name(host)
        assert files == "", f"{site.name(host)}: readable by everybody"


def test_a_tor_collector_cannot_reach_anything_directly(collector: Host) -> None:
    """In mode tor the recorder has no network at all, so that no mistake in its code can show its own address."""
    config = site.configuration(collector)
    if config["egress"]["mode"] != "tor":
        pytest.skip("not in mode tor: nothing is promised")
    for symbol_id in site.symbols(collector):
        pid = collector.check_output("systemctl show --value -p MainPID mexc-collector@%s.service", symbol_id)
        links = collector.check_output("nsenter -t %s -n ip -o link", pid)
        said = collector.check_output(f"nsenter -t %s -n {site.PYTHON} -c %s %s %s", pid, _TRY, "192.0.2.1", "443")
        assert [line.split(": ")[1] for line in links.splitlines()] == ["lo"]
        assert "Network is unreachable" in said
        families = collector.check_output(
            "systemctl show --value -p RestrictAddressFamilies mexc-collector@%s.service", symbol_id
        )
        assert families == "AF_UNIX"
