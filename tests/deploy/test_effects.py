"""What happens to a deployment, done to it: each followed by the question whether anything was lost or shown.

Run in this order, on the test hosts only. Every test leaves the system recording on its own again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from deploy import site
from deploy.comparison import Sent, compare
from deploy.operating import inventories, on, play
from deploy.test_recording import agreed, strangers

pytestmark = [pytest.mark.disruptive, pytest.mark.test_network, pytest.mark.timeout(900)]

BACK_S = 180.0
DOGE = {"name": "DOGE_USDT", "id": "doge", "host": "col2"}
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
    """Make files of everything up to now, and compare all of them with all that was sent."""
    for host in collectors:
        said = site.run_json(host, "mexc-pipeline export --once --json")
        assert said["ok"], said
        whole(host, network)


def whole(host: Host, network: Host) -> None:
    """Compare all files of a host with all that was sent; how new the files are is the caller's business."""
    for symbol_id, symbol in site.symbols(host).items():
        rows = site.exported(host, symbol_id)
        first = rows[0][1]
        # Not the two lists: pytest takes a quarter of an hour to show how two of that length differ.
        odd = [(file, seq) for at, (file, seq, _, _) in enumerate(rows) if seq != first + at]
        assert odd[:3] == [], symbol_id
        frames = [said for _, _, mt, said in rows if mt in ("t", "d", "dp")]
        connections = [c for c in site.sent(network, symbol) if c.symbol == symbol]
        assert compare(connections, frames) > 0, symbol_id


def put_together(source: Host, target: Host, symbol_id: str) -> None:
    """Copy a symbol's files from one host to where another has its own; none has the name of another."""
    folder = site.configuration(source)["export_dir"]
    for path in source.check_output("ls %s/%s[0-9]*.parquet", folder, symbol_id).split():
        content = source.check_output("base64 -w 0 %s", path)
        target.check_output("set -C; echo %s | base64 -d > %s && chown mexc: %s", content, path, path)


def events(host: Host, symbol_id: str, name: str) -> list[dict[str, Any]]:
    """The exported events of that name."""
    found = [json.loads(said) for _, _, mt, said in site.exported(host, symbol_id) if mt == "ev"]
    return [event for event in found if event["event"] == name]


def variables(**named: object) -> tuple[str, str]:
    """An option of ansible-playbook: in place of a changed line in the inventory."""
    return ("--extra-vars", json.dumps(named))


def installed(host: Host) -> tuple[str, str]:
    """The option that leaves the installed version as it is."""
    current = host.check_output("readlink /opt/mexc-pipeline/current").rpartition("/")[2]
    return variables(mexc_pipeline_version=current)


def hosts_command(command: str, guest: str) -> None:
    """Do something to a guest from outside."""
    state = Path(inventories()[0]).parent
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
        # A relay on its way that has just been frozen may be slow to hand on that the circuit is gone.
        site.until("the exchange has noticed", lambda: not _open(network, "SOL_USDT"), BACK_S)
        tries = site.status(host)["sol"]["collector"].get("reconnects", 0)
        site.until("it has tried again", lambda: _log_lines(host, "sol", stopped) >= 2, BACK_S)
        assert _open(network, "SOL_USDT") == [], tries
        assert [c for c in site.sent(network) if c.symbol == "SOL_USDT" and c.opened_ns > stopped] == []
        assert strangers(network, exits) == []
    finally:
        host.check_output("systemctl start tor@sol.service")
    settled(collectors, network)
    assert strangers(network, exits) == []


def _open(network: Host, symbol: str) -> list[Sent]:
    """The symbol's connections that the exchange takes for open."""
    return [c for c in site.sent(network) if c.symbol == symbol and c.closed_ns is None]


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
        assert on(clickhouse, "systemctl restart clickhouse-server").rc == 0
    for host in collectors:
        site.until("the store has caught up", partial(_caught_up, host), BACK_S)
    assert "clickhouse-server" in on(clickhouse, "journalctl -u clickhouse-server").stdout
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


def test_all_collectors_restarted_at_once(collectors: list[Host]) -> None:
    """For whoever wants new processes and nothing else: what was recorded stays, and the store goes on."""
    host = host_of(collectors, "btc")
    before = {unit: pid(host, unit) for unit in ("mexc-collector@btc.service", "mexc-collector@eth.service")}
    store = pid(host, "mexc-store.service")
    assert on(host, "systemctl restart mexc-collectors.target").rc == 0
    site.until("new processes", lambda: all(pid(host, unit) not in (0, old) for unit, old in before.items()), 60)
    assert pid(host, "mexc-store.service") == store


def test_another_exit_when_asked(collectors: list[Host], network: Host) -> None:
    """An address that the exchange treats badly can be left without touching anything else."""
    before = settled(collectors, network)
    done = on(host_of(collectors, "btc"), "mexc-pipeline egress rotate btc")
    assert done.rc == 0, done.stderr
    after = settled(collectors, network)
    assert done.stdout == f"btc: exit {before['btc']} → {after['btc']}\n"
    assert after["btc"] != before["btc"]
    assert {i: a for i, a in after.items() if i != "btc"} == {i: a for i, a in before.items() if i != "btc"}


def test_an_export_when_asked(collectors: list[Host], network: Host) -> None:
    """An operator may have what there is now, without waiting for the period's end and without losing a row."""
    printed = play("ansible-playbook playbooks/export.yml")
    for host in collectors:
        for symbol_id in site.symbols(host):
            parts = {file for file, _, _, _ in site.exported(host, symbol_id) if ".part" in file}
            assert [part for part in parts if f"{part} written" in printed], symbol_id
    nothing_lost(collectors, network)


