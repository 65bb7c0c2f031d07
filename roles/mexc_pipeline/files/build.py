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
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


def build(source: Path, target: Path) -> None:
    """Make the wheel in ``target``."""
    with tempfile.TemporaryDirectory() as work:
        copy, tools = Path(work, "source"), Path(work, "tools")
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist"))
        try:
            venv.create(tools, with_pip=True)
        except subprocess.CalledProcessError as error:
            raise UserError(f"{error}: Python's venv module is needed (Debian: apt install python3-venv)") from error
        pip = [str(tools / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        needed = ["--require-hashes", "--only-binary", ":all:", "--requirement", str(copy / "build-requirements.txt")]
        _run([*pip, "install", *needed])
        made = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(target)]
        _run([*pip, "wheel", *made, str(copy)])


def _run(pip: list[str]) -> None:
    done = subprocess.run(pip, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise UserError(f"pip {pip[5]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")


def main() -> int:
    """Build it."""
    source, target = map(Path, sys.argv[1:3])
    if not source.is_dir():
        raise UserError(f"{source} is no folder: set mexc_pipeline_source to the folder app of a checkout")
    build(source, target)
    return 0


def end(main: Callable[[], int]) -> NoReturn:
    """End the process with ``main``'s status; what failed outside of this program is one line, and the status 1."""
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        is_of_file = isinstance(error, OSError) and error.filename is not None
        said = f"{error.filename}: {error.strerror}" if is_of_file else str(error)
        line = " ".join(said.split())
        sys.exit("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


if __name__ == "__main__":
    end(main)
