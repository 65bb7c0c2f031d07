"""Statements made to reach a file, a secret or another host through ``query``: none does, whatever its text."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mexc_pipeline.config import ClickHouse, parse
from mexc_pipeline.errors import UserError
from mexc_pipeline.store import server
from mexc_pipeline.store.answering import answered
from mexc_pipeline.store.engine import bounded
from mexc_pipeline.store.server import ServerEngine
from support.clickhouse_server import ClickHouseServer
from support.opened import Opened
from support.storing import Backend, EmbeddedBackend, ServerBackend, asked


def _attacks(target: Path, secret: Path) -> list[str]:
    """Statements that would write ``target`` or show ``secret`` if any of them were run as it stands."""
    return [
        f"/* /* */ SELECT 1 INTO OUTFILE '{target}' TRUNCATE -- */",
        f"/* /* */ select 1 */ SELECT 1 INTO OUTFILE '{target}' TRUNCATE",
        f"SELECT 1 INTO/**/OUTFILE '{target}' TRUNCATE",
        f"SELECT 1; SELECT 1 INTO OUTFILE '{target}' TRUNCATE",
        f"SELECT $$ ' $$ INTO OUTFILE '{target}' TRUNCATE",
        f"SELECT ‘ ' ’ INTO OUTFILE '{target}' TRUNCATE",
        f"EXPLAIN SELECT 1 INTO OUTFILE '{target}' TRUNCATE",
        f"SHOW TABLES INTO OUTFILE '{target}' TRUNCATE",
        f"DESCRIBE TABLE t INTO OUTFILE '{target}' TRUNCATE FORMAT CSV",
        f"INSERT INTO FUNCTION file('{target}', 'CSV', 'a Int8') SELECT 1",
        f"SELECT 1 PARALLEL WITH INSERT INTO FUNCTION file('{target}', 'CSV', 'a Int8') SELECT 1",
        f"BACKUP TABLE t TO File('{target}')",
        f"CREATE TABLE u ENGINE = File(CSV, '{target}') AS SELECT 1 AS a",
        f"CREATE TEMPORARY TABLE u ENGINE = File(CSV, '{target}') AS SELECT 1 AS a",
        "SET ROLE loader",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_memory_usage = 0",
        "SYSTEM SHUTDOWN",
        "KILL QUERY WHERE 1",
        "CREATE FUNCTION f AS x -> x",
        f"SELECT file('{secret}')",
        f"SELECT `file`('{secret}')",
        f"SELECT \"fi\\x6ce\"('{secret}')",
        f"SELECT fi/**/le('{secret}')",
        f"SELECT * APPLY(file) FROM (SELECT '{secret}' AS a)",
        f"SELECT * APPLY file FROM (SELECT '{secret}' AS a)",
        f"SELECT arrayMap(file, ['{secret}'])",
        f"SELECT arrayMap(x -> file(x), ['{secret}'])",
        f"EXPLAIN SELECT file('{secret}')",
        f"SELECT * FROM file('{secret}', LineAsString)",
        f"DESCRIBE TABLE file('{secret}')",
        f"SELECT * FROM '{secret}'",
        f"SELECT * FROM `{secret}`",
        f"SELECT * FROM (SELECT * FROM file('{secret}', LineAsString))",
        f"SELECT * FROM view(SELECT * FROM file('{secret}', LineAsString))",
        f"SELECT * FROM viewExplain('EXPLAIN', '', (SELECT * FROM file('{secret}', LineAsString)))",
        f"SELECT * FROM filesystem('{secret.parent}')",
        f"SELECT * FROM sqlite('{secret}', 't')",
        f"SELECT * FROM executable('cat {secret}', LineAsString, 'a String')",
        "SELECT * FROM Python('config')",
        "SELECT * FROM remote('127.0.0.1', 'ch_mexc', 't')",
        "SELECT * FROM url('http://127.0.0.1:9/', LineAsString)",
        f"SELECT * FROM url('file://{secret}', LineAsString)",
        f"SELECT * FROM s3('file://{secret}', LineAsString)",
        f"SELECT * FROM icebergLocal('{secret.parent}')",
        f"SELECT * FROM deltaLakeLocal('{secret.parent}')",
        "SELECT * FROM mysql('127.0.0.1:9', 'a', 'b', 'c', 'd')",
        "SELECT * FROM postgresql('127.0.0.1:9', 'a', 'b', 'c', 'd')",
        "SELECT * FROM jdbc('x', 'y')",
        "SELECT * FROM hdfs('hdfs://127.0.0.1:9/x', 'CSV', 'a Int8')",
        "SELECT * FROM azureBlobStorage('http://127.0.0.1:9', 'a', 'b')",
        "SELECT * FROM input('a Int8')",
        f"SELECT catboostEvaluate('{secret}', 1)",
        f"SELECT * FROM loop(file('{secret}', LineAsString)) LIMIT 1",
        f"SELECT * FROM fileCluster('default', '{secret}', LineAsString)",
        "SELECT * FROM urlCluster('default', 'http://127.0.0.1:9/', LineAsString)",
        "SELECT * FROM clusterAllReplicas('default', 'system', 'one')",
        "SELECT * FROM redis('127.0.0.1:9', 'k', 'k String')",
        "SELECT * FROM mongodb('127.0.0.1:9', 'a', 'b', 'c', 'd', 'e String')",
        f"WITH (SELECT * FROM file('{secret}', LineAsString)) AS a SELECT a",
        f"WITH a AS (SELECT file('{secret}') AS b) SELECT * FROM a",
        f"SELECT 1 UNION ALL SELECT length(file('{secret}'))",
        f"SELECT 1 WHERE 1 IN (SELECT a FROM file('{secret}', 'CSV', 'a String'))",
        f"SELECT 1 ORDER BY file('{secret}') LIMIT 1 BY file('{secret}')",
        f"SELECT joinGet(file('{secret}'), 'a', 1), dictGet(file('{secret}'), 'a', 1)",
        f"SELECT a FROM format(LineAsString, file('{secret}'))",
        f"SELECT 1 FORMAT Template SETTINGS format_template_row = '{secret}'",
        f"SELECT 1 INTO OUTFILE '{target}' APPEND COMPRESSION 'gzip' FORMAT Native",
        f"SELECT 1 INTO OUTFILE '{target}' AND STDOUT TRUNCATE",
        f"SELECT 1 FORMAT Null; INSERT INTO t FROM INFILE '{secret}' FORMAT CSV",
        "TRUNCATE TABLE t",
        "RENAME TABLE t TO u",
        "DETACH TABLE t PERMANENTLY",
        "OPTIMIZE TABLE t",
        "ALTER TABLE t DELETE WHERE 1",
        "EXCHANGE TABLES t AND t",
        "DROP TABLE t SYNC",
        f"SELECT\u2003file('{secret}')",
        f"WITH (x) -> file(x) AS f SELECT f('{secret}')",
        f"WITH file AS f SELECT f('{secret}')",
        f"SELECT * REPLACE(file('{secret}') AS a) FROM t",
        f"SELECT tokens(file('{secret}'))",
        f"EXPLAIN SYNTAX SELECT file('{secret}')",
        f"DESCRIBE (SELECT * FROM file('{secret}'))",
        f"EXPLAIN TABLE OVERRIDE file('{secret}') COLUMNS (a Int8)",
        f"SELECT * FROM paimonLocal('{secret.parent}')",
        f"print file('{secret}')",
        "EXECUTE AS loader SELECT 1",
        "EXPLAIN INSERT INTO t VALUES (1)",
        "CHECK TABLE t",
        "SHOW CREATE USER default",
        "SELECT 1\0",
        "SELECT \ud800",
    ]


AROUND = [
    "{}",
    "/* /* */ SELECT 1 */ {} -- /*",
    "-- '\n{} /* ` */",
    "#! x\n{}",
    "({})",
    "{};",
    "{} -- ;",
    "SELECT 1; {}",
    "SELECT * FROM ({})",
    "SELECT ({})",
    "WITH a AS ({}) SELECT * FROM a",
    "WITH ({}) AS a SELECT a",
    "SELECT 1 UNION ALL ({})",
    "SELECT 1 WHERE 1 IN ({})",
    "SELECT * FROM view({})",
    "SELECT * FROM viewExplain('EXPLAIN', '', ({}))",
    "EXPLAIN {}",
    "EXPLAIN AST {}",
    "EXPLAIN QUERY TREE {}",
    "DESCRIBE ({})",
    "SELECT ‘ ' ’, ' ’ ', ({})",
    "SELECT $$ ' $$, ({})",
    "SELECT $a$ $$ $a$, `a\\`b`, ({})",
    "SELECT 'a\\'b', \"a\\\"b\", ({})",
    "{} SETTINGS readonly = 0",
    "{} FORMAT LineAsString",
    "{} LIMIT 1",
]
"""Ways to hide a statement from who reads it otherwise than the engine."""


def _hidden(target: Path, secret: Path) -> list[str]:
    """A few statements that write or show something, in every disguise."""
    bare = [
        f"SELECT file('{secret}')",
        f"SELECT arrayMap(file, ['{secret}'])",
        f"SELECT * FROM file('{secret}', 'LineAsString', 'a String')",
        f"SELECT * FROM url('file://{secret}', 'LineAsString', 'a String')",
        f"SELECT 1 INTO OUTFILE '{target}' TRUNCATE",
        f"INSERT INTO FUNCTION file('{target}', 'CSV', 'a Int8') SELECT 1",
        f"SELECT * FROM executable('cat {secret}', 'LineAsString', 'a String')",
    ]
    return [around.replace("{}", sql) for sql in bare for around in AROUND]


def _calls(host: str) -> list[str]:
    """Statements that would connect to a host if any of them were run."""
    return [
        f"SELECT * FROM remote('{host}', system.one)",
        f"EXPLAIN SELECT * FROM remote('{host}', system.one)",
        f"DESCRIBE remote('{host}', system.one)",
        f"SELECT * FROM url('http://{host}/x', 'CSV', 'a String')",
        f"DESCRIBE TABLE url('http://{host}/x')",
        f"EXPLAIN SELECT * FROM url('http://{host}/x')",
        f"SELECT * FROM s3('http://{host}/bucket/x', 'CSV', 'a String')",
        f"DESCRIBE TABLE s3('http://{host}/bucket/x')",
        f"SELECT * FROM gcs('http://{host}/bucket/x', 'k', 's', 'CSV', 'a String')",
        f"SELECT * FROM hudi('http://{host}/bucket/x')",
        f"SELECT * FROM iceberg('http://{host}/bucket/x')",
        f"SELECT * FROM deltaLake('http://{host}/bucket/x', 'a', 'b')",
        f"SELECT * FROM azureBlobStorage('http://{host}/x', 'c', 'p')",
        f"SELECT * FROM hdfs('hdfs://{host}/x', 'CSV', 'a Int8')",
        f"SELECT * FROM mysql('{host}', 'a', 'b', 'c', 'd')",
        f"SELECT * FROM postgresql('{host}', 'a', 'b', 'c', 'd')",
        f"SELECT * FROM mongodb('mongodb://{host}/a', 'b', 'a String')",
        f"SELECT * FROM redis('{host}', 'k', 'k String')",
        f"SELECT * FROM odbc('DSN={host}', 'y')",
        f"SELECT hasColumnInTable('{host}', 'a', 'b', 'system', 'one', 'dummy')",
        f"SELECT hasColumnInTable('{host}', 'system', 'one', 'dummy')",
        f"SELECT `has\\x43olumnInTable`('{host}', 'a', 'b', 'system', 'one', 'dummy')",
        f"SELECT arrayMap(x -> hasColumnInTable('{host}', 'system', 'one', 'dummy'), [1])",
        f"SELECT reverseDNSQuery('{host}')",
        f"SELECT * FROM cluster('{host}', system.one)",
        f"SELECT * FROM remoteSecure('{host}', system.one)",
        f"SELECT * FROM jdbc('jdbc:mysql://{host}/a', 'b', 'c')",
        f"SELECT * FROM sqlite('{host}', 't')",
        f"SELECT aiGenerate('x', map('url', 'http://{host}/x'))",
        f"SELECT aiGenerate('x', map('credentials', 'http://{host}/x'))",
    ]


def test_no_statement_reaches_another_host(backend: Backend) -> None:
    backend.engine().connect()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        for sql in _calls(f"127.0.0.1:{listener.getsockname()[1]}"):
            with pytest.raises(UserError):
                asked(backend.engine, sql, 10)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody came
            listener.accept()


def _in_this_process(question: Mapping[str, Any]) -> bytearray:
    """Instead of a process for each of hundreds of statements; the server is asked the same."""
    engine = ServerEngine(msgspec.convert(question["clickhouse"], ClickHouse), question["reply_s"])
    return bounded(answered(engine, question["statement"], question["max_rows"]))


def test_no_statement_touches_a_file_or_shows_one(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "read_apart", _in_this_process)
    engine = backend.engine()
    engine.connect()
    engine.execute("CREATE TABLE t (a UInt64) ENGINE = StripeLog")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target, secret = folder / "2026112120.sqlite", folder / "secret"
    target.write_text("rows")
    secret.write_text("S3CRET\n")
    shown = 0
    with Opened(folder) as opened:
        for sql in [*_attacks(target, secret), *_hidden(target, secret)]:
            try:
                said = json.dumps(asked(backend.engine, sql, 10))
                shown += 1
            except UserError as error:
                said = str(error)
            assert "S3CRET" not in said
            assert opened.names() == [], sql
        secret.read_text()
        assert "secret" in opened.names(), "otherwise nothing was looked at"
    # A server leaves INTO OUTFILE and FORMAT to its client, and ours knows neither.
    assert not shown or isinstance(backend, ServerBackend)
    engine.insert("t", [("a", "UInt64")], [(1,)])  # the store itself may still do all it did
    assert engine.select("SELECT count() FROM t") == [(1,)]
    engine.close()


def test_a_function_that_nobody_judged_is_refused(tmp_path: Path) -> None:
    """As a new engine may bring one."""
    backend, secret = EmbeddedBackend(tmp_path / "clickhouse"), tmp_path / "secret"
    secret.write_text("S3CRET\n")
    engine = backend.engine()
    engine.connect()
    engine.execute("CREATE FUNCTION shown AS path -> file(path)")
    assert engine.select(f"SELECT shown('{secret}')") == [("S3CRET\n",)]
    for call in ("shown('{}')", "arrayMap(shown, ['{}'])", "arrayMap(x -> shown(x), ['{}'])", "upper(shown('{}'))"):
        with pytest.raises(UserError, match=r"^query: .*shown"):
            asked(backend.engine, f"SELECT {call.format(secret)}", 1)
    engine.execute("DROP FUNCTION shown")
    engine.close()
    backend.close()


SECRETS = """
SELECT * FROM system.users
SELECT * FROM system.named_collections
SELECT * FROM system.certificates
SELECT * FROM system.server_settings
SELECT * FROM system.settings
SELECT * FROM system.processes
SELECT * FROM system.tables
SELECT * FROM default.`{}`
SELECT * FROM information_schema.tables
SHOW CREATE USER default
SHOW GRANTS
SHOW ACCESS
SHOW PROCESSLIST
SELECT getServerSetting('users_config'), getMacro('x'), getSetting('readonly')
""".strip().splitlines()


@pytest.mark.server
def test_no_table_of_the_servers_own_shows_its_password(tmp_path: Path) -> None:
    clickhouse = ClickHouseServer(tmp_path / "server", "S3CRET")
    clickhouse.start()
    secret = tmp_path / "password"
    secret.touch(0o600)
    secret.write_text(clickhouse.password)
    text = f'[clickhouse]\nmode = "server"\nport = {clickhouse.port}\npassword_file = "{secret}"\n'
    settings = parse(text, None).clickhouse
    ServerEngine(settings).connect()
    answered = 0
    for sql in SECRETS:
        try:
            said = json.dumps(asked(lambda: ServerEngine(settings), sql.replace("{}", str(secret)), 1000))
            answered += 1
        except UserError as error:
            said = str(error)
        assert "S3CRET" not in said
    clickhouse.kill()
    assert answered >= 3, "otherwise nothing was looked at"
