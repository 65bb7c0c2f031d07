"""An id is one symbol's: another one is refused under it, and files of both are never mixed by a reader."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline import doctor, read
from mexc_pipeline.config import Config, parse
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export import main as export
from mexc_pipeline.handover import Handover, give, take
from mexc_pipeline.spool.label import check_label, said_by
from mexc_pipeline.spool.pending import Pending
from mexc_pipeline.spool.walk import in_order
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.verify.exports import exports as verify_exports
from support.spools import SECOND, T0, configure, fill, open_spool, some_frames


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


def refused(config: Config) -> None:
    """Assert that its collector ends at once, in one line."""
    done = subprocess.run(
        [sys.executable, "-m", "mexc_pipeline", "--config", str(config.path), "collect", "btc"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert 'set [symbol.ETH_USDT] id = "eth"' in done.stderr


def waiting(config: Config) -> None:
    """Rows of BTC that have no seq yet."""
    folder = config.spool_dir / "btc"
    folder.mkdir(parents=True, exist_ok=True)
    pending = Pending(folder, "BTC_USDT")
    pending.append(some_frames(5, T0 + 12 * SECOND))
    pending.close()


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


@pytest.mark.parametrize("state", ["pending", "pending beside files", "open", "closed", "exported"])
def test_another_symbol_is_refused_under_an_id_whatever_the_segment(config: Config, state: str) -> None:
    if state.startswith("pending"):
        if state == "pending beside files":
            fill(config)
            assert export(config).ok
            for path in (config.spool_dir / "btc").iterdir():
                path.unlink()
        waiting(config)
    elif state == "open":
        spool = open_spool(config)
        spool.append(some_frames(5, T0))
        spool.close()
    else:
        fill(config)
        if state == "exported":
            assert export(config).ok
    folder = config.spool_dir / "btc"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = given_away(config)
    with pytest.raises(ConfigError, match="holds what was recorded of BTC_USDT, so ETH_USDT needs an id of its own"):
        check_label(other, other.symbols[0])
    check_label(config, config.symbols[0])
    refused(other)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_pending_rows_never_join_a_segment_of_another_symbol(config: Config) -> None:
    """Left by versions that asked nobody: each is in a file with its own label."""
    (config.spool_dir / "btc").mkdir(parents=True)
    spool = Spool(config.spool_dir / "btc", "btc", "ETH_USDT", config.period, next_rx=T0 + 10 * SECOND)
    spool.append(some_frames(20, T0 + 10 * SECOND))
    spool.close()
    waiting(config)
    other = given_away(config)
    for one in (config, other):
        with pytest.raises(ConfigError, match="needs an id of its own"):
            check_label(one, one.symbols[0])
    assert export(config, once=True).ok
    assert list(read.frames("ETH_USDT", export_dir=config.export_dir).seq) == list(range(1, 22))
    assert list(read.frames("BTC_USDT", export_dir=config.export_dir).seq) == list(range(22, 28))


@pytest.mark.parametrize("way", ["give", "take"])
def test_nothing_is_handed_over_under_an_id_of_another_symbol(config: Config, way: str) -> None:
    fill(config)
    other = given_away(config)
    given = Handover("ETH_USDT", 1000, "", (), True, "elsewhere")
    hand_over: Callable[[], object] = (
        partial(give, other, "btc") if way == "give" else partial(take, other, "btc", given)
    )
    with pytest.raises(ConfigError, match="needs an id of its own"):
        hand_over()
    assert [s.symbol for s in in_order(config.spool_dir / "btc").readable] == ["BTC_USDT"]


def test_files_alone_tell_it(config: Config) -> None:
    """The spool may be pruned, or another disk: the newest file's footer is looked at, by doctor and collector."""
    fill(config)
    assert export(config).ok
    for path in (config.spool_dir / "btc").iterdir():
        path.unlink()
    assert doctor.ids(config).ok
    other = given_away(config)
    found = doctor.ids(other)
    assert (found.ok, found.hard) == (False, True)
    assert "BTC_USDT" in found.text
    refused(other)
    assert [path.name for path in (config.spool_dir / "btc").iterdir()] == ["lock"]


