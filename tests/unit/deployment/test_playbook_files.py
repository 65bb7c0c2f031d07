"""What the playbooks run as root or as the recorder's user: names are checked, links are not followed."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline import config
from mexc_pipeline.errors import UserError
from mexc_pipeline.export import main as export
from mexc_pipeline.ledger.acknowledged import Acknowledged
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.segment import info
from mexc_pipeline.spool.walk import segments
from mexc_pipeline.verify.acknowledge import acknowledged, write
from support.repository import ROOT
from support.scripts import script
from support.spools import configure, fill, open_spool

FILES = ROOT / "playbooks" / "files"
MEXC = 60_003
SERVER = '[clickhouse]\nmode = "server"\n'
"""As on a host; the embedded engine takes fewer names of folders."""


folder, spool_copy = script("playbooks/files/folder.py"), script("playbooks/files/spool_copy.py")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of root's that only root can change, up to the root of the file system."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as path:
        yield Path(path)


@pytest.mark.as_root
def test_a_folder_is_made_for_its_user(place: Path) -> None:
    folder.make(place / "backup", 0, 0, 0o755)
    folder.make(place / "backup" / "recorder", MEXC, MEXC, 0o750)
    folder.make(place / "backup" / "recorder", MEXC, MEXC, 0o750)
    found = (place / "backup" / "recorder").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (MEXC, MEXC, 0o750)
    os.chown(place / "backup", MEXC, MEXC)
    with pytest.raises(folder.UserError, match="root writes nothing below"):
        folder.make(place / "backup" / "clickhouse", 0, 0, 0o700)
    assert not (place / "backup" / "clickhouse").exists()


@pytest.mark.as_root
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_planted_link_is_not_followed(place: Path, depth: int) -> None:
    victim = place / "victim"
    victim.mkdir(mode=0o700)
    path = place.joinpath("a", "b", "c")
    link = place.joinpath(*path.relative_to(place).parts[:depth])
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim)
    with pytest.raises(folder.UserError, match="is a link or no folder"):
        folder.make(path, MEXC, MEXC, 0o777)
    assert (victim.stat().st_uid, stat.S_IMODE(victim.stat().st_mode)) == (0, 0o700)
    assert list(victim.iterdir()) == []


@pytest.mark.as_root
@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_is_refused(place: Path, mode: int) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(mode)
    with pytest.raises(folder.UserError, match="others may write there"):
        folder.make(place / "open" / "backup", 0, 0, 0o755)


@pytest.mark.parametrize("path", ["relative/x", "/", "/var/../etc"])
def test_only_a_whole_path_is_taken(path: str) -> None:
    with pytest.raises(folder.UserError, match="name the whole path"):
        folder.make(Path(path), 0, 0, 0o755)


def _settings(tmp_path: Path) -> config.Config:
    path = tmp_path / "c.toml"
    path.write_text(f'symbols = ["BTC_USDT"]\ndata_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"\n')
    return config.load(path)


NAMES = st.text(min_size=1) | st.sampled_from(["../x", "/etc/x", "btc/../../x", "..", "a/btc2026112120.parquet", "."])


@given(name=NAMES, is_file=st.booleans())
def test_a_manifest_names_nothing_elsewhere(name: str, is_file: bool) -> None:
    manifest = {"exports": {name: ""} if is_file else {}, "last_seq": {} if is_file else {name: 1}}
    try:
        spool_copy._judge_names(Path("/backup"), manifest)
    except UserError:
        return
    assert "/" not in name
    assert name not in (".", "..")


def test_a_restore_of_such_a_manifest_changes_nothing(tmp_path: Path) -> None:
    backup = tmp_path / "backup" / "20261121T200000Z"
    backup.mkdir(parents=True)
    (tmp_path / "backup" / "exports").mkdir()
    (tmp_path / "backup" / "evil").write_text("x")
    manifest = {"at": 0, "last_seq": {}, "exports": {"../evil": spool_copy._sha256(tmp_path / "backup" / "evil")}}
    (backup / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"names '../evil'; nothing was changed"):
        spool_copy.load(_settings(tmp_path), tmp_path / "backup", "20261121T200000Z")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "altered",
    [{"last_seq": {"btc": seq}} for seq in (-1, 2**61, 2**62, 2**63 - 1, 10**19)]
    + [{"at": at} for at in (-1, -(10**18), "x", None, True)],
)
def test_a_manifest_of_no_seq_that_was_given_changes_nothing(tmp_path: Path, altered: dict[str, object]) -> None:
    """What is recorded on from it would be no seq of a recording, and set apart at the next start."""
    settings = _settings(tmp_path)
    fill(settings)
    backup = tmp_path / "backup"
    backup.mkdir()
    spool_copy.save(settings, backup, "20261121T200000Z")
    shutil.rmtree(settings.data_dir)
    settings.spool_dir.mkdir(parents=True)
    path = backup / "20261121T200000Z" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | altered))
    with pytest.raises(UserError, match="cannot be read; nothing was changed"):
        spool_copy.load(settings, backup, "20261121T200000Z")
    assert list(settings.spool_dir.iterdir()) == []


@pytest.mark.parametrize("name", ["100%25", "a?mode=rw", "a#b", "%41"])
def test_a_spool_is_saved_from_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    """Another folder's segments, which the name is another spelling of, are not taken for its own."""
    other = tmp_path / {"100%25": "100%", "%41": "A"}.get(name, "a")
    for folder, periods in ((tmp_path / name, 3), (other, 1)):
        folder.mkdir()
        fill(configure(folder, more=SERVER), periods=periods)
    settings = configure(tmp_path / name, more=SERVER)
    backup = tmp_path / name / "backup"
    backup.mkdir()
    assert spool_copy.save(settings, backup, "20261121T200000Z") == []
    saved = segments(backup / "20261121T200000Z" / "spool" / "btc")
    assert [info(path).last_seq for _, path in saved] == [
        info(path).last_seq for _, path in segments(settings.spool_dir / "btc")
    ]


