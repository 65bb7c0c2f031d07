"""The wheelhouse that guests see as ``/srv/wheelhouse``: this project and what it needs, without embedded ClickHouse.

It holds the project three times: as it is; as ``.post1``, the same under a newer version, to upgrade to; and as
``.post2``, whose collector refuses to start, to be rolled back from.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.hosts.cache import made
from deploy.hosts.errors import HostsError, run
from deploy.hosts.layout import Release

ROOT = Path(__file__).resolve().parents[3]
_APP = ROOT / "app"
_CONSTRAINTS = _APP / "constraints.txt"
_DEVELOPMENT = ROOT / "requirements" / "dev.txt"
_RECIPE = "2"


def wheelhouse(release: Release) -> Path:
    """The folder of wheels for the release's Python."""
    return made("wheelhouse", (_RECIPE, release.python, *_sources()), lambda work: _build(work, release.python))


def development(release: Release) -> Path:
    """The folder that guests of Debian 13 see as ``/srv/wheelhouse-dev``: what ``make dev`` installs besides."""
    inputs = (_RECIPE, release.python, _DEVELOPMENT.read_bytes(), _CONSTRAINTS.read_bytes())
    names = [line for line in _DEVELOPMENT.read_text().splitlines() if re.match("[a-zA-Z]", line)]
    return made("development", inputs, lambda work: _download(work, release.python, names))


def version() -> str:
    """The version of the application as it is in the checkout."""
    package = _APP / "src" / "mexc_pipeline" / "__init__.py"
    found = re.search(r'^__version__ = "([^"]+)"', package.read_text(), re.MULTILINE)
    if found is None:
        raise HostsError(f"{package} names no version")
    return found[1]


def _sources() -> list[bytes]:
    files = [p for p in _APP.rglob("*") if p.is_file() and not any(_made(part) for part in p.parts)]
    parts: list[bytes] = []
    for path in sorted(files):
        parts += [str(path.relative_to(_APP)).encode(), path.read_bytes()]
    return parts


def _made(part: str) -> bool:
    return part in ("__pycache__", "build") or part.endswith(".egg-info")


def _build(work: Path, python: str) -> None:
    projects = made("projects", (_RECIPE, *_sources()), _build_projects)
    (wheel,) = (w for w in projects.glob("mexc_pipeline-*.whl") if ".post" not in w.name)
    dependencies = made("wheels", (_RECIPE, python, *_requirements()), lambda into: _download(into, python, [wheel]))
    for part in [*projects.glob("*.whl"), *dependencies.glob("*.whl")]:
        if not (work / part.name).exists():
            os.link(part, work / part.name)


def _build_projects(work: Path) -> None:
    source = work / ".src"
    ignore = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for suffix in ("", ".post1", ".post2"):
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(_APP, source, ignore=ignore)
        _rename(source, suffix)
        run([*_pip("wheel"), "--no-deps", "--wheel-dir", work, source])
    shutil.rmtree(source)


def _requirements() -> list[bytes]:
    return [(_APP / name).read_bytes() for name in ("constraints.txt", "pyproject.toml")]


def _download(into: Path, python: str, names: Sequence[str | Path]) -> None:
    run([
        *_pip("download"), "--only-binary=:all:", "--python-version", python, "--dest", into,
        "--constraint", _CONSTRAINTS, *names,
    ])  # fmt: skip
    for wheel in into.glob("mexc_pipeline-*.whl"):  # of an older content perhaps, when this one is used again
        wheel.unlink()


def _rename(source: Path, suffix: str) -> None:
    old = version()
    path = source / "src/mexc_pipeline/__init__.py"
    path.write_text(path.read_text().replace(f'"{old}"', f'"{old}{suffix}"'))
    if suffix == ".post2":
        main = source / "src/mexc_pipeline/collector/__init__.py"
        main.write_text(main.read_text() + '\nraise SystemExit("a version that does not work, made by a test")\n')


def _pip(verb: str) -> list[str]:
    return [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check"]
