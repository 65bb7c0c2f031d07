"""The same seq given by two spools is a failure of ``verify``, also where only tables and records still show it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mexc_pipeline.config import Config, parse
from mexc_pipeline.control import ControlServer
from mexc_pipeline.spool.segment import info
from mexc_pipeline.spool.walk import segments
from mexc_pipeline.store import questions
from mexc_pipeline.store.auditor import Auditor
from mexc_pipeline.store.loader import Loader
from mexc_pipeline.verify import Finding, clickhouse
from support.storing import Backend, Recording, mark
from support.waiting import until


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse(f'symbols = ["BTC_USDT"]\ndata_dir = "{tmp_path / "data"}"\n', None)


def store_up(backend: Backend, recording: Recording) -> None:
    """What the store does with a symbol until it has nothing left to do."""
    loader = Loader(recording.id, recording.folder, backend.engine(), threading.Lock())
    auditor = Auditor(recording.id, recording.folder, backend.engine(), loader.progress, threading.Event())

    def settled() -> bool:
        loader.step()
        auditor.step()
        found = [info(path) for _, path in segments(recording.folder)]
        closed = {segment.path.name for segment in found if segment.state != "open"}
        return loader.progress.loaded_seq >= recording.spool.last_seq and closed <= set(auditor.compared)

    until(settled, 30, "the store to be done")
    auditor.step()
    loader.detach()
    auditor.detach()


def verified(backend: Backend, config: Config) -> list[Finding]:
    """The failures of ``verify clickhouse`` with this engine behind the store."""
    config.control_dir.mkdir(parents=True, exist_ok=True)
    ids = [symbol.id for symbol in config.symbols]
    server = ControlServer(
        config.control_dir / "store.sock",
        {"verify": lambda _: questions.verify(backend.engine, config.spool_dir, ids)},
    )
    try:
        return [finding for finding in clickhouse(config).findings if not finding.ok]
    finally:
        server.close()


def test_an_empty_disk_while_the_store_was_away(backend: Backend, config: Config, tmp_path: Path) -> None:
    """The store comes late, with rows of the disk that is not mounted; the collector has begun at seq 1."""
    mounted = Recording(tmp_path / "disk")
    mounted.add(50)
    store_up(backend, mounted)
    mounted.close()
    instead = Recording(config.spool_dir)
    instead.add(20)
    store_up(backend, instead)
    (finding,) = verified(backend, config)
    known = questions.given(backend.engine, "btc")["held"]
    instead.close()
    assert {(g.source, g.first_seq, g.last_seq) for g in known} == {
        (mounted.spool.spool_id, 1, 50),
        (instead.spool.spool_id, 1, 20),
    }
    assert (finding.symbol, finding.subject) == ("btc", "seq")
    assert finding.text.startswith("seq 1 to 20 (20 rows) was given twice: by spool ")
    assert mounted.spool.spool_id in finding.text
    assert instead.spool.spool_id in finding.text
    assert "(table btc_orphan_" in finding.text


def test_when_only_the_log_of_files_knows_the_other_spool(backend: Backend, config: Config, tmp_path: Path) -> None:
    lost = Recording(tmp_path / "disk")
    lost.add(50)
    mark(lost.end_period())
    store_up(backend, lost)
    lost.close()
    instead = Recording(config.spool_dir)
    instead.add(20)
    store_up(backend, instead)
    (finding,) = verified(backend, config)
    assert "seq 1 to 20 (20 rows) was given twice" in finding.text
    assert "(export_log's btc" in finding.text
    instead.close()


def test_a_spool_that_goes_on_after_another_one_repeats_nothing(
    backend: Backend, config: Config, tmp_path: Path
) -> None:
    """Also while the first one's rows are in a table set apart, and with sealed, exported and open segments."""
    mounted = Recording(tmp_path / "disk")
    mounted.add(50)
    mark(mounted.end_period())
    mounted.add(10)
    store_up(backend, mounted)
    mounted.close()
    instead = Recording(config.spool_dir, known_seq=mounted.spool.last_seq)
    instead.now = mounted.now
    instead.add(20)
    mark(instead.cut())
    instead.add(20)
    instead.end_period()
    instead.add(20)
    store_up(backend, instead)
    assert verified(backend, config) == []
    instead.close()
