"""Paths that a configuration names: what they mean, and what is refused in one line before anything starts."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline import paths
from mexc_pipeline.config import check_mounted, parse
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.files import SharedError
from mexc_pipeline.paths import NotAFileError, append_line, make_folder, regular

KEYS = {
    "data_dir": 'data_dir = "{}"',
    "export_dir": 'export_dir = "{}"',
    "require_mount": 'require_mount = ["{}"]',
    "exchange.ca_file": '[exchange]\nca_file = "{}"',
    "clickhouse.ca_file": '[clickhouse]\nca_file = "{}"',
    "clickhouse.password_file": '[clickhouse]\npassword_file = "{}"',
    "egress.credentials_file": '[egress]\nmode = "socks5h://h:1"\ncredentials_file = "{}"',
    "egress.socks_socket": '[egress]\nsocks_socket = "{}"',
    "egress.control_socket": '[egress]\ncontrol_socket = "{}"',
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("key", KEYS)
def test_a_home_folder_is_meant_wherever_a_path_is_taken(home: Path, key: str) -> None:
    config = parse(KEYS[key].format("~/x/y"), None)
    table, _, name = key.rpartition(".")
    holder = config.symbols[0].egress if table == "egress" else getattr(config, table) if table else config
    found = getattr(holder, name)
    assert str(found[0] if key == "require_mount" else found) == f"{home}/x/y"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("~nobody-of-this-name/x", "no such home folder"),
        ("/a\\u0000b", "without control characters"),
        ("/a\\nb", "without control characters"),
        ("/" + "x" * 256, "too long"),
        ("/" + "x/" * 2000, "too long"),
    ],
)
def test_what_can_be_no_path_is_named(key: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^configuration: {key}: .*{said}"):
        parse(KEYS[key].format(text), None)


@pytest.mark.parametrize(
    ("data", "exports", "said"),
    [
        ("a", "a", "is data_dir itself"),
        ("a", "a/", "is data_dir itself"),
        ("a", "b/../a", "is data_dir itself"),
        ("a", "link-to-a", "is data_dir itself"),
        ("link-to-a", "a", "is data_dir itself"),
        ("a/b", "a", "lies in export_dir"),
        ("link-to-a/b", "a", "lies in export_dir"),
        ("a", "a/spool", "lies in spool"),
        ("a", "a/clickhouse/x", "lies in clickhouse"),
        ("a", "a/clickhouse.broken-1", "lies in clickhouse.broken-1"),
        ("a", "link-to-a/control", "lies in control"),
        ("link-to-a", "a/store", "lies in store"),
        ("a", "a/export", "lies in export"),
    ],
)
def test_the_recording_and_the_files_are_kept_apart(tmp_path: Path, data: str, exports: str, said: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "link-to-a").symlink_to("a")
    with pytest.raises(ConfigError, match=said):
        parse(f'data_dir = "{tmp_path}/{data}"\nexport_dir = "{tmp_path}/{exports}"', None)


@pytest.mark.parametrize(("data", "exports"), [("a", "b"), ("a", "a/exports"), ("a", "a/files/spool"), ("a", "ab")])
def test_other_places_are_allowed(tmp_path: Path, data: str, exports: str) -> None:
    parse(f'data_dir = "{tmp_path}/{data}"\nexport_dir = "{tmp_path}/{exports}"', None)


@pytest.mark.parametrize("mark", ["?", "\\"])
def test_what_the_embedded_engine_cannot_open_is_refused_for_it_alone(tmp_path: Path, mark: str) -> None:
    folder = f"data_dir = '{tmp_path}/what{mark}'\n"
    with pytest.raises(ConfigError, match=f"data_dir: .*takes no path with a {re.escape(mark)}"):
        parse(folder, None)
    parse(folder + '[clickhouse]\nmode = "server"', None)


@given(st.sampled_from(sorted(KEYS)), st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_text_as_any_path_is_taken_or_refused_in_one_line(key: str, text: str) -> None:
    written = "".join(f"\\U{ord(c):08x}" for c in text)
    try:
        parse(KEYS[key].format(written), None)
    except ConfigError as error:
        said = str(error)
        assert key in said or key.rpartition(".")[2] in said
        assert "\n" not in said


def test_reading_what_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    file.chmod(0o640)
    assert paths.read("k", str(file), private=True, most=5) == b"12345"
    with pytest.raises(ConfigError, match=r"k: .*larger than 4 bytes"):
        paths.read("k", str(file), most=4)
    file.chmod(0o644)
    assert paths.read("k", str(file)) == b"12345"
    with pytest.raises(ConfigError, match=r"k: .*others may use it"):
        paths.read("k", str(file), private=True)
    with pytest.raises(ConfigError, match="k: /dev/zero: not a file"):
        paths.read("k", "/dev/zero")


ROOT, DISK, OTHER = 1, 2, 3


def _devices(mounts: dict[str, int]):  # type: ignore[no-untyped-def]
    def device(path: Path) -> int:
        holder = max((m for m in mounts if path.is_relative_to(m)), key=len)
        return mounts[holder]

    return device


@pytest.mark.parametrize(
    ("required", "mounts", "missing"),
    [
        (False, {"/": ROOT}, ""),
        (True, {"/": ROOT}, "/data, /srv/exports"),
        (True, {"/": ROOT, "/data": DISK}, "/srv/exports"),
        (True, {"/": ROOT, "/data": DISK, "/srv": OTHER}, ""),
        (("/srv",), {"/": ROOT, "/srv": DISK}, ""),
        (("/srv",), {"/": ROOT}, "/srv"),
        (("/srv", "/data"), {"/": ROOT, "/srv": DISK}, "/data"),
        (("/srv",), {"/": ROOT, "/srv": ROOT}, "/srv"),  # a folder bound onto itself, as in a unit's namespace
        (("/srv/exports",), {"/": ROOT, "/srv": DISK}, "/srv/exports"),
    ],
)
def test_what_is_not_mounted(required: bool | tuple[str, ...], mounts: dict[str, int], missing: str) -> None:
    folders = (Path("/data"), Path("/srv/exports"))
    assert paths.not_mounted(required, folders, _devices(mounts)) == missing


def test_a_folder_that_is_not_there_lies_where_it_would_be_made(tmp_path: Path) -> None:
    assert paths.device(tmp_path / "not" / "there") == tmp_path.stat().st_dev
    assert paths.device(Path("/proc/self/no/such")) == Path("/proc").stat().st_dev


def test_a_missing_mount_is_one_line_that_names_it(tmp_path: Path) -> None:
    check_mounted(parse("", None))
    check_mounted(parse('require_mount = ["/proc"]', None))
    with pytest.raises(UserError, match=f"require_mount: nothing is mounted at {tmp_path}; mount it"):
        check_mounted(parse(f'require_mount = ["{tmp_path}"]', None))


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR])
@pytest.mark.parametrize("what", ["FIFO", "folder", "device", "socket"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, what: str, flags: int) -> None:
    path = tmp_path / "name"
    match what:
        case "FIFO":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/null")
        case _:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
    with pytest.raises(NotAFileError, match=what):
        regular(path, flags)


@given(st.binary(max_size=300), st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=40)))
def test_a_line_is_added_whole_behind_whatever_a_crash_has_left(left: bytes, lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "lines")
        path.write_bytes(left)
        patch.setattr(os, "write", lambda fd, data, write=os.write: write(fd, data[:7]))  # as on a disk that fills up
        for line in lines:
            append_line(path, line.encode())
        added = "".join(f"{line}\n" for line in lines).encode()
        between = b"\n" if lines and left and not left.endswith(b"\n") else b""
        assert path.read_bytes() == left + between + added


def test_a_line_that_is_not_written_is_said(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with pytest.raises(OSError, match="longer than the 5 bytes"):
        append_line(path, b"123456", most=5)
    assert path.read_bytes() == b""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SharedError, match="no file"):
        append_line(tmp_path / "fifo", b"1")


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_folder_of_the_recorders_own_is_not_for_others(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        make_folder(tmp_path / "data" / "control")
        make_folder(tmp_path / "data" / "control")
    finally:
        os.umask(before)
    for folder in (tmp_path / "data", tmp_path / "data" / "control"):
        assert folder.stat().st_mode & 0o777 == 0o750 & ~mask


def test_no_folder_is_made_for_others_by_a_slip() -> None:
    """Only the files' own folder, which others may read, and the simulator's are made with the user's mask alone."""
    sources = Path(paths.__file__).parent
    makers = {str(p.relative_to(sources)) for p in sources.rglob("*.py") if ".mkdir(" in p.read_text()}
    assert makers == {"paths.py", "run/main.py", "run/demo.py", "export/files.py", "simulator/exchange.py"}


def test_what_another_left_in_our_folder_is_to_be_given_back_and_in_his_own_it_is_his(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a stranger was told to chown the recorder's folder, which would have taken it from the recorder."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "give it back (chown " in paths.not_allowed(folder, write=True)
    ours = {one.stat().st_uid for one in (folder, *folder.parents)}
    stranger = max(ours) + 60_001
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    said = paths.not_allowed(folder, write=True)
    assert "chown" not in said
    whose = paths.as_user((tmp_path.parents[-1]).stat().st_uid)
    assert said.endswith(f": run this as {whose}"), said


def test_a_user_without_a_name_is_one_for_sudo_too() -> None:
    assert paths.as_user(0) == "root (sudo -u root …)"
    assert paths.as_user(3_999_999_999) == "user 3999999999 (sudo -u '#3999999999' …)"
