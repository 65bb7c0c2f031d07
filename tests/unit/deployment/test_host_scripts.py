"""Scripts of roles and playbooks in hostile surroundings: what is wrong outside of them is one line, never a traceback.

What an operator sees of a play that failed is the end of what a script said.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.spool.walk import segments
from support.repository import ROOT
from support.scripts import SCRIPTS, ended, program, script
from support.spools import configure, fill

BUILD, FINGERPRINT, RESTARTS, SETTINGS = (
    f"roles/mexc_pipeline/files/{name}.py" for name in ("build", "fingerprint", "restarts", "settings")
)
BOOTSTRAP = "roles/tor/files/bootstrap_phase.py"
DOCUMENTATION = "roles/documentation.py"
BCRYPT, TEXTFILE = (f"roles/monitoring/files/{name}.py" for name in ("bcrypt", "textfile"))
TABLES, FOLDER, OUTDATED, COPY = (
    f"playbooks/files/{name}.py" for name in ("clickhouse_tables", "folder", "outdated", "spool_copy")
)
NOWHERE = {
    BUILD: ["{}/none", "{}/target"],
    FINGERPRINT: ["{}/none"],
    RESTARTS: ["{}/none/seen.json", "mexc-store.service"],
    SETTINGS: [],
    BOOTSTRAP: ["nosuch", "0"],
    TABLES: ["save", "{}/none", "ch_mexc"],
    FOLDER: ["{}/none", "no-such-user", "0750"],
    OUTDATED: [],
    COPY: ["save", "{}/none", "20261121T200000Z"],
    BCRYPT: [],
    TEXTFILE: ["{}/none", "{}/told.prom"],
}
"""Arguments with which each has nothing to work with, where no program is on PATH; ``{}`` is an empty folder."""


def test_each_script_is_tried() -> None:
    """The roles' documentation needs what is installed for the deployment tests: ``tests/deploy/test_documents.py``."""
    assert {*NOWHERE, DOCUMENTATION} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_ends_the_one_way(name: str) -> None:
    """They stand alone on their hosts, so what each has of it is a copy, and the same to the letter."""

    def parts(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text()
        tree = ast.parse(text)
        named = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        found = {"last": ast.unparse(tree.body[-1])}
        for key in named.keys() & {"end", "UserError"}:
            found[key] = ast.get_source_segment(text, named[key]) or ""
        return found

    assert parts(RESTARTS)["last"] == "if __name__ == '__main__':\n    end(main)"
    assert {**parts(RESTARTS), **parts(name)} == parts(RESTARTS)
    assert "end" in parts(name)


@pytest.mark.parametrize("name", NOWHERE)
def test_with_nothing_there_it_ends_with_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = [argument.format(tmp_path) for argument in NOWHERE[name]]
    done = subprocess.run(
        [sys.executable, ROOT / name, *arguments],
        env={"PATH": str(tmp_path / "empty"), "HOME": str(tmp_path)},
        cwd=tmp_path / "empty",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""


GARBAGE = b"\xff\xfe\x00\x1b[31m not text"
Spoil = Callable[[Path], None]


def _garbage(path: Path) -> None:
    path.write_bytes(GARBAGE)


def _a_folder(path: Path) -> None:
    path.mkdir()


def _a_loop(path: Path) -> None:
    path.symlink_to(path)


SPOILS = (_garbage, _a_folder, _a_loop)


def one_line(module: ModuleType, *arguments: str | Path) -> str:
    """What a script that cannot do its work says: one line, of characters that can be shown."""
    found = ended(module, *arguments)
    assert found.status == 1
    (line,) = found.said.splitlines()
    assert found.said == f"{line}\n"
    assert line.isprintable()
    return line


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of programs, the only one on PATH but for the system's own."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script(TABLES)
    monkeypatch.setattr(module, "CREDENTIALS", tmp_path)
    monkeypatch.setattr(module, "CLIENT", tmp_path / "config.xml")
    (tmp_path / "mexc_store").write_text(r"pass\1word" "\n")
    (tmp_path / "config.xml").write_text("<config><user>mexc_read</user><password>other</password></config>")
    return module


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("name", ["mexc_store", "config.xml"])
def test_settings_of_the_client_that_are_none(
    tables: ModuleType, path: Path, tmp_path: Path, name: str, spoil: Spoil
) -> None:
    program(path, "clickhouse-client", "true")
    (tmp_path / name).unlink()
    spoil(tmp_path / name)
    said = one_line(tables, "drop", "-", "ch_mexc", "btc")
    assert said.startswith(f"{tmp_path / name} cannot be read: ")
    assert "site.yml writes it" in said


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("printf 'Code: 210. DB::NetException:\\n\\033[31mConnection refused\\n' >&2; exit 210", "Connection refused"),
        ("exit 3", "SHOW TABLES: clickhouse-client ended with 3"),
        ("printf '\\377\\376'", "SHOW TABLES: what ClickHouse answers is no text"),
        ("kill -9 $$", "SHOW TABLES: clickhouse-client ended with -9"),
    ],
)
@pytest.mark.parametrize("verb", ["save", "load", "drop", "retire"])
def test_a_server_that_does_not_do_as_it_is_asked(
    tables: ModuleType, path: Path, tmp_path: Path, verb: str, does: str, said: str
) -> None:
    program(path, "clickhouse-client", does)
    folder = tmp_path / "saved"
    if verb == "load":
        folder.mkdir()
    assert said in one_line(tables, verb, folder, "ch_mexc", "btc")


