"""The Python scripts that roles and playbooks run: each is one file, by itself on a host."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from support.repository import ROOT

SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("playbooks/**/*.py", "roles/**/*.py", "inventory/**/*.py")
    for path in ROOT.glob(pattern)
)


class Ended(NamedTuple):
    """How a script ended, as whoever called it sees it."""

    status: int
    printed: str
    said: str


def script(name: str) -> ModuleType:
    """A script by its path below the root, as a module of its own."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ended(module: ModuleType, *arguments: str | Path) -> Ended:
    """Run a script to its end within this process, as its last line does. What it does not foresee is raised."""
    printed, said = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(module.__file__), *map(str, arguments)])
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as end:
            module.end(module.main)
    code = end.value.code
    if isinstance(code, str):
        said.write(f"{code}\n")
        code = 1
    assert isinstance(code, int)
    return Ended(code, printed.getvalue(), said.getvalue())


def program(folder: Path, name: str, does: str) -> None:
    """A program of that name in ``folder`` that does what the lines of shell say."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
