"""The store as a process: outages, kill -9, lost replies, questions, and who may run beside whom."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline import control
from mexc_pipeline.config import Config, parse
from mexc_pipeline.control import ControlServer
from mexc_pipeline.errors import UserError
from mexc_pipeline.store import questions, readonly
from mexc_pipeline.store.engine import Engine, RefusedError, UnreachableError
from mexc_pipeline.store.loader import Loader
from mexc_pipeline.store.server import ServerEngine
from mexc_pipeline.store.service import Store
from mexc_pipeline.store.swaps import noted
from support.clickhouse_server import ClickHouseServer
from support.store_process import MAIN, Process
from support.storing import (
    Backend,
    EmbeddedBackend,
    Recording,
    ServerBackend,
    asked,
    mark,
    table_names,
    table_rows,
    wait_for,
)


def busy_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.server)])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Process]:
    port = request.getfixturevalue("server_backend").server.port if request.param == "server" else 0
    found = Process(tmp_path / "store", port)
    yield found
    found.close()


def rows_of(process: Process, table: str) -> list[tuple[int, str]]:
    """(seq, hex of m) as the running store answers."""
    answer = process.ask("query", sql=f"SELECT seq, hex(m) FROM {table} ORDER BY seq", max_rows=10**6)
    return [(seq, m) for seq, m in answer["rows"]]


def expected(recording: Recording) -> list[tuple[int, str]]:
    return [(row.seq, row.m.hex().upper()) for row in recording.rows()]


def _remove(folder: Path) -> None:
    _move_away(folder)
    shutil.rmtree(folder.with_name("away"))


def _move_away(folder: Path) -> None:
    folder.rename(folder.with_name("away"))


def _replace_by_a_copy(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("copy"))
    _move_away(folder)
    folder.with_name("copy").rename(folder)


@pytest.mark.parametrize("lose", [_remove, _move_away, _replace_by_a_copy])
def test_a_store_whose_engines_folder_is_another_ends_to_be_started_again(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    """The engine itself goes on in what is no longer there, and answers as if nothing had happened."""
    process = Process(tmp_path / "store")
    recording = Recording(process.data / "spool")
    with contextlib.closing(process):
        process.start()
        wait_for(process.is_up)
        recording.add(100)
        wait_for(lambda: process.loaded() == recording.spool.last_seq)
        lose(process.data / "clickhouse")
        assert process.ended(20) == 1, "somebody must start it again"
        assert "a folder in use was removed or replaced" in process.text()
        recording.add(100)
        process.start()
        wait_for(lambda: process.is_up() and process.loaded() == recording.spool.last_seq)
        assert rows_of(process, "ch_mexc.btc_current") == expected(recording)
        assert process.end(signal.SIGTERM) == 0
    recording.close()


def test_killed_again_and_again_while_loading(process: Process) -> None:
    """kill -9 at moments spread over loading and swapping: nothing twice, nothing missing, nothing set apart."""
    recording = Recording(process.data / "spool")
    dice = random.Random(7)
    for _ in range(4):
        process.start()
        deadline = time.monotonic() + dice.uniform(1.0, 2.2)
        while time.monotonic() < deadline:
            recording.add(40)
            if dice.random() < 0.1:
                recording.end_period()
            time.sleep(0.01)
        process.end(signal.SIGKILL)
    process.start()
    recording.add(1)  # the newest segment is an open one: once it is loaded all others have tables of their own
    wait_for(lambda: process.is_up() and process.loaded() == recording.spool.last_seq, 80)
    names = [row[0] for row in process.ask("query", sql="SHOW TABLES", max_rows=1000)["rows"]]
    tables = sorted(n for n in names if n == "btc_current" or n.startswith("btc_2"))
    loaded = [row for table in tables for row in rows_of(process, table)]
    assert sorted(loaded) == expected(recording)
    assert not [n for n in names if "orphan" in n or "altered" in n]
    wait_for(lambda: process.ask("status")["symbols"]["btc"]["compared_segments"] == len(tables) - 1)
    status = process.ask("status")["symbols"]["btc"]
    assert (status["differing"], status["compared"]) == (0, {}), "the status does not grow with what is right"
    names = [f"{table.removeprefix('btc_')}.sqlite" for table in tables if table != "btc_current"]
    compared = process.ask("compared", id="btc", segments=[*names, "20000101000000.sqlite"])["compared"]
    assert sorted(compared) == sorted(names)
    assert all(c["ok"] for c in compared.values())
    assert process.end(signal.SIGTERM) == 0
    recording.close()


def test_a_row_can_be_queried_soon_after_it_is_durable(process: Process) -> None:
    recording = Recording(process.data / "spool")
    process.start()
    recording.add(10)
    wait_for(lambda: process.is_up() and process.loaded() == 10)
    delays = []
    for _ in range(20):
        last = recording.add(3).seq[-1]
        began = time.monotonic()
        wait_for(lambda last=last: process.loaded() >= last)  # type: ignore[misc]
        delays.append(time.monotonic() - began)
    assert sorted(delays)[len(delays) // 2] < 0.5, delays
    recording.close()


@pytest.mark.parametrize("how", ["removed", "moved away", "replaced"])
@pytest.mark.parametrize("folder", ["clickhouse", "store"])
def test_a_store_whose_folder_is_lost_ends_and_the_next_one_loads_anew(tmp_path: Path, folder: str, how: str) -> None:
    recording = Recording(tmp_path / "store" / "data" / "spool")
    process = Process(tmp_path / "store")
    try:
        process.start()
        recording.add(100)
        wait_for(lambda: process.is_up() and process.loaded() == 100)
        lost = process.data / folder
        if how == "removed":
            shutil.rmtree(lost)
        else:
            lost.rename(tmp_path / "away")
        if how == "replaced":
            shutil.copytree(tmp_path / "away", lost)
        assert process.ended(30) == 1, process.text()[-2000:]
        assert "removed or replaced" in process.text()
        process.start()
        recording.add(50)
        wait_for(lambda: process.is_up() and process.loaded() == 150, 40)
        assert rows_of(process, "btc_current") == expected(recording)
        assert process.end(signal.SIGTERM) == 0
    finally:
        process.close()
        recording.close()


def test_sigterm_ends_it_soon_and_a_second_one_is_refused(process: Process) -> None:
    recording = Recording(process.data / "spool")
    process.start()
    wait_for(process.is_up)
    second = subprocess.run(
        [sys.executable, "-c", MAIN, str(process.file)], capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 1
    assert "in use by another store, process" in second.stderr
    assert process.is_up(), "the first one was not disturbed"
    recording.add(1000)
    began = time.monotonic()
    assert process.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 5
    assert not process.socket.exists()
    recording.close()


def test_its_end_follows_its_supervisors(tmp_path: Path) -> None:
    process = Process(tmp_path / "store")
    reading, writing = os.pipe()
    code = MAIN.replace("load(Path(sys.argv[1]))", f"load(Path(sys.argv[1])), parent_fd={reading}")
    child = subprocess.Popen([sys.executable, "-c", code, str(process.file)], pass_fds=[reading])
    os.close(reading)
    try:
        wait_for(process.is_up)
        os.close(writing)
        assert child.wait(3) in (0, 1)
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("damage", ["metadata", "sizes"])
def test_an_embedded_folder_that_does_not_open_is_set_aside(tmp_path: Path, damage: str) -> None:
    process = Process(tmp_path / "store")
    recording = Recording(process.data / "spool")
    recording.add(100)
    process.start()
    wait_for(lambda: process.is_up() and process.loaded() == 100)
    process.end(signal.SIGKILL)
    folder = process.data / "clickhouse"
    for file in folder.rglob("btc_current.sql" if damage == "metadata" else "sizes.json"):
        file.write_text("")
    recording.add(20)
    process.start()
    wait_for(lambda: process.is_up() and process.loaded() == 120)
    assert rows_of(process, "btc_current") == expected(recording)
    assert len(list(process.data.glob("clickhouse.broken-*"))) == 1
    assert process.text().count("did not open") == 1
    process.close()
    recording.close()


@pytest.mark.server
def test_the_server_absent_stopped_and_killed_in_mid_insert(tmp_path: Path, server_backend: ServerBackend) -> None:
    server_backend.server.stop()
    process = Process(tmp_path / "store", server_backend.server.port)
    recording = Recording(process.data / "spool")
    recording.add(500)
    process.start()
    status = wait_for(lambda: process.is_up() and not (s := process.ask("status"))["reachable"] and s)
    assert "refused" in status["error"]
    assert status["symbols"]["btc"]["backlog"] == 500
    server_backend.server.start()
    wait_for(lambda: process.loaded() == 500)
    stop = threading.Event()

    def feed() -> None:
        while not stop.is_set():
            recording.add(100)
            time.sleep(0.01)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        for _ in range(3):
            before = process.loaded()
            wait_for(lambda before=before: process.loaded() > before + 300)  # type: ignore[misc]
            server_backend.server.kill()
            server_backend.server.start()
    finally:
        stop.set()
        feeder.join()
    sealed = recording.end_period()
    wait_for(lambda: process.ask("status")["symbols"]["btc"]["compared_segments"], 60)
    assert process.ask("status")["symbols"]["btc"]["differing"] == 0
    assert rows_of(process, f"btc_{sealed.name.period}") == expected(recording)
    assert noted(recording.folder.parents[1], "btc") == {sealed.file: 0}, "nothing came after it"
    assert process.text().count("ClickHouse cannot be used") <= 5, "one line an outage"
    assert process.end(signal.SIGTERM) == 0
    recording.close()


class SwallowingProxy:
    """Forwards bytes to the server; when told to, swallows the end of an insert's answer and hangs up."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.swallow = threading.Event()
        self.swallowed = 0
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        inserting = False
        with client, socket.create_connection(("127.0.0.1", self._target)) as upstream:
            while True:
                ready, _, _ = select.select([client, upstream], [], [], 30)
                if not ready:
                    return
                for source in ready:
                    try:
                        data = source.recv(1 << 16)
                    except OSError:
                        return
                    if not data:
                        return
                    if source is client:
                        if b"INSERT INTO " in data or b"SELECT " in data:
                            inserting = b"INSERT INTO btc_current" in data
                        upstream.sendall(data)
                    elif inserting and data == b"\x05" and self.swallow.is_set():  # end of stream: it is done there
                        self.swallow.clear()
                        self.swallowed += 1
                        return
                    else:
                        client.sendall(data)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.server
