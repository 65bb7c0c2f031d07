"""What many tests of processes begin with: an engine of each kind, a configuration of one symbol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mexc_pipeline.config import Config
from support.spools import configure
from support.storing import Backend, EmbeddedBackend, ServerBackend


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.server)])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """ClickHouse of one kind, then of the other."""
    found: Backend = (
        EmbeddedBackend(tmp_path / "clickhouse") if request.param == "embedded" else ServerBackend(tmp_path / "server")
    )
    yield found
    found.close()


@pytest.fixture
def server_backend(tmp_path: Path) -> Iterator[ServerBackend]:
    """A ClickHouse server of the test's own."""
    found = ServerBackend(tmp_path / "server")
    yield found
    found.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """One symbol whose folders are the test's own and empty."""
    return configure(tmp_path)
