"""What a release is made of: the wheel's metadata and content, one version, one way to make it."""

from __future__ import annotations

import email
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import mexc_pipeline
from release import release
from support.repository import ROOT

APP = ROOT / "app"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked; built from a copy, by the tool that is installed: nothing is fetched."""
    work = tmp_path_factory.mktemp("sdist")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
    source = shutil.copytree(APP, work / "app", ignore=ignore)
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(work)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name = f"mexc_pipeline-{mexc_pipeline.__version__}"
    with tarfile.open(work / f"{name}.tar.gz") as archive:
        archive.extractall(work, filter="data")
    return work / name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, sdist: Path) -> zipfile.ZipFile:
    """Built from the sdist, as that of a release is."""
    work = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(sdist, work / "app")
    command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(work), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = work.glob("*.whl")
    return zipfile.ZipFile(made)


def test_the_roles_of_the_collection_say_what_they_are() -> None:
    for role in (path.parent.parent for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")):
        (short,) = re.findall(
            r"^  main:\n    short_description: (.*)$", (role / "meta/argument_specs.yml").read_text(), re.M
        )
        said = (role / "meta/main.yml").read_text()
        assert f"role_name: {role.name}\n" in said
        assert f"description: {short}\n" in said


FOLDER = f"mexc_pipeline-{mexc_pipeline.__version__}.dist-info"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_wheel_and_sdist_say_what_they_are(kind: str, wheel: zipfile.ZipFile, sdist: Path) -> None:
    if kind == "wheel":
        metadata, licence = wheel.read(f"{FOLDER}/METADATA"), wheel.read(f"{FOLDER}/licenses/LICENSE")
    else:
        metadata, licence = (sdist / "PKG-INFO").read_bytes(), (sdist / "LICENSE").read_bytes()
    assert licence == (ROOT / "LICENSE").read_bytes()
    said = email.message_from_bytes(metadata)
    assert said["Version"] == mexc_pipeline.__version__
    assert said["License-Expression"] == "Apache-2.0"
    assert said["License-File"] == "LICENSE"
    assert said["Author"]
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert said["Description-Content-Type"] == "text/markdown"
    page = said.get_payload()
    assert page == (APP / "README.md").read_text()
    assert not re.search(r"\]\((?!https://|#)", page), "a link of this page leads nowhere outside of the repository"


@pytest.mark.slow
def test_wheel_and_sdist_hold_all_of_the_package_and_nothing_else(wheel: zipfile.ZipFile, sdist: Path) -> None:
    kept = {path.relative_to(APP / "src").as_posix() for path in (APP / "src" / "mexc_pipeline").rglob("*")}
    kept = {name for name in kept if (APP / "src" / name).is_file() and "__pycache__" not in name}
    assert "mexc_pipeline/py.typed" in kept
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == kept
    sources = {path.relative_to(sdist / "src").as_posix() for path in (sdist / "src").rglob("*") if path.is_file()}
    assert {name for name in sources if ".egg-info/" not in name} == kept
    assert {path.name for path in sdist.iterdir()} >= {"pyproject.toml", "README.md"}


def test_the_version_stands_in_one_place_and_its_copies_are_written_by_a_release() -> None:
    present = mexc_pipeline.__version__
    assert release.version(ROOT) == present
    assert not re.search(r"^version = \"", (APP / "pyproject.toml").read_text(), re.MULTILINE)
    for path, form in release.COPIES.items():
        assert form.format(present) in (ROOT / path).read_text(), f"{path}: make release writes its version"
    script = ROOT / "roles" / "mexc_pipeline" / "files" / "fingerprint.py"
    done = subprocess.run([sys.executable, str(script), str(APP)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == present
    folders = [ROOT / name for name in (".ci", ".github", "app", "inventory", "molecule", "playbooks", "roles")]
    kinds = {"", ".md", ".py", ".toml", ".yml"}
    files = [ROOT / "galaxy.yml"]
    files += [path for folder in folders for path in folder.rglob("*") if path.suffix in kinds]
    files = [path for path in files if path.is_file() and not {"build", "dist"} & set(path.parts)]
    files = [path for path in files if not any(part.endswith(".egg-info") for part in path.parts)]
    word = re.compile(rf"(?<![\d.]){re.escape(present)}(?![\d.])")
    typed = {path.relative_to(ROOT).as_posix() for path in files if word.search(path.read_text(errors="replace"))}
    assert typed == {release.SOURCE[0], *release.COPIES}


def test_the_changelog_has_a_section_for_each_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert release.stated(ROOT) in {None, mexc_pipeline.__version__}
    dated = [heading for heading in headings if heading != "Unreleased"]
    assert headings[-len(dated) :] == dated, "what is unreleased comes first, and once"
    assert dated[0].split(" · ")[0] == mexc_pipeline.__version__
    entries = [line for line in text.splitlines() if line.startswith("- ")]
    assert sorted(set(entries)) == sorted(entries), "an entry stands there twice"
    first = text.split("## 0.1.0")[1]
    assert hashlib.sha256(first.encode()).hexdigest()[:16] == "95f25adb64181e5e", (
        "0.1.0 is over: say it under Unreleased"
    )


def test_the_licence_is_one() -> None:
    assert (APP / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_what_builds_in_tests_is_what_builds_the_release() -> None:
    (pinned,) = re.findall(r"^setuptools==(\S+)", (APP / "build-requirements.txt").read_text(), re.MULTILINE)
    assert f"setuptools=={pinned}\n" in (ROOT / "requirements" / "dev.txt").read_text()


def _git(folder: Path, *args: str) -> str:
    settings = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *settings, *args], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Checkout:
    """A clone with what a release writes and reads, programs that note how they are called, and its origin."""

    def __init__(self, work: Path, changelog: str) -> None:
        self.root, self.origin, self.called = work / "clone", work / "origin", work / "called"
        scripts = [f"tests/release/{name}" for name in ("release.py", "publish")]
        for name in (release.SOURCE[0], *release.COPIES, *scripts):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        (self.root / ".gitignore").write_text("dist/\n__pycache__/\n")
        (self.root / "CHANGELOG.md").write_text(changelog)
        (work / "bin").mkdir()
        self._program(work / "bin" / "make", "mkdir -p dist && touch dist/a.whl dist/a.tar.gz dist/a.cdx.json")
        self._program(
            work / "bin" / "gh",
            'while [ $# -gt 0 ]; do [ "$1" = --notes-file ] && cat "$2" >> "$CALLED"; shift; done',
        )
        self._path = f"{work / 'bin'}:{os.environ['PATH']}"
        _git(work, "init", "--quiet", "--bare", str(self.origin))
        _git(self.root, "init", "--quiet")
        _git(self.root, "remote", "add", "origin", str(self.origin))
        self.commit()

    def _program(self, path: Path, then: str) -> None:
        path.write_text(f'#!/bin/bash\necho "${{0##*/}} $*" >> "$CALLED"\n{then}\n')
        path.chmod(0o755)

    def commit(self) -> None:
        _git(self.root, "add", "--all")
        _git(self.root, "commit", "--quiet", "--allow-empty", "--message", "x")

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": self._path, "CALLED": str(self.called), **more}
        return subprocess.run([self.root / command[0], *command[1:]], env=env, capture_output=True, text=True)


ENTRY = "- Something new: [rights](docs/rights.md), [elsewhere](https://example.invalid/a)."
CHANGELOG = f"# Changelog\n\n## Unreleased\n\n{ENTRY}\n\n## {mexc_pipeline.__version__} · 2026-01-01\n\n- Old.\n"
PRESENT, LATER = mexc_pipeline.__version__, "30.1.2"


@pytest.fixture
def prepared(tmp_path: Path) -> Checkout:
    checkout = Checkout(tmp_path, CHANGELOG)
    assert checkout.run("tests/release/publish").returncode == 0
    assert not checkout.called.exists(), "what is unreleased was released"
    done = checkout.run("tests/release/release.py", "prepare", LATER)
    assert (done.returncode, done.stderr) == (0, "")
    return checkout


def test_a_prepared_release_says_its_version_everywhere(prepared: Checkout) -> None:
    assert release.version(prepared.root) == release.stated(prepared.root) == LATER
    for path, form in release.COPIES.items():
        assert form.format(LATER) in (prepared.root / path).read_text()
    changed = _git(prepared.root, "diff", "--numstat").splitlines()
    assert {line.rsplit("\t", 1)[1] for line in changed} == {release.SOURCE[0], *release.COPIES, "CHANGELOG.md"}
    assert all(line.startswith("1\t1\t") for line in changed), "more than one line of a file was written"


def test_a_dated_version_on_main_is_checked_tagged_and_uploaded_once(prepared: Checkout) -> None:
    prepared.commit()
    done = prepared.run("tests/release/publish", GITHUB_SERVER_URL="https://h.invalid", GITHUB_REPOSITORY="o/r")
    assert done.returncode == 0, done.stderr
    check, upload, *notes = prepared.called.read_text().splitlines()
    assert check == "make release-check"
    head = _git(prepared.root, "rev-parse", "HEAD")
    assert upload.startswith(f"gh release create v{LATER} --target {head} --title v{LATER} --notes-file ")
    assert upload.endswith(" dist/a.cdx.json dist/a.tar.gz dist/a.whl")
    linked = ENTRY.replace("(docs/", f"(https://h.invalid/o/r/blob/v{LATER}/docs/")
    assert notes == [linked], "the notes are the version's section, and no other's"

    _git(prepared.root, "push", "--quiet", "origin", f"HEAD:refs/tags/v{LATER}0")
    assert prepared.run("tests/release/release.py", "due").stdout == LATER, (
        "another version's tag was taken for its own"
    )
    _git(prepared.root, "push", "--quiet", "origin", f"HEAD:refs/tags/v{LATER}")
    prepared.called.unlink()
    assert prepared.run("tests/release/publish").returncode == 0
    assert not prepared.called.exists(), "it was released twice"


def test_no_release_is_made_where_its_check_fails_or_the_tags_are_unknown(prepared: Checkout, tmp_path: Path) -> None:
    prepared.commit()
    (tmp_path / "bin" / "make").write_text("#!/bin/bash\nexit 3\n")
    assert prepared.run("tests/release/publish").returncode != 0
    shutil.rmtree(prepared.origin)
    done = prepared.run("tests/release/publish")
    assert done.returncode != 0
    assert done.stderr.startswith("the tags of origin cannot be read: ")
    assert not prepared.called.exists(), "it was uploaded"


@pytest.mark.parametrize(
    ("changelog", "said"),
    [
        (CHANGELOG.replace("Unreleased", "Soon"), "begins with `## Soon`"),
        (CHANGELOG.replace("Unreleased", "30.1.2 · 2026-01-01"), "the package says"),
        (CHANGELOG.replace("Unreleased", f"{mexc_pipeline.__version__} · 2026-02-30T1"), "begins with `## "),
        (
            CHANGELOG.replace("Unreleased", f"{mexc_pipeline.__version__} · 2026-02-01").replace(ENTRY, ""),
            "says nothing",
        ),
        ("# Changelog\n", "has no section"),
    ],
)
def test_a_changelog_that_names_no_release_ends_the_workflow_in_one_line(
    tmp_path: Path, changelog: str, said: str
) -> None:
    checkout = Checkout(tmp_path, changelog)
    done = checkout.run("tests/release/publish")
    assert done.returncode != 0
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not checkout.called.exists()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [("", "nothing is no version"), ("1.2", "1.2 is no version"), ("v1.2.3", "is no version"), ("0.0.9", "come after")],
)
def test_what_cannot_be_released_changes_nothing(tmp_path: Path, wanted: str, said: str) -> None:
    checkout = Checkout(tmp_path, CHANGELOG)
    done = checkout.run("tests/release/release.py", "prepare", wanted)
    assert done.returncode == 1
    assert said in done.stderr
    (checkout.root / "new").touch()
    done = checkout.run("tests/release/release.py", "prepare", LATER)
    assert (done.returncode, "not committed" in done.stderr) == (1, True)
    assert _git(checkout.root, "status", "--porcelain") == "?? new"


def _steps(*goal: str) -> str:
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", *goal]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_release_is_made_by_the_scripts_that_the_verbs_and_the_workflow_call() -> None:
    steps = _steps("release", f"VERSION={LATER}")
    assert f'tests/release/release.py prepare "{LATER}"\n' in steps
    assert f"tests/formats/make.py --source app/src tests/fixtures/formats/{LATER}\n" in steps
    steps = _steps("release-check")
    assert "--require-hashes -r app/build-requirements.txt" in steps
    assert "-r requirements/release.txt" in steps
    assert steps.splitlines()[-1].endswith("tests/release/check")
    assert "- run: tests/release/publish\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "\nmake release-check\n" in (ROOT / "tests" / "release" / "publish").read_text()
