"""Prints the version of the application's source and the SHA-256 of names and contents of all that it installs."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path


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
    """The version that the source calls itself; empty where it names none."""
    package = source / "src" / "mexc_pipeline" / "__init__.py"
    found = re.search(r'^__version__ = "([^"]+)"', package.read_text(), re.MULTILINE)
    return found[1] if found else ""


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sys.stdout.write(f"{version(place)} {fingerprint(place)}\n")