ETH_DIRECT = {**SYMBOLS[1], "egress": {"mode": "direct"}}
ONLY = ("--limit", "collector_hosts")  # nothing of ClickHouse's is changed in these


def test_a_symbol_more_and_one_without_tor(collectors: list[Host], network: Host) -> None:
    """One line in the inventory, one word in another. Whoever is not meant goes on in the same process.

    A symbol that does without Tor leaves by the machine's own address, and its Tor instance goes.
    """
    host = host_of(collectors, "eth")
    host.check_output("echo %s >> /etc/hosts", _names(network))  # it has no resolver otherwise, on purpose
    others = {"btc": host, "sol": host_of(collectors, "sol")}
    pids = {i: pid(h, f"mexc-collector@{i}.service") for i, h in others.items()}
    symbols = [SYMBOLS[0], ETH_DIRECT, SYMBOLS[2], DOGE]
    play("ansible-playbook site.yml", *ONLY, *variables(mexc_pipeline_symbols=symbols))
    found = site.until("all live, each from its own address", lambda: _addresses(network), BACK_S)
    own = host.ansible.get_variables()["ansible_host"]
    exits = set(network.ansible.get_variables()["test_exits"])
    assert found["ETH_USDT"] == own
    assert {found["BTC_USDT"], found["SOL_USDT"], found["DOGE_USDT"]} < exits
    assert "doge" in site.symbols(others["sol"])
    assert not host.service("tor@eth.service").is_running
    assert not host.file("/etc/tor/instances/eth").exists
    assert {i: pid(h, f"mexc-collector@{i}.service") for i, h in others.items()} == pids
    assert {p["from"] for p in strangers(network, exits)} == {own}


def _names(network: Host) -> str:
    known = network.ansible.get_variables()
    return f"{known['test_exchange']} {known['test_exchange_name']}\n{known['test_echo']} {known['test_echo_name']}"


def _addresses(network: Host) -> dict[str, str] | None:
    """The address of each symbol's data socket as the exchange sees it, once four have one each."""
    open_now = [(c.symbol, c.address) for c in site.sent(network) if c.closed_ns is None and c.symbol is not None]
    found = {symbol: address for symbol, address in open_now if symbol is not None}
    return found if len(open_now) == len(found) == len(set(found.values())) == 4 else None


def test_a_symbol_less_and_one_by_tor_again(collectors: list[Host], clickhouse: Host, network: Host) -> None:
    """What was recorded stays, all of it exported; unit, Tor instance and its user are gone, and so are the tables."""
    host = host_of(collectors, "doge")
    assert "doge_current" in _tables(clickhouse)
    gone = {**DOGE, "state": "absent"}
    play("ansible-playbook site.yml", *ONLY, *variables(mexc_pipeline_symbols=[*SYMBOLS, gone]))
    assert [table for table in _tables(clickhouse) if table.startswith("doge_")] == []
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
    nothing_lost(collectors, network)
    # From here on the exchange is to see exits only, again.
    network.check_output("mv /srv/packets.jsonl /srv/packets-until-now.jsonl && systemctl restart test-watch.service")


def _tables(clickhouse: Host) -> list[str]:
    said = clickhouse.check_output("clickhouse-client --query 'SHOW TABLES FROM ch_mexc'")
    return [str(table) for table in said.split()]


def test_an_upgrade(collectors: list[Host], network: Host) -> None:
    """One symbol at a time, nothing lost on the way; what somebody has stopped stays stopped."""
    newer = network.ansible.get_variables()["test_version"] + ".post1"
    host = host_of(collectors, "eth")
    host.check_output("systemctl stop mexc-collector@eth.service mexc-store.service")
    play("ansible-playbook playbooks/upgrade.yml", *variables(mexc_pipeline_version=newer))
    assert not host.service("mexc-collector@eth.service").is_running
    assert not host.service("mexc-store.service").is_running
    host.check_output("systemctl start mexc-store.service mexc-collector@eth.service")
    for collector in collectors:
        assert newer in collector.check_output("mexc-pipeline --version")
    settled(collectors, network)
    nothing_lost(collectors, network)


def test_an_upgrade_that_does_not_work_is_taken_back(collectors: list[Host], network: Host) -> None:
    """A version whose collector does not come up must not stay: the hour is being recorded, or it is lost.

    What ran runs again with the old one, though by hand and with its target stopped; what did not, does not.
    """
    versions = {h: h.check_output("mexc-pipeline --version") for h in collectors}
    broken = network.ansible.get_variables()["test_version"] + ".post2"
    host = host_of(collectors, "btc")
    host.check_output("systemctl stop mexc.target && systemctl start mexc-collector@btc.service")
    before = pid(host, "mexc-collector@btc.service")
    printed = play("ansible-playbook playbooks/upgrade.yml", *variables(mexc_pipeline_version=broken), fails=True)
    assert "runs again, the hosts after this one were not touched" in " ".join(printed.split())
    for collector in collectors:
        assert collector.check_output("mexc-pipeline --version") == versions[collector]
    assert pid(host, "mexc-collector@btc.service") not in (0, before)
    for unit in ("mexc-collector@eth.service", "mexc-store.service", "mexc-collectors.target"):
        assert not host.service(unit).is_running
    host.check_output("systemctl start mexc-store.service mexc.target")
    settled(collectors, network)
