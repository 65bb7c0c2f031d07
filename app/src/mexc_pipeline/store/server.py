"""A ClickHouse server over native TCP, from 18.16 on, by ``clickhouse-driver``."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import clickhouse_driver
import msgspec
from clickhouse_driver import errors
from clickhouse_driver.result import IterQueryResult

from mexc_pipeline import paths, tls
from mexc_pipeline.config import ClickHouse
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.rows import Columns
from mexc_pipeline.store import leftovers, native, readonly
from mexc_pipeline.store.engine import (
    ADMISSION,
    QUERY_LIMITS,
    QUERY_S,
    ROW_COLUMNS,
    TABLE_EXISTS,
    TYPES_DATETIME64,
    TYPES_INT64,
    UNKNOWN_DATABASE,
    UNKNOWN_FUNCTION,
    Capabilities,
    EngineError,
    RefusedError,
    UnreachableError,
    bounded,
    quote,
    read_sql,
)
from mexc_pipeline.store.leftovers import Leftovers
from mexc_pipeline.text import keep_secret

log = logging.getLogger("mexc_pipeline.store")

_T = TypeVar("_T")
_CONNECT_S = 5.0
_REPLY_S = 30.0
_READ_BLOCK = 4096
"""Rows a block when reading whole tables or for a user; decoding one holds the interpreter for a few milliseconds."""
_QUERY_SETTINGS = {"strings_as_bytes": True, "max_block_size": _READ_BLOCK, **QUERY_LIMITS, "readonly": 1}
_ATTACHINGS = 3
"""Tables that others make meanwhile can keep one from finding all."""
_TRIAL = "_trial_"
_REMEDY = "where it does not go on by itself, systemctl restart clickhouse-server removes what is left of it"
_ODD = (ValueError, LookupError, RecursionError)
"""What the driver raises of an answer that is none of ClickHouse's: text that is no text, an exception in an exception
without end."""
ANSWERING = (sys.executable, "-m", "mexc_pipeline.store.answering")
ANSWER_S = QUERY_S + 30.0
"""Until a user's answer is whole: the server's time and that of reading what it sends."""


class _BlockResult(IterQueryResult):  # type: ignore[misc]  # the driver is not typed
    """Gives whole blocks, the header's empty one included, where the driver gives rows one by one."""

    def __next__(self) -> list[Any]:
        block = getattr(next(self.packet_generator), "block", None)
        return [] if block is None else [block]


