"""What the store cannot be asked is not known; it is not nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.config import Config, parse
from mexc_pipeline.control import ControlError, ControlServer
from mexc_pipeline.errors import UserError
from mexc_pipeline.run.children import Lifeline
from mexc_pipeline.run.supervisor import Stop, Supervisor
from mexc_pipeline.store import client
from mexc_pipeline.verify import ledger
from support.spools import configure, open_spool, some_frames

T0 = 1_790_000_000_000_000_000


def refuse(_: dict[str, Any]) -> dict[str, Any]:
    raise UserError("ClickHouse cannot say")


def config_of(tmp_path: Path) -> Config:
    return parse(f'data_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"', None)


QUESTIONS: dict[str, Callable[[Config], object]] = {
    "status": client.store_status,
    "compared": lambda config: dict(client.compared(config, "btc", ["a"])),
    "logged": lambda config: client.logged(config, "btc"),
}
ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "refused": refuse,
    "empty": lambda _: {},
    "null": lambda request: {"symbols": None, "compared": None, "files": None, "cmd": request["cmd"]},
    "other types": lambda _: {"symbols": 1, "compared": {"a": 1}, "files": [[1, 2, "x", None]]},
    "no number": lambda _: {"symbols": [], "compared": ["a"], "files": [["f", "d", float("inf"), {}]]},
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_without_a_store_nothing_is_known(tmp_path: Path, question: str) -> None:
    with pytest.raises(ControlError, match="store is not running"):
        QUESTIONS[question](config_of(tmp_path))


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_that_tells_nothing_is_not_taken_for_one(tmp_path: Path, question: str, answer: str) -> None:
    config = config_of(tmp_path)
    with ExitStack() as stack:
        server = ControlServer(config.control_dir / "store.sock", {question: ANSWERS[answer]})
        stack.callback(server.close)
        with pytest.raises(ControlError, match=r"cannot say|not understood"):
            QUESTIONS[question](config)


def test_what_was_told_before_it_failed_is_known(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    names = [f"{n}.sqlite" for n in range(client.ASKED + 1)]

    def some(request: dict[str, Any]) -> dict[str, Any]:
        if len(request["segments"]) < client.ASKED:
            raise UserError("gone")
        return {"compared": {name: {"rows": 1, "ok": True} for name in request["segments"]}}

    server = ControlServer(config.control_dir / "store.sock", {"compared": some})
    found: dict[str, Any] = {}
    try:
        with pytest.raises(ControlError, match="gone"):
            found.update(client.compared(config, "btc", names))
    finally:
        server.close()
    assert list(found) == names[: client.ASKED]


def recorded(tmp_path: Path) -> Config:
    config = configure(tmp_path)
    spool = open_spool(config)
    spool.append(some_frames(3, T0))
    spool.cut(T0 + 1_000_000_000)
    spool.close()
    return config


def test_the_ledger_says_what_it_does_not_know(tmp_path: Path) -> None:
    config = recorded(tmp_path)
    unknown: list[str] = []
    (entry,) = ledger(config, unknown=unknown)
    assert entry.stored is None
    assert [line.partition(": ")[0] for line in unknown] == ["what was stored is not known"]

    status: dict[str, Any] = {"symbols": {"btc": {}}}
    server = ControlServer(
        config.control_dir / "store.sock", {"status": lambda _: status, "compared": refuse, "logged": refuse}
    )
    try:
        unknown.clear()
        ledger(config, unknown=unknown)
    finally:
        server.close()
    assert [line.split(": ")[:2] for line in unknown] == [
        ["btc", "what was stored is not known of all periods"],
        ["btc", "what was stored is not known of periods without a table"],
    ]
    assert all("ClickHouse cannot say" in line for line in unknown)

    server = ControlServer(
        config.control_dir / "store.sock",
        {"status": lambda _: status, "compared": lambda _: {"compared": {}}, "logged": lambda _: {"files": []}},
    )
    try:
        unknown.clear()
        ledger(config, unknown=unknown)
    finally:
        server.close()
    assert not unknown, "here it is known that there is nothing"


def test_the_ledgers_totals_do_not_take_unknown_for_zero(tmp_path: Path) -> None:
    recorded(tmp_path)
    file = tmp_path / "config.toml"
    file.write_text(
        f'symbols = ["BTC_USDT"]\ndata_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"\nperiod = "10s"'
    )
    (tmp_path / "exports").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mexc_pipeline", "--config", str(file), "ledger"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "rows received, – stored, – exported" in text.stdout, text.stderr
    (said,) = text.stderr.splitlines()
    assert said.startswith("what was stored is not known: store is not running")
    found = json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True, timeout=60).stdout)
    assert found["totals"]["all"]["stored"] is None
    assert found["unknown"] == [said]


def test_the_end_of_a_run_says_why_the_store_could_not_tell(tmp_path: Path) -> None:
    """One symbol's question that cannot be answered keeps no other's from being asked."""
    config = parse(f'symbols = ["BTC_USDT", "ETH_USDT"]\ndata_dir = "{tmp_path}"', None)
    wanted = {("btc", "a.sqlite"): ("a.parquet", "d1"), ("eth", "b.sqlite"): ("b.parquet", "d2")}

    def of_one(request: dict[str, Any]) -> dict[str, Any]:
        if request["id"] == "btc":
            raise UserError("the answer is larger than allowed")
        return {"compared": {}, "files": [["b.parquet", "d2", 5, {"rows": 5, "ok": True}]]}

    lifeline = Lifeline()
    server = ControlServer(config.control_dir / "store.sock", {"compared": of_one, "logged": of_one})
    try:
        supervisor = Supervisor(config, lifeline, Stop(), lambda _, __: None)
        compared: dict[str, dict[str, Any]] = {}
        assert supervisor._add_compared(wanted, compared) == ["btc: store: the answer is larger than allowed"]
        assert supervisor._add_logged(wanted, compared) == ["btc: store: the answer is larger than allowed"]
    finally:
        server.close()
        lifeline.close()
    assert compared["eth"] == {"b.sqlite": {"rows": 5, "ok": True}}
