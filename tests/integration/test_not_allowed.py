"""What a process may not use is not damaged: it is left as it is, said in one line, and used again once it may."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support import needs
from support.collecting import IMPATIENT, Collector, Site, site_of
from support.repository import ROOT
from support.spooled import check, named
from support.spools import T0, configure, fill, open_spool, some_frames
from support.waiting import until

OTHER = 60_001


def restrained() -> list[str]:
    """Root may use everything; without these two capabilities it is a user like any other."""
    if os.geteuid():
        return []
    caps = "-dac_override,-dac_read_search"
    return ["setpriv", f"--inh-caps={caps}", f"--bounding-set={caps}"]


@pytest.fixture(autouse=True)
def _not_everything() -> None:
    """Root without setpriv may use everything."""
    if os.geteuid() == 0:
        needs.programs("setpriv")


@contextmanager
def taken_away(path: Path) -> Iterator[None]:
    """It belongs to another user (to this one, and to nobody's use, where we are not root)."""
    before = path.stat()
    if os.geteuid():
        path.chmod(0)
    else:
        os.chown(path, OTHER, OTHER)
        path.chmod(0o700 if path.is_dir() else 0o600)
    try:
        yield
    finally:
        if path.exists():
            os.chown(path, before.st_uid, before.st_gid)
            path.chmod(stat.S_IMODE(before.st_mode))


def command(config: Path, *args: str) -> tuple[int, str]:
    done = subprocess.run(
        [*restrained(), sys.executable, "-m", "mexc_pipeline", "--config", str(config), *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """BTC with two closed segments and an ended open one, ETH with two closed ones."""
    config = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(config, "btc", periods=2)
    fill(config, "eth", periods=2)
    spool = open_spool(config)
    spool.append(some_frames(20, T0 + 2 * config.period.length_ns))
    spool.close()
    return config


PARTS = {
    "a closed segment": "btc/20260915185200.sqlite",
    "the open segment": "btc/20260915185220.sqlite",
    "its write-ahead log": "btc/20260915185220.sqlite-wal",
    "its log's index": "btc/20260915185220.sqlite-shm",
    "the folder": "btc",
    "the lock": "btc/lock",
    "pending rows": "btc/pending.db",
}


@pytest.mark.parametrize("part", PARTS)
def test_commands_leave_it_say_so_and_go_on_when_it_is_mended(config: Config, part: str) -> None:
    spool, file = config.spool_dir, config.data_dir.parent / "config.toml"
    path = spool / PARTS[part]
    if part in ("its write-ahead log", "its log's index"):
        path.touch()
    if part == "the lock":
        path.touch()
    if part == "pending rows":
        from mexc_pipeline.spool.pending import Pending

        pending = Pending(path.parent, "BTC_USDT")
        pending.append(some_frames(5, T0 + 2 * config.period.length_ns + 10**9))
        pending.close()
    before = sorted(p.name for p in (spool / "btc").iterdir())
    with taken_away(path):
        status, said = command(file, "export")
        lines = [line for line in said.splitlines() if "may not" in line and "chown" in line]
        assert status == 1
        assert lines, said
        assert "unexpected" not in said
        assert {p.name for p in config.export_dir.glob("eth*")} == {
            "eth20260915185200.parquet", "eth20260915185210.parquet",
        }  # fmt: skip
        for other in (["verify", "exports"], ["ledger"], ["prune", "--keep", "1h"]):
            status, said = command(file, *other)
            assert "unexpected" not in said, said
            if other[0] == "verify" and part not in ("the lock", "pending rows"):
                assert status == 1
                assert "may not" in said
            if other[0] == "ledger" and part not in ("the lock", "pending rows"):
                assert status == 1
                assert "what was received is not known" in said
        assert {p.name for p in (spool / "btc").iterdir()} >= {
            name for name in before if not name.endswith(("-wal", "-shm"))
        }
    status, said = command(file, "export")
    assert status == 0, said
    status, said = command(file, "verify", "exports")
    assert status == 0, said
    assert len(list(config.export_dir.glob("btc*"))) == 3


def test_a_spool_that_cannot_be_listed_is_named_and_keeps_no_file_from_being_proven(config: Config) -> None:
    file = config.data_dir.parent / "config.toml"
    assert command(file, "export")[0] == 0
    path = next(config.export_dir.glob("eth*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with taken_away(config.spool_dir):
        _, said = command(file, "verify", "exports", "--json")
        findings = json.loads(said)["exports"]["findings"]
        told = [f["text"] for f in findings if f["subject"] == config.spool_dir.name]
        assert len(told) == 1, said
        assert "may not" in told[0]
        assert {f["subject"] for f in findings if not f["ok"]} == {config.spool_dir.name, path.name}
        assert {f["subject"] for f in findings if f["ok"]} > {"btc20260915185220.parquet"}
        status, said = command(file, "ledger")
        assert status == 1
        assert "what was received is not known" in said
        assert "20260915185220" in said or "18:52:20" in said, said
        status, said = command(file, "prune", "--keep", "1h")
        assert "unexpected" not in said, said
        assert len(list(config.export_dir.glob("*.parquet"))) == 5
    path.write_bytes(whole)
    assert command(file, "verify", "exports")[0] == 0


def test_what_a_mounted_file_system_keeps_for_root_is_no_symbols(config: Config, tmp_path: Path) -> None:
    """A disk of its own under the spool has a ``lost+found``: once every export, check and backup failed for it."""
    for folder in (config.spool_dir, config.export_dir):
        (folder / "lost+found").mkdir(parents=True)
    file = config.data_dir.parent / "config.toml"
    with taken_away(config.spool_dir / "lost+found"), taken_away(config.export_dir / "lost+found"):
        for asked in (["export"], ["verify", "exports"]):
            status, said = command(file, *asked)
            assert (status, "lost+found" in said) == (0, False), said
        assert "lost+found" not in command(file, "ledger")[1]
        backup = tmp_path / "backup"
        backup.mkdir()
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import spool_copy; from pathlib import Path\n"
            "sys.exit(len(spool_copy.save(spool_copy.config.load(Path(sys.argv[2])), Path(sys.argv[3]), 'x')))"
        )
        words = [str(ROOT / "playbooks" / "files"), str(file), str(backup)]
        done = subprocess.run([*restrained(), sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((backup / "x" / "spool").iterdir())) == 2


def test_one_exported_file_is_named_and_keeps_no_other(config: Config) -> None:
    file = config.data_dir.parent / "config.toml"
    assert command(file, "export")[0] == 0
    path = config.export_dir / "btc20260915185200.parquet"
    with taken_away(path):
        status, said = command(file, "verify", "exports")
        lines = [line for line in said.splitlines() if "FAIL" in line]
        assert status == 1
        assert lines
        assert all(path.name in line or "btc" in line for line in lines)
        assert f"{path} belongs to" in said
        for other in (["export"], ["export", "--missing"], ["ledger"], ["prune", "--keep", "1h"]):
            _, said = command(file, *other)
            assert "unexpected" not in said, said
        assert path.exists()
    status, said = command(file, "verify", "exports")
    assert status == 0, said


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(symbols=("BTC_USDT", "ETH_USDT"), rate=100.0, seed=5)) as made:
        yield made


@contextmanager
def recording(site: Site) -> Iterator[Collector]:
    collector = Collector(site, "btc", prefix=restrained(), first=IMPATIENT)
    try:
        yield collector
    finally:
        if collector.process.poll() is None:
            collector.kill()


@pytest.mark.parametrize("which", ["segment", "log"])
@pytest.mark.parametrize("exported", [False, True])
def test_a_collector_keeps_rows_pending_until_the_newest_segment_can_be_read(
    tmp_path: Path, sim: Simulator, which: str, exported: bool
) -> None:
    site = site_of(tmp_path, sim)
    with recording(site) as collector:
        collector.live(20)
        collector.kill()
    path = next(site.spool().glob("*.sqlite"))
    last = site.rows()[-1].seq
    if exported:
        assert command(site.config, "export", "--once")[0] == 0
        last += 1
    if which == "log":
        path = path.with_name(path.name + "-wal")
        path.touch()
    names = {p.name for p in site.spool().iterdir() if ".sqlite" in p.name}
    with taken_away(path), recording(site) as collector:
        said = collector.wait(lambda s: s["pending"] > 50 and any("may not" in w for w in s["warnings"]))
        assert any(str(path) in w and "chown" in w for w in said["warnings"])
        assert {p.name for p in site.spool().iterdir() if ".sqlite" in p.name} >= names
        assert collector.stop() == 0  # what is pending stays so
    with taken_away(path):
        collector = Collector(site, "btc", prefix=restrained(), first=IMPATIENT)
        collector.wait(lambda s: s["pending"] > 20)
    try:
        collector.live(20)  # by itself
        assert collector.stop() == 0
    finally:
        if collector.process.poll() is None:
            collector.kill()
    rows = check(site.spool())
    assert [e["seq"] for e in named(rows, "started")][1] == last + 1
    assert not [p for p in site.spool().iterdir() if "damaged" in p.name]


def test_a_reserve_of_another_user_keeps_nobody_from_recording(tmp_path: Path, sim: Simulator) -> None:
    site = site_of(tmp_path, sim)
    with recording(site) as collector:
        collector.live(20)
        assert collector.stop() == 0
    path = site.spool() / "reserve"
    path.write_bytes(bytes(1 << 20))
    with taken_away(path), recording(site) as collector:
        collector.live(20)
        assert collector.stop() == 0
    check(site.spool())


@pytest.mark.parametrize("part", ["folder", "lock", "pending.db"])
def test_a_collector_that_can_keep_nothing_says_why_in_one_line(tmp_path: Path, sim: Simulator, part: str) -> None:
    site = site_of(tmp_path, sim)
    folder = site.spool()
    folder.mkdir(parents=True)
    path = folder if part == "folder" else folder / part
    if part != "folder":
        path.touch()
    with taken_away(path):
        status, said = command(site.config, "collect", "btc")
        assert status == 1
        assert f"{path} belongs to" in said.splitlines()[-1]
        assert path.exists()
    with recording(site) as collector:
        collector.live(20)
        assert collector.stop() == 0


@pytest.mark.parametrize("part", ["control", "control/attempts", "control/btc.sock"])
@pytest.mark.parametrize("way", ["taken away", "a file", "a folder"])
def test_recording_does_not_depend_on_the_control_folder(tmp_path: Path, sim: Simulator, part: str, way: str) -> None:
    site = site_of(tmp_path, sim)
    path = site.data / part
    path.parent.mkdir(parents=True)
    path.touch() if way == "a file" else path.mkdir()
    if way == "a folder":
        (path / "something").mkdir()
    with recording(site) as collector:
        if way == "taken away":
            with taken_away(path):
                until(lambda: site.spool().exists() and len(site.rows()) > 30, 90, "rows")
        else:
            until(lambda: site.spool().exists() and len(site.rows()) > 30, 90, "rows")
        if (part, way) == ("control", "a file"):
            path.unlink()
        collector.live(10)
        assert collector.stop() == 0
    check(site.spool())
    assert json.loads(site.config.parent.joinpath("btc.log").read_text().splitlines()[0])


@contextmanager
def storing(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*restrained(), sys.executable, "-m", "mexc_pipeline", "--config", str(config), "store"])
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(20) == 0


def of_store(config: Config, symbol_id: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = ask(config.control_dir / "store.sock", "status")["symbols"][symbol_id]
    except ControlError:
        return {}
    return found


@pytest.mark.parametrize("part", ["a closed segment", "the open segment", "the folder"])
def test_the_store_loads_the_other_symbol_and_goes_on_when_it_is_mended(config: Config, part: str) -> None:
    pytest.importorskip("chdb")
    path, file = config.spool_dir / PARTS[part], config.data_dir.parent / "config.toml"
    with taken_away(path), storing(file):
        until(lambda: of_store(config, "eth").get("loaded_seq") == 42, 60, "eth loaded")
        until(lambda: of_store(config, "btc").get("unreadable_segment"), 30, "btc said")
    with storing(file):
        until(lambda: of_store(config, "btc").get("loaded_seq") == 62, 60, "btc loaded")
    with taken_away(path), storing(file):  # what the table holds may be of the one it cannot see
        until(lambda: of_store(config, "btc").get("unreadable_segment"), 60, "btc said")
        os.chown(path, 0, 0) if not os.geteuid() else path.chmod(0o700)
        until(lambda: of_store(config, "btc").get("loaded_seq") == 62, 60, "btc loaded again")
        until(lambda: of_store(config, "btc").get("trouble", "?") is None, 60, "nothing in the way")
        found = of_store(config, "btc")
        assert found["orphans"] == []
        assert found["unreadable_segment"] is None


def test_the_engines_folder_is_named_in_one_line_and_used_again(config: Config) -> None:
    pytest.importorskip("chdb")
    file = config.data_dir.parent / "config.toml"
    with storing(file):
        until(lambda: of_store(config, "eth").get("loaded_seq") == 42, 60, "eth loaded")
    folder = config.data_dir / "clickhouse"
    with taken_away(folder):
        status, said = command(file, "store")
    assert status == 1
    assert f"embedded ClickHouse: {folder} belongs to" in said.splitlines()[-1]
    assert "may not read it: give it back (chown" in said.splitlines()[-1]
    assert not list(config.data_dir.glob("clickhouse.broken-*"))
    with storing(file):
        until(lambda: of_store(config, "btc").get("loaded_seq") == 62, 60, "btc loaded")


@pytest.mark.parametrize(
    ("folder", "asked"),
    [
        ("data", ["verify", "exports"]),
        ("data", ["ledger"]),
        ("data", ["query", "SELECT 1"]),
        ("exports", ["status"]),
        ("exports", ["verify", "exports"]),
        ("exports", ["ledger"]),
        ("exports", ["acknowledge", "btc", "1", "2", "--reason", "a test"]),
    ],
)
def test_whoever_asks_is_told_whose_the_folder_is(tmp_path: Path, folder: str, asked: list[str]) -> None:
    """Once each of them ended with `unexpected PermissionError`."""
    config = configure(tmp_path, "BTC_USDT")
    fill(config)
    (config.data_dir / "control").mkdir()
    config.export_dir.mkdir()
    settings = tmp_path / "settings.toml"
    settings.write_text(f'symbols = ["BTC_USDT"]\ndata_dir = "{config.data_dir}"\nexport_dir = "{config.export_dir}"\n')
    with taken_away(config.data_dir if folder == "data" else config.export_dir):
        status, said = command(settings, *asked)
    assert status == 1
    assert "unexpected" not in said
    assert re.search(r"belongs to .+ \(mode 0.00\) and .+ may not", " ".join(said.split()))


@pytest.mark.parametrize("started", [["collect", "btc"], ["store"]])
def test_where_nothing_may_be_made_a_missing_configuration_is_said(tmp_path: Path, started: list[str]) -> None:
    """As in `/`: once the bare words of the system."""
    folder = tmp_path / "anothers"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "MEXC_PIPELINE_CONFIG"}
    with taken_away(folder):
        folder.chmod(0o555)
        done = subprocess.run(
            [*restrained(), sys.executable, "-m", "mexc_pipeline", *started],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"mexc-pipeline: {folder}/data: Permission denied: give this user the right to use it, or choose another "
        "place; no configuration was given (--config), so its folders are those of where it is run"
    )


@pytest.mark.parametrize("asked", [["status"], ["ledger"], ["verify"], ["query", "SELECT 1"], ["export"], ["run"]])
def test_a_file_in_the_place_of_data_dir_is_one_line(tmp_path: Path, asked: list[str]) -> None:
    """Once `status` had four faults, and told to start what could not be started."""
    data = tmp_path / "data"
    data.touch()
    settings = tmp_path / "settings.toml"
    settings.write_text(f'data_dir = "{data}"\nexport_dir = "{tmp_path}/exports"\n')
    status, said = command(settings, *asked)
    assert status == 1
    assert said == f"mexc-pipeline: data_dir: {data} is not a folder: move it away, or set another\n"
