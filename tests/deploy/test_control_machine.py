"""What needs Ansible or its libraries, and no host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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
