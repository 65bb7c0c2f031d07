"""Structured logs: JSON or text, repeated lines held back."""

from __future__ import annotations

import json
import logging

import pytest

from mexc_pipeline import logs


def test_json_under_systemd(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEXC_PIPELINE_LOG", raising=False)
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    logs.setup()
    log = logging.getLogger("mexc_pipeline.feed")
    log.info("connected", extra={"fields": {"symbol": "btc", "peer": "ä\n", "n": 1}})
    log.debug("not shown")
    try:
        int("why")
    except ValueError:
        log.exception("failed")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("at").endswith("Z")
    assert first == {"level": "info", "part": "feed", "msg": "connected", "symbol": "btc", "peer": "ä\n", "n": 1}
    assert (second["level"], second["error"]) == ("error", "ValueError: invalid literal for int() with base 10: 'why'")
    assert "Traceback" in second["traceback"]


def test_text_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEXC_PIPELINE_LOG", raising=False)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    logs.setup("DEBUG")
    logging.getLogger("mexc_pipeline.spool").debug("segment closed", extra={"fields": {"rows": 5, "cut": False}})
    line = capsys.readouterr().err.rstrip("\n")
    assert line[8:] == " DEBUG   spool     segment closed rows=5 cut=False"


def record(msg: str, at: float, name: str = "mexc_pipeline.feed") -> logging.LogRecord:
    made = logging.LogRecord(name, logging.INFO, "", 0, msg, None, None)
    made.created = at
    return made


def test_a_repeated_line_is_held_back_and_counted() -> None:
    limit = logs.RateLimit(burst=3, window_s=60)
    passed = [limit.filter(record("again", 100 + n)) for n in range(10)]
    assert passed == [True] * 3 + [False] * 7
    assert limit.filter(record("another", 109))
    assert limit.filter(record("again", 109, "mexc_pipeline.spool"))
    later = record("again", 160)
    assert limit.filter(later)
    assert later.__dict__["fields"] == {"held_back": 7}
    much_later = record("again", 300)
    assert limit.filter(much_later)
    assert "fields" not in much_later.__dict__
