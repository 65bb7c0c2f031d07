"""What ClickHouse still has of symbols that nobody records any more goes once every row of it is in a proven file."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_driver import errors as driver_errors

from mexc_pipeline.spool.segment import SegmentInfo
from mexc_pipeline.store.auditor import Auditor
from mexc_pipeline.store.catalog import Catalog
from mexc_pipeline.store.engine import Engine
from mexc_pipeline.store.loader import Loader
from support.clickhouse_server import ClickHouseServer
from support.storing import Recording, ServerBackend, mark, table_names

SCRIPT = Path(__file__).parents[2] / "playbooks" / "files" / "clickhouse_tables.py"
_SPEC = importlib.util.spec_from_file_location("clickhouse_tables", SCRIPT)
assert _SPEC is not None
assert _SPEC.loader is not None
clickhouse_tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(clickhouse_tables)

pytestmark = pytest.mark.server


class Client(clickhouse_tables.Client):  # type: ignore[misc,name-defined]
    """Statements by the driver: there may be no ``clickhouse-client`` on this machine."""

    def __init__(self, server: ClickHouseServer) -> None:
        self._server = server

    def run(self, sql: str, **_files: Path) -> str:
        try:
            with self._server.client() as client:
                client.execute("USE ch_mexc")
                rows = client.execute(sql)
        except (driver_errors.Error, OSError, EOFError) as error:
            raise SystemExit(f"{sql[:80]}: {error}") from error
        return "".join("\t".join(map(str, row)) + "\n" for row in rows)


class Site:
    """A server, and symbols whose store has loaded what their collectors recorded. None of them runs any more."""

    def __init__(self, folder: Path, backend: ServerBackend) -> None:
        self.folder = folder
        self.server = backend.server
        self.client = Client(backend.server)
        self._backend = backend
        self.engine: Engine = backend.engine()
        self.engine.connect()

    def recorded(
        self, symbol_id: str, exported: tuple[bool, ...], newest: int = 0, spool: str = "spool"
    ) -> list[SegmentInfo]:
        """A closed segment for each word of ``exported``, which says whether it has a file; and an open one with
        ``newest`` rows. Another ``spool`` begins with seq 1 as well."""
        recording = Recording(self.folder / spool, symbol_id)
        loader = Loader(symbol_id, recording.folder, self._backend.engine(), threading.Lock())
        auditor = Auditor(symbol_id, recording.folder, self._backend.engine(), loader.progress, threading.Event())
        segments = []
        for has_file in exported:
            recording.add(20)
            segment = recording.end_period()
            segments.append(mark(segment) if has_file else segment)
        if newest:
            recording.add(newest)
        while loader.progress.loaded_seq < recording.spool.last_seq or loader.step() == 0:
            loader.step()
        for _ in range(3):
            auditor.step()
        for part in (loader, auditor):
            part.detach()
        recording.close()
        return segments

    def retire(self, *words: str) -> None:
        clickhouse_tables.retire(self.client, list(words))

    def tables(self, symbol_id: str) -> set[str]:
        return {name for name in table_names(self.engine) if name.startswith(f"{symbol_id}_")}

    def verified(self, segment: SegmentInfo) -> None:
        """Its file is proven after all, and its table waits to be dropped."""
        Catalog(segment.id, self.engine).log_export(mark(segment), segment.rows, "host1", "verified")

    def statistics(self, symbol_id: str, age_s: int) -> None:
        self.engine.execute(f"INSERT INTO collector_stats (at, id) SELECT now() - {age_s}, '{symbol_id}'")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    backend = ServerBackend(tmp_path / "server")
    found = Site(tmp_path, backend)
    yield found
    found.engine.close()
    backend.close()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def table(segment: SegmentInfo) -> str:
    return f"{segment.id}_{segment.name.period}"


def test_what_is_in_proven_files_goes_and_what_is_recorded_stays(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.recorded("doge", (True, True))
    site.recorded("btc", (True,), newest=5)
    before = site.tables("btc")
    site.retire("doge", "but", "btc")
    assert lines(capsys) == ["doge_current dropped"]
    assert site.tables("doge") == set()
    assert site.tables("btc") == before
    site.retire("doge", "but", "btc")
    assert lines(capsys) == [], "nothing is left of it"


def test_rows_in_no_proven_file_stay_and_go_once_they_are_in_one(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, last = site.recorded("doge", (True, False))
    site.retire("doge", "but", "btc")
    assert sorted(lines(capsys)) == [
        f"{table(last)} stays: it has rows that are in no verified file",
        "doge_current dropped",
    ]
    assert site.tables("doge") == {table(last)}
    site.verified(last)
    site.retire("doge", "but", "btc")
    assert lines(capsys) == [f"{table(last)} dropped"]


def test_a_later_file_does_not_stand_in_for_an_earlier_one(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Of three periods the middle one could not be exported."""
    _, middle, _ = site.recorded("doge", (True, False, True))
    site.retire("doge", "but", "btc")
    assert f"{table(middle)} stays: it has rows that are in no verified file" in lines(capsys)
    assert site.tables("doge") == {table(middle)}


