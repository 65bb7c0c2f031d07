"""Procedures of ``docs/operators.md`` that are rare and must work then: passwords, a disk that is late, or lost.

Run last, on the test hosts only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
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
    hosts_command,
    installed,
    pid,
    settled,
    variables,
)
from deploy.test_operations import BACKUPS, held_export

pytestmark = [pytest.mark.disruptive, pytest.mark.test_network, pytest.mark.timeout(900)]

PASSWORD = "of-the-operator"
_DEPLOYER = f"""
apt-get -qq update && apt-get -qq install --yes --no-install-recommends sudo
useradd --create-home --shell /bin/bash --groups sudo deployer
echo 'deployer:{PASSWORD}' | chpasswd
install -d -m 0700 -o deployer -g deployer /home/deployer/.ssh
install -m 0600 -o deployer -g deployer /root/.ssh/authorized_keys /home/deployer/.ssh/authorized_keys
"""


def test_a_password_for_becoming_root(collectors: list[Host], clickhouse: Host, tmp_path: Path) -> None:
    """A login that is not root's and whose ``sudo`` asks: the password comes out of the vault, and is shown nowhere."""
    for host in (*collectors, clickhouse):
        host.check_output("sh -ec %s", _DEPLOYER)
    # The test hosts' connections are shared by host: without a path of its own the login would be root's all the same.
    shared = f"-o ControlMaster=auto -o ControlPersist=60 -o ControlPath={tmp_path.parent}/%r-%h"
    login = variables(ansible_user="deployer", ansible_ssh_args=shared)
    more = (*ONLY, *installed(collectors[0]), *login)
    assert "password" in play("ansible-playbook site.yml", *more, fails=True)
    vault, secrets = tmp_path / "vault-password", tmp_path / "secrets.yml"
    vault.write_text("of the vault\n")
    secrets.write_text(f"ansible_become_password: {PASSWORD}\n")
    encrypt = str(Path(sys.executable).parent / "ansible-vault")
    subprocess.run([encrypt, "encrypt", "--vault-password-file", vault, secrets], check=True, capture_output=True)
    before = {host: pid(host, "mexc-store.service") for host in collectors}
    for how in (("--check", "--diff"), ()):
        given = (*more, "--extra-vars", f"@{secrets}", *how)
        printed = play("ansible-playbook site.yml --vault-password-file {file}", *given, file=vault)
        assert PASSWORD not in printed
        assert [line for line in printed.splitlines() if "changed=" in line and "changed=0" not in line] == []
    assert {host: pid(host, "mexc-store.service") for host in collectors} == before
    for host in (*collectors, clickhouse):  # by force: a shared connection of its is still open
        host.check_output("userdel --force --remove deployer")


def test_a_disk_that_is_not_there_at_boot(collectors: list[Host], network: Host) -> None:
    """Nothing starts without it, nothing is written beneath it, and the check says so; one command when it is there."""
    host = host_of(collectors, "sol")
    data = site.configuration(host)["data_dir"]
    before = site.status(host)["sol"]["collector"]["last_seq"]
    # What is to be mounted is a file for now, so that mounting it fails as a disk does that is not there.
    host.check_output("systemctl stop mexc.target")
    host.check_output(f"mv {data} /srv/the-disk && install -d -o mexc -g mexc -m 0750 {data} && touch /srv/disk")
    host.check_output(f"echo '/srv/disk {data} none bind,nofail 0 0' >> /etc/fstab")
    try:
        hosts_command("reboot", site.name(host))
        host.run("systemctl start mexc-export.service mexc-prune.service mexc-store.service mexc-collector@sol.service")
        printed = play("ansible-playbook playbooks/verify.yml", fails=True)
        for unit in ("mexc-collector@sol.service", "mexc-store.service"):
            assert f"FAIL {unit} inactive" in printed
        assert host.check_output(f"find {data} -not -type d") == ""
        host.check_output("rm /srv/disk && mv /srv/the-disk /srv/disk")
        assert on(host, "systemctl start mexc.target").rc == 0
        settled(collectors, network)
        assert site.status(host)["sol"]["collector"]["last_seq"] > before
    finally:
        host.check_output("systemctl stop mexc.target 'mexc-*'; if mountpoint -q %s; then umount %s; fi", data, data)
        host.check_output(f"rm -r {data} && mv $(ls -d /srv/the-disk || echo /srv/disk) {data}; rm -f /srv/disk")
        host.check_output("sed -i '\\:^/srv/disk :d' /etc/fstab && systemctl daemon-reload")
        host.check_output("systemctl start mexc-store.service mexc.target")
    settled(collectors, network)