def test_a_password_is_handed_on_as_it_is(tables: ModuleType, path: Path, tmp_path: Path) -> None:
    """One with a backslash was taken for a pattern's."""
    program(path, "clickhouse-client", f"cat $2 > {tmp_path}/given")
    assert ended(tables, "drop", "-", "ch_mexc", "btc") == (0, "", "")
    assert r"<user>mexc_store</user><password>pass\1word</password>" in (tmp_path / "given").read_text()


def test_a_backup_of_that_name_that_is_there(tables: ModuleType, path: Path, tmp_path: Path) -> None:
    program(path, "clickhouse-client", "true")
    (tmp_path / "saved").mkdir()
    assert one_line(tables, "save", tmp_path / "saved", "ch_mexc") == f"{tmp_path / 'saved'}: File exists"
    assert "is not there; nothing was changed" in one_line(tables, "load", tmp_path / "none", "ch_mexc")


def test_a_backup_that_is_damaged(tables: ModuleType, path: Path, tmp_path: Path) -> None:
    program(path, "clickhouse-client", "true")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "export_log.native").touch()
    sql = tmp_path / "saved" / "export_log.sql"
    assert one_line(tables, "load", tmp_path / "saved", "ch_mexc") == f"{sql}: No such file or directory"
    _garbage(sql)
    assert one_line(tables, "load", tmp_path / "saved", "ch_mexc").startswith(f"{sql} is damaged")


@pytest.mark.as_root
@pytest.mark.parametrize(
    ("of", "said"),
    [
        ("/proc/none", "/proc/none cannot be made or opened: "),
        ("/dev/null/x", "/dev/null is a link or no folder: Not a directory"),
        ("/" + "x" * 300, "cannot be made or opened: File name too long"),
        ("/proc/1", "/proc/1 cannot be given to root: Operation not permitted"),
    ],
)
def test_a_folder_that_cannot_be_made(of: str, said: str) -> None:
    assert said in one_line(script(FOLDER), of, "root", "0555")


def test_a_folder_for_a_user_that_is_not_there(tmp_path: Path) -> None:
    said = one_line(script(FOLDER), tmp_path / "x", "no-such-\x1buser", "0750")
    assert r"no-such-\x1buser's, and there is no such user here: run site.yml first" in said


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What looks like the application's source."""
    package = tmp_path / "app" / "src" / "mexc_pipeline"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1.2.3"\n')
    for name in ("pyproject.toml", "README.md", "LICENSE", "build-requirements.txt", "requirements.txt"):
        (tmp_path / "app" / name).touch()
    return tmp_path / "app"


@pytest.mark.parametrize(
    ("name", "spoil"),
    [("src/mexc_pipeline/__init__.py", spoil) for spoil in SPOILS] + [("LICENSE", _a_folder), ("LICENSE", _a_loop)],
)
def test_a_source_that_is_none_of_ours(source: Path, name: str, spoil: Spoil) -> None:
    fingerprint = script(FINGERPRINT)
    assert ended(fingerprint, source).printed.startswith("1.2.3 ")
    (source / name).unlink()
    assert str(source / name) in one_line(fingerprint, source)
    spoil(source / name)
    assert str(source / name) in one_line(fingerprint, source)


