#!/usr/bin/env python3
"""What the next release is called, whether it is due, and what is said of it.

    tests/release/release.py prepare 1.2.3   # writes the version and the changelog's heading; `make release` calls it
    tests/release/release.py due             # prints the version that is to be released from this commit, or nothing
    tests/release/release.py notes           # prints the changelog's section of the version, for the release's page

The version stands in ``app/src/mexc_pipeline/__init__.py``. Ansible needs it as plain data in ``COPIES`` as well, which
``prepare`` writes and nobody types. A release is a commit on main whose changelog begins with ``## 1.2.3 · date``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

SOURCE = "app/src/mexc_pipeline/__init__.py", '__version__ = "{}"\n'
COPIES = {
    "galaxy.yml": "\nversion: {}\n",
    "roles/mexc_pipeline/defaults/main.yml": "mexc_pipeline_version: {}\n",
    "roles/mexc_pipeline/meta/argument_specs.yml": "mexc_pipeline_version:\n        type: str\n        default: {}\n",
    "roles/mexc_pipeline/README.md": "| `mexc_pipeline_version` | str | `{}` |",
}
_VERSION = r"\d+\.\d+\.\d+"
_UNRELEASED = "Unreleased"


class UserError(Exception):
    """Something is not as a release needs it; the message says what, and what to do."""


def version(root: Path) -> str:
    """The version that the package calls itself."""
    path, form = SOURCE
    found = re.search(re.escape(form).replace(r"\{\}", f"({_VERSION})"), (root / path).read_text())
    if found is None:
        raise UserError(f"{path} has no line {form.strip().format('1.2.3')}: write one")
    return found[1]


def newest(root: Path) -> tuple[str, str]:
    """The heading of the changelog's first section, without its ``## ``, and the text below it."""
    found = re.search(r"^## (.*)\n((?:(?!## ).*\n?)*)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    if found is None:
        raise UserError("CHANGELOG.md has no section: begin one with `## Unreleased`")
    return found[1], found[2].strip()


def stated(root: Path) -> str | None:
    """The version whose release this commit is by its changelog; None where the newest section is unreleased."""
    heading, text = newest(root)
    if heading == _UNRELEASED:
        return None
    dated = re.fullmatch(rf"({_VERSION}) · \d{{4}}-\d\d-\d\d", heading)
    if dated is None:
        raise UserError(
            f"CHANGELOG.md begins with `## {heading}`: write `## {_UNRELEASED}`, or let `make release` date it"
        )
    if dated[1] != version(root):
        raise UserError(f"CHANGELOG.md begins with {dated[1]}, the package says {version(root)}: run `make release`")
    if not text:
        raise UserError(f"CHANGELOG.md says nothing of {dated[1]}: write what users notice")
    return dated[1]


def is_tagged(root: Path, name: str) -> bool:
    """Whether the repository that this one was cloned from has the tag."""
    command = ["git", "ls-remote", "--tags", "origin", f"refs/tags/{name}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"the tags of origin cannot be read: {done.stderr.strip()}")
    return bool(done.stdout.strip())


def due(root: Path) -> str:
    """The version to be released, or nothing."""
    found = stated(root)
    return "" if found is None or is_tagged(root, f"v{found}") else found


def notes(root: Path, base: str | None) -> str:
    """The section of the version; with ``base``, the repository's address, its links lead to the files of that tag."""
    found = stated(root)
    if found is None:
        raise UserError(
            f"CHANGELOG.md begins with what is unreleased: run `make release VERSION={version(root)}` first"
        )
    text = newest(root)[1]
    if base is not None:
        text = re.sub(r"\]\((?!https?://|#)", f"]({base}/blob/v{found}/", text)
    return text


def prepare(root: Path, wanted: str, date: str) -> None:
    """Make this checkout the release ``wanted``, but for its fixture."""
    if re.fullmatch(_VERSION, wanted) is None:
        raise UserError(f"{wanted or 'nothing'} is no version: name one, make release VERSION=1.2.3")
    present = version(root)
    if [int(part) for part in wanted.split(".")] <= [int(part) for part in present.split(".")]:
        raise UserError(f"{wanted} does not come after {present}, which this is: name a later one")
    done = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    if done.stdout:
        raise UserError("there are changes that are not committed: a release is made of what is; commit them first")
    heading, text = newest(root)
    if heading != _UNRELEASED or not text:
        raise UserError(f"CHANGELOG.md does not begin with `## {_UNRELEASED}` and what is new: write it first")
    places = dict([SOURCE]) | COPIES | {"CHANGELOG.md": "## {}\n"}
    old, new = (present, heading), (wanted, f"{wanted} · {date}")
    written = {}
    for path, form in places.items():
        is_changelog = path == "CHANGELOG.md"
        content = (root / path).read_text()
        line = form.format(old[is_changelog])
        if content.count(line) != 1:
            raise UserError(f"{path} has {line.strip()!r} {content.count(line)} times, not once: mend it first")
        written[path] = content.replace(line, form.format(new[is_changelog]))
    for path, content in written.items():
        (root / path).write_text(content)


def main(root: Path, args: list[str]) -> int:
    """Do what is asked; what a release lacks is one line, and the status 1."""
    server, name = (os.environ.get(f"GITHUB_{part}") for part in ("SERVER_URL", "REPOSITORY"))
    try:
        match args:
            case ["prepare", wanted]:
                prepare(root, wanted, datetime.now(UTC).date().isoformat())
            case ["due"]:
                sys.stdout.write(due(root))
            case ["notes"]:
                sys.stdout.write(notes(root, f"{server}/{name}" if server and name else None) + "\n")
            case _:
                sys.stderr.write("say `prepare VERSION`, `due` or `notes`\n")
                return 2
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[2], sys.argv[1:]))
