"""A ClickHouse server over native TCP, from 18.16 on, by ``clickhouse-driver``."""

from __future__ import annotations

import datetime
import decimal
import math
import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import clickhouse_driver
from clickhouse_driver import errors
from clickhouse_driver.result import IterQueryResult

from mexc_pipeline import paths
from mexc_pipeline.config import ClickHouse
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.rows import Columns
from mexc_pipeline.store import native, readonly
from mexc_pipeline.store.engine import (
    ADMISSION,
    QUERY_LIMITS,
    ROW_COLUMNS,
    TYPES_DATETIME64,
    TYPES_INT64,
    UNKNOWN_FUNCTION,
    Capabilities,
    EngineError,
    RefusedError,
    Result,
    UnreachableError,
    quote,
    quote_name,
    read_sql,
)

_T = TypeVar("_T")
_CONNECT_S = 5.0
_REPLY_S = 30.0
_READ_BLOCK = 4096
"""Rows a block when reading whole tables; decoding one holds the interpreter for a few milliseconds."""
_FINE_TIME = re.compile(r"(?:Nullable\()?DateTime64\([7-9]")


class _BlockResult(IterQueryResult):  # type: ignore[misc]  # the driver is not typed
    """Gives whole blocks, the header's empty one included, where the driver gives rows one by one."""

    def __next__(self) -> list[Any]:
        block = getattr(next(self.packet_generator), "block", None)
        return [] if block is None else [block]


class ServerEngine:
    """See :class:`engine.Engine`. Each wait for the server is bounded; the password is read at each connect."""

    def __init__(self, settings: ClickHouse, reply_s: float = _REPLY_S) -> None:
        self._settings = settings
        self._reply_s = reply_s
        self._client: Any = None
        self._capabilities = Capabilities()

    def connect(self) -> Capabilities:
        self.close()
        first = self._new_client("", {})  # a database that is not there yet is refused at connect
        try:
            _guarded(lambda: first.execute(f"CREATE DATABASE IF NOT EXISTS {self._settings.database}"))
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
        _guarded(lambda: client.execute(sql))

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
                    yield native.columns_of(block.get_columns())
            done = True
        finally:
            if not done:
                client.disconnect()  # what is left of the result would be taken for the next answer

    def is_running(self, prefix: str) -> bool:
        mine = quote(self._query_id(prefix))
        return self.select(f"SELECT count() FROM system.processes WHERE startsWith(query_id, {mine})") != [(0,)]

    def _query_id(self, name: str) -> str:
        return f"{self._settings.database}/{name}"  # several deployments may share a server

    def query(self, sql: str, max_rows: int) -> Result:
        settings = {"strings_as_bytes": True, **QUERY_LIMITS, "readonly": 1}
        client = self._new_client(self._settings.database, settings)
        try:
            statement = _understood(client, sql)
            rows, header = _guarded(lambda: _take(client, statement, max_rows + 1))
            fine = [name for name, kind in header if _FINE_TIME.match(kind)]
            if fine and re.match(r"\s*(SELECT|WITH)\b", statement, re.IGNORECASE):
                # The driver reads times finer than a microsecond through binary floats; have the server write them.
                exact = ", ".join(f"toString({quote_name(name)}) AS {quote_name(name)}" for name in fine)
                again = f"SELECT * REPLACE ({exact}) FROM ({statement})"
                rows, _ = _guarded(lambda: _take(client, again, max_rows + 1))
            return Result(
                [name for name, _ in header],
                [kind for _, kind in header],
                [[_json_safe(value) for value in row] for row in rows[:max_rows]],
                len(rows) > max_rows,
            )
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
        return client


def read_password(settings: ClickHouse) -> str:
    """The first line of ``password_file``; empty without one. UnreachableError where it cannot be read."""
    if not settings.password_file:
        return ""
    try:
        return paths.read("clickhouse.password_file", settings.password_file).decode().partition("\n")[0]
    except ConfigError as error:
        raise UnreachableError(str(error)) from error
    except UnicodeDecodeError as error:
        raise UnreachableError(f"clickhouse.password_file: {settings.password_file}: not UTF-8") from error


def _understood(client: Any, sql: str) -> str:
    """What the server takes the statement for; as it is, where the server is too old to say."""
    question = readonly.asked(sql)
    try:
        [[understood]] = _guarded(lambda: client.execute(question))
    except RefusedError as error:
        if error.code != UNKNOWN_FUNCTION:
            raise
        readonly.opening(sql)
        return sql.strip().rstrip(";")
    return readonly.check(understood.decode(errors="replace"))


def _take(client: Any, sql: str, limit: int) -> tuple[list[tuple[Any, ...]], list[tuple[str, str]]]:
    """At most ``limit`` rows and the header."""
    rows: list[tuple[Any, ...]] = []
    header: list[tuple[str, str]] = []
    for block in client.execute_iter(sql):
        header = header or list(block.columns_with_types)
        rows += block.get_rows()
        if len(rows) >= limit:
            client.disconnect()  # gives up the rest
            break
    return rows[:limit], header


def _guarded(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except errors.ServerException as error:
        kind = UnreachableError if error.code in ADMISSION else RefusedError
        raise kind(error.message or str(error), error.code or 0) from error
    except (errors.Error, OSError, EOFError) as error:
        raise UnreachableError(f"{type(error).__name__}: {error}") from error
    except (EngineError, UserError):
        raise


def _json_safe(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat(" ")  # as ClickHouse writes it; the type names the zone
    if isinstance(value, Mapping):
        return {str(_json_safe(k)): _json_safe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(v) for v in value]
    return str(value)
