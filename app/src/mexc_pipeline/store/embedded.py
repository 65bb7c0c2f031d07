"""The engine inside this process: chDB on ``data_dir/clickhouse``. Nothing else imports chDB."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import itertools
import json
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mexc_pipeline.errors import UserError
from mexc_pipeline.paths import NotAFileError, make_folder, not_allowed, regular
from mexc_pipeline.rows import Columns
from mexc_pipeline.store import native, opening, readonly
from mexc_pipeline.store.engine import (
    ANSWER_BYTES,
    NOT_ENOUGH_SPACE,
    QUERY_LIMITS,
    ROW_COLUMNS,
    TOO_LARGE,
    TYPES_DATETIME64,
    Capabilities,
    EngineError,
    InUseError,
    RefusedError,
    UnreachableError,
    answer,
    bounded,
    quote,
    read_sql,
)

log = logging.getLogger("mexc_pipeline.store")

_T = TypeVar("_T")
_CODE = re.compile(r"Code: (\d+)\.")
ROOM = 16 << 20
"""Bytes that stay free beside what is inserted: the engine writes more than the rows, and others write too."""
STATEMENTS = max(2, os.cpu_count() or 1)
"""Statements of the store at a time, and one table being read beside them. The engine keeps every thread that was ever
needed at once, with memory and three open files for each: without a bound a store grows whenever more of its symbols
happen to meet than ever before."""
_PIECE = 1 << 20
_STREAMED = re.compile(r"\s*(SELECT|WITH)\b", re.IGNORECASE)
_MOVED = 741
"""TABLE_UUID_MISMATCH: a swap came between the moment a statement looked up a table and the moment it took hold of it.
Nothing of the statement has been done then (ClickHouse pull request 97323)."""
_MOVED_TRIES = 5
_QUERY_SETTINGS = {
    **QUERY_LIMITS,
    "max_threads": 1,
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_decimals": 1,
    "output_format_json_quote_denormals": 1,
}
_CONFIG = """\
<clickhouse>
  <users_config>{path}</users_config>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <roles>
    <loader><grants><query>GRANT ALL ON *.*</query></grants></loader>
    <reader><grants>
      <query>GRANT SHOW, SELECT ON {database}.*</query>
      <query>GRANT SHOW, SELECT ON system.*</query>
    </grants></reader>
  </roles>
  <users>
    <default>
      <password/>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants><query>GRANT loader</query><query>GRANT reader</query></grants>
    </default>
  </users>
</clickhouse>
"""
"""The engine's one user has all it may do by a role, so that a connection can put all but reading away. It may come
from anywhere: the engine listens nowhere, and where there is no network at all a connection within the process has no
address that a narrower rule would know."""


class EmbeddedFolder:
    """The engine's folder and the right to use it: one process, any number of connections.

    Raises UserError where another process uses it, where it cannot be written, or where chDB is not installed. A folder
    that will not open is renamed ``clickhouse.broken-<time>``, never deleted; the store loads a new one from the spool.
    Where the engine does not come to an end in opening it, the process is ended: see :mod:`opening`.
    """

    def __init__(
        self,
        folder: Path,
        database: str,
        within_s: int = opening.WITHIN_S,
        of_folder_s: int = opening.OF_FOLDER_S,
    ) -> None:
        self._lock = threading.Lock()
        self._sessions = 0
        self._is_closed = False
        self.statements = threading.BoundedSemaphore(STATEMENTS)
        self.reading = threading.Lock()
        self.folder = folder
        self.database = database
        self.set_aside: Path | None = None
        self._config = _configuration(database)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._config)
            with opening.watched(folder, within_s, of_folder_s) as begins:
                self._session = _chdb(folder)
                begins()
                self._keeper = self._open()  # the engine stops when its last session is closed
            undo.pop_all()

    def close(self) -> None:
        """Stop the engine, once the connections are closed too. InUseError while one is not: the engine runs on then,
        and takes no new one."""
        with self._lock:
            self._is_closed = True
            if self._sessions:
                raise InUseError
            self._keeper.close()
            os.close(self._config)

    def session(self) -> Any:
        """A new connection, to be given back. RuntimeError where there is none to be had."""
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the engine was stopped")
            session = self._connect()
            self._sessions += 1
            return session

    def give_back(self, session: Any) -> None:
        """Close a connection."""
        session.close()
        with self._lock:
            self._sessions -= 1

    def engine(self) -> EmbeddedEngine:
        """An engine of this folder, to be used by one thread."""
        return EmbeddedEngine(self)

    def _open(self) -> Any:
        _refuse_if_in_use(self.folder)
        why = opening.refused(self.folder)
        if not why:
            try:
                return self._connect()
            except (RuntimeError, ValueError) as error:  # ValueError: what it makes of a path it cannot use
                why = brief(error)
        if not self.folder.exists() or shutil.disk_usage(self.folder).free < ROOM:
            raise UserError(f"embedded ClickHouse cannot open a folder at {self.folder}: {why}")
        self._set_aside(why)
        try:
            return self._connect()
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"embedded ClickHouse does not open even in a new folder {self.folder}: {brief(error)}"
            ) from error

    def _set_aside(self, why: str) -> None:
        aside = _free_name(self.folder.with_name(f"{self.folder.name}.broken-{int(time.time())}"))
        log.error(
            "embedded ClickHouse did not open; its folder is set aside and loaded anew from the spool",
            extra={"fields": {"folder": str(self.folder), "aside": str(aside), "error": why}},
        )
        self.folder.rename(aside)
        self.set_aside = aside

    def _connect(self) -> Any:
        session = self._session(f"{self.folder}?config-file={_at(self._config)}")
        with contextlib.suppress(OSError):  # gone again, or a file system without modes
            self.folder.chmod(0o700)  # who may read may lock, and see what the spool shows to nobody else
        return session


def _chdb(folder: Path) -> Callable[[str], Any]:
    """What makes sessions of the engine. Importing chDB starts an engine in TMPDIR for a moment, and fails with pages
    of C++ where that cannot be written: it gets a folder beside the engine's own, which must be writable anyway."""
    before = os.environ.get("TMPDIR")
    try:
        make_folder(folder.parent)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".clickhouse-") as own:
            os.environ["TMPDIR"] = own
            try:
                from chdb.session import Session
            finally:
                if before is None:
                    del os.environ["TMPDIR"]
                else:
                    os.environ["TMPDIR"] = before
    except ImportError as error:
        raise UserError(
            'the embedded ClickHouse is not installed; pip install "mexc-pipeline[embedded]", '
            'or set clickhouse.mode = "server"'
        ) from error
    except OSError as error:
        why = not_allowed(folder.parent, write=True) or f"{folder.parent} cannot be written: {error.strerror or error}"
        raise UserError(f"embedded ClickHouse: {why}") from error
    except RuntimeError as error:
        raise UserError(f"embedded ClickHouse does not start: {brief(error)}") from error
    if folder.exists() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        why = not_allowed(folder, write=True) or f"{folder} is on a file system that takes no writes"
        raise UserError(f"embedded ClickHouse: {why}")
    session: Callable[[str], Any] = Session
    return session