def test_a_mount_that_the_inventory_names(collectors: list[Host], network: Host) -> None:
    """While it is not mounted nothing is recorded and the log says why; when it is, all goes on by itself."""
    host = host_of(collectors, "sol")
    disk, here = "/srv/named-disk", ("--limit", site.name(host))
    host.check_output("install -d %s && mount -t tmpfs none %s", disk, disk)
    try:
        play("ansible-playbook site.yml", *here, *installed(host), *variables(mexc_pipeline_mounts=[disk]))
        host.check_output("systemctl stop mexc.target 'mexc-*.service' && umount %s", disk)
        before = on(host, "mexc-pipeline verify exports").stdout
        host.run("systemctl start --no-block mexc-store.service mexc.target")
        said = "journalctl -o cat -u mexc-collector@sol.service -n 20"
        site.until("the log says why", lambda: f"nothing is mounted at {disk}" in host.check_output(said), 60)
        assert on(host, "mexc-pipeline export --once").rc == 1
        assert on(host, "mexc-pipeline verify exports").stdout == before
        host.check_output("mount -t tmpfs none %s", disk)
        settled(collectors, network)
    finally:
        host.check_output("umount %s; rmdir %s", disk, disk)
        play("ansible-playbook site.yml", *here, *installed(host))
    settled(collectors, network)


def _in_files(clickhouse: Host, symbol_id: str) -> int:
    """The last seq of a symbol that is in a verified file, as ClickHouse was told."""
    sql = f"SELECT max(last_seq) FROM ch_mexc.export_log WHERE id = '{symbol_id}'"
    return int(clickhouse.check_output("clickhouse-client --query %s", sql))


def _loaded(clickhouse: Host, symbol_id: str) -> int:
    """The last seq of a symbol that ClickHouse knows."""
    in_files, table = _in_files(clickhouse, symbol_id), f"{symbol_id}_current"
    if table not in clickhouse.check_output("clickhouse-client --query 'SHOW TABLES FROM ch_mexc'").split():
        return in_files
    sql = f"SELECT max(seq) FROM ch_mexc.{table}"
    return max(in_files, int(clickhouse.check_output("clickhouse-client --query %s", sql)))


def _only_there(clickhouse: Host, saved: int) -> bool:
    """Whether ClickHouse has rows of sol that are not in the backup, and rows of doge that are in no file."""
    return _loaded(clickhouse, "sol") > saved and _loaded(clickhouse, "doge") > _in_files(clickhouse, "doge")


def test_an_empty_disk_at_boot(collectors: list[Host], clickhouse: Host, network: Host) -> None:
    """The store comes up later than the collector, and is waited for: no seq that ClickHouse knows is given again."""
    host = host_of(collectors, "sol")
    data = site.configuration(host)["data_dir"]
    assert on(host, "mexc-pipeline export --once").rc == 0
    in_files = site.exported(host, "sol")[-1][1]
    site.until("the store has noted the file", lambda: _in_files(clickhouse, "sol") >= in_files, 60)
    late = "/etc/systemd/system/mexc-store.service.d"
    wait = f"ExecStartPre=/bin/sh -c 'until [ -S {data}/control/sol.sock ]; do sleep 0.1; done'"
    host.check_output("systemctl stop mexc.target 'mexc-*'")
    host.check_output("install -d %s && echo %s > %s/late.conf", late, f"[Service]\n{wait}", late)
    host.check_output(f"mv {data} /srv/lost && install -d -o root -g root -m 0755 {data}")  # as a new disk is
    known = _loaded(clickhouse, "sol")
    try:
        hosts_command("reboot", site.name(host))
        settled(collectors, network)
    finally:
        host.check_output(f"rm -r {late} && systemctl daemon-reload")
    assert on(host, "mexc-pipeline export --once").rc == 0
    assert site.exported(host, "sol")[0][1] > known
    host.check_output(f"cp -a /srv/lost/exports/. {data}/exports && cp -a /srv/lost/acknowledged.jsonl {data}")
    for first, last in _holes(host):  # what had become no file
        words = {"first": first, "last": last}
        assert on(host, "mexc-pipeline acknowledge sol {first} {last} --reason restored", **words).rc == 0
    assert on(host, "mexc-pipeline verify exports").rc == 0
    host.check_output("rm -r /srv/lost")


