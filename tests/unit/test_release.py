"""What a release is made of: the wheel's metadata and content, one version, one way to make it."""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mexc_pipeline

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, by the tool that is installed: nothing is fetched."""
    work = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
    source = shutil.copytree(APP, work / "app", ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(work), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = work.glob("*.whl")
    return zipfile.ZipFile(made)


def test_the_collection_is_of_the_same_version_and_its_roles_say_what_they_are() -> None:
    assert f"\nversion: {mexc_pipeline.__version__}\n" in (ROOT / "galaxy.yml").read_text()
    for role in (path.parent.parent for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")):
        (short,) = re.findall(
            r"^  main:\n    short_description: (.*)$", (role / "meta/argument_specs.yml").read_text(), re.M
        )
        said = (role / "meta/main.yml").read_text()
        assert f"role_name: {role.name}\n" in said
        assert f"description: {short}\n" in said


@pytest.mark.slow
def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    folder = f"mexc_pipeline-{mexc_pipeline.__version__}.dist-info"
    said = email.message_from_bytes(wheel.read(f"{folder}/METADATA"))
    assert said["Version"] == mexc_pipeline.__version__
    assert said["License-Expression"] == "Apache-2.0"
    assert said["License-File"] == "LICENSE"
    assert said["Author"]
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert said["Description-Content-Type"] == "text/markdown"
    page = said.get_payload()
    assert page == (APP / "README.md").read_text()
    assert not re.search(r"\]\((?!https://|#)", page), "a link of this page leads nowhere outside of the repository"
    assert wheel.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


@pytest.mark.slow
def test_the_wheel_holds_all_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    kept = {path.relative_to(APP / "src").as_posix() for path in (APP / "src" / "mexc_pipeline").rglob("*")}
    kept = {name for name in kept if (APP / "src" / name).is_file() and "__pycache__" not in name}
    assert "mexc_pipeline/py.typed" in kept
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == kept


def test_the_version_stands_in_one_place_and_the_role_installs_it() -> None:
    assert not re.search(r"^version = \"", (APP / "pyproject.toml").read_text(), re.MULTILINE)
    defaults = (ROOT / "roles" / "mexc_pipeline" / "defaults" / "main.yml").read_text()
    assert f"mexc_pipeline_version: {mexc_pipeline.__version__}\n" in defaults
    script = ROOT / "roles" / "mexc_pipeline" / "files" / "fingerprint.py"
    done = subprocess.run([sys.executable, str(script), str(APP)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == mexc_pipeline.__version__
    assert re.search(
        rf"^## .*{re.escape(mexc_pipeline.__version__)}", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_the_licence_is_one() -> None:
    assert (APP / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_what_builds_in_tests_is_what_builds_the_release() -> None:
    (pinned,) = re.findall(r"^setuptools==(\S+)", (APP / "build-requirements.txt").read_text(), re.MULTILINE)
    assert f"setuptools=={pinned}\n" in (ROOT / "requirements" / "dev.txt").read_text()


def test_a_release_is_checked_by_the_script_that_the_workflow_calls() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", "--no-print-directory", "release-check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--require-hashes -r app/build-requirements.txt" in done.stdout
    assert "-r requirements/release.txt" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("tests/release/check")
    assert "- run: make release-check\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