def brief(error: Exception) -> str:
    """What the engine says, without its stack trace."""
    return " ".join(str(error).partition("Stack trace")[0].split()).rstrip(" ,.")


def _configuration(database: str) -> int:
    """The engine's configuration as a file without a folder, to be closed when the engine is: a folder's name may hold
    what the engine's connection string gives a meaning to."""
    fd = os.memfd_create("clickhouse.xml")
    with os.fdopen(os.dup(fd), "w") as file:
        file.write(_CONFIG.format(path=_at(fd), database=database))
    return fd


def _at(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _free_name(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _refuse_if_in_use(folder: Path) -> None:
    """The engine tells "in use" from "damaged" only on standard error; ask the lock it takes itself."""
    try:
        fd = regular(folder / "status", os.O_RDWR)
    except (FileNotFoundError, NotAFileError):  # nobody can hold it
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"the embedded ClickHouse folder {folder} is in use by another process; stop it first"
        ) from None
    finally:
        os.close(fd)


class EmbeddedEngine:
    """The engine in this process, see :class:`engine.Engine`. A statement is done when its call returns: there is no
    reply to lose."""

    def __init__(self, folder: EmbeddedFolder) -> None:
        self._folder = folder
        self._session: Any = None
        self._capabilities = Capabilities()

    def connect(self) -> Capabilities:
        self.close()
        try:
            self._session = self._folder.session()
        except RuntimeError as error:
            raise UnreachableError(str(error)) from error
        self.execute(f"CREATE DATABASE IF NOT EXISTS {self._folder.database} ENGINE = Atomic")
        self.execute(f"USE {self._folder.database}")
        self.execute("SET max_threads = 1")  # with more, blocks are read out of order; and see STATEMENTS
        version = str(self.select("SELECT version()")[0][0])
        self._capabilities = Capabilities(version)
        return self._capabilities

    def close(self) -> None:
        if self._session is not None:
            self._folder.give_back(self._session)
            self._session = None

    def execute(self, sql: str) -> None:
        session = self._open()
        self._run(lambda: session.query(sql))

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        session = self._open()
        data: bytes = self._run(lambda: session.query(sql, "Native").bytes())
        return [row for block in native.decode([data], strings_as_bytes=False) for row in zip(*block, strict=True)]

    def insert(self, table: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]) -> None:
        # As text: chDB reports a statement's failure, but takes the end of a stream for done whatever became of it.
        self._require_room(0)
        names = ", ".join(name for name, _ in columns)
        values = ", ".join(f"({', '.join(map(_literal, row))})" for row in rows)
        self.execute(f"INSERT INTO {table} ({names}) VALUES {values}")

    def insert_block(self, table: str, block: Columns, query_id: str) -> None:  # noqa: ARG002
        data = native.encode(list(zip(ROW_COLUMNS, TYPES_DATETIME64, strict=True)), native.rows_block(block))
        self._require_room(len(data))
        session = self._open()

        def insert() -> None:
            with session.send_insert(f"INSERT INTO {table} ({', '.join(ROW_COLUMNS)})", "Native") as inserter:
                inserter.append(data)
                inserter.finish()

        self._run(insert)

    def _run(self, statement: Callable[[], _T]) -> _T:
        with self._folder.statements:
            return _again(statement)

    def _require_room(self, size: int) -> None:
        """Raise RefusedError where the disk might not take that many bytes: chDB would say it had taken them; and
        UnreachableError where the folder is gone, as all the store's threads have that in common."""
        try:
            free = shutil.disk_usage(self._folder.folder).free
        except OSError as error:
            raise UnreachableError(f"{self._folder.folder}: {error.strerror}") from error
        if free < (needed := size + ROOM):
            raise RefusedError(
                f"{self._folder.folder} has {free >> 20} MiB free, {needed >> 20} MiB are needed", NOT_ENOUGH_SPACE
            )

    def read_blocks(self, table: str) -> Iterator[Columns]:
        session = self._open()
        sql = read_sql(table, self._capabilities)
        with self._folder.reading:
            stream = _guarded(lambda: session.send_query(sql, "Native"))
            try:
                blocks = native.decode(_chunks(stream), strings_as_bytes=True)
                while (block := _guarded(lambda: next(blocks, None))) is not None:
                    yield native.columns_of(block)
            finally:
                _guarded(stream.close)

    def is_running(self, prefix: str) -> bool:  # noqa: ARG002
        return False

    def query(self, sql: str, max_rows: int) -> bytearray:
        session = _guarded(self._folder.session)  # its own: what the user's statement sets ends with it
        try:
            _guarded(lambda: session.query(f"USE {self._folder.database}"))
            _guarded(lambda: session.query("SET ROLE reader"))
            values = ", ".join(f"{name} = {_literal(value)}" for name, value in _QUERY_SETTINGS.items())
            _guarded(lambda: session.query(f"SET {values}"))
            _guarded(lambda: session.query("SET readonly = 1"))
            statement = readonly.judged(sql, lambda question: _column(session, question))
            return _again(lambda: _answer(session, statement, max_rows))
        finally:
            self._folder.give_back(session)

    def _open(self) -> Any:
        if self._session is None:
            raise UnreachableError("not connected")
        return self._session


