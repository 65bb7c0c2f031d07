"""What happens to a deployment, done to it: each followed by the question whether anything was lost or shown.

Run in this order, on the test hosts only. Every test leaves the system recording on its own again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from deploy import site
from deploy.comparison import compare
from deploy.test_recording import agreed, live, strangers

pytestmark = [pytest.mark.disruptive, pytest.mark.test_network, pytest.mark.timeout(600)]

BACK_S = 180.0
ROOT = Path(__file__).resolve().parents[2]
SYMBOLS = [
    {"name": "BTC_USDT", "id": "btc", "host": "col1"},
    {"name": "ETH_USDT", "id": "eth", "host": "col1"},
    {"name": "SOL_USDT", "id": "sol", "host": "col2"},
]


def host_of(collectors: list[Host], symbol_id: str) -> Host:
    """The host that records a symbol."""
    return next(host for host in collectors if symbol_id in site.symbols(host))


def relay(network: Host, address: str) -> str:
    """The unit of the exit with this address."""
    exits: list[str] = network.ansible.get_variables()["test_exits"]
    return f"test-relay@exit{exits.index(address)}.service"


def settled(collectors: list[Host], network: Host) -> dict[str, str]:
    """Wait until every symbol is live on an exit of its own that the exchange sees too; address by symbol id."""
    found = site.until("every symbol live on its own exit", lambda: agreed(collectors, network), BACK_S)
    assert len(set(found.values())) == len(found)
    return found


def nothing_lost(collectors: list[Host], network: Host) -> None:
    """Wait for files that hold what is sent now, and compare all of them with all that was sent."""
    now_ns = time.time_ns()
    for host in collectors:
        due_ns = now_ns + int((site.period_s(host) + 5) * 1e9)
        for symbol_id, symbol in site.symbols(host).items():

            def whole(host: Host = host, symbol_id: str = symbol_id, symbol: str = symbol, due: int = due_ns) -> bool:
                last = site.status(host)[symbol_id]["last_export"]
                assert last is not None
                assert time.time_ns() - last["age_s"] * 1e9 > due, f"{symbol_id}: no file yet"
                rows = site.exported(host, symbol_id)
                assert [seq for _, seq, _, _ in rows] == list(range(rows[0][1], rows[0][1] + len(rows)))
                frames = [said for _, _, mt, said in rows if mt in ("t", "d", "dp")]
                connections = [c for c in site.sent(network, symbol) if c.symbol == symbol]
                return compare(connections, frames) > 0

            site.until(f"files of {symbol_id}", whole, BACK_S, every=5)


def events(host: Host, symbol_id: str, name: str) -> list[dict[str, Any]]:
    """The exported events of that name."""
    found = [json.loads(said) for _, _, mt, said in site.exported(host, symbol_id) if mt == "ev"]
    return [event for event in found if event["event"] == name]


def playbook(name: str, **variables: object) -> None:
    """Run a playbook of the repository as an operator does."""
    words = [str(Path(sys.executable).parent / "ansible-playbook"), name, "--extra-vars", json.dumps(variables)]
    for inventory in os.environ["MEXC_TEST_INVENTORIES"].split():
        words += ["--inventory", inventory]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def hosts_command(command: str, guest: str) -> None:
    """Do something to a guest from outside."""
    state = Path(os.environ["MEXC_TEST_INVENTORIES"].split()[0]).parent
    subprocess.run([sys.executable, "-m", "deploy.hosts", command, "--state", str(state), guest], check=True)


def pid(host: Host, unit: str) -> int:
    """The main process of a unit."""
    return int(host.check_output("systemctl show --value -p MainPID %s", unit))


def test_a_killed_exit(collectors: list[Host], network: Host) -> None:
    """Exits come and go without a word. The next connection leaves by another one of the symbol's own."""
    before = settled(collectors, network)["btc"]
    network.check_output("systemctl stop %s", relay(network, before))
    try:
        after = site.until("another exit", lambda: _other(collectors, "btc", before), BACK_S)
        assert settled(collectors, network)["btc"] == after
    finally:
        network.check_output("systemctl start %s", relay(network, before))
    nothing_lost(collectors, network)


