"""An operator's slips and runs that broke off: none of them costs data, and what is on the disk is what runs.

Run after ``test_effects.py``, on the test hosts only. Every test leaves the system recording on its own again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from testinfra.host import Host

from deploy import site
from deploy.operating import on, play
from deploy.test_effects import (
    BACK_S,
    DOGE,
    ONLY,
    SYMBOLS,
    host_of,
    installed,
    nothing_lost,
    pid,
    put_together,
    settled,
    variables,
)
from deploy.test_operations import BACKUPS

pytestmark = [pytest.mark.disruptive, pytest.mark.test_network, pytest.mark.timeout(900)]


def pids(collectors: list[Host]) -> dict[str, int]:
    """The main process of every collector and store."""
    found = {i: pid(h, f"mexc-collector@{i}.service") for h in collectors for i in site.symbols(h)}
    return found | {site.name(h): pid(h, "mexc-store.service") for h in collectors}


@pytest.mark.parametrize(
    ("slips", "said"),
    [
        ({"mexc_pipeline_symbols": [*SYMBOLS[:2], {**SYMBOLS[2], "id": "sol1"}]}, "not ending in a digit"),
        ({"mexc_pipeline_symbols": [*SYMBOLS[:2], {**SYMBOLS[2], "host": "col3"}]}, "host col3 is not one of"),
        ({"mexc_pipeline_symbols": [*SYMBOLS[:2], {**SYMBOLS[2], "host": "ch1"}]}, "host ch1 is not one of"),
        ({"mexc_pipeline_symbols": [*SYMBOLS[:2], {"name": "SOL_USDT", "id": "sol"}]}, "SOL_USDT has no host"),
        ({"mexc_pipeline_symbols": [*SYMBOLS[:2], {**SYMBOLS[2], "channels": {"depth": "full7"}}]}, "channels.depth"),
        ({"mexc_pipeline_symbols": [*SYMBOLS, {**SYMBOLS[2], "id": "other"}]}, "name SOL_USDT is there twice"),
        ({"mexc_pipeline_prune_schedule": "at night"}, "mexc_pipeline_prune_schedule: ''at night''; allowed is"),
        ({"tor_memory_max": "512MB"}, "tor_memory_max: 512MB; allowed is a size"),
        ({"clickhouse_memory_max": "half"}, "clickhouse_memory_max: half; allowed is a size"),
    ],
    ids=["id", "unknown host", "host of another group", "no host", "channel", "twice", "schedule", "tor", "clickhouse"],
)
def test_a_slip_in_the_inventory(collectors: list[Host], clickhouse: Host, slips: dict[str, object], said: str) -> None:
    """It is found before any machine is touched, ClickHouse's neither: no symbol pays for another one's line."""
    before = pids(collectors) | {"server": pid(clickhouse, "clickhouse-server.service")}
    version = installed(collectors[0])
    printed = " ".join(play("ansible-playbook site.yml", *version, *variables(**slips), fails=True).split())
    assert said in printed
    assert "PLAY [ClickHouse]" not in printed
    assert pids(collectors) | {"server": pid(clickhouse, "clickhouse-server.service")} == before


def test_a_word_that_tor_does_not_know(collectors: list[Host]) -> None:
    """Tor alone can say so, and does before a symbol is taken down or an instance stopped."""
    before = pids(collectors) | {i: pid(h, f"tor@{i}.service") for h in collectors for i in site.symbols(h)}
    config = {"ClientOnly": 1, "MaxCircuitDirtyness": 600}
    slips = variables(tor_config=config, mexc_pipeline_symbols=[*SYMBOLS[:2], {**SYMBOLS[2], "state": "absent"}])
    printed = play("ansible-playbook site.yml", *ONLY, *installed(collectors[0]), *slips, fails=True)
    assert "Unknown option 'MaxCircuitDirtyness'" in " ".join(printed.split())
    assert pids(collectors) | {i: pid(h, f"tor@{i}.service") for h in collectors for i in site.symbols(h)} == before


def test_an_id_that_another_symbol_has_used(collectors: list[Host]) -> None:
    """Its collector alone can say so, and would when it is restarted: it must not come to that."""
    before = pids(collectors)
    slips = variables(mexc_pipeline_symbols=[*SYMBOLS[:2], {**SYMBOLS[2], "name": "SOL_USDC"}])
    printed = play("ansible-playbook site.yml", *ONLY, *installed(collectors[0]), *slips, fails=True)
    assert "id 'sol' holds what was recorded of SOL_USDT" in " ".join(printed.split()).replace("''", "'")
    assert pids(collectors) == before


def test_another_data_folder(collectors: list[Host]) -> None:
    """What is recorded would stay behind, in no file."""
    before = pids(collectors)
    version = installed(collectors[0])
    more = variables(mexc_pipeline_data_dir="/srv/elsewhere")
    printed = play("ansible-playbook site.yml", *ONLY, *version, *more, fails=True)
    assert "Move the folder first" in " ".join(printed.split())
    assert pids(collectors) == before


@contextmanager
def _read_only(host: Host, folder: str) -> Iterator[None]:
    """A folder in which a play can write no file."""
    host.check_output("mount --bind %s %s && mount -o remount,ro,bind %s", folder, folder, folder)
    try:
        yield
    finally:
        host.check_output("umount %s", folder)


def test_a_run_that_broke_off(collectors: list[Host], network: Host) -> None:
    """Between writing and restarting: the next run finds every file as it should be, and restarts what must be."""
    host, other = host_of(collectors, "btc"), host_of(collectors, "sol")
    version = installed(host)
    changed = variables(mexc_pipeline_spool={"warn_percent": 79})
    before = pids(collectors)
    with _read_only(other, "/etc/systemd/system/mexc-collector@sol.service.d"):
        play("ansible-playbook site.yml", *ONLY, *version, *changed, fails=True)
    assert pid(host, "mexc-collector@btc.service") == before["btc"], "the run was to end before it restarts anything"
    assert "was started with another configuration" in on(host, "mexc-pipeline status").stdout
    printed = play("ansible-playbook playbooks/verify.yml", fails=True)
    assert "FAIL mexc-collector@btc.service does not run what is on the disk" in printed
    play("ansible-playbook site.yml", *ONLY, *version, *changed)
    after = pids(collectors)
    assert [name for name in ("btc", "eth", "sol") if after[name] in (0, before[name])] == []
    assert "another configuration" not in on(host, "mexc-pipeline status").stdout
    play("ansible-playbook site.yml", *ONLY, *version)
    settled(collectors, network)
    nothing_lost(collectors, network)


def test_a_list_of_symbols_that_nobody_has_read(collectors: list[Host], network: Host) -> None:
    """A run that brings a symbol breaks off: those that record go by the old list until a complete run, and are not
    restarted by it."""
    host, other = host_of(collectors, "btc"), host_of(collectors, "sol")
    version = installed(host)
    before = pids(collectors)
    more = variables(mexc_pipeline_symbols=[*SYMBOLS, DOGE])
    with _read_only(other, "/etc/systemd/system"):
        play("ansible-playbook site.yml", *ONLY, *version, *more, fails=True)
    assert "it shares Tor's exits out by another list of symbols" in " ".join(
        on(host, "mexc-pipeline status").stdout.split()
    )
    printed = play("ansible-playbook playbooks/verify.yml", fails=True)
    assert "FAIL mexc-collector@btc.service does not run what is on the disk: it shares" in printed
    printed = play("ansible-playbook site.yml --skip-tags install", *ONLY, *version, *more)
    assert "Install the package" not in printed
    task = printed.partition("Have them repartition the exits")[2].partition("TASK [")[0]
    assert f"changed: [{site.name(host)}] => (item=btc)" in task
    after = pids(collectors)
    assert {name: after[name] for name in ("btc", "eth", "sol")} == {n: before[n] for n in ("btc", "eth", "sol")}
    assert "another list of symbols" not in on(host, "mexc-pipeline status").stdout
    play(
        "ansible-playbook site.yml",
        *ONLY,
        *version,
        *variables(mexc_pipeline_symbols=[*SYMBOLS, DOGE | {"state": "absent"}]),
    )
    settled(collectors, network)
    nothing_lost(collectors, network)


def test_a_run_that_broke_off_before_anything_was_read_again(
    collectors: list[Host], clickhouse: Host, network: Host
) -> None:
    """What the files say and systemd, the store, Tor, ClickHouse or the journal has not read is named by the check; a
    run mends it. So is what has no process: a retention goes by the rule that systemd has loaded."""
    host = host_of(collectors, "sol")
    units = {
        "mexc-collector@sol.service": (host, "/etc/systemd/system/mexc-collector@.service"),
        "mexc-store.service": (host, "/etc/systemd/system/mexc-store.service"),
        "mexc-metrics.service": (host, "/etc/mexc-pipeline/config.toml"),
        "tor@sol.service": (host, "/etc/tor/instances/sol/torrc"),
        "systemd-journald.service": (host, "/etc/systemd/journald.conf.d/mexc-pipeline.conf"),
        "clickhouse-server.service": (clickhouse, "/etc/clickhouse-server/config.d/mexc-pipeline.xml"),
    }
    loaded = {
        "mexc-prune.service": "/etc/systemd/system/mexc-prune.service",
        "mexc-prune.timer": "/etc/systemd/system/mexc-prune.timer",
        "mexc.target": "/etc/systemd/system/mexc.target",
    }
    before = {unit: pid(at, unit) for unit, (at, _) in units.items()}
    # As a run before this one had it: systemd has read these, and on the disk is what the inventory says. It reads all
    # files at a time, so nothing is put back, or touched, before it has.
    older = "s/^\\(ExecStart=.*\\)/\\1 --keep 9999d/; s/^OnCalendar=.*/OnCalendar=*-*-* 05:55:00/; $ a # older"
    for path in loaded.values():
        host.check_output("cp %s %s && sed -i %s %s", path, f"/root/{Path(path).name}", older, path)
    host.check_output("systemctl daemon-reload")
    for path in loaded.values():
        host.check_output("cat %s > %s && rm %s", kept := f"/root/{Path(path).name}", path, kept)
    for at, path in units.values():
        at.check_output("touch %s", path)
    printed = play("ansible-playbook playbooks/verify.yml", fails=True)
    for unit in (*units, *loaded):
        assert f"FAIL {unit} does not run what is on the disk" in printed
    play("ansible-playbook site.yml", *installed(host))
    assert [unit for unit, (at, _) in units.items() if pid(at, unit) in (0, before[unit])] == []
    for unit in loaded:
        assert host.check_output("systemctl show --value -p NeedDaemonReload %s", unit) == "no"
    assert "9999d" not in host.check_output("systemctl show -p ExecStart mexc-prune.service")
    assert "05:55" not in host.check_output("systemctl show -p TimersCalendar mexc-prune.timer")
    settled(collectors, network)
    site.until("everything as it should be", partial(_verified, host), BACK_S)
    assert " does not run what is on the disk" not in on(host, "mexc-pipeline status").stdout
    again = play("ansible-playbook site.yml", *installed(host))
    assert [line for line in again.splitlines() if "changed=" in line and "changed=0" not in line] == []
    nothing_lost(collectors, network)


def test_parts_of_a_run(collectors: list[Host]) -> None:
    """The inventory judged and nothing else; the units written and nothing else, by what was not read before."""
    host = host_of(collectors, "sol")
    before = pids(collectors)
    printed = play("ansible-playbook site.yml --tags checks", *installed(host))
    assert "Look at the machine" not in printed
    later = variables(mexc_pipeline_prune_schedule="*-*-* 05:55:00")
    play("ansible-playbook site.yml --tags units", *ONLY, *installed(host), *later)
    assert "05:55" in host.check_output("systemctl show -p TimersCalendar mexc-prune.timer")
    play("ansible-playbook site.yml --tags units", *ONLY, *installed(host))
    assert "05:55" not in host.check_output("systemctl show -p TimersCalendar mexc-prune.timer")
    assert pids(collectors) == before


def test_a_symbol_that_is_to_go_shown_first(collectors: list[Host]) -> None:
    """What would be taken down can be looked at, and stays."""
    host = host_of(collectors, "sol")
    before = pids(collectors)
    gone = variables(mexc_pipeline_symbols=[*SYMBOLS[:2], {**SYMBOLS[2], "state": "absent"}])
    printed = play("ansible-playbook site.yml --check --diff", *ONLY, *installed(host), *gone)
    assert "mexc-collector@sol" in printed
    assert pids(collectors) == before


def test_a_symbol_that_is_to_come_shown_first(collectors: list[Host]) -> None:
    """On hosts that record: what would be made is shown, and nothing of it is there afterwards."""
    host = host_of(collectors, "sol")
    before = pids(collectors)
    more = variables(mexc_pipeline_symbols=[*SYMBOLS, DOGE])
    printed = play("ansible-playbook site.yml --check --diff", *ONLY, *installed(host), *more)
    assert "mexc-collector@doge.service.d" in printed
    assert "doge" not in site.symbols(host)
    for path in ("/etc/tor/instances/doge", "/etc/systemd/system/mexc-collector@doge.service.d"):
        assert not host.file(path).exists
    assert pids(collectors) == before


def test_a_move_shown_first(collectors: list[Host]) -> None:
    """Neither host changes anything: the one that has it goes on."""
    here, there = host_of(collectors, "eth"), host_of(collectors, "sol")
    before = pids(collectors)
    moved = variables(mexc_pipeline_symbols=[SYMBOLS[0], {**SYMBOLS[1], "host": site.name(there)}, SYMBOLS[2]])
    printed = play("ansible-playbook site.yml --check --diff", *ONLY, *installed(here), *moved)
    assert "mexc-collector@eth.service.d" in printed
    assert "eth" in site.symbols(here)
    assert "eth" not in site.symbols(there)
    assert not there.file("/etc/tor/instances/eth").exists
    assert here.service("mexc-collector@eth.service").is_enabled
    assert pids(collectors) == before


def test_another_password_of_the_store(collectors: list[Host], clickhouse: Host, network: Host) -> None:
    """The database takes it up, every store after it, and recording does not notice."""
    kept = "/etc/clickhouse-server/credentials/mexc_store"
    before, running = clickhouse.file(kept).content_string, pids(collectors)
    clickhouse.check_output("rm %s", kept)
    play("ansible-playbook site.yml", *installed(collectors[0]))
    assert clickhouse.file(kept).content_string != before
    after = pids(collectors)
    symbols = [i for host in collectors for i in site.symbols(host)]
    assert {i: after[i] for i in symbols} == {i: running[i] for i in symbols}
    for host in collectors:
        assert host.file("/etc/mexc-pipeline/clickhouse-password").content_string.strip() != before.strip()
        site.until("loading goes on", lambda: _loads(host), BACK_S)  # noqa: B023


def _loads(host: Host) -> bool:
    return all(s["store"] is not None and s["store"]["backlog"] < 500 for s in site.status(host).values())


def test_the_data_folder_moved(collectors: list[Host], network: Host) -> None:
    """There and back: the sequence goes on, and nothing that was recorded stays behind."""
    host = host_of(collectors, "sol")
    old, new = "/var/lib/mexc-pipeline", "/srv/mexc-pipeline"
    for source, target in ((old, new), (new, old)):
        before = site.status(host)["sol"]["collector"]["last_seq"]
        assert on(host, "systemctl stop mexc.target").rc == 0
        host.check_output("mv %s %s", source, target)
        folders = variables(mexc_pipeline_data_dir=target, mexc_pipeline_export_dir=f"{target}/exports")
        play("ansible-playbook site.yml", "--limit", site.name(host), *installed(host), *folders)
        assert not host.file(f"{source}/spool").exists
        settled(collectors, network)
        assert site.status(host)["sol"]["collector"]["last_seq"] > before
    nothing_lost([host], network)


MOVED_S = 5.0
"""Without a frame, at most, while a symbol changes its host."""
RESTARTED_S = 2.5
"""Without a frame while a collector stops and starts on a host that has nothing else to do. Where that takes longer,
right after a move and on the same host, this machine is busy with other things: the move may take as many times longer.
"""
_FRAMES = ("t", "d", "dp")


def _restarted_s(host: Host, collectors: list[Host], network: Host) -> float:
    """Seconds without a frame while the collector of eth stops and starts where it is."""
    asked = int(host.check_output("date +%s%N"))
    host.check_output("systemctl restart mexc-collector@eth.service")
    settled(collectors, network)
    said = site.run_json(host, "mexc-pipeline export --once --json")
    assert said["ok"], said
    frames = sorted(rx for _, mt, rx in site.received(host, "eth") if mt in _FRAMES)
    return max(later - earlier for earlier, later in pairwise(frames) if later > asked) / 1e9


def test_a_symbol_moved(collectors: list[Host], clickhouse: Host, network: Host) -> None:
    """There and back: each time seconds without a frame, no seq twice, and all files together are what was sent."""
    first, second = host_of(collectors, "eth"), host_of(collectors, "sol")
    settled(collectors, network)
    others = {"btc": first, "sol": second}
    before_it = {i: pid(h, f"mexc-collector@{i}.service") for i, h in others.items()}
    for here, there in ((first, second), (second, first)):
        symbols = [SYMBOLS[0], {**SYMBOLS[1], "host": site.name(there)}, SYMBOLS[2]]
        printed = play("ansible-playbook site.yml", *ONLY, *installed(here), *variables(mexc_pipeline_symbols=symbols))
        assert f"on {site.name(here)}, goes on here" in printed
        settled(collectors, network)
        assert "eth" in site.symbols(there)
        assert "eth" not in site.symbols(here)
        assert not here.service("mexc-collector@eth.service").is_enabled
        assert not here.service("tor@eth.service").is_running
        assert there.service("mexc-collector@eth.service").is_enabled
        assert {i: pid(h, f"mexc-collector@{i}.service") for i, h in others.items()} == before_it
        made = site.run_json(there, "mexc-pipeline export --once --json")
        assert made["ok"], made
        rows = sorted(site.received(here, "eth") + site.received(there, "eth"))
        seqs = [seq for seq, _, _ in rows]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        last = max(seq for seq, _, _ in site.received(here, "eth"))
        before = max(rx for seq, mt, rx in rows if mt in _FRAMES and seq <= last)
        after = min(rx for seq, mt, rx in rows if mt in _FRAMES and seq > last)
        moved_s, restarted_s = (after - before) / 1e9, _restarted_s(there, collectors, network)
        said = f"eth without a frame for {moved_s:.3f} s by its move, {restarted_s:.3f} s by a restart after it"
        print(said)  # noqa: T201 - in the test's report
        assert 0 < moved_s <= MOVED_S * max(1.0, restarted_s / RESTARTED_S), said
        for host in (here, there):
            site.until("everything as it should be", partial(_verified, host), BACK_S)
    tables = clickhouse.check_output("clickhouse-client --query 'SHOW TABLES FROM ch_mexc'").split()
    assert [table for table in tables if table.startswith(("eth_orphan", "eth_altered"))] == []
    put_together(second, first, "eth")
    nothing_lost(collectors, network)
    assert on(first, "mexc-pipeline verify exports").rc == 0


def test_a_move_that_cannot_be_made(collectors: list[Host], network: Host) -> None:
    """Where the next host cannot take a symbol over, it is recorded where it was; nothing of the try stays."""
    here, there = host_of(collectors, "eth"), host_of(collectors, "sol")
    spool = f"{site.configuration(there)['data_dir']}/spool/eth"
    symbols = [SYMBOLS[0], {**SYMBOLS[1], "host": site.name(there)}, SYMBOLS[2]]
    there.check_output("install -d -o mexc -g mexc -m 0750 %s && echo damaged > %s/2020010100.sqlite", spool, spool)
    try:
        more = (*installed(here), *variables(mexc_pipeline_symbols=symbols))
        printed = play("ansible-playbook site.yml", *ONLY, *more, fails=True)
    finally:
        there.check_output("rm %s/2020010100.sqlite", spool)
    assert f"eth stays on {site.name(here)} and was not moved to {site.name(there)}: 2020010100" in _words(printed)
    assert here.service("mexc-collector@eth.service").is_enabled
    assert not there.service("mexc-collector@eth.service").is_running
    play("ansible-playbook site.yml", *ONLY, *installed(here))
    settled(collectors, network)
    assert "eth" not in site.symbols(there)
    assert not there.service("tor@eth.service").is_running
    nothing_lost(collectors, network)


def _words(printed: str) -> str:
    return " ".join(printed.split())


def _verified(host: Host) -> bool:
    done = on(host, "mexc-pipeline verify")
    assert done.rc == 0, [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    return True


def test_a_secret_in_the_vault(collectors: list[Host], tmp_path: Path) -> None:
    """An encrypted variable is read with the vault's password and stands in no output."""
    password, secret = tmp_path / "password", tmp_path / "secret.yml"
    password.write_text("of the vault\n")
    secret.write_text("test_vaulted: never to be printed\n")
    vault = str(Path(sys.executable).parent / "ansible-vault")
    subprocess.run([vault, "encrypt", "--vault-password-file", password, secret], check=True, capture_output=True)
    more = (*ONLY, *installed(collectors[0]), "--check", "--extra-vars", f"@{secret}")
    printed = play("ansible-playbook site.yml --vault-password-file {file}", *more, file=password)
    assert "never to be printed" not in printed