def test_a_reply_lost_after_the_insert_was_done(tmp_path: Path, server_backend: ServerBackend) -> None:
    proxy = SwallowingProxy(server_backend.server.port)
    recording = Recording(tmp_path / "spool")
    lossy = ServerEngine(server_backend.settings(proxy.port).clickhouse, reply_s=5)
    loader = Loader("btc", recording.folder, lossy, threading.Lock())
    engine = server_backend.engine()
    engine.connect()
    lost = 0
    for _ in range(12):
        recording.add(200)
        proxy.swallow.set()
        for _ in range(20):
            try:
                if loader.step() and loader.progress.loaded_seq == recording.spool.last_seq:
                    break
            except UnreachableError:
                lost += 1
    assert proxy.swallowed == lost == 12
    assert table_rows(engine, "btc_current") == recording.rows()
    loader.detach()
    engine.close()
    proxy.close()
    recording.close()


@pytest.mark.server
def test_a_wrong_password_is_one_clear_line_and_is_read_again(tmp_path: Path) -> None:
    backend_folder = tmp_path / "server"
    guarded = ClickHouseServer(backend_folder, password="s3cret")
    guarded.start()
    try:
        secret = tmp_path / "password"
        secret.touch(0o600)
        secret.write_text("wrong\n")
        text = f'[clickhouse]\nmode = "server"\nport = {guarded.port}\npassword_file = "{secret}"\n'
        engine = ServerEngine(parse(text, None).clickhouse)
        with pytest.raises(UnreachableError, match="Wrong password") as caught:
            engine.connect()
        assert "\n" not in str(caught.value)
        assert "s3cret" not in str(caught.value)
        secret.write_text("s3cret\n")
        assert engine.connect().version == "18.16.1"
        engine.close()
        secret.unlink()
        with pytest.raises(UnreachableError, match="password_file"):
            engine.connect()
    finally:
        guarded.stop()


