"""What ``status`` says after an orderly end, and on a narrow terminal."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mexc_pipeline import overview
from mexc_pipeline.cli import reports
from mexc_pipeline.cli.app import invoke
from mexc_pipeline.config import Config
from mexc_pipeline.events import Stopped
from mexc_pipeline.rows import Frame, Mt
from support.spools import configure, fill, open_spool, some_frames


def stop(config: Config, *ids: str) -> None:
    now = time.time_ns()
    for symbol_id in ids:
        spool = open_spool(config, symbol_id)
        frames = [*some_frames(8, now - 10**9), Frame(now, None, Mt.EVENT, Stopped().m)]
        while frames:  # a period may end among them
            frames = frames[len(spool.append(frames)) :]
        spool.close()


def faults(config: Config, capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    assert config.path is not None
    assert invoke(["--config", str(config.path), "status", *more]) == 1
    out = re.sub(r"\n    ", " ", capsys.readouterr().out)
    return [line for line in out.splitlines() if line.startswith("FAULT")]


@pytest.fixture
def two(tmp_path: Path) -> Config:
    return configure(tmp_path, "BTC_USDT", "ETH_USDT")


def test_after_an_orderly_end_one_line_says_so(two: Config, capsys: pytest.CaptureFixture[str]) -> None:
    stop(two, "btc", "eth")
    (line,) = faults(two, capsys)
    assert re.fullmatch(
        r"FAULT nothing runs here: stopped in order at \d\d:\d\d:\d\d UTC; start it again where it is to record "
        r"\(mexc-pipeline run, or its service\)",
        line,
    )
    assert invoke(["--config", str(two.path), "status", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["ok"]
    (reason,) = said["symbols"][0]["health"]["reasons"]
    assert (reason["kind"], reason["text"]) == ("down", "stopped in order")


def test_what_was_not_stopped_in_order_is_a_fault_of_its_own(two: Config, capsys: pytest.CaptureFixture[str]) -> None:
    stop(two, "btc")
    fill(two, "eth", start_ns=time.time_ns() - 10**10)
    lines = faults(two, capsys)
    assert [line.split(": ")[0] for line in lines] == ["FAULT btc", "FAULT eth", "FAULT store"]
    assert "stopped in order at" in lines[0]
    assert "why did it end?" in lines[1]


def test_what_several_have_in_common_is_advised_once(two: Config, capsys: pytest.CaptureFixture[str]) -> None:
    fill(two, "btc", start_ns=time.time_ns() - 10**10)
    fill(two, "eth", start_ns=time.time_ns() - 10**10)
    lines = faults(two, capsys)
    assert [line.split(": ")[0] for line in lines] == ["FAULT btc", "FAULT eth", "FAULT store"]
    assert sum(line.count("why did it end?") for line in lines) == 1


def test_a_file_of_a_time_to_come_has_no_negative_age(two: Config, capsys: pytest.CaptureFixture[str]) -> None:
    found = overview.gather(two)
    found["symbols"][0]["last_export"] = {"file": "btc2026112120.parquet", "bytes": 1, "age_s": -44.0}
    reports._print_status(found)
    out = capsys.readouterr().out
    assert "44 s in the future" in out
    assert "-44" not in out


@pytest.mark.parametrize(("width", "gone"), [(40, ["reconnects", "peer"]), (200, [])])
def test_a_narrow_terminal_is_told_which_columns_it_lacks(
    two: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, gone: Sequence[str]
) -> None:
    found = overview.gather(two)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    reports._print_status(found)
    out = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).split())
    if gone:
        assert f"left out of a terminal this narrow: {', '.join(gone)}; a wider one and --json have them" in out
    else:
        assert "left out" not in out