def test_the_version_before(collectors: list[Host], network: Host) -> None:
    """Gone back to on purpose, and forth again: one symbol at a time, nothing lost."""
    current = collectors[0].check_output("readlink /opt/mexc-pipeline/current").rpartition("/")[2]
    earlier = network.ansible.get_variables()["test_version"]
    for version in (earlier, current):
        play("ansible-playbook playbooks/upgrade.yml -e mexc_pipeline_version={version}", version=version)
        for host in collectors:
            assert version in host.check_output("mexc-pipeline --version").split()[-1]
    settled(collectors, network)
    nothing_lost(collectors, network)


def test_a_failed_version_goes_before_one_that_ran(collectors: list[Host], network: Host) -> None:
    """The one before the present one is what an operator goes back to."""
    earlier = network.ansible.get_variables()["test_version"]
    folders = "find /opt/mexc-pipeline -mindepth 1 -maxdepth 1 -type d -printf '%f\\n'"
    for host in collectors:
        assert set(host.check_output(folders).split()) == {earlier, f"{earlier}.post1"}
    site.until("live again", lambda: all(_live(host) for host in collectors), BACK_S)


def test_a_changed_source_of_the_same_version(collectors: list[Host], network: Host) -> None:
    """What is installed is told by its content: it is installed anew, and what ran with the old one is restarted."""
    version = collectors[0].check_output("readlink /opt/mexc-pipeline/current").rpartition("/")[2]
    changed = "/srv/changed-wheelhouse"
    code = (Path(__file__).parent / "remote" / "changed_wheel.py").read_text()
    for host in collectors:
        host.check_output("python3 -c %s /srv/wheelhouse %s %s", code, changed, version)
    asked = "import mexc_pipeline; print(hasattr(mexc_pipeline, 'CHANGED'))"
    for wheelhouse, is_changed in ((changed, True), ("/srv/wheelhouse", False)):
        before = pids(collectors)
        more = variables(mexc_pipeline_version=version, mexc_pipeline_wheelhouse=wheelhouse)
        play("ansible-playbook site.yml", *ONLY, *more)
        for host in collectors:
            assert host.check_output("%s -c %s", site.PYTHON, asked) == str(is_changed)
        after = pids(collectors)
        assert [name for name in after if after[name] in (0, before[name])] == []
        again = play("ansible-playbook site.yml", *ONLY, *more)
        assert [line for line in again.splitlines() if "changed=" in line and "changed=0" not in line] == []
    for host in collectors:
        host.check_output("rm -r %s", changed)
    settled(collectors, network)
    nothing_lost(collectors, network)