def test_a_source_that_cannot_be_built(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = script(BUILD)

    def create(folder: Path, *, with_pip: bool) -> None:
        program(folder, "unused", "true")
        program(folder / "bin", "python", "echo 'ERROR: no \033[31mhash\nERROR: of it' >&2; exit 2")

    monkeypatch.setattr(build.venv, "create", create)
    assert (
        one_line(build, source, tmp_path / "target") == r"pip install ended with 2: ERROR: no \x1b[31mhash ERROR: of it"
    )

    def refuse(folder: Path, *, with_pip: bool) -> None:
        raise subprocess.CalledProcessError(1, ["python", "-m", "ensurepip"])

    monkeypatch.setattr(build.venv, "create", refuse)
    assert "apt install python3-venv" in one_line(build, source, tmp_path / "target")


def _answers(folder: Path, answer: bytes) -> threading.Thread:
    """A Tor instance's control socket that gives one answer."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(folder / "control"))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"515 Authentication failed\r\n\r\n\x1b[31m", r"515 Authentication failed \x1b[31m"),
        (b"250-status/bootstrap-phase=NOTICE PROGRESS=5 SUMMARY=x\r\n250 OK\r\n", "PROGRESS=5 SUMMARY=x;"),
        (GARBAGE, "not text"),
        (b"", "0 s: no answer;"),
    ],
)
def test_a_tor_that_has_no_circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str) -> None:
    bootstrap = script(BOOTSTRAP)
    monkeypatch.setattr(bootstrap, "INSTANCES", tmp_path)
    (tmp_path / "btc").mkdir()
    (tmp_path / "btc" / "control.authcookie").write_bytes(GARBAGE)
    tor = _answers(tmp_path / "btc", answer)
    try:
        assert said in one_line(bootstrap, "btc", "0")
    finally:
        tor.join()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Of a host with two segments, and a backup of it."""
    module = script(COPY)
    settings = configure(tmp_path, "BTC_USDT")
    fill(settings, "btc", periods=2)
    settings.export_dir.mkdir(exist_ok=True)
    monkeypatch.setattr(module, "CONFIG", tmp_path / "c.toml")
    text = f'symbols = ["BTC_USDT"]\ndata_dir = "{settings.data_dir}"\nexport_dir = "{settings.export_dir}"\n'
    module.CONFIG.write_text(text)
    (tmp_path / "backup").mkdir()
    assert ended(module, "save", tmp_path / "backup", "whole").said == ""
    return module


def test_a_configuration_that_is_none(copy: ModuleType, tmp_path: Path) -> None:
    for spoil in SPOILS:
        (copy.CONFIG.unlink if copy.CONFIG.is_file() or copy.CONFIG.is_symlink() else copy.CONFIG.rmdir)()
        spoil(copy.CONFIG)
        assert str(copy.CONFIG) in one_line(copy, "save", tmp_path / "backup", "other")


def test_a_place_where_nothing_can_be_saved(copy: ModuleType, tmp_path: Path) -> None:
    assert one_line(copy, "save", tmp_path / "none", "x") == f"{tmp_path}/none/x: No such file or directory"
    assert one_line(copy, "save", tmp_path / "backup", "whole") == f"{tmp_path}/backup/whole: File exists"
    shutil.rmtree(tmp_path / "data" / "spool")
    assert "No such file or directory" in one_line(copy, "save", tmp_path / "backup", "x")


@pytest.mark.parametrize("what", ["segment", "manifest"])
@pytest.mark.parametrize("spoil", SPOILS)
def test_a_backup_of_the_spool_that_is_damaged(copy: ModuleType, tmp_path: Path, what: str, spoil: Spoil) -> None:
    backup = tmp_path / "backup" / "whole"
    path = segments(backup / "spool" / "btc")[0][1] if what == "segment" else backup / "manifest.json"
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").mkdir()
    path.unlink()
    spoil(path)
    assert str(path) in one_line(copy, "load", tmp_path / "backup", "whole")


def test_rows_that_are_pending_are_a_recording_too(copy: ModuleType, tmp_path: Path) -> None:
    """Nothing is put back below what has no seq yet."""
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data" / "spool" / "btc").mkdir(parents=True)
    (tmp_path / "data" / "spool" / "btc" / "pending.db").touch()
    assert "has recordings" in one_line(copy, "load", tmp_path / "backup", "whole")


def test_a_program_of_another_version_is_said(tmp_path: Path) -> None:
    (tmp_path / "mexc_pipeline").mkdir()
    (tmp_path / "mexc_pipeline" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-", "save", tmp_path, "x"],
        input=(ROOT / COPY).read_text(),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is another version than these playbooks" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("content", "status"), [("<config><a/></config>", 0), ("<config><a></config>", 1), ("", 1)])
def test_settings_of_clickhouse_that_are_no_xml(tmp_path: Path, content: str, status: int) -> None:
    text = (ROOT / "roles" / "clickhouse" / "vars" / "main.yml").read_text()
    command = re.search(r"(?m)^_clickhouse_validate: >-\n((?:  .+\n)+)", text)
    assert command is not None
    (tmp_path / "x.xml").write_text(content)
    words = shlex.split(" ".join(command[1].split()) % (tmp_path / "x.xml"))
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
    assert (words[0], done.returncode) == ("/usr/bin/python3", status)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == status


@given(st.text() | st.binary().map(lambda raw: raw.decode(errors="surrogateescape")))
def test_whatever_is_said_outside_is_one_line(said: str) -> None:
    module = script(RESTARTS)

    def main() -> int:
        raise module.UserError(f"x{said}")

    vars(module)["main"] = main
    assert one_line(module).startswith("x")


def test_a_mistake_of_ours_is_shown_whole() -> None:
    module = script(RESTARTS)

    def main() -> int:
        return int(json.dumps("not a number"))

    vars(module)["main"] = main
    with pytest.raises(ValueError, match="invalid literal"):
        module.end(main)
