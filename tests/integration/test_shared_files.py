"""Links in the place of what the recorder writes: whoever's file they lead to stays as it is, and the work goes on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.config import Config
from mexc_pipeline.errors import UserError
from mexc_pipeline.export import main as export
from mexc_pipeline.export.under_way import FILE as UNDER_WAY
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.files import SharedError, own, own_anew
from mexc_pipeline.ledger.acknowledged import Acknowledged
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.pending import FILE, Pending
from mexc_pipeline.spool.reserve import Reserve
from mexc_pipeline.store import swaps
from mexc_pipeline.verify.acknowledge import write
from support.examples import examples
from support.spools import T0, configure, fill, open_spool, some_frames

WAYS: dict[str, Callable[[Path, Path], None]] = {
    "hard link": os.link,
    "link": lambda one, other: other.symlink_to(one),
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Two symbols, of which one has a file."""
    config = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(config, "eth")
    assert export(config).ok
    (config.spool_dir / "btc").mkdir()
    (config.control_dir / "attempts").mkdir(parents=True)
    (config.data_dir / "store").mkdir(exist_ok=True)
    return config


def proven(config: Config) -> Path:
    (path,) = config.export_dir.iterdir()
    return path


def _lock(config: Config) -> None:
    with SpoolLock(config.spool_dir / "btc"):
        pass


def _export(config: Config) -> None:
    fill(config, "btc")
    assert export(config).ok


def _reserve(config: Config) -> None:
    reserve = Reserve(config.spool_dir / "btc", 1 << 20)
    assert not reserve.is_held()
    reserve.make()
    assert reserve.is_held()


def _attempts(config: Config) -> None:
    attempts = Attempts(config.control_dir / "attempts" / "direct")
    attempts.wait_s("host", free=False)
    assert attempts.trouble is None


def _record(config: Config) -> None:
    spool = open_spool(config)
    spool.append(some_frames(5, T0))
    spool.close()


def _pending(config: Config) -> None:
    pending = Pending(config.spool_dir / "btc", "BTC_USDT")
    pending.append(some_frames(5, T0))
    pending.close()


PLACES: dict[str, tuple[str, Callable[[Config], None]]] = {
    "lock": ("spool/btc/lock", _lock),
    "lock of exports": ("export/lock", _export),
    "segments under way": (f"export/{UNDER_WAY}", _export),
    "reserve": ("spool/btc/reserve", _reserve),
    "reserve that is made": ("spool/btc/.reserve.new", _reserve),
    "attempts": ("control/attempts/direct", _attempts),
    "log of a segment": ("spool/btc/20260915185200.sqlite-wal", _record),
    "index of a segment": ("spool/btc/20260915185200.sqlite-shm", _record),
    "segment that is made": ("spool/btc/.20260915185200.sqlite.new", _record),
    "pending rows": (f"spool/btc/{FILE}", _pending),
    "log of pending rows": (f"spool/btc/{FILE}-wal", _pending),
}


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_proven_file_is_not_written_through_another_name(config: Config, place: str, way: str) -> None:
    name, work = PLACES[place]
    theirs, path = proven(config), config.data_dir / name
    content = theirs.read_bytes()
    path.unlink(missing_ok=True)
    WAYS[way](theirs, path)
    work(config)
    assert theirs.read_bytes() == content


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("end", ["-wal", "-shm"])
@pytest.mark.parametrize("kind", ["segment", "pending"])
def test_nor_through_what_stands_beside_a_database(config: Config, kind: str, end: str, way: str) -> None:
    """The log and its index are written over by whoever opens the database, to read it too."""
    (_record if kind == "segment" else _pending)(config)
    theirs, content = proven(config), proven(config).read_bytes()
    name = "20260915185200.sqlite" if kind == "segment" else FILE
    path = config.spool_dir / "btc" / f"{name}{end}"
    path.unlink(missing_ok=True)
    WAYS[way](theirs, path)
    export(config)
    (_record if kind == "segment" else _pending)(config)
    assert theirs.read_bytes() == content


@pytest.mark.parametrize("way", sorted(WAYS))
def test_what_is_only_added_to_is_refused(config: Config, way: str, caplog: pytest.LogCaptureFixture) -> None:
    theirs, content = proven(config), proven(config).read_bytes()
    WAYS[way](theirs, config.data_dir / "acknowledged.jsonl")
    WAYS[way](theirs, config.data_dir / "store" / "btc.swaps")
    with pytest.raises(UserError, match=r"cannot write .*acknowledged.jsonl: .*move it away"):
        write(config, Acknowledged("btc", 1, 2, 3, "me", "why"))
    swaps.note(config.data_dir, "btc", "file", 1)
    assert "swap not noted" in caplog.text
    assert theirs.read_bytes() == content


def test_a_database_of_somebody_else_is_not_made_ours(config: Config) -> None:
    """Opening one to write to it changes its header."""
    theirs = config.spool_dir.parent / "other.db"
    db = sqlite3.connect(theirs)
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()
    content = theirs.read_bytes()
    os.link(theirs, config.spool_dir / "btc" / FILE)
    pending = Pending(config.spool_dir / "btc", "BTC_USDT")
    assert pending.set_apart is not None
    pending.append(some_frames(5, T0))
    pending.close()
    assert theirs.read_bytes() == content


def test_a_copy_by_hard_links_costs_no_row(config: Config) -> None:
    """Of a recorder that was killed, as ``cp -al`` makes it: each file has two names then."""
    spool = open_spool(config)
    spool.append(some_frames(5, T0))
    left = config.spool_dir / "left"
    shutil.copytree(config.spool_dir / "btc", left)
    spool.close()
    shutil.rmtree(config.spool_dir / "btc")
    left.rename(config.spool_dir / "btc")
    shutil.copytree(config.spool_dir / "btc", config.data_dir / "copy", copy_function=os.link)
    again = open_spool(config)
    assert (again.recovered.last_seq, again.recovered.set_apart) == (5, ())
    again.close()


@given(
    what=st.sampled_from(["nothing", "file", "hard link", "link", "link to nothing", "FIFO"]),
    flags=st.sampled_from([os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND]),
    is_anew=st.booleans(),
)
@settings(max_examples=examples(60), deadline=None)
def test_what_is_opened_is_ours_alone(what: str, flags: int, is_anew: bool) -> None:
    with tempfile.TemporaryDirectory() as made:
        path, theirs = Path(made) / "ours", Path(made) / "theirs"
        theirs.write_bytes(b"theirs")
        match what:
            case "file":
                path.write_bytes(b"ours")
            case "hard link":
                os.link(theirs, path)
            case "link":
                path.symlink_to(theirs)
            case "link to nothing":
                path.symlink_to("nowhere")
            case "FIFO":
                os.mkfifo(path)
        if what not in ("nothing", "file") and not is_anew:
            with pytest.raises(SharedError, match="move it away"):
                own(path, flags | os.O_CREAT, 0o600)
        else:
            fd = own_anew(path, flags, 0o600) if is_anew else own(path, flags | os.O_CREAT, 0o600)
            os.write(fd, b"new")
            os.close(fd)
            found = path.lstat()
            assert (found.st_nlink, stat.S_ISREG(found.st_mode)) == (1, True)
        assert theirs.read_bytes() == b"theirs"
        assert not (Path(made) / "nowhere").exists()