def _holes(host: Host) -> list[tuple[str, str]]:
    """First and last seq of each hole that the check of the files fails for; it fails for nothing else."""
    wrong = [line for line in on(host, "mexc-pipeline verify exports").stdout.splitlines() if line.startswith("FAIL")]
    found = [re.search(r"seq (\d+) to (\d+) \(\d+ rows\) are in no file between", line) for line in wrong]
    assert None not in found, wrong
    return [(hole[1], hole[2]) for hole in found if hole]


def _lose(host: Host, clickhouse: Host) -> int:
    """Put an empty disk in the place of the data disk, under all that runs; the last seq of sol known elsewhere."""
    data = site.configuration(host)["data_dir"]
    host.check_output(f"mv {data} /srv/lost && install -d -o root -g root -m 0755 {data}")  # as a new disk is
    host.check_output("systemctl kill --signal KILL 'mexc-collector@*.service' mexc-store.service")
    return _loaded(clickhouse, "sol")


def test_a_lost_data_disk(collectors: list[Host], clickhouse: Host, network: Host) -> None:
    """Everything of a host is gone but its backup: it records again at once, no seq is given twice, files come back.

    The same run may take a symbol away: of this one only ClickHouse has rows that are in no file, and keeps them.
    """
    host = host_of(collectors, "sol")
    limit = ("--limit", f"{site.name(clickhouse)},{site.name(host)}")
    play("ansible-playbook playbooks/backup.yml")
    name = max(folder for folder in host.check_output("ls %s", BACKUPS).split() if folder != "exports")
    saved = json.loads(host.file(f"{BACKUPS}/{name}/manifest.json").content_string)
    play("ansible-playbook site.yml", *ONLY, *installed(host), *variables(mexc_pipeline_symbols=[*SYMBOLS, DOGE]))
    host.check_output("systemctl stop mexc-export.timer")
    last = saved["last_seq"]["sol"]
    site.until("rows after the backup and in no file", lambda: _only_there(clickhouse, last), BACK_S)

    known, doge = _lose(host, clickhouse), _loaded(clickhouse, "doge")
    play("ansible-playbook site.yml", *installed(host))
    assert not host.file("/etc/systemd/system/mexc-collector@doge.service.d").exists
    assert not host.service("mexc-collector@doge.service").is_running
    assert _loaded(clickhouse, "doge") == doge
    settled(collectors, network)
    assert on(host, "mexc-pipeline export --once").rc == 0
    new = site.exported(host, "sol")
    assert new[0][1] > known, "a seq that ClickHouse knows was given again"

    play("ansible-playbook playbooks/export.yml")
    given = site.exported(host, "sol")[-1][1]
    here = f"reset_host={site.name(host)}"
    held_export(host, "systemctl start mexc-export.service")
    play("ansible-playbook playbooks/reset.yml -e reset_start=false", "--extra-vars", here)
    assert not host.service("mexc-export.service").is_running
    assert host.check_output(f"find {site.configuration(host)['export_dir']} -name '.*'") == ""
    play("ansible-playbook playbooks/restore.yml -e restore_name={name}", *limit, name=name)
    settled(collectors, network)
    assert on(host, "mexc-pipeline export --once").rc == 0
    rows = site.exported(host, "sol")
    seqs = [seq for _, seq, _, _ in rows]
    assert len(set(seqs)) == len(seqs)
    assert max(seqs) > given
    files = {file for file, _, _, _ in rows}
    assert files >= {file for file in saved["exports"] if file.startswith("sol")}
    assert files >= {file for file, _, _, _ in new}
    holes = _holes(host)
    assert 1 <= len(holes) <= 2, holes  # what was lost, and what the restore leaves; earlier ones are answered for
    for first, last in holes:
        words = {"first": first, "last": last}
        done = on(host, "mexc-pipeline acknowledge sol {first} {last} --reason restored", **words)
        assert done.rc == 0, done.stderr
    assert on(host, "mexc-pipeline verify exports").rc == 0
    host.check_output("rm -r /srv/lost")