def _literal(value: Any) -> str:
    return quote(value) if isinstance(value, str) else repr(value)


def _chunks(stream: Any) -> Iterator[bytes]:
    for chunk in stream:
        yield chunk.bytes()


def _guarded(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except EngineError:
        raise
    except RuntimeError as error:
        found = _CODE.search(str(error))
        raise RefusedError(str(error), int(found[1]) if found else 0) from error
    except Exception as error:  # ChdbError derives from Exception and is imported only with the engine
        if type(error).__name__ != "ChdbError":
            raise
        found = _CODE.search(str(error))
        raise RefusedError(str(error), int(found[1]) if found else 0) from error


def _again(statement: Callable[[], _T]) -> _T:
    """Run a whole statement; once more where a table was swapped under it."""
    for _ in range(_MOVED_TRIES - 1):
        try:
            return _guarded(statement)
        except RefusedError as error:
            if error.code != _MOVED:
                raise
    return _guarded(statement)


def _column(session: Any, sql: str) -> list[str]:
    data: bytes = _guarded(lambda: session.query(sql, "JSONCompactEachRow").bytes())
    return [json.loads(line)[0] for line in data.splitlines()]


def _answer(session: Any, sql: str, max_rows: int) -> bytearray:
    with contextlib.closing(_lines(session, sql)) as lines:
        columns, types = next(lines, b"[]"), next(lines, b"[]")
        return bounded(answer(columns, types, lines, max_rows))


def _lines(session: Any, sql: str) -> Generator[bytes, None, None]:
    """The names, the types, and each row, as JSON."""
    form = "JSONCompactEachRowWithNamesAndTypes"
    header = 0
    if _STREAMED.match(sql):
        stream = session.send_query(sql, form)
        try:
            for chunk in stream:
                for line in itertools.islice(_split(chunk), header, None):
                    header = 2  # names and types stand at the head of every chunk
                    yield line
        finally:
            stream.close()
    if not header:  # a stream without rows has no header either, and only SELECT can be streamed
        yield from _split(session.query(sql, form))


def _split(result: Any) -> Iterator[bytes]:
    if result.size() > ANSWER_BYTES:
        raise RefusedError(TOO_LARGE)
    for line in io.BytesIO(result.bytes()):
        if text := line.rstrip(b"\n"):
            yield _utf8(text)


def _utf8(text: bytes) -> bytes:
    """What is not UTF-8 replaced; a piece at a time, since a character may take four bytes while it is one."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    return b"".join(decoder.decode(piece, piece is pieces[-1]).encode() for piece in pieces)
