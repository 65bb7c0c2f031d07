"""The loader and the auditor, step by step, on both engines."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.errors import UserError
from mexc_pipeline.rows import Columns
from mexc_pipeline.spool.segment import SegmentInfo
from mexc_pipeline.store import questions, schema
from mexc_pipeline.store.auditor import Auditor
from mexc_pipeline.store.engine import (
    ENUM,
    ROW_COLUMNS,
    Engine,
    EngineError,
    EngineFactory,
    RefusedError,
    row_table_sql,
)
from mexc_pipeline.store.loader import Loader
from support.storing import (
    Backend,
    Recording,
    ServerBackend,
    mark,
    table_names,
    table_rows,
    wait_for,
)


@pytest.fixture
def engine(backend: Backend) -> Iterator[Engine]:
    found = backend.engine()
    found.connect()
    yield found
    found.close()


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    found = Recording(tmp_path / "spool")
    yield found
    found.close()


def new_loader(factory: EngineFactory, recording: Recording) -> Loader:
    return Loader(recording.id, recording.folder, factory(), threading.Lock())


def new_auditor(factory: EngineFactory, recording: Recording, loader: Loader) -> Auditor:
    return Auditor(recording.id, recording.folder, factory(), loader.progress, threading.Event())


def audit(auditor: Auditor) -> None:
    """Look at every segment once, connecting first where need be."""
    while not auditor.step():
        pass


def drain(loader: Loader, recording: Recording) -> None:
    """Step until everything committed is loaded and every ended segment is swapped out."""
    for _ in range(200):
        before = loader.progress.loaded_seq
        pause = loader.step()
        if pause and before == loader.progress.loaded_seq >= recording.spool.last_seq:
            return
    raise AssertionError(f"stuck at {loader.progress}")


def test_rows_arrive_exactly_as_recorded(backend: Backend, engine: Engine, recording: Recording) -> None:
    loader = new_loader(backend.engine, recording)
    recording.add(2500)
    drain(loader, recording)
    recording.add(1, size=2_000_000)
    recording.add(10)
    drain(loader, recording)
    assert table_rows(engine, "btc_current") == recording.rows()
    loader.detach()


def test_an_auditor_that_lost_its_engine_goes_on_with_what_is_not_exported_yet(
    backend: Backend, recording: Recording
) -> None:
    """It once looked for a time that it had forgotten with the connection, and never got further."""
    loader = new_loader(backend.engine, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    recording.add(50)
    recording.end_period()
    recording.add(50)
    drain(loader, recording)
    audit(auditor)
    assert len(auditor.compared) == 1
    auditor.detach()
    audit(auditor)
    recording.end_period()
    recording.add(1)
    drain(loader, recording)
    audit(auditor)
    assert len(auditor.compared) == 2
    auditor.detach()
    loader.detach()


def test_a_sealed_table_is_compared_logged_and_dropped(
    backend: Backend, engine: Engine, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mexc_pipeline.store")
    loader = new_loader(backend.engine, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    recording.add(300)
    drain(loader, recording)
    first = recording.end_period()
    drain(loader, recording)
    name = f"btc_{first.name.period}"
    assert table_rows(engine, name) == recording.rows(first)
    assert table_rows(engine, "btc_current") == []
    audit(auditor)
    assert auditor.compared[first.path.name].ok
    assert auditor.compared[first.path.name].rows == 301
    assert name in table_names(engine)
    mark(first)
    audit(auditor)
    assert name not in table_names(engine)
    auditor.detach()
    audit(auditor)  # a second look, from the start, changes nothing
    said = [record.getMessage() for record in caplog.records]
    assert said.count("sealed table compared") == 1, "the same is not said again when its file is there"
    assert said.count("file logged") == 1
    again = new_auditor(backend.engine, recording, loader)
    audit(again)
    assert again.compared[first.path.name] == auditor.compared[first.path.name], "known also after a restart"
    again.detach()
    logged = engine.select("SELECT file, rows, received, stored, part, final, digest, verdict, rows_ev FROM export_log")
    assert logged == [(first.file, 301, 301, 301, 0, 1, first.digest, "verified", 1)]
    first.path.unlink()  # as pruning does, a day later
    compared = {"rows": 301, "ok": True, "columns": [], "refused": 0, "error": ""}
    assert questions.logged(backend.engine, "btc") == {"files": [(first.file, first.digest, 301, compared)]}
    assert questions.logged(backend.engine, "eth") == {"files": []}
    recording.add(5)
    drain(loader, recording)
    assert [row.seq for row in table_rows(engine, "btc_current")] == list(range(302, 307))
    loader.detach()
    auditor.detach()


def test_a_dropped_log_is_made_again_while_the_store_runs(
    backend: Backend, engine: Engine, recording: Recording
) -> None:
    loader = new_loader(backend.engine, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    recording.add(30)
    drain(loader, recording)
    first = recording.end_period()
    drain(loader, recording)
    audit(auditor)
    engine.execute("DROP TABLE export_log")  # as when it is set apart, damaged; the loader does not look at it again
    mark(first)
    with pytest.raises(RefusedError):  # the auditor's thread tries again
        audit(auditor)
    audit(auditor)
    assert engine.select("SELECT file FROM export_log") == [(first.file,)]
    loader.detach()
    auditor.detach()


def sealed_name(segment: SegmentInfo) -> str:
    return f"btc_{segment.name.period}"


def test_parts_of_a_cut_period_have_tables_of_their_own(backend: Backend, engine: Engine, recording: Recording) -> None:
    loader = new_loader(backend.engine, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    recording.add(20)
    first = recording.cut()
    recording.add(30)
    second = recording.end_period()
    drain(loader, recording)
    audit(auditor)
    period = first.name.period
    assert {f"btc_{period}_part1", f"btc_{period}_part2"} <= table_names(engine)
    mark(first)
    mark(second)
    audit(auditor)
    logged = engine.select("SELECT file, part, final, stored FROM export_log ORDER BY part")
    assert logged == [(f"btc{period}.part1.parquet", 1, 0, 21), (f"btc{period}.part2.parquet", 2, 1, 31)]
    assert not any(name.startswith(f"btc_{period}") for name in table_names(engine))


def test_exported_segments_are_loaded_compared_and_dropped_late(
    backend: Backend, engine: Engine, recording: Recording
) -> None:
    """ClickHouse came up hours later: the ledger's stored figure must still be measured, not assumed."""
    for _ in range(3):
        recording.add(40)
        mark(recording.end_period())
    recording.add(3)
    loader = new_loader(backend.engine, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    drain(loader, recording)
    audit(auditor)
    assert engine.select("SELECT count(), sum(stored), min(verdict) FROM export_log") == [(3, 123, "verified")]
    assert {n for n in table_names(engine) if n.startswith("btc_")} == {"btc_current"}
    assert [row.seq for row in table_rows(engine, "btc_current")] == [124, 125, 126]


@pytest.mark.parametrize("stopped_after", range(1, 12))
def test_a_loader_killed_anywhere_goes_on_where_it_was(
    backend: Backend, engine: Engine, recording: Recording, stopped_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every statement of two loads and two swaps is in turn the last one that is done before the process dies."""

    class KilledError(BaseException):
        pass

    mortal = backend.engine()
    left = [stopped_after]

    def dying(call: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            call(*args)
            left[0] -= 1
            if not left[0]:
                raise KilledError

        return run

    for method in ("execute", "insert", "insert_block"):
        monkeypatch.setattr(mortal, method, dying(getattr(mortal, method)))
    recording.add(30)
    first = recording.end_period()
    recording.add(20)
    second = recording.end_period()
    recording.add(5)
    schema.apply(engine)
    with contextlib.suppress(KilledError):
        drain(new_loader(lambda: mortal, recording), recording)
    loader = new_loader(backend.engine, recording)
    drain(loader, recording)
    assert table_rows(engine, sealed_name(first)) == recording.rows(first)
    assert table_rows(engine, sealed_name(second)) == recording.rows(second)
    assert [row.seq for row in table_rows(engine, "btc_current")] == list(range(53, 58))
    assert not [n for n in table_names(engine) if "orphan" in n]


def test_tables_dropped_by_hand_come_back(backend: Backend, engine: Engine, recording: Recording) -> None:
    loader = new_loader(backend.engine, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    recording.add(50)
    first = recording.end_period()
    recording.add(20)
    drain(loader, recording)
    engine.execute(f"DROP TABLE {sealed_name(first)}")
    engine.execute("DROP TABLE btc_current")
    recording.add(5)
    with pytest.raises(RefusedError):
        drain(loader, recording)
    drain(loader, recording)
    audit(auditor)
    assert table_rows(engine, "btc_current") == recording.rows()[51:]
    assert table_rows(engine, sealed_name(first)) == recording.rows(first)


@pytest.mark.parametrize("damage", ["shortened", "overwritten", "sizes"])
def test_a_damaged_current_table_is_loaded_anew(
    backend: Backend, engine: Engine, recording: Recording, damage: str
) -> None:
    loader = new_loader(backend.engine, recording)
    recording.add(300)
    drain(loader, recording)
    files = backend.table_files("btc_current")
    if damage == "sizes":
        (files / "sizes.json").write_text("")
    else:
        with (files / "data.bin").open("r+b") as data:
            if damage == "shortened":
                data.truncate(1000)
            else:
                data.seek(300)
                data.write(b"\xa5" * 400)
    loader.detach()
    recording.add(10)
    drain(loader, recording)
    assert table_rows(engine, "btc_current") == recording.rows()


def test_a_table_changed_behind_our_back_is_found_by_content(
    backend: Backend, engine: Engine, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    loader = new_loader(backend.engine, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    recording.add(60)
    first = recording.end_period()
    drain(loader, recording)
    audit(auditor)
    name = sealed_name(first)
    rows = table_rows(engine, name)
    forged = [row._replace(m=row.m[:-1] + b"X") if row.seq == 30 else row for row in rows]
    engine.execute(f"DROP TABLE {name}")
    engine.execute(row_table_sql(name, engine.connect()))
    engine.insert_block(name, Columns.of(forged), "forge")
    mark(first)
    audit(auditor)
    apart = [n for n in table_names(engine) if n.startswith("btc_altered_")]
    assert len(apart) == 1
    assert table_rows(engine, apart[0]) == forged
    errors = [r for r in caplog.records if r.levelname == "ERROR"]
    assert [(r.fields["table"], r.fields["columns"]) for r in errors] == [(name, "m")]  # type: ignore[attr-defined]
    assert name not in table_names(engine), "loaded again, compared, logged and dropped"
    assert engine.select("SELECT stored, verdict FROM export_log") == [(61, "verified")]


def test_an_unreadable_sealed_table_is_set_apart_and_loaded_again(
    backend: Backend, engine: Engine, recording: Recording
) -> None:
    loader = new_loader(backend.engine, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    recording.add(300)
    first = recording.end_period()
    drain(loader, recording)
    with (backend.table_files(sealed_name(first)) / "data.bin").open("r+b") as data:
        data.seek(300)
        data.write(b"\xa5" * 400)
    audit(auditor)
    assert table_rows(engine, sealed_name(first)) == recording.rows(first)
    assert [n for n in table_names(engine) if n.startswith("btc_altered_")]
    drain(new_loader(backend.engine, recording), recording)  # a damaged table that was set apart holds nobody up


def test_rows_of_another_spool_are_set_apart(backend: Backend, engine: Engine, tmp_path: Path) -> None:
    """The data folder was deleted; ClickHouse was not."""
    old = Recording(tmp_path / "spool")
    loader = new_loader(backend.engine, old)
    old.add(40)
    old.end_period()
    old.add(7)
    drain(loader, old)
    loader.detach()
    sealed_rows, current_rows = old.rows()[:41], old.rows()[41:]
    assert questions.known(backend.engine, "btc")["last_seq"] == 48
    old.close()
    shutil.rmtree(tmp_path / "spool")
    loader.step()  # no spool at all: nothing is touched
    assert table_rows(engine, "btc_current") == current_rows
    new = Recording(tmp_path / "spool", known_seq=48)
    new.add(5)
    drain(loader, new)
    assert table_rows(engine, "btc_current") == new.rows()
    assert [row.seq for row in new.rows()] == list(range(49, 54))
    apart = sorted(n for n in table_names(engine) if n.startswith("btc_orphan_"))
    assert sorted((table_rows(engine, n) for n in apart), key=len) == sorted([current_rows, sealed_rows], key=len)
    assert questions.known(backend.engine, "btc")["last_seq"] == 53
    new.close()


def test_the_folder_replaced_under_a_running_loader(backend: Backend, engine: Engine, tmp_path: Path) -> None:
    old = Recording(tmp_path / "spool")
    loader = new_loader(backend.engine, old)
    old.add(40)
    drain(loader, old)
    old.close()
    shutil.rmtree(tmp_path / "spool")
    new = Recording(tmp_path / "spool", known_seq=40)
    new.add(6)
    drain(loader, new)
    assert table_rows(engine, "btc_current") == new.rows()
    assert len([n for n in table_names(engine) if n.startswith("btc_orphan_")]) == 1
    new.close()


def test_a_spool_restored_from_an_older_copy(backend: Backend, engine: Engine, tmp_path: Path) -> None:
    """Rows that only ClickHouse still has are kept under another name."""
    old = Recording(tmp_path / "spool")
    loader = new_loader(backend.engine, old)
    old.add(10)
    copy = tmp_path / "copy"
    old.close()
    shutil.copytree(tmp_path / "spool", copy)
    old = Recording(tmp_path / "spool")
    old.add(20)
    drain(loader, old)
    loader.detach()
    lost = old.rows()
    old.close()
    shutil.rmtree(tmp_path / "spool")
    shutil.copytree(copy, tmp_path / "spool")
    drained = new_loader(backend.engine, old)
    drained.step()  # before any collector has come back
    apart = [n for n in table_names(engine) if n.startswith("btc_orphan_")]
    found = sorted(row for n in apart for row in table_rows(engine, n))
    assert found == lost


def test_one_refused_row_is_found_skipped_and_counted(
    backend: Backend, engine: Engine, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    picky = backend.engine()
    insert = picky.insert_block

    def refusing(table: str, block: Columns, query_id: str) -> None:
        if 37 in block.seq:
            raise RefusedError("cannot take this", 27)
        insert(table, block, query_id)

    monkeypatch.setattr(picky, "insert_block", refusing)
    loader = new_loader(lambda: picky, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    recording.add(100)
    refusals = 0
    while loader.progress.loaded_seq < 100:
        try:
            loader.step()
        except RefusedError:
            refusals += 1
            assert refusals < 40
    rows = [row for row in recording.rows() if row.seq != 37]
    assert table_rows(engine, "btc_current") == rows
    assert loader.progress.refused_rows == 1
    assert engine.select("SELECT id, seq FROM refused_rows") == [("btc", 37)]
    again = new_loader(backend.engine, recording)
    recording.add(1)
    drain(again, recording)  # known to be missing: not loaded anew
    assert len(table_rows(engine, "btc_current")) == 100
    assert "btc_probe" not in table_names(engine)
    first = recording.end_period()
    drain(again, recording)
    mark(first)
    auditor = new_auditor(backend.engine, recording, again)
    audit(auditor)
    compared = auditor.compared[first.path.name]
    assert (compared.ok, compared.same, compared.refused, compared.rows) == (False, True, 1, 101)
    verdicts = engine.select("SELECT received, stored, verdict FROM export_log")
    assert verdicts == [(102, 101, "1 rows refused by ClickHouse")]


@pytest.mark.parametrize("code", [243, 27])
def test_an_engine_that_refuses_everything_loses_nothing(
    backend: Backend, engine: Engine, recording: Recording, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A full disk, or a refusal without a reason we know: no row is to blame, so none is skipped."""
    full = backend.engine()
    insert = full.insert_block
    is_full = [True]

    def refusing(table: str, block: Columns, query_id: str) -> None:
        if is_full[0]:
            raise RefusedError("no", code)
        insert(table, block, query_id)

    monkeypatch.setattr(full, "insert_block", refusing)
    loader = new_loader(lambda: full, recording)
    recording.add(8)
    for _ in range(30):
        with pytest.raises(RefusedError):
            loader.step()
    is_full[0] = False
    drain(loader, recording)
    assert table_rows(engine, "btc_current") == recording.rows()
    assert engine.select("SELECT count() FROM refused_rows") == [(0,)]


def test_no_row_is_blamed_by_an_engine_that_gets_no_handle_at_times(
    backend: Backend, engine: Engine, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row that shows whether the engine takes anything finds a handle, the ones before and after it none."""
    wanting = backend.engine()
    insert = wanting.insert_block
    is_wanting = [True]

    def refusing(table: str, block: Columns, query_id: str) -> None:
        if is_wanting[0] and block.seq[0]:
            code = 439 if table.endswith("_probe") else 27
            raise RefusedError("Cannot schedule a task: failed to start the thread", code)
        insert(table, block, query_id)

    monkeypatch.setattr(wanting, "insert_block", refusing)
    loader = new_loader(lambda: wanting, recording)
    recording.add(8)
    for _ in range(30):
        with pytest.raises(RefusedError):
            loader.step()
    is_wanting[0] = False
    drain(loader, recording)
    assert table_rows(engine, "btc_current") == recording.rows()
    assert engine.select("SELECT count() FROM refused_rows") == [(0,)]


def test_a_table_whose_files_are_gone_is_loaded_anew_and_no_row_is_blamed(
    backend: Backend, engine: Engine, recording: Recording
) -> None:
    """A rename that a disk refused half-way leaves a table without its folder; it takes no row any more."""
    loader = new_loader(backend.engine, recording)
    recording.add(50)
    drain(loader, recording)
    files = backend.table_files("btc_current")
    files.rename(files.with_name("gone"))
    recording.add(50)
    for _ in range(10):
        with contextlib.suppress(EngineError):
            drain(loader, recording)
            break
    assert table_rows(engine, "btc_current") == recording.rows()
    assert engine.select("SELECT count() FROM refused_rows") == [(0,)]
    assert loader.progress.refused_rows == 0
    assert "btc_probe" not in table_names(engine)


def test_what_a_rename_left_under_a_name_does_not_keep_the_table_from_it(
    backend: Backend, engine: Engine, recording: Recording
) -> None:
    """The files went to the new name, a full disk refused the rest: the name has a folder, and no table."""
    loader = new_loader(backend.engine, recording)
    recording.add(50)
    drain(loader, recording)
    first = recording.end_period()
    files = backend.table_files("btc_current")
    files.rename(files.with_name(sealed_name(first)))
    recording.add(20)
    for _ in range(10):
        with contextlib.suppress(EngineError):
            drain(loader, recording)
            break
    assert table_rows(engine, sealed_name(first)) == recording.rows(first)
    assert table_rows(engine, "btc_current") == recording.rows()[first.rows :]
    assert engine.select("SELECT count() FROM refused_rows") == [(0,)]


def leave_in_the_way(backend: ServerBackend, table: str) -> None:
    """What the old server leaves where its disk fails while it gives a table that name, and then takes for somebody
    else's work."""
    (backend.server.data / "metadata" / "ch_mexc" / f"{table}.sql.tmp").write_text("ATTACH TABLE")


@pytest.mark.server
@pytest.mark.parametrize("name", ["btc_current", "btc_next"])
def test_loading_goes_on_past_a_table_that_the_server_only_half_made(
    server_backend: ServerBackend, recording: Recording, name: str
) -> None:
    """Its disk failed as the file that describes the table was to get its name: the server knows the table, and can
    neither drop nor rename it."""
    loader = new_loader(server_backend.engine, recording)
    recording.add(50)
    drain(loader, recording)
    engine = server_backend.engine()
    capabilities = engine.connect()
    if name == "btc_next":
        engine.execute(row_table_sql(name, capabilities))
    file = server_backend.server.data / "metadata" / "ch_mexc" / f"{name}.sql"
    file.rename(file.with_name(f"{name}.sql.tmp"))
    first = recording.end_period()
    recording.add(20)

    def through() -> bool:
        with contextlib.suppress(EngineError):
            drain(loader, recording)
            return table_rows(engine, sealed_name(first)) == recording.rows(first)
        return False

    wait_for(through, 30, "the swap")
    assert table_rows(engine, "btc_current") == recording.rows()[first.rows :]
    assert not [n for n in table_names(engine) if n.startswith(("_", "btc_orphan", "btc_altered"))]
    engine.close()


@pytest.mark.server
@pytest.mark.parametrize("name", ["btc_current", "btc_next", "sealed"])
def test_loading_goes_on_past_a_file_that_the_server_left_in_the_way_of_a_table(
    server_backend: ServerBackend, recording: Recording, name: str
) -> None:
    loader = new_loader(server_backend.engine, recording)
    recording.add(50)
    drain(loader, recording)
    first = recording.end_period()
    leave_in_the_way(server_backend, sealed_name(first) if name == "sealed" else name)
    recording.add(20)

    def through() -> bool:
        with contextlib.suppress(EngineError):
            drain(loader, recording)
            return True
        return False

    wait_for(through, 30, "the swap")
    engine = server_backend.engine()
    engine.connect()
    assert table_rows(engine, sealed_name(first)) == recording.rows(first)
    assert table_rows(engine, "btc_current") == recording.rows()[first.rows :]
    assert not [n for n in table_names(engine) if n.startswith(("_", "btc_orphan", "btc_altered"))]
    engine.close()


@pytest.mark.server
def test_a_name_that_a_left_file_keeps_is_made_and_the_other_tables_are_as_they_were(
    server_backend: ServerBackend,
) -> None:
    engine = server_backend.engine()
    capabilities = engine.connect()
    schema.apply(engine)
    engine.execute(row_table_sql("eth_current", capabilities))
    rows = Columns([1, 2], [5, 6], [7, 8], [1, 2], [b"a", b"b"])
    engine.insert_block("eth_current", rows, "load-eth-1")
    before = table_names(engine)
    leave_in_the_way(server_backend, "btc_reload")
    said = []

    def made() -> bool:
        try:
            engine.connect()
            engine.execute(row_table_sql("btc_reload", capabilities))
        except RefusedError as error:
            said.append(str(error))
            return False
        return True

    wait_for(made, 30, "the table")
    assert all("has btc_reload half made" in text and "restart clickhouse-server" in text for text in said)
    assert said
    assert table_names(engine) == before | {"btc_reload"}
    assert table_rows(engine, "eth_current") == list(rows.rows())
    engine.close()


@pytest.mark.server
def test_a_database_that_a_left_file_keeps_from_its_name_is_used(server_backend: ServerBackend) -> None:
    (server_backend.server.data / "metadata" / "ch_mexc.sql.tmp").write_text("ATTACH DATABASE")
    engine = server_backend.engine()
    engine.execute(row_table_sql("btc_current", engine.connect()))
    assert table_names(engine) == {"btc_current"}
    engine.close()


def test_a_segment_that_cannot_be_read_keeps_nobody_waiting(
    backend: Backend, engine: Engine, recording: Recording
) -> None:
    recording.add(30)
    first = recording.end_period()
    recording.add(20)
    second = recording.end_period()
    first.path.write_bytes(b"not a segment")
    loader = new_loader(backend.engine, recording)
    drain(loader, recording)
    assert loader.progress.unreadable == first.path.name
    assert table_rows(engine, sealed_name(second)) == recording.rows(second)


def test_each_connection_is_in_the_egress_log_once(backend: Backend, engine: Engine, recording: Recording) -> None:
    event = b'{"event":"connected","egress":"socks5h","peer":"198.51.100.7:1080","local":"10.0.0.2:40000"}'
    loader = new_loader(backend.engine, recording)
    recording.event(event)
    recording.add(3)
    drain(loader, recording)
    engine.execute("DROP TABLE btc_current")
    recording.event(event)
    with pytest.raises(RefusedError):
        drain(loader, recording)
    drain(loader, recording)
    logged = engine.select("SELECT seq, egress, peer, local, event FROM egress_log ORDER BY seq")
    assert [row[0] for row in logged] == [1, 5]
    assert logged[0][1:] == ("socks5h", "198.51.100.7:1080", "10.0.0.2:40000", event.decode())


@pytest.mark.parametrize("event", [b'{"event":"connected" and more', b'{"event":"disconnected"' + b',"a":[' * 20_000])
def test_an_event_that_is_none_of_ours_is_loaded_like_any_row(
    backend: Backend, engine: Engine, recording: Recording, event: bytes
) -> None:
    loader = new_loader(backend.engine, recording)
    recording.event(event)
    recording.add(3)
    drain(loader, recording)
    assert engine.select("SELECT count() FROM btc_current") == [(4,)]
    assert engine.select("SELECT count() FROM egress_log") == [(0,)]


def test_a_row_table_can_be_altered_only_through_a_numbered_file(backend: Backend, engine: Engine) -> None:
    assert schema.apply(engine) == ["001_logs.sql", "002_loading.sql", "003_row_types.sql", "004_minutes.sql"]
    assert schema.apply(engine) == []
    assert engine.select("SELECT version FROM schema_versions ORDER BY version") == [(1,), (2,), (3,), (4,)]


def test_who_was_overtaken_in_applying_the_files_goes_on(
    backend: Backend, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread, or another store on the same server, is done between the look and the statement: once each
    symbol's thread stood still with DUPLICATE_COLUMN after the engine had a new folder."""
    late = backend.engine()
    late.connect()
    execute = late.execute
    applied: list[str] = []

    def overtaken(sql: str) -> None:
        if sql.startswith("ALTER") and not applied:
            applied.extend(schema.apply(engine))
        execute(sql)

    monkeypatch.setattr(late, "execute", overtaken)
    schema.apply(late)
    assert "003_row_types.sql" in applied
    assert schema.apply(engine) == []
    late.close()


FIRST_ENUM = "Enum8('t' = 1, 'd' = 2, 'dp' = 3, 'dl' = 4, 'ev' = 5, 'r' = 6)"
"""What row tables had for their types up to 0.2."""


def as_before(engine: Engine, table: str) -> None:
    """Make the table as earlier versions did, with the rows that it has."""
    types = [FIRST_ENUM if kind == ENUM else kind for kind in engine.connect().row_types]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(ROW_COLUMNS, types, strict=True))
    engine.execute(f"CREATE TABLE before ({columns}) ENGINE = StripeLog")
    engine.execute(f"INSERT INTO before SELECT * FROM {table} WHERE CAST(mt AS Int8) <= 6 ORDER BY seq")
    engine.execute(f"DROP TABLE {table}")
    engine.execute(f"RENAME TABLE before TO {table}")


@pytest.mark.parametrize("rows", [0, 300])
def test_tables_of_a_version_that_knew_fewer_types_are_carried_over(
    backend: Backend, engine: Engine, recording: Recording, rows: int
) -> None:
    """No engine can alter the column of a StripeLog table, so that it is loaded again; a sealed one stays as it is."""
    loader = new_loader(backend.engine, recording)
    recording.add(5)
    drain(loader, recording)
    sealed = recording.end_period()
    drain(loader, recording)
    for n in range(rows):
        recording.event(b'{"event":"clock","n":%d}' % n)
    drain(loader, recording)
    loader.detach()
    for table in ("btc_current", sealed_name(sealed)):
        as_before(engine, table)
    before = table_rows(engine, sealed_name(sealed))

    later = new_loader(backend.engine, recording)
    recording.add(20)
    drain(later, recording)
    assert later.progress.refused_rows == 0
    assert table_rows(engine, "btc_current") == [r for r in recording.rows() if r.seq > sealed.last_seq]
    assert table_rows(engine, sealed_name(sealed)) == before
    assert {table for table in table_names(engine) if "orphan" in table or "altered" in table} == set()
    later.detach()


def as_texts(names: list[str], table: str) -> str:
    return f"SELECT {', '.join(f'toString({name})' for name in names)} FROM {table}"


def logged(engine: Engine) -> dict[str, tuple[list[str], list[Any]]]:
    """Of each table of records the columns that it has, and its rows."""
    found = {}
    for table in sorted(schema.columns()):
        names = [row[0] for row in engine.select(
            f"SELECT name FROM system.columns WHERE database = currentDatabase() AND table = '{table}'"
        )]  # fmt: skip
        found[table] = names, sorted(engine.select(as_texts(names, table)))
    return found


@pytest.mark.parametrize("applied", range(2, len(schema.files()) - 1))
@pytest.mark.parametrize("spool", ["there", "lost"])
def test_what_any_earlier_version_left_is_carried_over_without_losing_a_row(
    backend: Backend, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, applied: int, spool: str
) -> None:
    """The first release had applied the files up to 002; the engine goes on running throughout."""
    with monkeypatch.context() as before:
        former = schema.files()[: applied + 1]
        before.setattr(schema, "files", lambda: former)
        recording = Recording(tmp_path / "spool")
        loader = new_loader(backend.engine, recording)
        for _ in range(2):
            recording.event(b'{"event":"connected","egress":"direct"}')
            recording.add(5)
            drain(loader, recording)
            sealed = recording.end_period()
            drain(loader, recording)
        for n in range(40):
            recording.event(b'{"event":"clock","n":%d}' % n)
        drain(loader, recording)
        loader.detach()
        for table in ("export_log", "collector_stats"):
            engine.insert(table, [("id", "String"), ("last_seq", "UInt64")], [("eth", n) for n in range(7)])
    if applied < 3:
        for table in ("btc_current", sealed_name(sealed)):
            as_before(engine, table)
    records = logged(engine)
    tables = {table: table_rows(engine, table) for table in ("btc_current", sealed_name(sealed))}
    rows = recording.rows()
    if spool == "lost":
        recording.close()
        shutil.rmtree(recording.folder)
        recording = Recording(tmp_path / "spool", known_seq=recording.spool.last_seq)

    later = new_loader(backend.engine, recording)
    auditor = new_auditor(backend.engine, recording, later)
    recording.add(30)
    drain(later, recording)
    assert later.progress.refused_rows == 0
    now = {table: table_rows(engine, table) for table in table_names(engine) if table.startswith("btc_")}
    apart = sorted(table for table in now if "orphan" in table)
    if spool == "there":
        assert not apart
        assert now["btc_current"] == [row for row in recording.rows() if row.seq > sealed.last_seq]
        assert now["btc_current"][:-30] == tables["btc_current"]
        assert now[sealed_name(sealed)] == tables[sealed_name(sealed)]
    else:
        assert now["btc_current"] == recording.rows()
        known = {row.seq: row for table in apart for row in now[table]}
        assert all(known[row.seq] == row for row in rows if row.seq > sealed.last_seq), "the spool has them no more"
        assert [now[table] for table in apart if now[table] == tables[sealed_name(sealed)]]
    for table, (names, had) in records.items():
        kept = engine.select(as_texts(names, table))
        assert set(had) <= set(kept), table
    mark(recording.end_period())
    drain(later, recording)
    audit(auditor)
    verdicts = engine.select("SELECT id, verdict, minutes_agree, rows_x > 0 FROM export_log WHERE id = 'btc'")
    assert verdicts == [("btc", "verified", 0, 1)]
    assert engine.select("SELECT count() FROM export_log WHERE id = 'eth' AND minutes_differ = 0") == [(7,)]
    later.detach()
    auditor.detach()
    recording.close()


def test_logs_of_a_version_that_knew_fewer_types_go_on(backend: Backend, engine: Engine, recording: Recording) -> None:
    """Columns are added where they are; what was logged stays, and a table made anew has them, too."""
    _, (_, _, logs), (_, _, loading), *_ = schema.files()
    for statement in [*logs, *loading]:
        engine.execute(statement)
    engine.insert("export_log", [("id", "String"), ("rows", "UInt64")], [("eth", 7)])
    loader, auditor = new_loader(backend.engine, recording), None
    recording.add(30)
    drain(loader, recording)
    auditor = new_auditor(backend.engine, recording, loader)
    segment = mark(recording.end_period())
    drain(loader, recording)
    audit(auditor)
    found = engine.select("SELECT id, rows, rows_x, minutes_agree FROM export_log ORDER BY id")
    assert found == [("btc", 31, segment.counts["x"], 0), ("eth", 7, 0, 0)]
    assert segment.counts["x"] > 0
    engine.execute("DROP TABLE export_log")
    assert schema.apply(engine) == ["001_logs.sql", "003_row_types.sql", "004_minutes.sql"]
    assert engine.select("SELECT count() FROM export_log WHERE rows_x = 0") == [(0,)]
    assert engine.select("SELECT count() FROM export_log WHERE minutes_agree = 0") == [(0,)]
    loader.detach()
    auditor.detach()


def test_nothing_is_judged_while_an_insert_of_ours_may_still_run(
    backend: Backend, engine: Engine, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed store leaves its last insert running in the server; its rows arrive after the next store has started."""
    recording.add(20)
    block = Columns.of(recording.rows()[:10])
    new_loader(backend.engine, recording).step()
    engine.execute("DROP TABLE btc_current")
    engine.execute(row_table_sql("btc_current", engine.connect()))
    late = backend.engine()
    asked: list[str] = []

    def is_running(prefix: str) -> bool:
        asked.append(prefix)
        if len(asked) == 3:
            engine.insert_block("btc_current", block, "load-btc-late")
        return len(asked) < 3

    monkeypatch.setattr(late, "is_running", is_running)
    drain(new_loader(lambda: late, recording), recording)
    assert asked == ["load-btc-"] * 3
    assert table_rows(engine, "btc_current") == recording.rows()


@pytest.mark.server
def test_a_running_insert_is_seen_by_its_id(tmp_path: Path) -> None:
    server = ServerBackend(tmp_path / "server")
    engine = server.engine()
    engine.connect()
    engine.execute("CREATE TABLE slow (a UInt8) ENGINE = Memory")
    client = server.server.client()

    def insert() -> None:
        slow = "INSERT INTO ch_mexc.slow SELECT sleep(0.5) FROM system.numbers LIMIT 3"
        client.execute(slow, query_id="ch_mexc/load-btc-1", settings={"max_block_size": 1})

    thread = threading.Thread(target=insert)
    thread.start()
    wait_for(lambda: engine.is_running("load-btc-"))
    assert not engine.is_running("load-eth-")
    thread.join()
    assert not engine.is_running("load-btc-")
    engine.close()
    server.close()


def test_verify_in_the_moment_of_a_swap(
    backend: Backend, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a new segment were once taken for rows that the one before does not have."""
    loader = new_loader(backend.engine, recording)
    recording.add(50)
    drain(loader, recording)
    asking = backend.engine()
    real, swaps = asking.select, [1, 2]

    def select(sql: str) -> list[tuple[Any, ...]]:
        if swaps and "count(), max(seq), min(seq) FROM btc_current" in sql:
            swaps.pop()
            recording.end_period()
            recording.add(20)
            drain(loader, recording)
        return real(sql)

    monkeypatch.setattr(asking, "select", select)
    findings = questions.verify(lambda: asking, recording.folder.parent, ["btc"])["findings"]
    assert swaps == []
    assert [f["text"] for f in findings if not f["ok"]] == []
    assert [f["text"].partition(",")[0] for f in findings if f["table"] == "btc_current"] == ["20 rows"]
    loader.detach()


def test_verify_of_tables_that_are_swapped_at_each_look_says_that_it_cannot_tell(
    backend: Backend, engine: Engine, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What such a look finds is of two segments, and was once called a failure; what is always wrong is still said."""
    loader = new_loader(backend.engine, recording)
    recording.add(50)
    drain(loader, recording)
    first = recording.end_period()
    recording.add(20)
    drain(loader, recording)
    engine.execute(f"DROP TABLE {sealed_name(first)}")
    engine.execute(row_table_sql(sealed_name(first), engine.connect()))
    asking = backend.engine()
    real = asking.select

    def select(sql: str) -> list[tuple[Any, ...]]:
        if "seq) FROM btc_current" in sql:
            recording.end_period()
            recording.add(20)
            drain(loader, recording)
        return real(sql)

    monkeypatch.setattr(asking, "select", select)
    answer = questions.verify(lambda: asking, recording.folder.parent, ["btc"])
    said = {(f["table"], f["text"].partition(":")[0]) for f in answer["findings"] if not f["ok"]}
    differs = "differs from its segment in seq, rx, ts, mt, len, m"
    assert said == {(sealed_name(first), differs), ("btc_current", "cannot be told"), ("seq", "cannot be told")}
    assert answer["held"] == []
    with pytest.raises(UserError, match="cannot be told"):
        questions.given(lambda: asking, "btc")
    loader.detach()