ON_CONSTANTS = "SELECT repeat('a', 1000000) LIKE concat(repeat('%a', 10000), 'b')"
"""Minutes of one call of a function, which the engine ends at no limit of time."""


def test_a_call_on_constants_holds_nobody_but_its_place(tmp_path: Path) -> None:
    """Loading, status, what collectors ask, another statement and the end go on beside it."""
    process = Process(tmp_path / "store")
    recording = Recording(process.data / "spool")
    said: list[str] = []

    def ask_for_ever() -> None:
        try:
            control.ask(process.socket, "query", 300, sql=ON_CONSTANTS, max_rows=1)
        except control.ControlError as error:
            said.append(str(error))

    with contextlib.closing(process):
        process.start()
        wait_for(process.is_up)
        busy = busy_s(process.pid)
        asking = threading.Thread(target=ask_for_ever)
        asking.start()
        wait_for(lambda: busy_s(process.pid) > busy + 2, what="an engine that is at it")
        for _ in range(3):
            recording.add(500)
            recording.end_period()
        recording.add(1)
        wait_for(lambda: process.loaded() == recording.spool.last_seq)
        wait_for(lambda: process.ask("status")["symbols"]["btc"]["compared_segments"] == 3)
        assert process.ask("query", sql="SELECT 1", max_rows=1)["rows"] == [[1]]
        assert process.ask("exits", since=0)["rows"] == []
        assert process.ask("known", id="btc")["last_seq"] == recording.spool.last_seq
        assert not said, "otherwise nothing was tried"
        assert process.end(signal.SIGTERM) == 0, "the engine was stopped beneath it"
        asking.join(20)
    assert said, "nobody waits for what was ended"
    assert "ended beneath a statement" in process.text()
    recording.close()


