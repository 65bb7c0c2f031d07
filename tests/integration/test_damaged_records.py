"""ClickHouse's own records damaged while the store runs: it goes on, for every symbol, and says what it set apart."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.config import parse
from mexc_pipeline.control import ControlServer
from mexc_pipeline.store import schema
from mexc_pipeline.store.engine import Engine, RefusedError
from mexc_pipeline.store.service import Store
from support.storing import (
    Backend,
    Recording,
    mark,
    table_names,
    table_rows,
    wait_for,
)

IDS = ("btc", "eth")
LEFT = b'{"event":"connected","egress":"direct","peer":"198.51.100.7:443","local":"10.0.0.2:40000"}'


def emptied(engine: Engine, table: str) -> None:
    engine.execute(f"TRUNCATE TABLE {table}")


def dropped(engine: Engine, table: str) -> None:
    engine.execute(f"DROP TABLE {table}")


def other_columns(engine: Engine, table: str) -> None:
    _made_instead(engine, table, "(x UInt8) ENGINE = MergeTree PARTITION BY tuple() ORDER BY x")


def other_types(engine: Engine, table: str) -> None:
    """The names are right, so that some statements work and some do not."""
    columns = ", ".join(f"{name} UUID" for name, _ in sorted(schema.columns()[table]))
    _made_instead(engine, table, f"({columns}) ENGINE = MergeTree PARTITION BY tuple() ORDER BY tuple()")


def _made_instead(engine: Engine, table: str, definition: str) -> None:
    """The store may make its own again between the two statements."""
    for _ in range(20):
        engine.execute(f"DROP TABLE IF EXISTS {table}")
        with contextlib.suppress(RefusedError):
            engine.execute(f"CREATE TABLE {table} {definition}")
            return
    raise AssertionError(f"{table} is always there again")


def status_of(recording: Recording, _request: dict[str, Any]) -> dict[str, Any]:
    """What a collector that records it would say of itself."""
    return {
        **dict.fromkeys(("host", "version", "state"), "x"),
        "id": recording.id,
        "symbol": f"{recording.id.upper()}_USDT",
        "pid": 1,
        "spool_id": recording.spool.spool_id,
        "last_seq": recording.spool.last_seq,
        "rows": {},
        "bytes": {},
    }


@pytest.mark.parametrize("damage", [emptied, dropped, other_columns, other_types])
def test_records_damaged_under_a_running_store(
    backend: Backend, tmp_path: Path, damage: Callable[[Engine, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    config = parse(f'symbols = ["BTC_USDT", "ETH_USDT"]\ndata_dir = "{tmp_path / "data"}"\n', None)
    recordings = [Recording(config.spool_dir, symbol_id) for symbol_id in IDS]
    collectors = [
        ControlServer(config.control_dir / f"{r.id}.sock", {"status": partial(status_of, r)}) for r in recordings
    ]
    engine = backend.engine()
    engine.connect()

    def ask(sql: str) -> list[tuple[Any, ...]]:
        try:
            return engine.select(sql)
        except RefusedError:  # the table is not there yet
            return []

    def wait_until(sql: str, answer: list[tuple[Any, ...]], what: str) -> None:
        wait_for(lambda: ask(sql) == answer, 60, what)

    def has_newest(recording: Recording) -> bool:
        """A table of which ``holdings`` knows nothing any more is loaded anew: it has them, has not, and has them."""
        try:
            return table_rows(engine, f"{recording.id}_current") == recording.rows()[-5:]
        except RefusedError:
            return False

    def everything_goes_on() -> None:
        """A connection, rows, the end of a period and its file, of each symbol, and new statistics."""
        statistics = [(symbol_id, r.spool.last_seq) for symbol_id, r in zip(IDS, recordings, strict=True)]
        for recording in recordings:
            recording.event(LEFT)
            left = recording.spool.last_seq
            recording.add(20)
            exported = mark(recording.end_period())
            recording.add(5)
            where = f"WHERE id = '{recording.id}' AND"
            log = f"SELECT verdict FROM export_log {where} file = '{exported.file}'"
            wait_until(log, [("verified",)], f"the file of {recording.id}")
            assert ask(f"SELECT count() FROM egress_log {where} seq = {left}") == [(1,)]
            wait_for(partial(has_newest, recording), 60, f"the newest rows of {recording.id}, as recorded")
        for symbol_id, seq in statistics:
            said = f"SELECT count() > 0 FROM collector_stats WHERE id = '{symbol_id}' AND last_seq > {seq}"
            wait_until(said, [(1,)], f"statistics of {symbol_id}")

    store = Store(config, backend.engine, stats_every_s=0.3)
    store.start()
    try:
        everything_goes_on()
        orphans = False
        for table in schema.columns():
            damage(engine, table)
            everything_goes_on()
            said = store.status()["symbols"].values()
            assert [s["skipped_rows"] for s in said] == [0, 0]
            if (
                table == "holdings"
            ):  # what nothing is known of is not taken for the spool's: it is kept, and loaded anew
                orphans = True
            assert orphans or not any(s["orphans"] for s in said)
    finally:
        assert store.close()
        for collector in collectors:
            collector.close()
        for recording in recordings:
            recording.close()
    schema.apply(engine)
    assert schema.apply(engine) == []
    apart = {name.partition("_damaged_")[0] for name in table_names(engine) if "_damaged_" in name}
    said = {r.fields["table"] for r in caplog.records if "table of records" in r.getMessage()}  # type: ignore[attr-defined]
    wrong = set(schema.columns()) if damage in (other_columns, other_types) else set()
    assert (apart, said) == (wrong, wrong)
    engine.close()
