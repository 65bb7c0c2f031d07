"""The end of a run on test hosts: whoever sees only that can tell what failed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.failures import LINES, MOST, WIDTH, Failure, of_junit, of_log, of_scenario, summary, why
from support.repository import ROOT

DEPLOY = ROOT / "tests" / "deploy"
FAILING = """
import pytest
def test_well(): pass
@pytest.fixture
def broken(): raise OSError("no disk")
def test_needs(broken): pass
def test_it():
    print("captured")
    assert False, "\\n".join(f"line {n} \\x1b[31mred" for n in range(50))
def test_command():
    raise AssertionError("exit code 1 for " + "a long command " * 200 + "stderr: no room")
"""
TASK = """<?xml version="1.0" ?>
<testsuites><testsuite name="verify"><testcase classname="verify.yml:3" name="[ch1] Look: well"/>
<testcase classname="verify.yml:9" name="[ch1] Look: Judge it"><failure message="rc was 3" type="failure">
changed: false
msg: rc was 3
{}</failure></testcase></testsuite></testsuites>"""
BROKEN = """TASK [Fine] ****
ok: [localhost]
INFO     [default > syntax] Executed: Successful

TASK [Boot guests] *************
fatal: [localhost]: FAILED! =>
    msg: no room
CRITICAL Ansible return code was 2
ERROR    [default > create] \x1b[31mExecuted: Failed\x1b[0m
INFO     [default > destroy] Executing

TASK [End guests] ****
changed: [localhost]
default > create: Executed: Failed (Ansible return code was 2)
"""


def test_failed_tests_are_named_with_their_last_lines(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(FAILING)
    report = tmp_path / "verify.xml"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junit-xml={report}",
            tmp_path / "test_x.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    needs, it, command = of_scenario(tmp_path)
    names = ["test_x::test_needs", "test_x::test_it", "test_x::test_command"]
    assert [failure.name for failure in (needs, it, command)] == names
    assert summary({"default": [needs, it, command]}) == [
        *(f"failed: default: {name}" for name in names),
        "first: default: test_x::test_needs",
        "E   OSError: no disk",
        "test_x.py:5: OSError",
    ]
    said = why(it.said)
    assert said[0] == "E       AssertionError: line 0 #x1B[31mred"
    assert said[-1] == "test_x.py:9: AssertionError"
    assert len(said) == LINES
    assert not any("captured" in line or "for n in range" in line for line in said)
    said = why(command.said)
    assert said[0].startswith("E       AssertionError: exit code 1 for a long command")
    assert "stderr: no room" in " ".join(said[-3:]), "the end of a long line is what a command said"


@pytest.mark.parametrize("more", ["", "stdout_lines:\n" + "- x\n" * 100])
def test_a_failed_task_has_its_message_near_the_end(more: str) -> None:
    (judged,) = of_junit(TASK.format(more))
    assert judged.name == "verify.yml:9::[ch1] Look: Judge it"
    assert any("rc was 3" in line for line in why(judged.said))


def test_without_a_report_the_step_that_failed_is_shown(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(BROKEN)
    (failure,) = of_scenario(tmp_path)
    assert failure.name == "create: TASK [Boot guests]"
    assert why(failure.said) == [
        "fatal: [localhost]: FAILED! =>",
        "    msg: no room",
        "CRITICAL Ansible return code was 2",
        "ERROR    [default > create] Executed: Failed",
    ]


def test_what_says_nothing_is_said_to_have_failed(tmp_path: Path) -> None:
    assert summary({"tor": of_scenario(tmp_path)}) == ["failed: tor: no task", "first: tor: no task"]
    (tmp_path / "verify.xml").write_text("<testsuites><testsu")
    assert "cut off" in " ".join(summary({"tor": of_scenario(tmp_path)}))
    assert of_log("boom\n").said == ["boom"]


@given(
    st.lists(
        st.lists(st.builds(Failure, st.text(), st.lists(st.text(), max_size=60)), min_size=1, max_size=150),
        min_size=1,
        max_size=3,
    )
)
def test_the_end_is_short_and_is_about_the_first_failure(failures: list[list[Failure]]) -> None:
    shown = summary({str(n): found for n, found in enumerate(failures)})
    assert max(map(len, shown)) <= WIDTH
    count = sum(map(len, failures))
    last = shown[min(count, MOST) + (count > MOST) :]
    assert last[0].startswith("first: 0:")
    assert len(last) <= 1 + LINES
    assert len("\n".join(last)) < 1400, "make adds a line of its own"


@pytest.mark.as_root
@pytest.mark.parametrize("fails", [True, False])
def test_the_run_ends_with_it(tmp_path: Path, fails: bool) -> None:
    (tmp_path / "tests").mkdir()
    shutil.copytree(DEPLOY, tmp_path / "tests" / "deploy")
    programs = tmp_path / ".venv-deploy" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / "broken").write_text(BROKEN)
    for name, does in {
        "yamllint": "true",
        "ansible-playbook": "true",
        "ansible-lint": "true",
        "python": f'[ "$2" != deploy.failures ] || exec {sys.executable} "$@"',
        "molecule": '[ "$3" != tor ] || { cat broken; exit 1; }',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    scenarios = ["default", "tor"] if fails else ["default"]
    done = subprocess.run(
        [tmp_path / "tests" / "deploy" / "run", *scenarios],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == int(fails), done.stdout
    assert done.stdout.splitlines()[-1].startswith("ERROR    [default > create]" if fails else "== scenario default")
    assert ("first: tor: create: TASK [Boot guests]" in done.stdout) == fails
