"""What CONTRIBUTING.md promises: what the verbs install and run, what the machine needs, one way to lint, and tests
that say what they prove.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support import machine
from support.examples import QUICK, examples
from support.repository import ROOT

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def steps(verb: str) -> str:
    """What ``make`` would do on a fresh clone."""
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", verb], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("verb", "installs"),
    [("demo", {"run"}), ("run", {"run"}), ("dev", {"dev"}), ("unit", {"dev"}), ("lint", {"dev"})],
)
def test_a_verb_installs_what_it_needs_and_shows_it(verb: str, installs: set[str]) -> None:
    done = steps(verb)
    assert set(re.findall(r"-r requirements/(\w+)\.txt", done)) == installs
    assert "--quiet" not in done


def test_changing_the_code_needs_no_engine() -> None:
    assert "embedded" not in (ROOT / "requirements" / "dev.txt").read_text()
    assert "./app[embedded]" in (ROOT / "requirements" / "run.txt").read_text()


@pytest.fixture
def profile() -> Iterator[Callable[[str], None]]:
    """Puts a profile of hypothesis in force for the test."""
    before = settings.get_current_profile_name()
    yield settings.load_profile
    settings.load_profile(before)


def test_make_unit_tries_fewer_examples_whatever_a_property_asks_for(profile: Callable[[str], None]) -> None:
    assert f"--hypothesis-profile={QUICK} " in steps("unit")
    profile("default")
    assert examples(500) == 500
    profile(QUICK)
    fewer = examples(500)
    assert 0 < fewer < 100
    assert examples(fewer - 1) == fewer - 1
    asking = re.compile(r"max_examples=(?!examples\()")
    modules = (ROOT / "tests" / "unit").rglob("*.py")
    assert [path.name for path in modules if path.name != Path(__file__).name and asking.search(path.read_text())] == []


def test_each_command_of_the_page_is_there() -> None:
    block = re.search(r"```sh\n(.*?)```", CONTRIBUTING, re.DOTALL)
    assert block is not None
    commands = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    assert len(commands) >= 5
    for command in commands:
        if command[0] == "make":
            assert steps(command[1])
        else:
            assert command[0] == ".venv/bin/python"
            done = subprocess.run(
                [sys.executable, *command[1:], "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{command} finds no test: {done.stdout}"


def test_folders_of_the_page_are_there() -> None:
    table = CONTRIBUTING.split("## Where what lives")[1].split("##")[0]
    named = [
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)
    ]
    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).is_dir()] == []


def test_what_the_machine_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "program", lambda name: None if name == "tor-gencert" else f"/usr/bin/{name}")
    assert machine.packages(machine.lacking()) == ["tor"]
    bare = {"PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/machine.py")], env=bare, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert all(
        line.startswith(("missing on this machine: ", "`make deps`", "not root")) for line in done.stderr.splitlines()
    )


@pytest.mark.parametrize("ci", [False, True])
def test_what_is_not_run_is_said_at_the_end_and_fails_in_ci(tmp_path: Path, ci: bool) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "import pytest\nfrom support import needs\n"
        "def test_needs() -> None:\n    needs.programs('no-such-program')\n"
        "@pytest.mark.slow\ndef test_slow() -> None:\n    pass\n"
    )
    marks = "".join(f"    {mark}: it\n" for mark in ("slow", "engine", "as_root"))
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nmarkers =\n{marks}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    environment.pop("CI", None)
    if ci:
        environment["CI"] = "true"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "xdist",
            "-n",
            "1",
            "-m",
            "not slow",
            ".",
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == int(ci), done.stdout
    assert "not run: 1: slow (make test runs them)" in done.stdout
    assert ("not run: 1: no-such-program: not on this machine (make deps)" in done.stdout) is not ci


def test_the_hook_and_the_hosted_workflow_run_what_runs_anywhere() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"^ +(?:entry|language): (.+)$", hooks, re.MULTILINE) == ["make lint", "system"]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "- run: .ci/run\n" in workflow
    verbs = re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert verbs == ["deps", "test", "demo", "test-deploy"]


def test_every_python_that_is_promised_runs_the_unit_tests() -> None:
    project = tomllib.loads((ROOT / "app" / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE)
    assert project["requires-python"] == f">={promised[0]}"
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (matrix,) = re.findall(r"^        python: \[(.*)\]$", workflow, re.MULTILINE)
    assert re.findall(r"\d\.\d+", matrix) == promised
    assert "container: python:${{ matrix.python }}\n" in workflow
    assert "- run: make unit\n" in workflow


def test_another_python_has_an_environment_of_its_own() -> None:
    (command,) = re.findall(r"`make (unit PYTHON=.*?)`", (ROOT / "docs" / "developer-guide.md").read_text())
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", *command.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ".venv/" not in done.stdout
    assert "python3.13 -m venv .venv-3.13" in done.stdout
    assert "\n.venv-3.13/bin/python -m pytest " in done.stdout


def test_the_page_on_another_exchange_names_every_module_of_this_one() -> None:
    page = (ROOT / "docs" / "another-exchange.md").read_text()
    named = {name for row in re.findall(r"^\| (`.+?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    package = ROOT / "app" / "src" / "mexc_pipeline" / "exchange"
    assert named == {path.stem for path in package.glob("*.py")} - {"__init__"}


KNOWS_THE_EXCHANGE = ("exchange", "simulator")
"""Packages that may name what stands in MEXC's frames and paths; the simulator shares no code with the recorder."""


