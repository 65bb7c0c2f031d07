"""Prints the version of the application's source and the SHA-256 of names and contents of all that it installs."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


def fingerprint(source: Path) -> str:
    """Of the folder that holds ``pyproject.toml``; what builds and runs leave behind is passed over."""
    names = ("pyproject.toml", "README.md", "LICENSE", "build-requirements.txt", "requirements.txt")
    files = [source / name for name in names]
    files += [path for path in (source / "src").rglob("*") if path.is_file() and not _is_made(path)]
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(source)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _is_made(path: Path) -> bool:
    return "__pycache__" in path.parts or any(part.endswith(".egg-info") for part in path.parts)


def version(source: Path) -> str:
    """The version that the source calls itself."""
    package = source / "src" / "mexc_pipeline" / "__init__.py"
    found = re.search(r'^__version__ = "([^"\s]+)"', package.read_text(errors="replace"), re.MULTILINE)
    if found is None:
        raise UserError(f"{package} names no version: mexc_pipeline_source is not the folder app of a whole checkout")
    return found[1]


def main() -> int:
    """Print both."""
    source = Path(sys.argv[1])
    if not source.is_dir():
        raise UserError(f"{source} is no folder: set mexc_pipeline_source to the folder app of a checkout")
    sys.stdout.write(f"{version(source)} {fingerprint(source)}\n")
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