class ServerEngine:
    """The engine of a server, see :class:`engine.Engine`. Each wait for the server is bounded; the password is read at
    each connect. The ``leftovers`` are those of all engines of the process."""

    def __init__(self, settings: ClickHouse, reply_s: float = _REPLY_S, leftovers: Leftovers | None = None) -> None:
        self._settings = settings
        self._reply_s = reply_s
        self._leftovers = leftovers or Leftovers()
        self._client: Any = None
        self._capabilities = Capabilities()

    def connect(self) -> Capabilities:
        self.close()
        first = self._new_client("", {})  # a database that is not there yet is refused at connect
        try:
            _guarded(lambda: first.execute(f"CREATE DATABASE IF NOT EXISTS {self._settings.database}"))
        except RefusedError as error:
            if not leftovers.name_of(error):
                raise
            # Attaching what has a folder writes nothing.
            _guarded(lambda: first.execute(f"ATTACH DATABASE IF NOT EXISTS {self._settings.database}"))
        finally:
            first.disconnect()
        client = self._new_client(self._settings.database, {"strings_as_bytes": True})
        self._client = client
        version = str(self.select("SELECT version()")[0][0])
        major, minor, *_ = (int(n) for n in re.findall(r"\d+", version))
        database = self.select(f"SELECT engine FROM system.databases WHERE name = {quote(self._settings.database)}")
        self._capabilities = Capabilities(
            version=version,
            row_types=TYPES_DATETIME64 if (major, minor) >= (20, 1) else TYPES_INT64,
            exchange=database == [("Atomic",)],
        )
        return self._capabilities

    def version(self) -> str:
        """The server's version, asked for with the store's own name, password and certificates; nothing is changed.
        EngineError where it is not answered."""
        client = self._new_client("", {})
        try:
            _guarded(lambda: client.execute("SELECT 1"))
            return str(_guarded(lambda: client.execute("SELECT version()"))[0][0])
        finally:
            client.disconnect()

    def close(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client = None

    def execute(self, sql: str) -> None:
        client = self._open()
        try:
            _guarded(lambda: client.execute(sql))
        except RefusedError as error:
            if not (name := leftovers.name_of(error, sql)):
                raise
            if self._leftovers.is_due(name):
                self._clear(name)
            said = f"ClickHouse has {name} half made, and refuses the name; {_REMEDY}: {error}"
            raise RefusedError(said, error.code) from error

    def _clear(self, name: str) -> None:
        """Have the server remove what it left in the way of ``name``, and of any other."""
        fields = {"table": name, "database": self._settings.database}
        if self._capabilities.exchange:  # its databases leave no such file; what this one is, is for somebody to see
            return
        try:
            self._attach_anew(name)
        except EngineError as error:
            log.warning("database not attached anew", extra={"fields": {**fields, "error": str(error)}})
        else:
            log.warning("half-made table removed, database attached anew", extra={"fields": fields})

    def _attach_anew(self, half_made: str) -> None:
        """Detach the database and attach it, which makes the server look at its folder as at a start: what is
        ``half_made`` is gone then. Nothing is written by that. Whoever is at work in the database is refused in
        between, and tries again."""
        database = self._settings.database
        client = self._new_client("", {})

        def run(sql: str, allowed: int = 0) -> None:
            try:
                _guarded(lambda: client.execute(sql))
            except RefusedError as error:
                if error.code != allowed:
                    raise

        def tables() -> set[str]:
            rows = _guarded(
                lambda: client.execute(f"SELECT name FROM system.tables WHERE database = {quote(database)}")
            )
            return {str(row[0]) for row in rows}

        try:
            # On a disk that still fails the database would stay away.
            run(f"CREATE TABLE {database}.{_TRIAL}{time.time_ns()} (n UInt8) ENGINE = StripeLog")
            for table in sorted(tables()):
                if table.startswith(_TRIAL):
                    run(f"DROP TABLE IF EXISTS {database}.{table}")
            there = tables() - {half_made}
            for _ in range(_ATTACHINGS):
                run(f"DETACH DATABASE {database}", allowed=UNKNOWN_DATABASE)  # somebody else may do the same
                # Whoever makes a table before it was found in the folder stops the search for the others.
                run(f"ATTACH DATABASE IF NOT EXISTS {database}", allowed=TABLE_EXISTS)
                if there <= tables():
                    return
            raise RefusedError(f"tables are missing after it: {', '.join(sorted(there - tables()))}")
        finally:
            client.disconnect()

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        client = self._open()
        rows: list[tuple[Any, ...]] = _guarded(lambda: client.execute(sql))
        return [tuple(v.decode() if isinstance(v, bytes) else v for v in row) for row in rows]

    def insert(self, table: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]) -> None:
        client = self._open()
        data = [[v.encode() if isinstance(v, str) else v for v in column] for column in zip(*rows, strict=True)]
        sql = f"INSERT INTO {table} ({', '.join(name for name, _ in columns)}) VALUES"
        _guarded(lambda: client.execute(sql, data, columnar=True))

    def insert_block(self, table: str, block: Columns, query_id: str) -> None:
        client = self._open()
        sql = f"INSERT INTO {table} ({', '.join(ROW_COLUMNS)}) VALUES"
        # Copies: the driver may change the lists it is given.
        data = [list(column) for column in native.rows_block(block)]
        _guarded(lambda: client.execute(sql, data, columnar=True, query_id=self._query_id(query_id)))

    def read_blocks(self, table: str) -> Iterator[Columns]:
        client = self._open()
        sql = read_sql(table, self._capabilities)
        # One thread: with more, blocks may come out of order.
        settings = {"max_threads": 1, "max_block_size": _READ_BLOCK}
        blocks = _guarded(lambda: iter(client.execute_iter(sql, settings=settings)))
        done = False
        try:
            while (block := _guarded(lambda: next(blocks, None))) is not None:
                if block.num_rows:
                    rows = native.columns_of(block.get_columns())
                    block.data = []  # the driver keeps the block until it has the next one
                    yield rows
                    del rows
            done = True
        finally:
            if not done:
                client.disconnect()  # what is left of the result would be taken for the next answer

    def is_running(self, prefix: str) -> bool:
        mine = quote(self._query_id(prefix))
        return self.select(f"SELECT count() FROM system.processes WHERE startsWith(query_id, {mine})") != [(0,)]

    def _query_id(self, name: str) -> str:
        return f"{self._settings.database}/{name}"  # several deployments may share a server

    def query(self, sql: str, max_rows: int) -> bytearray:
        client = self._new_client(self._settings.database, _QUERY_SETTINGS)
        try:
            statement = _understood(client, sql)
        finally:
            client.disconnect()
        asked = {
            "clickhouse": msgspec.to_builtins(self._settings),
            "reply_s": self._reply_s,
            "statement": statement,
            "max_rows": max_rows,
        }
        return read_apart(asked)

    def blocks(self, statement: str) -> Generator[Any, None, None]:
        """What the server sends for a user's statement, by a connection of its own. For the process that may take what
        that takes: :mod:`answering`."""
        client = self._new_client(self._settings.database, _QUERY_SETTINGS)
        try:
            found = _guarded(lambda: iter(client.execute_iter(statement)))
            while (block := _guarded(lambda: next(found, None))) is not None:
                yield block
        finally:
            client.disconnect()

    def _open(self) -> Any:
        if self._client is None:
            raise UnreachableError("not connected")
        return self._client

    def _new_client(self, database: str, settings: Mapping[str, Any]) -> Any:
        s = self._settings
        client = clickhouse_driver.Client(
            s.host,
            port=s.port,
            user=s.user,
            password=read_password(s),
            database=database,
            client_name="mexc-pipeline",
            connect_timeout=_CONNECT_S,
            send_receive_timeout=self._reply_s,
            sync_request_timeout=_CONNECT_S,
            tcp_keepalive=True,
            secure=s.secure,
            ca_certs=s.ca_file or ssl.get_default_verify_paths().cafile,
            settings=dict(settings),
        )
        client.iter_query_result_cls = _BlockResult
        client.connection._create_socket = _saying_why(client.connection._create_socket)
        return client


