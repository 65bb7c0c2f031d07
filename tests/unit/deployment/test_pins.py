"""What a deployment installs is pinned to the byte, and a changed source is another program."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from support.repository import ROOT

APP = ROOT / "app"
ROLE = ROOT / "roles" / "mexc_pipeline"
PINNED = re.compile(r"([A-Za-z0-9._-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)")


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROLE / "files" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fingerprint = _script("fingerprint").fingerprint


def _pins(path: Path) -> dict[str, str]:
    """Name and version of each line; every line has hashes."""
    lines = re.sub(r"\s*\\\n\s*", " ", path.read_text()).splitlines()
    found: dict[str, str] = {}
    for line in lines:
        if line.startswith("#"):
            continue
        match = PINNED.fullmatch(line)
        assert match is not None, line
        found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


def test_what_is_deployed_is_what_is_tested_with_a_hash_for_each_file() -> None:
    constraints = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in re.findall(r"^([^#=\s]+)==(\S+)", (APP / "constraints.txt").read_text(), re.MULTILINE)
    }
    embedded = _pins(APP / "embedded-requirements.txt")
    assert set(embedded) == {"chdb-core"}
    assert _pins(APP / "requirements.txt") | embedded == constraints


def test_what_builds_is_pinned_and_fits() -> None:
    least = re.search(r'requires = \["setuptools>=(\d+)"\]', (APP / "pyproject.toml").read_text())
    assert least is not None
    pins = _pins(APP / "build-requirements.txt")
    assert set(pins) == {"setuptools"}
    assert int(pins["setuptools"].partition(".")[0]) >= int(least[1])


@pytest.mark.parametrize(
    "name", ["requirements.txt", "embedded-requirements.txt", "build-requirements.txt", "constraints.txt"]
)
def test_no_index_is_named(name: str) -> None:
    assert not re.search(r"://|--index|--extra-index|--find-links|--trusted", (APP / name).read_text())


def test_the_role_installs_by_hash_alone() -> None:
    text = (ROLE / "tasks" / "version.yml").read_text()
    assert "'--require-hashes', '--only-binary', ':all:'" in text
    assert "'--no-index', '--no-deps', '--force-reinstall'" in text
    assert "constraints.txt" not in text


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(
            APP, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
        )
    )


def test_the_fingerprint_is_of_the_content(source: Path) -> None:
    before = fingerprint(source)
    assert re.fullmatch("[0-9a-f]{64}", before)
    module = source / "src" / "mexc_pipeline" / "errors.py"
    made = source / "src" / "mexc_pipeline" / "__pycache__"
    made.mkdir()
    (made / "errors.pyc").write_bytes(b"x")
    (source / "build").mkdir()
    assert fingerprint(source) == before == fingerprint(APP)
    module.write_text(module.read_text() + "\n")
    assert fingerprint(source) != before
    module.rename(module.with_name("errors2.py"))
    assert fingerprint(source) != before


@pytest.mark.slow
def test_a_tool_with_another_hash_builds_nothing(source: Path, tmp_path: Path) -> None:
    version = _pins(source / "build-requirements.txt")["setuptools"]
    with zipfile.ZipFile(tmp_path / f"setuptools-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"setuptools-{version}.dist-info/METADATA", f"Name: setuptools\nVersion: {version}\n")
    done = subprocess.run(
        [sys.executable, str(ROLE / "files" / "build.py"), str(source), str(tmp_path / "dist")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull},
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "dist").exists()
