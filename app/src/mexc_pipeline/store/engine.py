"""The engine the store loads into: what an adapter must do, and how its failures are told apart."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mexc_pipeline.rows import MT_NAMES, Columns

ENUM = "Enum8(" + ", ".join(f"'{name}' = {code}" for code, name in MT_NAMES.items()) + ")"
ROW_COLUMNS = ("ts", "mt", "m", "rx", "seq")
TYPES_DATETIME64 = ("DateTime64(3, 'UTC')", ENUM, "String", "DateTime64(9, 'UTC')", "UInt64")
"""Column types of a row table, in the order of :data:`ROW_COLUMNS`."""
TYPES_INT64 = ("Int64", ENUM, "String", "Int64", "UInt64")
"""The same for engines without ``DateTime64`` (before 20.1): both times as the integers they are, ms and ns."""


class EngineError(Exception):
    """The engine failed; ``code`` is ClickHouse's error code, 0 where it gave none. ``is_in_want``: its machine had no
    handle, thread or memory to give it."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message.partition("Stack trace")[0].strip().replace("\n", " ")[:500])
        self.code = code
        self.is_in_want = _IN_WANT.search(message) is not None


_IN_WANT = re.compile(
    rf"\berrno: (?:{errno.EMFILE}|{errno.ENFILE}|{errno.ENOMEM}|{errno.EAGAIN})\b|\bthread constructor failed\b"
)


_AROUND = re.compile(
    r"\A.*?\bCode: \d+\.\s+(?:DB::Exception: )*(?P<said>.*?)\.?"
    r"(?: \([A-Z][A-Z0-9_]+\))?(?: \(version [^()]*(?:\([^()]*\))?\))?\Z",
    re.DOTALL,
)


def sentence(error: EngineError) -> str:
    """What the engine says is wrong with a user's statement, without what stands around it for its own developers."""
    text = str(error).partition(": In scope SELECT formatQuerySingleLine(")[0]
    found = _AROUND.match(text)
    return found["said"] if found and found["said"] else text


class UnreachableError(EngineError):
    """There was no answer, or none in time, or no admission: what became of the statement is not known."""


class InUseError(Exception):
    """A thread is still in the engine. Stopped beneath it, it takes the process along (SIGSEGV, now and then): end the
    process without stopping it, as a kill would."""


class RefusedError(EngineError):
    """The engine answered that it will not do it."""


UNKNOWN_FUNCTION = 46
UNKNOWN_TABLE = 60
SYNTAX_ERROR = 62
UNKNOWN_DATABASE = 81
TABLE_EXISTS = 57
NOT_ENOUGH_SPACE = 243
CIRCUMSTANCES = frozenset(
    {
        48,  # NOT_IMPLEMENTED
        60,  # UNKNOWN_TABLE
        75,  # CANNOT_WRITE_TO_FILE_DESCRIPTOR, also a full disk
        76,  # CANNOT_OPEN_FILE
        81,  # UNKNOWN_DATABASE
        159,  # TIMEOUT_EXCEEDED
        160,  # TOO_SLOW
        164,  # READONLY
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        236,  # ABORTED, the server is shutting down
        242,  # TABLE_IS_READ_ONLY
        NOT_ENOUGH_SPACE,
        298,  # CANNOT_PIPE, as 460 and 573 where there is no file handle
        394,  # QUERY_WAS_CANCELLED
        439,  # CANNOT_SCHEDULE_TASK
        460,  # CANNOT_CREATE_TIMER
        473,  # DEADLOCK_AVOIDED, lock timeout
        497,  # ACCESS_DENIED
        573,  # EPOLL_ERROR
    }
)
"""Codes that say something about the engine's state and nothing about the rows it was given."""
ADMISSION = frozenset({192, 193, 194, 516, 531})
"""Codes of an unknown user, a wrong password and the like: the engine is not usable until somebody acts."""

_FILES_OR_DAMAGE = frozenset({75, 76})
_MEMORY = 241


def is_damage(error: RefusedError) -> bool:
    """Whether a table that could not be read must be taken for damaged."""
    return error.code not in CIRCUMSTANCES - _FILES_OR_DAMAGE and error.code != _MEMORY and not error.is_in_want