def _texts(source: str) -> set[str]:
    """The texts of a module, parts of composed ones included, without docstrings."""
    tree = ast.parse(source)
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in told
    }


def _exchanges_own(source: str) -> list[str]:
    return sorted(text for text in _texts(source) if re.search(r"\b(push|rs)\.|/api/v1", text))


def test_nothing_but_its_own_package_names_what_the_exchange_calls_things() -> None:
    package = ROOT / "app" / "src" / "mexc_pipeline"
    found = {
        str(path.relative_to(package)): own
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in KNOWS_THE_EXCHANGE
        if (own := _exchanges_own(path.read_text()))
    }
    assert found == {}, "what is known of the exchange belongs into exchange/"


@pytest.mark.parametrize(
    "source",
    [
        'x = f"push.{topic}"',
        'x = "push.deal"',
        'x = b"rs.sub.deal"',
        'get("/api/v1/contract/ping")',
        'm.startswith(b\'{"channel":"push.\')',
    ],
)
def test_what_the_exchange_calls_things_is_recognised(source: str) -> None:
    assert len(_exchanges_own(source)) == 1


OTHER_HANDLERS = {
    "app/src/mexc_pipeline/cli/interrupt.py": "ends the process where it stands, before anything is under way",
    "app/src/mexc_pipeline/simulator/service.py": "asyncio's own way: its loop calls the action between two steps",
    "app/src/mexc_pipeline/run/main.py": "SIGTTOU is ignored: nothing runs when it comes",
    "bench/__main__.py": "raises SystemExit and takes no lock",
    "tests/faults/campaign.py": "raises SystemExit and takes no lock",
}
"""Who installs a handler but ``signals.py``, and why that cannot stand still for a lock the interrupted code holds."""


def _handlers(source: str) -> set[str]:
    """What a module uses to have something done when a signal comes."""
    installing = {"signal", "set_wakeup_fd", "add_signal_handler"}
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            found |= {node.attr} & installing
        elif isinstance(node, ast.ImportFrom) and node.module == "signal":
            found |= {alias.name for alias in node.names} & installing
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import signal\nsignal.signal(15, f)",
        "import signal as s\ns.set_wakeup_fd(3)",
        "from signal import signal as on\non(15, f)",
        "loop.add_signal_handler(15, f)",
    ],
)
def test_a_handler_is_recognised(text: str) -> None:
    assert _handlers(text)


def test_signals_have_one_way() -> None:
    folders = [ROOT / "app" / "src", ROOT / "bench", *(ROOT / "tests" / name for name in ("soak", "faults", "support"))]
    modules = [path for folder in folders for path in folder.rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in modules if _handlers(path.read_text())}
    assert found == {"app/src/mexc_pipeline/signals.py", *OTHER_HANDLERS}
    ignoring = (ROOT / "app/src/mexc_pipeline/run/main.py").read_text()
    assert re.findall(r"signal\.signal\((.*?)\)", ignoring) == ["signal.SIGTTOU, signal.SIG_IGN"]


def test_each_file_of_tests_says_what_it_proves() -> None:
    files = [*(ROOT / "tests").rglob("test_*.py")]
    said = {str(path.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text())) or "" for path in files}
    assert len(said) >= 150
    assert {file: text for file, text in said.items() if len(text.split()) < 8 or not text.endswith((".", "``"))} == {}


def test_a_database_is_named_by_a_quoted_address() -> None:
    """In a bare one `?`, `#` and `%` of a folder's name are not that folder: another one's database would be opened."""
    bare = re.compile(r"""f["']file:\{(?!quoted\})""")
    parts = ("app", "playbooks", "roles", "bench", "tests")
    assert [str(p) for part in parts for p in sorted((ROOT / part).rglob("*.py")) if bare.search(p.read_text())] == []
