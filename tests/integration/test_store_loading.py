"""The loader and the auditor, step by step, on both engines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.store_support import (
    Backend,
    EmbeddedBackend,
    Recording,
    ServerBackend,
    mark,
    table_names,
    table_rows,
)
from mexc_pipeline.store.auditor import Auditor
from mexc_pipeline.store.engine import Engine, EngineFactory
from mexc_pipeline.store.loader import Loader


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.server)])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    found: Backend = (
        EmbeddedBackend(tmp_path / "clickhouse") if request.param == "embedded" else ServerBackend(tmp_path / "server")
    )
    yield found
    found.close()


@pytest.fixture
def engine(backend: Backend) -> Iterator[Engine]:
    found = backend.engine()
    found.connect()
    yield found
    found.close()


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    found = Recording(tmp_path / "spool")
    yield found
    found.close()


def new_loader(factory: EngineFactory, recording: Recording) -> Loader:
    return Loader(recording.id, recording.folder, factory(), threading.Lock())


def new_auditor(factory: EngineFactory, recording: Recording, loader: Loader) -> Auditor:
    return Auditor(recording.id, recording.folder, factory(), loader.progress, threading.Event())


def drain(loader: Loader, recording: Recording) -> None:
    """Step until everything committed is loaded and every ended segment is swapped out."""
    for _ in range(200):
        before = loader.progress.loaded_seq
        pause = loader.step()
        if pause and before == loader.progress.loaded_seq >= recording.spool.last_seq:
            return
    raise AssertionError(f"stuck at {loader.progress}")


def test_rows_arrive_exactly_as_recorded(backend: Backend, engine: Engine, recording: Recording) -> None:
    loader = new_loader(backend.engine, recording)
    recording.add(2500)
    drain(loader, recording)
    recording.add(1, size=2_000_000)
    recording.add(10)
    drain(loader, recording)
    assert table_rows(engine, "btc_current") == recording.rows()
    loader.detach()


def test_a_sealed_table_is_compared_logged_and_dropped(backend: Backend, engine: Engine, recording: Recording) -> None:
    loader = new_loader(backend.engine, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    recording.add(300)
    drain(loader, recording)
    first = recording.end_period()
    drain(loader, recording)
    name = f"btc_{first.name.period}"
    assert table_rows(engine, name) == recording.rows(first)
    assert table_rows(engine, "btc_current") == []
    auditor.step()
    assert auditor.compared[first.path.name].ok
    assert auditor.compared[first.path.name].rows == 301
    assert name in table_names(engine)
    mark(first)
    auditor.step()
    assert name not in table_names(engine)
    auditor.detach()
    auditor.step()  # a second look, from the start, changes nothing
    logged = engine.select("SELECT file, rows, received, stored, part, final, digest, verdict, rows_ev FROM export_log")
    assert logged == [(first.file, 301, 301, 301, 0, 1, first.digest, "verified", 1)]
    recording.add(5)
    drain(loader, recording)
    assert [row.seq for row in table_rows(engine, "btc_current")] == list(range(302, 307))
    loader.detach()
    auditor.detach()
