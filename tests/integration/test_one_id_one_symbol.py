"""An id is one symbol's: another one is refused under it, and files of both are never mixed by a reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mexc_pipeline import doctor, read
from mexc_pipeline.config import Config, parse
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export import main as export
from mexc_pipeline.spool.label import check_label
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.verify.exports import exports as verify_exports
from support.spools import SECOND, T0, configure, fill, open_spool, some_frames


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configure(tmp_path)


def given_away(config: Config) -> Config:
    """The same folders; the id is given to another symbol."""
    text = (
        f'symbols = ["ETH_USDT"]\nperiod = "10s"\ndata_dir = "{config.data_dir}"\nexport_dir = "{config.export_dir}"\n'
        '[exchange]\nwebsocket = "ws://127.0.0.1:9/edge"\nrest = "http://127.0.0.1:9"\n'
        '[symbol.ETH_USDT]\nid = "btc"\n'
    )
    path = config.data_dir.parent / "given-away.toml"
    path.write_text(text)
    return parse(text, path)


def mixed(config: Config) -> Config:
    """What an earlier version left: two symbols' files under one id."""
    fill(config)
    assert export(config).ok
    spool = Spool(config.spool_dir / "btc", "btc", "ETH_USDT", config.period)
    spool.append(some_frames(20, T0 + 10 * SECOND))
    spool.tick(T0 + 20 * SECOND)
    spool.close()
    assert export(config).ok
    return config


@pytest.mark.parametrize("state", ["open", "closed", "exported"])
def test_another_symbol_is_refused_under_an_id_whatever_the_segment(config: Config, state: str) -> None:
    if state == "open":
        spool = open_spool(config)
        spool.append(some_frames(5, T0))
        spool.close()
    else:
        fill(config)
        if state == "exported":
            assert export(config).ok
    folder = config.spool_dir / "btc"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="holds what was recorded of BTC_USDT, so ETH_USDT needs an id of its own"):
        check_label(folder, "btc", "ETH_USDT")
    check_label(folder, "btc", "BTC_USDT")
    check_label(config.spool_dir / "eth", "eth", "ETH_USDT")
    done = subprocess.run(
        [sys.executable, "-m", "mexc_pipeline", "--config", str(given_away(config).path), "collect", "btc"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert 'set [symbol.ETH_USDT] id = "…"' in done.stderr
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_the_doctor_and_so_a_run_finds_it_in_files_alone(config: Config) -> None:
    fill(config)
    assert export(config).ok
    for path in (config.spool_dir / "btc").iterdir():
        path.unlink()
    assert doctor.ids(config).ok
    found = doctor.ids(given_away(config))
    assert (found.ok, found.hard) == (False, True)
    assert "BTC_USDT" in found.text


def test_files_are_read_by_their_own_label(config: Config) -> None:
    folder = mixed(config).export_dir
    assert list(read.frames("BTC_USDT", export_dir=folder).seq) == list(range(1, 22))
    assert list(read.frames("ETH_USDT", export_dir=folder).seq) == list(range(22, 43))
    with pytest.raises(UserError, match="are of BTC_USDT and ETH_USDT: name the one that is meant"):
        read.frames("btc", export_dir=folder)
    with pytest.raises(UserError, match="no files of 'SOL_USDT'"):
        read.frames("SOL_USDT", export_dir=folder)


def test_verify_names_an_id_of_two_symbols(config: Config) -> None:
    report = verify_exports(mixed(config))
    assert [f.text for f in report.findings if not f.ok] == [
        "what this id holds is of BTC_USDT and ETH_USDT: move the files of all but one to a folder of their own"
    ]