def test_a_stop_that_waits(collectors: list[Host], network: Host) -> None:
    """When the command returns nothing of ours is at work: what follows may take the folders away."""
    host = host_of(collectors, "btc")
    assert on(host, "systemctl stop mexc.target").rc == 0
    states = "--state=active,activating,reloading,deactivating"
    left = host.check_output(f"systemctl list-units --plain --no-legend {states} 'mexc*'")
    assert on(host, "systemctl start mexc-store.service mexc.target").rc == 0
    assert left == ""
    settled(collectors, network)


def test_a_unit_that_is_restarted_again_and_again(collectors: list[Host], network: Host) -> None:
    """It goes on trying for ever, and somebody is told: a unit of its own fails, once for so many restarts.

    One is killed again and again, one is refused because somebody records the same symbol by hand.
    """
    host = host_of(collectors, "eth")
    site.until("the first count", lambda: host.file("/run/mexc-restarts/seen.json").exists, 90)
    host.check_output("systemctl stop mexc-collector@btc.service")
    by_hand = "/opt/mexc-pipeline/current/bin/mexc-pipeline --config /etc/mexc-pipeline/config.toml collect btc"
    rights = "-p User=mexc -p Group=mexc -p SupplementaryGroups=_tor-btc"
    host.check_output(f"systemd-run --unit test-second {rights} {by_hand}")
    try:
        site.until("the one by hand records", lambda: site.status(host)["btc"]["collector"].get("state") == "live", 120)
        host.check_output("systemctl start --no-block mexc-collector@btc.service")
        for _ in range(7):
            before = pid(host, "mexc-collector@eth.service")
            host.check_output("systemctl kill --signal KILL mexc-collector@eth.service")
            site.until("a new process", lambda: pid(host, "mexc-collector@eth.service") not in (0, before), 60, 0.2)  # noqa: B023
        site.until("the alarm", lambda: _alarmed(host) >= {"btc", "eth"}, 120)
        site.until("somebody told", lambda: "mexc-restarts.service" in _told(host), 60)
    finally:
        host.check_output("systemctl stop test-second.service")
    failed = "systemctl show --value -p Result mexc-restarts.service"
    site.until("its end", lambda: host.check_output(failed) == "success", 180)
    settled(collectors, network)
    nothing_lost(collectors, network)


