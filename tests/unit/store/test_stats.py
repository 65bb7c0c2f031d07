"""A collector that ended in order is not missed; one that is gone otherwise is, once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import pytest

from mexc_pipeline import control
from mexc_pipeline.control import NotRunningError
from mexc_pipeline.store.engine import Engine
from mexc_pipeline.store.stats import StatisticsLoader


@pytest.mark.parametrize(("in_order", "said"), [(True, []), (False, ["btc"])])
def test_who_ended_in_order_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, in_order: bool, said: list[str]
) -> None:
    answers: list[dict[str, Any] | None] = [
        {"pid": 1, "rows": {}, "bytes": {}, "spool_id": "", "state": "live", "last_seq": 1}, None, None,
    ]  # fmt: skip

    def ask(*_: object, **__: object) -> dict[str, Any]:
        answer = answers.pop(0)
        if answer is None:
            raise NotRunningError("btc is not running")
        return answer

    monkeypatch.setattr(control, "ask", ask)
    statistics = StatisticsLoader({"btc": None}, Path(), cast(Engine, None), lambda *_: 0, 0.0, lambda _: in_order)
    statistics._rates("btc", {"pid": 1, "rows": {}, "bytes": {}})  # as once it has answered with a spool
    with caplog.at_level(logging.WARNING):
        while answers:
            statistics.step()
    assert [r.fields["id"] for r in caplog.records] == said  # type: ignore[attr-defined]
