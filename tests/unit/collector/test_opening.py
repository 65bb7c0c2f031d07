"""The spool on its way: what answers late is heard all the same."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.collector import opening as module
from mexc_pipeline.collector.opening import Opening
from mexc_pipeline.control import ControlServer
from mexc_pipeline.spool import last_seq as last_seq_module
from mexc_pipeline.spool.last_seq import ANSWER_S, LastSeq
from support.spools import T0, configure, some_frames
from support.waiting import until


@pytest.mark.parametrize("late", [0, 7])
def test_a_higher_seq_that_is_known_late_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    config = configure(tmp_path)
    (config.spool_dir / "btc").mkdir(parents=True)
    answers = [LastSeq(0, (), None, ("tables: no answer",)), LastSeq(late, (), None, ())]
    monkeypatch.setattr(module, "ask_last_seq", lambda *_: answers.pop(0))
    monkeypatch.setattr(module, "given_elsewhere", lambda *_: [])
    monkeypatch.setattr(module, "UNKNOWN_S", 0.01)
    monkeypatch.setattr(last_seq_module, "ANSWER_S", 0.0)
    said: list[bytes] = []
    opening = Opening(config, config.symbols[0], T0, lambda _, m: said.append(m))
    spool = opening.within(10)
    assert spool is not None
    try:
        until(lambda: not opening.state.unknown, 10, "the late answer")
        if late:
            until(lambda: said, 10, "the event")
            assert json.loads(said[0]) == {"event": "seq_repeated", "given": 0, "known": 7}
            assert "seq is given twice" in str(opening.state.trouble)
        else:
            assert (said, opening.state.trouble) == ([], None)
    finally:
        opening.give_up()
        opening.settle(1)
        spool.close()


@pytest.mark.parametrize(("first", "last", "twice"), [(1, 2, 2), (4, 9, 0)])
def test_rows_given_meanwhile_hide_no_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, last: int, twice: int
) -> None:
    """The store comes up when more rows were given here than another spool ever had."""
    config = configure(tmp_path)
    (config.spool_dir / "btc").mkdir(parents=True)
    monkeypatch.setattr(module, "UNKNOWN_S", 0.05)
    monkeypatch.setattr(last_seq_module, "ANSWER_S", 0.0)
    said: list[bytes] = []
    opening = Opening(config, config.symbols[0], T0, lambda _, m: said.append(m))
    spool = opening.within(40)
    assert spool is not None
    spool.append(some_frames(3, T0))
    here = [["btc", spool.spool_id, 1, 3, "table btc_current"], ["btc", "other", first, last, "table btc_orphan_1"]]
    known: dict[str, Any] = {"last_seq": 3, "writer": None}
    store = {"known": lambda _: known, "given": lambda _: {"held": here}}
    server = ControlServer(config.control_dir / "store.sock", store)
    try:
        until(lambda: not opening.state.unknown or said, 10, "the late answer")
        if twice:
            until(lambda: said, 10, "the event")
            assert json.loads(said[0]) == {"event": "seq_repeated", "given": 3, "known": twice}
        else:
            assert (said, opening.state.trouble) == ([], None)
    finally:
        server.close()
        opening.give_up()
        opening.settle(1)
        spool.close()


def test_an_empty_spool_waits_for_a_store_that_comes_up_late(tmp_path: Path) -> None:
    """At a boot with a new data disk: what the tables have goes on, and no seq is given twice."""
    config = configure(tmp_path)
    (config.spool_dir / "btc").mkdir(parents=True)
    opening = Opening(config, config.symbols[0], T0, lambda *_: None)
    until(lambda: opening.state.unknown, 10, "the first question")
    assert opening.within(0) is None
    server = ControlServer(config.control_dir / "store.sock", {"known": lambda _: {"last_seq": 500, "writer": None}})
    try:
        spool = opening.within(20)
        assert spool is not None
        assert spool.last_seq == 500
        assert opening.state.unknown == ()
        spool.close()
    finally:
        server.close()
        opening.give_up()
        opening.settle(1)


@given(st.booleans(), st.booleans(), st.floats(0, 2 * ANSWER_S))
def test_only_an_empty_spool_waits_and_only_for_those_who_did_not_answer(
    is_unknown: bool, has_segments: bool, waited_s: float
) -> None:
    asked = LastSeq(0, (), None, ("tables: no answer",) if is_unknown else ())
    assert asked.is_enough(has_segments, waited_s) == (not is_unknown or has_segments or waited_s >= ANSWER_S)


def test_a_spool_that_does_not_open_in_time_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(tmp_path)
    (config.spool_dir / "btc").mkdir(parents=True)
    opens = threading.Event()

    def slow(*_: object) -> LastSeq:
        opens.wait(60)
        return LastSeq(0, (), None, ())

    monkeypatch.setattr(module, "ask_last_seq", slow)
    opening = Opening(config, config.symbols[0], T0, lambda *_: None)
    assert opening.state.trouble is None
    monkeypatch.setattr(module, "LATE_S", 0.0)
    assert "is not open after 0 s: what is received is kept without a seq" in str(opening.state.trouble)
    opens.set()
    spool = opening.within(30)
    assert spool is not None
    assert opening.state.trouble is None
    opening.give_up()
    spool.close()


def test_a_spool_is_opened_once_there_is_a_thread_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(tmp_path)
    (config.spool_dir / "btc").mkdir(parents=True)
    monkeypatch.setattr(module, "ask_last_seq", lambda *_: LastSeq(0, (), None, ()))
    refused: list[str] = []
    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "checkpoint" and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    opening = Opening(config, config.symbols[0], T0, lambda *_: None)
    spool = opening.within(30)
    assert spool is not None
    assert refused
    spool.close()