def _told(host: Host) -> list[str]:
    """The units whose failure was handed to whoever is told of it; that is a unit too, and starts after the failure."""
    return str(host.run("cat /run/test-alerts").stdout).split()  # not there before the first of them


def _alarmed(host: Host) -> set[str]:
    """The symbols whose collectors were said to be restarted too often, and other units."""
    said = host.check_output("journalctl -o cat -u mexc-restarts.service")
    return set(re.findall(r"(?:mexc-collector@)?(\S+)\.service was restarted", said))


def test_a_tor_or_a_server_that_is_restarted_again_and_again(
    collectors: list[Host], clickhouse: Host, network: Host
) -> None:
    """What others wrote and we configure is watched too, on the host that has no collector as well."""
    for host, unit in ((host_of(collectors, "sol"), "tor@sol.service"), (clickhouse, "clickhouse-server.service")):
        site.until("the first count", lambda: host.file("/run/mexc-restarts/seen.json").exists, 90)  # noqa: B023
        for _ in range(7):
            before = pid(host, unit)
            host.check_output("systemctl kill --signal KILL %s", unit)
            site.until("a new process", lambda: pid(host, unit) not in (0, before), 60, 0.2)  # noqa: B023
        site.until("the alarm", lambda: unit.removesuffix(".service") in _alarmed(host), 120)  # noqa: B023
        failed = "systemctl show --value -p Result mexc-restarts.service"
        site.until("its end", lambda: host.check_output(failed) == "success", 180)  # noqa: B023
        assert host.check_output("systemctl show --value -p ActiveState %s", unit) == "active"
    settled(collectors, network)
    for host in collectors:
        site.until("loading goes on", lambda: _loads(host), BACK_S)  # noqa: B023
    nothing_lost(collectors, network)


