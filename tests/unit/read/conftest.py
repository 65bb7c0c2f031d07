"""What the tests of ``read`` begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mexc_pipeline.config import Config
from support.spools import configure


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """One symbol whose folders are the test's own and empty."""
    return configure(tmp_path)