def _spoil_with_noise(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 60_000)


def _replace_by_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_a_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


DAMAGES = (_spoil_with_noise, _replace_by_a_fifo, _replace_by_a_folder, _replace_by_a_broken_link)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", ["segment", "file", "copy"])
def test_one_damaged_part_keeps_nothing_else_from_being_saved(
    tmp_path: Path, what: str, damage: Callable[[Path], None]
) -> None:
    """Where the last backup before a loss was refused for one file, everything of that day is lost."""
    settings = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(settings, "btc", periods=3)
    fill(settings, "eth", periods=3)
    assert export(settings).ok
    backup = tmp_path / "backup"
    backup.mkdir()
    whole = spool_copy.save(settings, backup, "20261121T200000Z")
    assert whole == []
    files = sorted(path.name for path in settings.export_dir.glob("*.parquet"))
    sound = segments(settings.spool_dir / "btc")
    victim = {
        "segment": sound[1][1],
        "file": settings.export_dir / files[1],
        "copy": backup / "exports" / files[1],
    }[what]
    damage(victim)
    (trouble,) = spool_copy.save(settings, backup, "20261121T210000Z")
    assert victim.name in trouble
    assert "\n" not in trouble
    saved = json.loads((backup / "20261121T210000Z" / "manifest.json").read_bytes())
    assert (saved["at"] == sound[1][0].start_ns // 10**9) == (what == "segment"), "its rows had seqs too"
    left = [name for name in files if name != victim.name]
    assert sorted(name for name in saved["exports"] if name in left) == left
    assert len(segments(backup / "20261121T210000Z" / "spool" / "eth")) == len(sound)
    assert len(segments(backup / "20261121T210000Z" / "spool" / "btc")) == len(sound) - (what == "segment")
    assert not list(backup.rglob(".*")), "nothing half-made"
    # What was saved can be restored, without what was not.
    again = configure(_made(tmp_path / "again"), "BTC_USDT", "ETH_USDT")
    again.data_dir.mkdir()
    spool_copy.load(again, backup, "20261121T210000Z")
    assert {path.name for path in again.export_dir.glob("*.parquet")} >= set(left)
    assert len(segments(again.spool_dir / "eth")) >= len(sound)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_restore_that_failed_is_run_again_once_it_is_put_right(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """What was put back of one symbol before another one's failed was in the way of the next try."""
    symbols = ("BTC_USDT", "ETH_USDT", "SOL_USDT")
    settings = configure(tmp_path, *symbols)
    for symbol_id in ("btc", "eth", "sol"):
        fill(settings, symbol_id, periods=3)
    assert export(settings).ok
    backup = _made(tmp_path / "backup")
    assert spool_copy.save(settings, backup, "20261121T200000Z") == []
    (_, path) = segments(backup / "20261121T200000Z" / "spool" / "eth")[1]
    again = configure(_made(tmp_path / "again"), *symbols)
    again.data_dir.mkdir()
    whole = path.read_bytes()
    damage(path)
    with pytest.raises(UserError, match=path.name):
        spool_copy.load(again, backup, "20261121T200000Z")
    assert [found for symbol_id in ("btc", "eth", "sol") for found in segments(again.spool_dir / symbol_id)] == []
    assert {found.name for found in again.spool_dir.rglob("*")} == {"btc", "eth", "sol", "lock"}
    (path.rmdir if path.is_dir() else path.unlink)()
    path.write_bytes(whole)
    spool_copy.load(again, backup, "20261121T200000Z")
    for symbol_id in ("btc", "eth", "sol"):
        made = {one.name for one in (again.spool_dir / symbol_id).iterdir()}
        found = [info(one) for _, one in segments(again.spool_dir / symbol_id)]
        saved = [info(one) for _, one in segments(settings.spool_dir / symbol_id)]
        assert made == {*(one.path.name for one in found), "lock"}
        assert [one.digest for one in found[:-1]] == [one.digest for one in saved]


@pytest.mark.parametrize("what", ["segment", "file", "copy"])
def test_a_size_that_is_only_claimed_is_neither_read_nor_saved(tmp_path: Path, what: str) -> None:
    settings = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(settings, "btc", periods=2)
    fill(settings, "eth", periods=2)
    assert export(settings).ok
    backup = _made(tmp_path / "backup")
    spool_copy.save(settings, backup, "20261121T200000Z")
    file = sorted(path.name for path in settings.export_dir.glob("*.parquet"))[0]
    segment = segments(settings.spool_dir / "btc")[0][1]
    victim = {"segment": segment, "file": settings.export_dir / file, "copy": backup / "exports" / file}[what]
    os.truncate(victim, 3 << 40)
    if what == "file":
        (backup / "exports" / file).unlink()
    troubles = spool_copy.save(settings, backup, "20261121T210000Z")
    if what == "segment":
        assert troubles == [], "SQLite knows how long it is"
    else:
        (trouble,) = troubles
        assert trouble.endswith(f"{victim} is longer than what is in it: it is damaged; it was not saved")
        saved = json.loads((backup / "20261121T210000Z" / "manifest.json").read_bytes())
        assert file not in saved["exports"]
        assert len(saved["exports"]) == 3, "the others were"
    kept = [path for path in backup.rglob("*") if path.is_file() and path != victim]
    assert sum(path.stat().st_size for path in kept) < 2 << 20
    if what == "copy":
        again = configure(_made(tmp_path / "again"), "BTC_USDT", "ETH_USDT")
        again.data_dir.mkdir()
        with pytest.raises(UserError, match="is longer than what is in it"):
            spool_copy.load(again, backup, "20261121T200000Z")


def test_a_manifest_that_claims_terabytes_is_refused(tmp_path: Path) -> None:
    settings = configure(tmp_path)
    fill(settings, "btc")
    backup = _made(tmp_path / "backup")
    spool_copy.save(settings, backup, "20261121T200000Z")
    os.truncate(backup / "20261121T200000Z" / "manifest.json", 3 << 40)
    with pytest.raises(UserError, match="is longer than what is in it"):
        spool_copy.load(settings, backup, "20261121T200000Z")


def test_nothing_is_written_through_a_link_in_the_place_of_a_copy(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    (tmp_path / ".copy.new").symlink_to(theirs)
    spool_copy._write(tmp_path / "copy", b"ours")
    os.link(theirs, tmp_path / ".again.new")
    spool_copy._copy_file(tmp_path / "copy", tmp_path / "again")
    assert (theirs.read_bytes(), (tmp_path / "again").read_bytes()) == (b"theirs", b"ours")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_what_was_acknowledged_is_restored_too(tmp_path: Path) -> None:
    """Otherwise every check of what was restored fails for holes that somebody has answered for."""
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    before, after = _settings(tmp_path / "before"), _settings(tmp_path / "after")
    before.spool_dir.mkdir(parents=True)
    before.export_dir.mkdir()
    first, second = (Acknowledged("btc", seq, seq + 3, 1_790_000_000, "ada", "its disk") for seq in (5, 20))
    write(before, first)
    write(before, second)
    (tmp_path / "backup").mkdir()
    spool_copy.save(before, tmp_path / "backup", "20261121T200000Z")
    after.data_dir.mkdir()
    write(after, second)
    spool_copy.load(after, tmp_path / "backup", "20261121T200000Z")
    assert acknowledged(after).entries == [second, first]


@pytest.mark.parametrize("said", ["btc", {}, {"id": "btc", "first_seq": "1", "last_seq": 2, "at": 3}])
def test_a_manifest_of_other_acknowledgements_changes_nothing(tmp_path: Path, said: object) -> None:
    (tmp_path / "backup" / "20261121T200000Z").mkdir(parents=True)
    manifest = {"at": 0, "last_seq": {}, "exports": {}, "acknowledged": [said]}
    (tmp_path / "backup" / "20261121T200000Z" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is no hole; nothing was changed"):
        spool_copy.load(_settings(tmp_path), tmp_path / "backup", "20261121T200000Z")
    assert not (tmp_path / "exports").exists()


def test_the_copy_of_a_busy_segment_ends(tmp_path: Path) -> None:
    """SQLite's backup in pieces begins again whenever somebody commits between two of them."""
    settings = _settings(tmp_path)
    spool = open_spool(settings)
    spool.append([Frame(time.time_ns(), None, Mt.DEAD_LETTER, b"x" * (1 << 20))] * 96)
    spool.close()
    path = segments(settings.spool_dir / "btc")[-1][1]
    stop, committed = threading.Event(), threading.Event()

    def write() -> None:
        db = sqlite3.connect(path, isolation_level=None, timeout=10)
        seq = 1_000_000
        while not stop.is_set():
            seq += 1
            db.execute("INSERT INTO rows VALUES (?, 1, 1, 1, zeroblob(20000))", (seq,))
            committed.set()
        db.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert committed.wait(10)
        copying = threading.Thread(target=spool_copy._copy_segment, args=(path, tmp_path / "copy.sqlite"))
        copying.start()
        copying.join(10)
        assert not copying.is_alive()
    finally:
        stop.set()
        writer.join(10)
    copy = sqlite3.connect(tmp_path / "copy.sqlite")
    assert copy.execute("SELECT count() FROM rows WHERE seq <= 96").fetchone() == (96,)
    copy.close()


def test_nothing_is_put_back_beside_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that somebody has started is no unit that was stopped: it would make files of what is being put back."""
    monkeypatch.setattr(spool_copy, "EXPORT_WAIT_S", 0.0)
    settings = _settings(tmp_path)
    settings.spool_dir.mkdir(parents=True)
    settings.export_dir.mkdir()
    (tmp_path / "backup").mkdir()
    spool_copy.save(settings, tmp_path / "backup", "20261121T200000Z")
    with SpoolLock(settings.data_dir / "export"), pytest.raises(UserError, match=f"in use by process {os.getpid()} on"):
        spool_copy.load(settings, tmp_path / "backup", "20261121T200000Z")
    spool_copy.load(settings, tmp_path / "backup", "20261121T200000Z")


RECORDERS = re.compile(r"(data_dir|export_dir|old_data)\b|/recorder\b")
"""What a task names that touches a folder of the recorder's user."""
READS = ("stat:", "find:", "slurp:", "assert:", "debug:", "fail:", "set_fact:", "add_host:", "include_tasks:")
AS_ROOT = {
    # folder.py opens each folder on the way by itself and follows no link.
    ("backup.yml", "Make the folder"),
    # Below root's own folder; chown is told to follow no link, and the numbers are those of another machine.
    ("restore.yml", "Give the backup to the user of this machine"),
    # It names the folder of backups in a file of root's own.
    ("host.yml", "Say what is to be looked at"),
}


def _tasks() -> Iterator[tuple[str, str, str]]:
    """File, name and text of each task; a block's own lines go with the block."""
    for path in sorted(
        [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/handlers/*.yml")]
    ):
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        for text in re.split(r"(?m)^ *- name: ", code)[1:]:
            name, _, body = text.partition("\n")
            yield path.name, name.strip(), body


def test_root_touches_nothing_below_the_recorders_folders() -> None:
    """Their owner could have put a link there. It is done with his rights, or by what follows no link."""
    found = set()
    looked = 0
    for file, name, body in _tasks():
        module = re.search(r"(?m)^ *ansible\.builtin\.(\w+:)", body)
        if module is None or module[1] in READS or not RECORDERS.search(body[module.end() :]):
            continue
        looked += 1
        argv = body[module.end() :].replace('"', "").split()
        is_dropped = "setpriv" in argv and argv.index("setpriv") <= 3 and "--reuid=mexc" in argv
        if not is_dropped and "become_user: mexc" not in body:
            found.add((file, name))
    assert looked >= 5, "the walk finds the tasks"
    assert found == AS_ROOT


def _reset_command(name: str, **values: str) -> list[str]:
    """The command of a task of reset.yml, without the change of user that its tests cannot make."""
    (body,) = (body for file, task, body in _tasks() if (file, task) == ("reset.yml", name))
    argv = re.findall(r"(?m)^ {10}- (.*)$", body)
    words = [word[1:-1] if word[0] in "\"'" else word for word in argv[argv.index("--init-groups") + 1 :]]
    for key, value in values.items():
        words = [word.replace("{{ " + key + " }}", value) for word in words]
    return words


@pytest.mark.as_root
@pytest.mark.parametrize("has_lock", [True, False])
def test_a_reset_removes_nothing_through_a_planted_link(place: Path, has_lock: bool) -> None:
    place.chmod(0o755)
    victim, data = place / "victim", place / "data"
    victim.mkdir()
    (victim / "important.parquet").touch()
    data.mkdir()
    (data / "spool").symlink_to(victim)
    (data / "exports").symlink_to(victim)
    if has_lock:
        (data / "export").mkdir()
        (data / "export" / "lock").touch()
        os.chown(data / "export" / "lock", MEXC, MEXC)
    os.chown(data, MEXC, MEXC)
    names = {"reset_data_dir": str(data), "reset_export_dir": str(data / "exports")}
    for task in (
        "Wait for an export by hand, and remove the spool before there can be another",
        "Remove the exported files",
    ):
        subprocess.run(_reset_command(task, **names), user=MEXC, group=MEXC, extra_groups=[], cwd="/", check=False)
    assert (victim / "important.parquet").exists()
    assert not os.path.lexists(data / "spool")


def test_a_reset_removes_the_files_and_the_spool(tmp_path: Path) -> None:
    (tmp_path / "spool" / "btc").mkdir(parents=True)
    (tmp_path / "exports" / "deep").mkdir(parents=True)
    for name in ("a.parquet", "a.txt", "deep/b.parquet"):
        (tmp_path / "exports" / name).touch()
    names = {"reset_data_dir": str(tmp_path), "reset_export_dir": str(tmp_path / "exports")}
    for task in (
        "Wait for an export by hand, and remove the spool before there can be another",
        "Remove the exported files",
    ):
        subprocess.run(_reset_command(task, **names), cwd="/", check=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "b.parquet", "deep", "exports"]


def test_errors_of_a_play_are_printed_as_the_pages_show() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "ansible.cfg")
    assert settings["defaults"]["callback_result_format"] == "yaml"


def test_an_id_that_holds_another_symbols_recording_is_refused_before_anything_is_stopped(tmp_path: Path) -> None:
    """A collector refuses it when it is restarted, which is too late: its symbol is not recorded then."""
    text = (ROOT / "roles" / "mexc_pipeline" / "tasks" / "rehearse.yml").read_text()
    task = text[text.index("- name: Have the program look whether each id is still its symbol's") :]
    program = textwrap.dedent(task[task.index("      - |\n") + len("      - |\n") : task.index("    stdin:")])
    settings = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(settings, "btc")
    fill(settings, "eth")
    folders = f'data_dir = "{settings.data_dir}"\nexport_dir = "{settings.export_dir}"\n'

    def said(symbols: str) -> str:
        text = f"{folders}symbols = {symbols}\n"
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        return done.stdout

    assert said('["BTC_USDT", "ETH_USDT", "SOL_USDT"]') == ""
    renamed = said('["BTC_USDC", "ETH_USDT"]\n[symbol.BTC_USDC]\nid = "btc"')
    assert "id 'btc' holds what was recorded of BTC_USDT, so BTC_USDC needs an id of its own" in renamed
    assert len(renamed.splitlines()) == 1