def test_a_file_under_a_wrong_name_says_nothing_of_that_id(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once it kept the symbol of that id from being recorded, with advice to give it another id."""
    both = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(both, "btc", periods=8)
    fill(both, "eth")
    assert export(both).ok
    shutil.rmtree(both.spool_dir / "eth")
    for path in sorted(both.export_dir.glob("btc*.parquet")):
        stray = both.export_dir / path.name.replace("btc", "eth").replace(".parquet", ".part7.parquet")
        stray.write_bytes(path.read_bytes())
    check_label(both, both.symbol("eth"))
    (warning,) = caplog.records
    fields = warning.__dict__["fields"]
    assert (fields["id"], fields["files"], Path(fields["file"]).name) == ("btc", 8, stray.name)
    assert doctor.ids(both).ok
    shutil.rmtree(both.spool_dir / "btc")
    other = given_away(config)
    with pytest.raises(ConfigError, match=r"found in .*/exports/btc\d{14}\.parquet\)"):
        check_label(other, other.symbols[0])


def test_a_new_symbol_and_what_is_no_file_of_ours_are_no_trouble(config: Config) -> None:
    other = given_away(config)
    check_label(other, other.symbols[0])
    config.export_dir.mkdir()
    os.mkfifo(config.export_dir / "btc2026091518.parquet")
    check_label(other, other.symbols[0])
    (config.export_dir / "btc2026091519.parquet").write_bytes(b"PAR1")
    (config.export_dir / "btc2026091520.parquet").mkdir()
    check_label(other, other.symbols[0])


@given(st.binary(max_size=200))
def test_a_footer_of_any_bytes_is_looked_at(tail: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        for content in (tail, b"\x0bmexc.symbol\x18\x08" + tail + len(tail).to_bytes(4, "little") + b"PAR1"):
            file.seek(0)
            file.truncate()
            file.write(content)
            file.flush()
            assert isinstance(said_by(Path(file.name), "symbol"), str)


@given(st.text("ABCXYZ09龙虾", min_size=1, max_size=30))
def test_the_label_is_what_a_parquet_reader_finds(symbol: str) -> None:
    schema = pa.schema([("seq", pa.uint64())]).with_metadata(
        {"mexc.id": "btc", "mexc.symbol": symbol, "mexc.x": "y" * 9}
    )
    with tempfile.NamedTemporaryFile() as file:
        pq.write_table(pa.table({"seq": [1]}, schema=schema), file.name)
        assert said_by(Path(file.name), "symbol") == symbol
        assert said_by(Path(file.name), "id") == "btc"


def test_files_are_read_by_their_own_label(config: Config) -> None:
    folder = mixed(config).export_dir
    assert list(read.frames("BTC_USDT", export_dir=folder).seq) == list(range(1, 22))
    assert list(read.frames("ETH_USDT", export_dir=folder).seq) == list(range(22, 43))
    with pytest.raises(UserError, match="are of BTC_USDT and ETH_USDT: name the one that is meant"):
        read.frames("btc", export_dir=folder)
    with pytest.raises(UserError, match="no files of 'SOL_USDT'"):
        read.frames("SOL_USDT", export_dir=folder)


def test_a_symbol_of_two_ids_is_not_read_by_half(config: Config) -> None:
    """Its id was changed, and each has a numbering of its own: by the exchange's name one of them was given, without a
    word of the other."""
    other = parse(
        f'symbols = ["BTC_USDT"]\nperiod = "10s"\ndata_dir = "{config.data_dir}"\nexport_dir = "{config.export_dir}"\n'
        '[symbol.BTC_USDT]\nid = "bitcoin"\n',
        None,
    )
    fill(config, "btc", periods=2)
    fill(other, "bitcoin", periods=1, start_ns=T0 + 3 * config.period.length_ns)
    assert export(other).ok
    folder = config.export_dir
    with pytest.raises(UserError, match=r"recorded under bitcoin and btc, .*: name the one that is meant"):
        read.frames("BTC_USDT", export_dir=folder)
    changed = T0 + 3 * config.period.length_ns
    assert len(read.frames("BTC_USDT", end=changed, export_dir=folder)) == len(read.frames("btc", export_dir=folder))
    assert len(read.frames("BTC_USDT", "2026-09-17", export_dir=folder)) == 0


def test_verify_names_an_id_of_two_symbols(config: Config) -> None:
    report = verify_exports(mixed(config))
    assert [f.text for f in report.findings if not f.ok] == [
        "what this id holds is of BTC_USDT and ETH_USDT: move the files of all but one to a folder of their own"
    ]