@pytest.mark.parametrize("who", ["ch1", "col1"])
def test_without_one_host(collectors: list[Host], clickhouse: Host, who: str) -> None:
    """The others are checked and saved all the same, and the report says what was not."""
    (gone,) = (host for host in (clickhouse, *collectors) if site.name(host) == who)
    there = [host for host in collectors if host is not gone]
    name = site.name(gone)
    # With a connection of its own: by the shared one, which is still open, the login would be root's all the same.
    it = f"inventory_hostname == '{name}'"
    away = variables(
        ansible_user=f"{{{{ 'nobody-there' if {it} else 'root' }}}}",
        ansible_ssh_args=f"-o Compression=no{{{{ ' -o ControlPath=none' if {it} else '' }}}}",
    )
    printed = play("ansible-playbook playbooks/verify.yml", *away, fails=True)
    said = f"FAIL {name} does not answer a query" if gone is clickhouse else f"FAIL {name} was not reached"
    assert said in printed
    if gone is not clickhouse:
        assert "ok   version " in printed
    assert "nobody-there" in printed, "it was to be refused, not to fail otherwise"
    for host in there:
        assert f"ok   {site.name(host)} runs what is on the disk" in printed
        for symbol_id in site.symbols(host):
            assert f"{symbol_id} leaves from 203.0.113." in printed
            assert f"{symbol_id} continuity: " in printed
    saved = {host: set(host.run("ls %s", BACKUPS).stdout.split()) for host in there}
    printed = play("ansible-playbook playbooks/backup.yml", *away, fails=True)
    assert f"{name} was not saved" in " ".join(printed.split())
    for host in there:
        (made,) = set(host.check_output("ls %s", BACKUPS).split()) - saved[host] - {"exports"}
        assert host.file(f"{BACKUPS}/{made}/manifest.json").exists
        host.check_output("rm -r %s", BACKUPS)  # the test of restoring makes one of its own


def _live(host: Host) -> bool:
    return all(s["collector"].get("state") == "live" for s in site.status(host).values())