def test_queries_answer_and_nothing_can_be_changed_through_them(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = backend.engine()
    engine.connect()
    engine.execute("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree PARTITION BY tuple() ORDER BY a")
    engine.insert("t", [("a", "UInt64"), ("b", "String")], [(2**64 - 1, "x"), (1, "ü\n")])
    answer = asked(backend.engine, "SELECT a, b, a / 2 AS c FROM t ORDER BY a", 10)
    assert answer["columns"] == ["a", "b", "c"]
    assert answer["types"] == ["UInt64", "String", "Float64"]
    assert answer["rows"][1][:2] == [2**64 - 1, "x"]
    assert answer["rows"][0] == [1, "ü\n", 0.5]
    assert json.loads(json.dumps(answer)) == answer
    assert asked(backend.engine, "SELECT a FROM t WHERE a = 5", 10)["rows"] == []
    cut = asked(backend.engine, "SELECT number FROM system.numbers LIMIT 100000", 10)
    assert (len(cut["rows"]), cut["truncated"]) == (10, True)
    shown = asked(backend.engine, "SHOW TABLES", 10)
    assert (shown["rows"], shown["truncated"]) == ([["t"]], False)
    for sql in ("SELECT nosuch FROM t", "SELEC 1", "SELECT * FROM nosuch"):
        with pytest.raises(UserError):
            asked(backend.engine, sql, 10)
    writes = [
        "INSERT INTO t SELECT 3, 'y'",
        "DROP TABLE t",
        "ATTACH TABLE u",
        "CREATE TABLE u (a Int8) ENGINE = Memory",
        "RENAME TABLE t TO u",
        "TRUNCATE TABLE t",
    ]
    for sql in writes:
        with pytest.raises(UserError):
            asked(backend.engine, sql, 10)
    monkeypatch.setattr(readonly, "judged", lambda sql, ask: sql)
    monkeypatch.setattr(readonly, "judged_by_words", str)
    for sql in writes:  # the engine itself refuses too
        with pytest.raises(RefusedError) as caught:
            backend.engine().query(sql, 10)
        assert caught.value.code in (164, 497, 62, 48)
    assert engine.select("SELECT count() FROM t") == [(2,)]
    assert table_names(engine) == {"t"}
    engine.close()


def test_query_times_are_exact_to_the_nanosecond(tmp_path: Path) -> None:
    backend = EmbeddedBackend(tmp_path / "clickhouse")
    recording = Recording(tmp_path / "spool")
    loader = Loader("btc", recording.folder, backend.engine(), threading.Lock())
    recording.now += 123_455_789
    recording.add(1)
    loader.step()
    answer = asked(backend.engine, "SELECT rx, ts, mt, seq FROM btc_current", 5)
    assert answer["rows"][0][0] == "2023-11-14 22:13:20.123456789"
    assert answer["rows"][0][2:] == ["t", 1]
    loader.detach()
    backend.close()
    recording.close()


def config_for(backend: Backend, tmp_path: Path, symbols: str) -> Config:
    return parse(f'symbols = [{symbols}]\ndata_dir = "{tmp_path / "data"}"\n', None)


def test_one_symbols_trouble_does_not_hold_the_others(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(backend, tmp_path, '"BTC_USDT", "ETH_USDT"')
    btc, eth = Recording(config.spool_dir), Recording(config.spool_dir, "eth")

    def factory() -> Engine:
        engine = backend.engine()
        insert = engine.insert_block

        def refusing(table: str, *args: Any) -> None:
            if table.startswith("btc"):
                raise RefusedError("no", 27)
            insert(table, *args)

        monkeypatch.setattr(engine, "insert_block", refusing)
        return engine

    store = Store(config, factory, stats_every_s=60)
    store.start()
    btc.add(50)
    for _ in range(5):
        eth.add(50)
        wait_for(lambda: store.status()["symbols"]["eth"]["loaded_seq"] == eth.spool.last_seq)
    status = store.status()
    assert status["symbols"]["btc"]["backlog"] == 50
    assert status["symbols"]["btc"]["skipped_rows"] == 0
    assert status["reachable"]
    assert store.close()
    btc.close()
    eth.close()


def a_status(rows: int) -> dict[str, Any]:
    return {
        "id": "btc",
        "symbol": "BTC_USDT",
        "pid": 1,
        "host": "host1",
        "version": "0.1.0",
        "spool_id": "f00d",
        "state": "live",
        "last_seq": 777,
        "last_rx_ns": 0,
        "segment": None,
        "rows": {"t": rows, "d": 5, "ev": rows * 7, "dl": rows * 9},
        "bytes": {"t": rows * 100, "d": 50, "ev": rows * 700, "dl": rows * 9000},
        "market": {"age_s": 99.0, "waited_s": 99.0, "limit_s": 30.0},
        "reconnects": 2,
        "connected_since_ns": None,
        "channels": {},
        "egress": {"mode": "direct", "peer": "198.51.100.9:443", "local": "192.0.2.5:4711"},
        "exchange_said": None,
        "delay_ms": {"p50": 12.5, "p99": 80.0},
        "durable_ms": None,
        "warnings": [],
    }


def ids_in(caplog: pytest.LogCaptureFixture, message: str) -> list[str]:
    return [r.fields["id"] for r in caplog.records if r.getMessage() == message]  # type: ignore[attr-defined]


def recorded_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return ids_in(caplog, "recording")


def unanswered(caplog: pytest.LogCaptureFixture) -> list[str]:
    return ids_in(caplog, "collector does not answer")


def test_statistics_become_a_row_and_a_line(backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = config_for(backend, tmp_path, '"BTC_USDT", "ETH_USDT"')
    answers = iter(range(100, 10**6, 100))
    collector = ControlServer(config.control_dir / "btc.sock", {"status": lambda _: a_status(next(answers))})
    caplog.set_level("DEBUG", "mexc_pipeline.stats")
    store = Store(config, backend.engine, stats_every_s=0.3)
    store.start()
    engine = backend.engine()
    engine.connect()
    try:
        wait_for(lambda: "collector_stats" in table_names(engine))
        wait_for(lambda: engine.select("SELECT count() FROM collector_stats")[0][0] >= 3)
        rows = engine.select(
            "SELECT id, host, spool_id, state, last_seq, rows_d, reconnects, backlog, delay_p99_ms, egress, "
            "egress_address, rows_t, bytes_t FROM collector_stats ORDER BY rows_t LIMIT 1"
        )
        assert rows == [
            ("btc", "host1", "f00d", "silent", 777, 5, 2, 777, 80.0, "direct", "192.0.2.5:4711", 100, 10000)
        ]
        rates = engine.select("SELECT rows_per_s, bytes_per_s FROM collector_stats WHERE isFinite(rows_per_s) LIMIT 1")
        assert 0 < rates[0][0] < 400, "100 in 0.3 s, or in longer where the machine is busy"
        assert rates[0][1] == pytest.approx(rates[0][0] * 100, rel=0.01)
        known = questions.known(backend.engine, "btc")
        assert known["last_seq"] == 777, "also what only a collector's word tells"
        assert (known["writer"]["host"], known["writer"]["pid"]) == ("host1", 1)
        assert 0 <= known["writer"]["age_s"] < 30
        assert set(recorded_lines(caplog)) == {"btc"}
        assert unanswered(caplog) == [], "the other symbol's has not answered yet: that is a start, not an end"
        collector.close()
        wait_for(lambda: unanswered(caplog))
        collector = ControlServer(config.control_dir / "btc.sock", {"status": lambda _: a_status(next(answers))})
        lines = len(recorded_lines(caplog))
        wait_for(lambda: len(recorded_lines(caplog)) > lines)
        assert unanswered(caplog) == ["btc"], "once, however often it was asked"
    finally:
        engine.close()
        assert store.close()
        collector.close()


def test_verify_tells_good_from_bad(backend: Backend, tmp_path: Path) -> None:
    config = config_for(backend, tmp_path, '"BTC_USDT"')
    recording = Recording(config.spool_dir)
    store = Store(config, backend.engine, stats_every_s=60)
    store.start()
    recording.add(90)
    first = recording.end_period()
    recording.add(30)
    wait_for(lambda: store.status()["symbols"]["btc"]["loaded_seq"] == recording.spool.last_seq)
    wait_for(lambda: store.status()["symbols"]["btc"]["compared_segments"])
    good = store.handlers()["verify"]({})
    assert all(f["ok"] for f in good["findings"]), good
    by_table = {f["table"]: f["text"] for f in good["findings"]}
    assert "30 rows" in by_table["btc_current"]
    assert "t 3 (10.0%)" in by_table["btc_current"]
    assert "91 rows, content as in segment" in by_table[f"btc_{first.name.period}"]
    assert store.close()
    engine = backend.engine()
    capabilities = engine.connect()
    from mexc_pipeline.rows import Columns
    from mexc_pipeline.store.engine import row_table_sql

    for table, forge in (("btc_current", "twice"), (f"btc_{first.name.period}", "changed")):
        rows = table_rows(engine, table)
        rows = [*rows, rows[-1]] if forge == "twice" else [r._replace(ts=r.ts + (r.seq == 5)) for r in rows]
        engine.execute(f"DROP TABLE {table}")
        engine.execute(row_table_sql(table, capabilities))
        engine.insert_block(table, Columns.of(rows), "forge")
    bad = questions.verify(backend.engine, config.spool_dir, ["btc"])
    texts = {f["table"]: (f["ok"], f["text"]) for f in bad["findings"]}
    assert texts[f"btc_{first.name.period}"] == (False, "differs from its segment in ts")
    assert not texts["btc_current"][0]
    assert "31 rows" in texts["btc_current"][1]
    assert "the spool has 30 rows" in texts["btc_current"][1]
    mark(first)
    engine.close()
    recording.close()


def test_without_an_engine_the_questions_say_so(tmp_path: Path) -> None:
    settings = parse('[clickhouse]\nmode = "server"\nport = 1\n', None).clickhouse
    with pytest.raises(UserError, match="ClickHouse cannot say what it has of btc"):
        questions.known(lambda: ServerEngine(settings), "btc")
    with pytest.raises(UserError, match=r"^query: "):
        asked(lambda: ServerEngine(settings), "SELECT 1", 1)
    (finding,) = questions.verify(lambda: ServerEngine(settings), tmp_path, ["btc"])["findings"]
    assert not finding["ok"]
    assert finding["text"].startswith("ClickHouse cannot be used: ")


def _resident_mib(what: str) -> int:
    """``VmRSS`` now, or ``VmHWM``, the most since it was last set back."""
    (found,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{what}:"))
    return int(found.split()[1]) >> 10


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT arrayStringConcat(arrayMap(x -> 'x', range(1000))) FROM system.numbers LIMIT 1000000",
        "SELECT arrayStringConcat(arrayMap(x -> 'xxxxxxxxxxxxxxxx', range(60000000)))",
        "SELECT number FROM system.numbers LIMIT 100000000",
        "SELECT groupArray(number) FROM (SELECT number FROM system.numbers LIMIT 100000000)",
        "SELECT arrayJoin(range(100000000))",
        "SELECT range(8000000)",
    ],
)
def test_an_answer_is_bounded_by_bytes(backend: Backend, sql: str) -> None:
    backend.engine().connect()
    asked(backend.engine, "SELECT 1", 1)
    before = _resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM is VmRSS again
    with pytest.raises(UserError, match=r"^query: .*(larger|[Ll]imit|exceed|too large)"):
        asked(backend.engine, sql, 1_000_000_000)
    # The embedded engine's own part is its limit of 256 MiB, twice the answer's text, and what it gives back late.
    assert _resident_mib("VmHWM") - before < (450 if isinstance(backend, EmbeddedBackend) else 100)
    assert asked(backend.engine, "SELECT 1 AS a", 1)["rows"] == [[1]]


def test_a_column_may_have_any_name(backend: Backend) -> None:
    backend.engine().connect()
    sql = "SELECT 1 AS `a``b\\\\c d`, 'x' AS `e\\`f`"
    assert asked(backend.engine, sql, 1)["columns"] == ["a`b\\c d", "e`f"]


@pytest.mark.parametrize("name", ["a b", "a&b", "a%20b", "a+b", "a'b", "a<b", "ä"])
def test_the_reading_role_is_there_whatever_the_folder_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    backend = EmbeddedBackend(tmp_path / name / "clickhouse")
    backend.engine().connect()
    assert asked(backend.engine, "SELECT currentRoles()", 1)["rows"] == [[["reader"]]]
    backend.close()