def test_another_spools_file_with_the_same_seqs_proves_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a disk that was lost when nobody could say which seqs had been given: the table has the only copy."""
    site.recorded("doge", (True, True))
    again, _ = site.recorded("doge", (False, True), spool="other")
    site.retire("doge", "but", "btc")
    assert f"{table(again)} stays: it has rows that are in no verified file" in lines(capsys)
    assert site.tables("doge") == {table(again)}


def test_rows_of_an_open_segment_stay(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.recorded("doge", (True,), newest=5)
    site.retire("doge", "but", "btc")
    assert lines(capsys) == ["doge_current stays: it has rows that are in no verified file"]


def test_a_file_that_differs_proves_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (segment,) = site.recorded("doge", (False,))
    Catalog("doge", site.engine).log_export(mark(segment), segment.rows, "host1", "table differs from spool")
    site.retire("doge", "but", "btc")
    assert f"{table(segment)} stays: it has rows that are in no verified file" in lines(capsys)


def test_without_its_log_of_files_every_row_stays(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.recorded("doge", (True,), newest=5)
    site.engine.execute("DROP TABLE export_log")
    site.retire("doge", "but", "btc")
    assert lines(capsys) == ["doge_current stays: it has rows that are in no verified file"]


def test_what_was_set_apart_stays(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.recorded("doge", (True,))
    site.engine.execute("RENAME TABLE doge_current TO doge_orphan_20260915185200")
    site.retire("doge", "but", "btc")
    assert lines(capsys) == []
    assert site.tables("doge") == {"doge_orphan_20260915185200"}


def test_clickhouse_away_drops_nothing_and_a_later_run_finds_them_by_themselves(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """By then no inventory names the symbol any more."""
    site.recorded("doge", (True,))
    before = site.tables("doge")
    site.engine.close()
    site.server.stop()
    with pytest.raises(SystemExit, match=r"^SHOW TABLES: "):
        site.retire("doge", "but", "btc")
    site.server.start()
    site.engine.connect()
    assert (lines(capsys), site.tables("doge")) == ([], before)
    site.statistics("doge", age_s=30)
    site.retire("but", "btc")
    assert (lines(capsys), site.tables("doge")) == ([], before), "somebody recorded it just now"
    site.engine.execute("TRUNCATE TABLE collector_stats")
    site.statistics("doge", age_s=clickhouse_tables.QUIET_S + 30)
    site.retire("but", "btc")
    assert lines(capsys) == ["doge_current dropped"]
    assert site.tables("doge") == set()


@pytest.mark.parametrize("symbol_id", ["export", "collector", "refused", "egress", "schema"])
def test_no_symbols_name_reaches_the_logs(site: Site, symbol_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    site.recorded("doge", (True,))
    before = table_names(site.engine)
    site.retire(symbol_id, "but", "doge")
    clickhouse_tables.drop(site.client, [symbol_id])
    assert lines(capsys) == []
    assert table_names(site.engine) == before
