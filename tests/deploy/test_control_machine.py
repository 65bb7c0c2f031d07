"""What needs Ansible or its libraries, and no host."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).parent / "ansible-playbook"
PLAY = """
- hosts: all
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: mexc_pipeline
        tasks_from: data_folder
"""


LEFT = {
    "nothing": [],
    "no-recording": ["spool/btc/lock", "spool/btc/reserve", "exports/btc2026112120.parquet"],
    "segment": ["spool/btc/2026112120.sqlite", "spool/btc/lock"],
    "pending": ["spool/btc/pending.db"],
    "hidden": ["spool/btc/.2026112120.sqlite.new"],
    "link": ["spool/btc"],
    "answered": ["acknowledged.jsonl"],
}
"""What old data folders hold, by the name of the host; the first of a list is what is named."""


def test_a_data_folder_changes_only_where_the_old_one_holds_nothing(tmp_path: Path) -> None:
    """Rows without a seq, what a link leads to and what somebody has answered for would stay behind as well."""
    for host, names in LEFT.items():
        (tmp_path / host).mkdir()
        (tmp_path / host / "config.toml").write_text(f'data_dir = "{tmp_path}/{host}/old"\n')
        for path in (tmp_path / host / "old" / name for name in names):
            path.parent.mkdir(parents=True, exist_ok=True)
            if host == "link":
                path.symlink_to("/nowhere/at/all")
            else:
                path.touch()
    (tmp_path / "play.yml").write_text(PLAY)
    here = f"{tmp_path}/{{{{ inventory_hostname }}}}"
    settings = {"mexc_pipeline_data_dir": f"{here}/new", "_mexc_pipeline_config": f"{here}/config.toml"}
    done = subprocess.run(
        [PROGRAM, "--inventory", ",".join(LEFT), "--extra-vars", json.dumps(settings), tmp_path / "play.yml"],
        env={**os.environ, "ANSIBLE_ROLES_PATH": str(ROOT / "roles"), "LC_ALL": "C.UTF-8"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    printed = " ".join((done.stdout + done.stderr).split())
    refused = {host for host in LEFT if f"fatal: [{host}]: FAILED!" in printed}
    assert refused == {"segment", "pending", "hidden", "link", "answered"}, printed
    for host in refused:
        old = tmp_path / host / "old"
        assert f"{host}: {old} still holds 1 files of the recording ({old / LEFT[host][0]})" in printed
        assert (
            f"mexc_pipeline_data_dir is {tmp_path}/{host}/new: they would stay behind. Move the folder first" in printed
        )


BTC = {"name": "BTC_USDT", "id": "btc", "host": "col1"}
OF_THE_RECORDER = {
    "mexc_pipeline_symbols": [
        BTC,
        {"name": "ETH_USDT", "id": "eth"},
        {"name": "SOL_USDT", "id": "sol1", "host": "col2"},
        {"name": "DOGE_USDT", "id": "doge", "host": "col3", "channels": {"depth": "full7"}},
    ],
    "mexc_pipeline_period": "7m",
    "mexc_pipeline_egress_mode": "Tor",
    "mexc_pipeline_export_schedule": "25:00",
    "mexc_pipeline_export_keep": "90 days",
    "mexc_pipeline_export_min_free": "20 GB",
    "mexc_pipeline_store_memory_max": "512MB",
}
INVENTORY = """
all:
  vars: {ansible_host: 127.0.0.1, ansible_port: 1}
  children:
    clickhouse_hosts: {hosts: {ch1: }}
    collector_hosts: {hosts: {col1: , col2: }}
