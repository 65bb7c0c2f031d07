"""The operator's page, whose every command is one that these tests run, and the playbooks as they are written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operators.md"
_PROGRAMS = ("ansible-playbook", "mexc-pipeline", "systemctl", "journalctl")
_SPAN = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def documented() -> list[str]:
    """Commands on the page: in running text and tables, and after the prompt in blocks."""
    text = PAGE.read_text()
    found: dict[str, None] = {}
    for block in _FENCE.findall(text):
        for line in block.splitlines():
            if line.startswith("# "):
                found[line[2:].strip()] = None
    for span in _SPAN.findall(_FENCE.sub("", text)):
        found[span] = None
    return [command for command in found if command.startswith(_PROGRAMS) and " " in command]


def run() -> list[str]:
    """The commands that tests run: first string among the arguments of every call of ``play`` and ``on``."""
    found: list[str] = []
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("play", "on"):
                words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                found += [word for word in words if isinstance(word, str)][:1]
    return found


def test_every_command_of_the_page_is_run() -> None:
    """A command that nobody has run is a guess, and the reader finds out at the worst moment."""
    commands, tried = documented(), run()
    assert len(commands) >= 12
    patterns = [re.sub(r"\\\{\w+\\\}", r"\\S+", re.escape(command)) for command in tried]
    assert [c for c in commands if not any(re.fullmatch(p, c) for p in patterns)] == []


def test_no_target_is_restarted() -> None:
    """It would start what somebody has stopped, and leave alone what was started by hand."""
    tasks = [
        task
        for folder in ("playbooks", "roles")
        for file in sorted((ROOT / folder).rglob("*.yml"))
        for task in re.split(r"^ *- name: ", file.read_text(), flags=re.MULTILINE)
    ]
    restarting = [task for task in tasks if "state: restarted" in task]
    assert len(restarting) >= 5
    assert [task for task in restarting if ".target" in task] == []
