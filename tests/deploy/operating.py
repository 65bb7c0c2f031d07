"""What an operator types, as ``docs/operators.md`` shows it: run by the tests through here, and only through here.

``test_documents.py`` compares the page's commands with the first arguments of the calls of ``play`` and ``on``. A word
in braces is filled in from the keyword arguments; the page shows an example of it.
"""

# ruff: noqa: T201 - pytest puts what is printed into its report
from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from testinfra.backend.base import CommandResult
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[2]


def inventories() -> list[str]:
    """The inventories of the deployment under test, the first of them that of the test hosts."""
    return os.environ["MEXC_TEST_INVENTORIES"].split()


def play(command: str, *more: str, fails: bool = False, **words: object) -> str:
    """Run ``ansible-playbook …`` on the deployment under test and return what it printed; ``more`` are further options.

    Asserts that it ends with success, or with ``fails`` that it does not, and in no case shows a traceback. What it
    printed is in the test's report too.
    """
    program, *options = shlex.split(command.format(**words))
    full = [str(Path(sys.executable).parent / program), *options, *more]
    for inventory in inventories():
        full += ["--inventory", inventory]
    # The project's own settings, as an operator has them, and not Molecule's; the guests' keys are new each time.
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_HOST_KEY_CHECKING": "false"}
    done = subprocess.run(full, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    printed = done.stdout + done.stderr
    print(f"$ {shlex.join([program, *options])}\n{printed}")
    assert (done.returncode != 0) == fails, f"{command} ended with {done.returncode}\n{printed[-8000:]}"
    assert "Traceback" not in printed, f"{command} printed a traceback\n{printed[-8000:]}"
    return printed


def on(host: Host, command: str, **words: object) -> CommandResult:
    """Run a command on a host; its result is the caller's to judge."""
    result: CommandResult = host.run(command.format(**words))
    print(f"# {command.format(**words)}\n{result.stdout}{result.stderr}")
    return result
