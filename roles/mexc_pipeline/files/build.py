"""Builds the application's wheel with the pinned tool and nothing else: ``SOURCE TARGET``.

The tool is installed by its hash into an environment of its own, from a copy of the source: what an earlier build left
beside it would go into the wheel as well.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path


def build(source: Path, target: Path) -> None:
    """Make the wheel in ``target``. CalledProcessError where pip fails; it has said why."""
    with tempfile.TemporaryDirectory() as work:
        copy, tools = Path(work, "source"), Path(work, "tools")
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist"))
        venv.create(tools, with_pip=True)
        pip = [str(tools / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        needed = ["--require-hashes", "--only-binary", ":all:", "--requirement", str(copy / "build-requirements.txt")]
        subprocess.run([*pip, "install", *needed], check=True)
        made = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(target)]
        subprocess.run([*pip, "wheel", *made, str(copy)], check=True)


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]), Path(sys.argv[2]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