def test_a_frozen_exit(collectors: list[Host], network: Host) -> None:
    """A frozen exit closes nothing: only pings and the age of the last frame notice it."""
    before = settled(collectors, network)["eth"]
    network.check_output("systemctl kill --signal STOP %s", relay(network, before))
    try:
        site.until("another exit", lambda: _other(collectors, "eth", before), BACK_S)
    finally:
        network.check_output("systemctl kill --signal CONT %s", relay(network, before))
    settled(collectors, network)


def _other(collectors: list[Host], symbol_id: str, before: str) -> str | None:
    collector = site.status(host_of(collectors, symbol_id))[symbol_id]["collector"]
    assert collector.get("state") == "live"
    found = (collector.get("egress") or {}).get("exit")
    return str(found) if found and found != before else None


def test_without_its_tor_a_collector_stays_silent(collectors: list[Host], network: Host) -> None:
    """Fails closed: no Tor, no packet to the exchange, not even to ask for its name."""
    host = host_of(collectors, "sol")
    exits = set(network.ansible.get_variables()["test_exits"])
    host.check_output("systemctl stop tor@sol.service")
    try:
        site.until("sol is down", lambda: _not_live(host, "sol"), BACK_S)
        stopped = time.time_ns()
        tries = site.status(host)["sol"]["collector"].get("reconnects", 0)
        site.until("it has tried again", lambda: _log_lines(host, "sol", stopped) >= 2, BACK_S)
        open_now = [c for c in site.sent(network) if c.symbol == "SOL_USDT" and c.closed_ns is None]
        assert open_now == [], tries
        assert strangers(network, exits) == []
    finally:
        host.check_output("systemctl start tor@sol.service")
    settled(collectors, network)
    assert strangers(network, exits) == []


def _not_live(host: Host, symbol_id: str) -> bool:
    return bool(site.status(host)[symbol_id]["collector"].get("state") != "live")