QUERY_S = 60
ANSWER_BYTES = 32 << 20
"""Of a user's answer, in the engine and on its way: what is more is refused, not cut."""
READING_BYTES = 64 << 20
"""Memory for making the text of an answer out of what a server sends: a block of it at a time, a value as a whole."""
TOO_LARGE = (
    f"the answer is too large: more than {ANSWER_BYTES >> 20} MiB, or {READING_BYTES >> 20} MiB of memory to read it; "
    "ask for fewer rows, columns or values"
)
QUERY_MEMORY = 256 << 20
QUERY_LIMITS = {
    "max_execution_time": QUERY_S,
    "max_memory_usage": QUERY_MEMORY,
    "max_result_bytes": ANSWER_BYTES,
    "result_overflow_mode": "throw",
}
"""Settings of a user's statement. They hold because ``readonly = 1`` lets no statement change a setting."""


def answer(columns: bytes, types: bytes, rows: Iterable[bytes], max_rows: int) -> Iterator[bytes]:
    """An answer's text out of the JSON texts of its parts, a piece at a time; ``rows`` are asked for one more than are
    given, at most."""
    yield b'{"columns": %b, "types": %b, "rows": [' % (columns, types)
    truncated = b"false"
    for number, row in enumerate(rows):
        if number == max_rows:
            truncated = b"true"
            break
        if number:
            yield b", "
        yield row
    yield b'], "truncated": %b}' % truncated


def bounded(pieces: Iterable[bytes]) -> bytearray:
    """The pieces as one text. RefusedError where it is larger than an answer may be."""
    whole = bytearray()
    for piece in pieces:
        if len(whole) + len(piece) > ANSWER_BYTES:
            raise RefusedError(TOO_LARGE)
        whole += piece
    return whole


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the engine at hand can do."""

    version: str = ""
    row_types: tuple[str, ...] = field(default=TYPES_DATETIME64)
    exchange: bool = True

    @property
    def has_datetime64(self) -> bool:
        """Whether row tables have times of their own type; they are integers otherwise."""
        return self.row_types is TYPES_DATETIME64


class Engine(Protocol):
    """One connection to an engine, used by one thread. Every method but ``close`` raises EngineError."""

    def connect(self) -> Capabilities:
        """Connect anew, creating the database where it is missing."""
        ...

    def close(self) -> None:
        """Let go of the connection; a later ``connect`` makes a new one."""
        ...

    def execute(self, sql: str) -> None:
        """Run a statement without a result."""
        ...

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a small result of integers and strings."""
        ...

    def insert(self, table: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]) -> None:
        """Insert a few rows; ``columns`` are (name, type); times are Unix seconds."""
        ...

    def insert_block(self, table: str, block: Columns, query_id: str) -> None:
        """Insert a block into a row table as one statement under that id, which is unique."""
        ...

    def read_blocks(self, table: str) -> Iterator[Columns]:
        """All rows of a row table in the order they were inserted, a block at a time."""
        ...

    def is_running(self, prefix: str) -> bool:
        """Whether a statement whose id starts so is still being worked on, whoever sent it."""
        ...

    def query(self, sql: str, max_rows: int) -> bytearray:
        """Answer a user's statement that reads, within :data:`ANSWER_BYTES` and :data:`QUERY_S`: the JSON text of an
        object with ``columns``, ``types``, ``rows`` and ``truncated``. It is never made into objects here: they may
        take a hundred times its bytes. 64-bit integers and decimals are exact. UserError where the statement does more
        than read, see :mod:`readonly`."""
        ...


EngineFactory = Callable[[], Engine]


def read_sql(table: str, capabilities: Capabilities) -> str:
    """The statement that reads a row table as integers and bytes, in the order seq, rx, ts, mt, m."""
    if capabilities.has_datetime64:
        rx, ts = "toUnixTimestamp64Nano(rx)", "toUnixTimestamp64Milli(ts)"
    else:
        rx, ts = "rx", "ts"
    return f"SELECT seq, {rx} AS rx_ns, {ts} AS ts_ms, CAST(mt AS Int8) AS code, m FROM {table}"


def row_table_sql(table: str, capabilities: Capabilities) -> str:
    """The statement that creates a row table where there is none of that name."""
    columns = ", ".join(f"{n} {t}" for n, t in zip(ROW_COLUMNS, capabilities.row_types, strict=True))
    return f"CREATE TABLE IF NOT EXISTS {table} ({columns}) ENGINE = StripeLog"


def quote_name(name: str) -> str:
    """The name as an identifier in a statement."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quote(text: str) -> str:
    """The text as a string literal in a statement."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