"""
"""Hosts that nobody can reach: what is found without them was found on this machine."""


@pytest.mark.parametrize(
    ("slips", "said"),
    [
        (
            OF_THE_RECORDER,
            [
                "mexc_pipeline_symbols: ETH_USDT has no host, and each of col1, col2 would record it",
                "mexc_pipeline_symbols: SOL_USDT / sol1: an id is at most 20 lower-case letters and digits",
                "mexc_pipeline_symbols: DOGE_USDT: host col3 is not one of collector_hosts: col1, col2",
                "mexc_pipeline_symbols: DOGE_USDT: channels.depth: ''full7''; allowed are full5, full10",
                "mexc_pipeline_period: ''7m''; allowed is a whole number of seconds",
                "mexc_pipeline_egress_mode: ''Tor''; allowed are direct, tor and socks5h://host:port",
                "mexc_pipeline_export_schedule: ''25:00''; allowed is systemd''s calendar",
                "mexc_pipeline_export_keep: ''90 days''; allowed is a whole number with ms, s, m, h or d",
                "mexc_pipeline_export_min_free: ''20 GB''; allowed is a whole number, with K, M, G or T",
                "mexc_pipeline_store_memory_max: ''512MB''; allowed is a size, such as 384M",
            ],
        ),
        ({"tor_config": {"ControlPort": 9051}}, ["tor_config of btc: ControlPort, ControlSocket, "]),
        ({"tor_config": {"Log": "notice\nUser root"}}, ["tor_config of btc: allowed are Tor's own keywords"]),
        ({"tor_memory_max": "512MB"}, ["tor_memory_max: 512MB; allowed is a size, such as 512M"]),
        ({"tor_bootstrap_timeout": "soon"}, ["tor_bootstrap_timeout"]),
        ({"clickhouse_listen": ["192.0.2.1"]}, ["name the collector hosts' addresses in clickhouse_clients"]),
        ({"clickhouse_memory_max": "half"}, ["clickhouse_memory_max: half; allowed is a size, such as 1400M"]),
        ({"clickhouse_source": "debian"}, ["clickhouse_source"]),
    ],
    ids=["recorder", "tor-owned", "tor-lines", "tor-size", "tor-type", "clickhouse-open", "clickhouse-size", "choice"],
)
def test_a_slip_is_found_before_any_machine_is_asked(tmp_path: Path, slips: dict[str, object], said: list[str]) -> None:
    given = {"mexc_pipeline_symbols": [BTC], "mexc_pipeline_egress_mode": "tor", **slips}
    printed = _played(tmp_path, given)
    assert [line for line in said if line not in printed] == [], printed
    assert "UNREACHABLE" not in printed
    assert "PLAY [ClickHouse]" not in printed


def test_without_a_slip_the_machines_are_asked(tmp_path: Path) -> None:
    given: dict[str, object] = {"mexc_pipeline_symbols": [BTC], "mexc_pipeline_egress_mode": "tor"}
    printed = _played(tmp_path, given)
    assert "fatal: [ch1]: UNREACHABLE!" in printed
    assert "FAILED!" not in printed


def test_the_checks_alone_ask_no_machine(tmp_path: Path) -> None:
    given: dict[str, object] = {"mexc_pipeline_symbols": [BTC], "mexc_pipeline_egress_mode": "tor"}
    printed = _played(tmp_path, given, "--tags", "checks", fails=False)
    assert "UNREACHABLE" not in printed


def _listed(*options: str) -> list[str]:
    """The tasks of ``site.yml`` that are chosen so."""
    command = ["--inventory", "inventory/several", "--list-tasks", *options, "site.yml"]
    done = subprocess.run([PROGRAM, *command], cwd=ROOT, capture_output=True, text=True, check=True)
    tasks = re.findall(r"^      (.*?)\tTAGS: ", done.stdout, re.MULTILINE)
    return [task for task in tasks if "Validating arguments" not in task]


def test_the_tags_of_the_page_are_those_of_the_playbook() -> None:
    page = (ROOT / "docs" / "operators.md").read_text()
    section = page.partition("### Parts of a run, and some of the hosts\n")[2].partition("\n### ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    files = [*(ROOT / "playbooks").glob("*.yml"), *(ROOT / "roles").glob("*/tasks/*.yml")]
    said = re.findall(r"^ *tags: \[?([\w, ]+)", "\n".join(file.read_text() for file in files), re.MULTILINE)
    assert documented == {tag.strip() for tags in said for tag in tags.split(",")} - {"always"}
    checks = _listed("--tags", "checks")
    assert len(checks) >= 10
    units = _listed("--tags", "units")
    assert set(units) > set(checks)
    assert {"mexc_pipeline : Write the units", "mexc_pipeline : Write what is a collector's own"} <= set(units)
    assert not [task for task in units if "Install" in task or "Start" in task]
    whole, fast = _listed(), _listed("--skip-tags", "install")
    left_out = set(whole) - set(fast)
    assert {"tor : Install the package", "mexc_pipeline : Install the wheel"} <= left_out
    files = [ROOT / "roles" / name for name in ("mexc_pipeline/tasks/version.yml", "clickhouse/tasks/repository.yml")]
    files += [ROOT / "roles" / name / "tasks" / "install.yml" for name in ("tor", "clickhouse")]
    installing = re.findall(r"- name: (.*)", "\n".join(file.read_text() for file in files))
    assert {task.partition(" : ")[2] for task in left_out} <= set(installing)


def test_a_collection_is_made_of_the_roles_and_what_they_need(tmp_path: Path) -> None:
    """With the application, whose wheel the role builds; without what belongs to the making of it."""
    build = ["collection", "build", "--output-path", str(tmp_path), str(ROOT)]
    subprocess.run([PROGRAM.with_name("ansible-galaxy"), *build], check=True, capture_output=True)
    (made,) = tmp_path.iterdir()
    with tarfile.open(made) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "ansible_collections" / "mexc_pipeline" / "recorder", filter="data")
    assert {"playbooks/site.yml", "roles/tor/meta/main.yml", "app/src/mexc_pipeline/__init__.py", "LICENSE"} <= set(
        names
    )
    assert not [name for name in names if name.split("/")[0] in ("tests", "reports", "bench", "molecule", ".git")]
    (tmp_path / "hosts.yml").write_text(INVENTORY)
    given = {"mexc_pipeline_symbols": [BTC], "mexc_pipeline_egress_mode": "tor"}
    done = subprocess.run(
        [PROGRAM, "mexc_pipeline.recorder.site", "--tags", "checks", "-i", "hosts.yml", "-e", json.dumps(given)],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path), "LC_ALL": "C.UTF-8"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mexc_pipeline.recorder.mexc_pipeline : Judge what the inventory says" in done.stdout


def _played(folder: Path, given: dict[str, object], *options: str, fails: bool = True) -> str:
    """What ``site.yml`` prints where no host answers."""
    (folder / "hosts.yml").write_text(INVENTORY)
    done = subprocess.run(
        [PROGRAM, "--inventory", folder / "hosts.yml", "--extra-vars", json.dumps(given), *options, "site.yml"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("meta/argument_specs.yml", b"["),
        ("meta/argument_specs.yml", b"argument_specs: {main: 3}"),
        ("meta/argument_specs.yml", b""),
        ("defaults/main.yml", b"\xff\xfe"),
        ("defaults/main.yml", b"- x"),
    ],
)
def test_a_specification_that_is_none_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    shutil.copytree(ROOT / "roles", tmp_path / "roles")
    (tmp_path / "roles" / "tor" / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, tmp_path / "roles" / "documentation.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("tor: its specification or defaults are none: ")
    assert len(done.stderr.splitlines()) == 1