def _log_lines(host: Host, symbol_id: str, since_ns: int) -> int:
    command = "journalctl --no-pager -o cat -u mexc-collector@%s.service --since @%s"
    return len(host.check_output(command, symbol_id, str(since_ns // 10**9)).splitlines())


def test_clickhouse_restarted_in_mid_period(collectors: list[Host], clickhouse: Host, network: Host) -> None:
    """The database is a copy: its absence delays neither the recording nor a file, and it catches up by itself."""
    seqs = {h: {i: s["collector"]["last_seq"] for i, s in site.status(h).items()} for h in collectors}
    clickhouse.check_output("systemctl stop clickhouse-server")
    try:
        for host in collectors:
            site.until("recording goes on", partial(_all_beyond, host, seqs[host], 50), 60)
    finally:
        clickhouse.check_output("systemctl start clickhouse-server")
    for host in collectors:
        site.until("the store has caught up", partial(_caught_up, host), BACK_S)
    nothing_lost(collectors, network)


def _all_beyond(host: Host, seqs: dict[str, int], rows: int) -> bool:
    return all(s["collector"]["last_seq"] > seqs[i] + rows for i, s in site.status(host).items())


def _caught_up(host: Host) -> bool:
    for symbol_id, symbol in site.status(host).items():
        store = symbol["store"]
        assert store is not None, symbol_id
        assert store["backlog"] < 500, f"{symbol_id}: {store['backlog']} rows behind"
    return True


def test_a_killed_collector(collectors: list[Host], network: Host) -> None:
    """kill -9 loses nothing that was committed; seq goes on where it stopped, and the others do not notice."""
    host = host_of(collectors, "btc")
    other = pid(host, "mexc-collector@eth.service")
    before = pid(host, "mexc-collector@btc.service")
    host.check_output("systemctl kill --signal KILL mexc-collector@btc.service")
    site.until("a new process", lambda: pid(host, "mexc-collector@btc.service") not in (0, before), 60)
    settled(collectors, network)
    nothing_lost(collectors, network)
    assert pid(host, "mexc-collector@eth.service") == other


@pytest.mark.parametrize("how", ["reboot", "cut"])
def test_a_rebooted_host(collectors: list[Host], network: Host, how: str) -> None:
    """Machines are rebooted and lose power; everything is back without anybody logging in."""
    hosts_command(how, "col1")
    settled(collectors, network)
    nothing_lost(collectors, network)
    assert host_of(collectors, "btc").check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_export_once(collectors: list[Host], network: Host) -> None:
    """An operator may have what there is now, without waiting for the period's end and without losing a row."""
    host = host_of(collectors, "sol")
    said = site.run_json(host, "mexc-pipeline export --once --json sol")
    assert said["ok"], said
    parts = [file for file, _, _, _ in site.exported(host, "sol") if ".part" in file]
    assert parts
    nothing_lost(collectors, network)


def test_a_symbol_more(collectors: list[Host], network: Host) -> None:
    """One line in the inventory. The others go on in the same processes, and all leave by different addresses."""
    units = {h: {i: pid(h, f"mexc-collector@{i}.service") for i in site.symbols(h)} for h in collectors}
    playbook("site.yml", mexc_pipeline_symbols=[*SYMBOLS, {"name": "DOGE_USDT", "id": "doge", "host": "col2"}])
    assert "doge" in site.symbols(host_of(collectors, "sol"))
    found = settled(collectors, network)
    assert set(found) == {"btc", "eth", "sol", "doge"}
    for host, pids in units.items():
        assert {i: pid(host, f"mexc-collector@{i}.service") for i in pids} == pids


def test_a_symbol_less(collectors: list[Host], network: Host) -> None:
    """What was recorded stays, all of it exported; unit, Tor instance and its user are gone."""
    host = host_of(collectors, "doge")
    gone = {"name": "DOGE_USDT", "id": "doge", "host": "col2", "state": "absent"}
    playbook("site.yml", mexc_pipeline_symbols=[*SYMBOLS, gone])
    assert not host.service("mexc-collector@doge.service").is_running
    assert not host.service("mexc-collector@doge.service").is_enabled
    assert not host.service("tor@doge.service").is_running
    assert not host.file("/etc/tor/instances/doge").exists
    rows = site.exported(host, "doge")
    assert [seq for _, seq, _, _ in rows] == list(range(1, len(rows) + 1))
    frames = [said for _, _, mt, said in rows if mt in ("t", "d", "dp")]
    connections = [c for c in site.sent(network, "DOGE_USDT") if c.symbol == "DOGE_USDT"]
    assert compare(connections, frames) > 0
    assert set(settled(collectors, network)) == {"btc", "eth", "sol"}


def test_an_upgrade(collectors: list[Host], network: Host) -> None:
    """One symbol at a time, nothing lost on the way."""
    newer = network.ansible.get_variables()["test_version"] + ".post1"
    playbook("playbooks/upgrade.yml", mexc_pipeline_version=newer)
    for host in collectors:
        assert newer in host.check_output("mexc-pipeline --version")
    settled(collectors, network)
    nothing_lost(collectors, network)


def test_an_upgrade_that_does_not_work_is_taken_back(collectors: list[Host], network: Host) -> None:
    """A version whose collector does not come up must not stay: the hour is being recorded, or it is lost."""
    versions = {h: h.check_output("mexc-pipeline --version") for h in collectors}
    broken = network.ansible.get_variables()["test_version"] + ".post2"
    with pytest.raises(AssertionError):
        playbook("playbooks/upgrade.yml", mexc_pipeline_version=broken)
    for host in collectors:
        assert host.check_output("mexc-pipeline --version") == versions[host]
    settled(collectors, network)


def test_the_end(collectors: list[Host], network: Host) -> None:
    """After all of it: every host healthy, every file what was sent, and nothing but exits seen by the exchange."""
    for host in collectors:
        assert live(host)
    nothing_lost(collectors, network)
    assert strangers(network, set(network.ansible.get_variables()["test_exits"])) == []