def _saying_why(create: Callable[[str, int], Any]) -> Callable[[str, int], Any]:
    """Of a refused certificate the driver passes on the text alone."""

    def create_socket(host: str, port: int) -> Any:
        try:
            return create(host, port)
        except ssl.SSLCertVerificationError as error:
            raise ssl.SSLError(error.errno, tls.why(error, "clickhouse.ca_file")) from error

    return create_socket


def read_password(settings: ClickHouse) -> str:
    """The first line of ``password_file``; empty without one. UnreachableError where it cannot be read."""
    if not settings.password_file:
        return ""
    try:
        text = paths.read("clickhouse.password_file", settings.password_file, private=True).decode()
    except ConfigError as error:
        raise UnreachableError(str(error)) from error
    except UnicodeDecodeError as error:
        raise UnreachableError(f"clickhouse.password_file: {settings.password_file}: not UTF-8") from error
    password = text.partition("\n")[0]
    keep_secret(password)
    return password


def _understood(client: Any, sql: str) -> str:
    """The statement to run, judged by what the server parses, or by its words where the server is too old to say."""

    def ask(question: str) -> list[str]:
        return [said.decode(errors="replace") for (said,) in _guarded(lambda: client.execute(question))]

    try:
        ask(readonly.asked("SELECT 1"))  # of our own: no text of a user's decides that it is judged by its words
    except RefusedError as error:
        if error.code != UNKNOWN_FUNCTION:
            raise
        return readonly.judged_by_words(sql)
    return readonly.judged(sql, ask)


def read_apart(
    question: Mapping[str, Any], program: Sequence[str] = ANSWERING, within_s: float = ANSWER_S
) -> bytearray:
    """What another process makes of the server's answer, see :mod:`answering`. EngineError where it makes none."""
    try:
        # Any: to the type checker each of its pipes may be missing.
        child: Any = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise UnreachableError(f"no process to read the answer: {error}") from error
    try:
        with child:
            try:
                child.stdin.write(json.dumps(question).encode() + b"\n")
                child.stdin.flush()
                answer = bounded(_output(child.stdout.fileno(), within_s))
                said = child.stderr.read()
                status = child.wait()
            finally:
                child.kill()
    except BrokenPipeError as error:
        raise UnreachableError("the process that reads the answer ended before it was asked") from error
    if status == 0:
        return answer
    try:
        found = json.loads(said)
    except ValueError:
        why = said.decode(errors="replace").strip().rpartition("\n")[2] or f"it ended with {status}"
        raise RefusedError(f"the answer could not be read: {why}; ask for fewer rows, columns or values") from None
    raise (UnreachableError if found["unreachable"] else RefusedError)(found["error"], found["code"])


def _output(fd: int, within_s: float) -> Iterator[bytes]:
    deadline = time.monotonic() + within_s
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    while waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            return
        yield chunk
    raise UnreachableError(f"no answer within {within_s:g} s")


def _guarded(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except errors.ServerException as error:
        kind = UnreachableError if error.code in ADMISSION else RefusedError
        raise kind(error.message or str(error), error.code or 0) from error
    except (errors.Error, OSError, EOFError) as error:
        raise UnreachableError(f"{type(error).__name__}: {error}") from error
    except _ODD as error:
        log.debug("what answers is not understood", exc_info=True)
        raise UnreachableError(f"what answers does not speak as ClickHouse does: {type(error).__name__}") from error
    except (EngineError, UserError):
        raise
