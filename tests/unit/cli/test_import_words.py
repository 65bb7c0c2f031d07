"""What ``import`` could not take over is said where errors are."""

from __future__ import annotations

from pathlib import Path

import pytest

from mexc_pipeline.cli.app import invoke
from support.spools import configure


def test_a_file_that_is_not_there_is_said_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(tmp_path)
    missing = tmp_path / "btc_20250801_1400.parquet"
    assert invoke(["--config", str(config.path), "import", str(missing)]) == 1
    assert capsys.readouterr() == ("", f"mexc-pipeline: {missing}: No such file or directory\n")


def test_a_symbol_that_is_not_configured_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(tmp_path)
    assert invoke(["--config", str(config.path), "import", str(tmp_path / "x.parquet"), "--symbol", "nope"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "nope" in err
    assert "btc" in err


def test_nothing_is_imported_among_what_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(tmp_path)
    folder = config.spool_dir / "btc"
    assert invoke(["--config", str(config.path), "import", str(tmp_path / "x.parquet"), "--to", str(folder)]) == 2
    said = f"mexc-pipeline: --to: {folder} lies in spool, which the recorder keeps for itself\n"
    assert capsys.readouterr() == ("", said)
