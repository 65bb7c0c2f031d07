"""What the store's tests share: a spool that grows on demand, an engine of either kind, waiting for a condition."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from mexc_pipeline.config import Config, parse
from mexc_pipeline.ledger.digest import RowDigest
from mexc_pipeline.periods import Period
from mexc_pipeline.rows import MT_NAMES, Columns, Frame, Mt, Row
from mexc_pipeline.spool.lifecycle import mark_exported
from mexc_pipeline.spool.segment import SegmentInfo, SegmentReader
from mexc_pipeline.spool.segment import info as segment_info
from mexc_pipeline.spool.walk import segments
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.store import questions
from mexc_pipeline.store.engine import Engine, EngineFactory
from support.clickhouse_server import ClickHouseServer
from support.waiting import until

PERIOD = Period(10 * 10**9)
T0 = 1_700_000_000_000_000_000
"""An instant at the start of a period."""


class Backend(Protocol):
    """An engine of one kind under test."""

    name: str

    def engine(self) -> Engine: ...
    def table_files(self, table: str) -> Path: ...
    def close(self) -> None: ...


class EmbeddedBackend:
    name = "embedded"

    def __init__(self, folder: Path) -> None:
        from mexc_pipeline.store.embedded import EmbeddedFolder

        self.folder = EmbeddedFolder(folder, "ch_mexc")
        self._engines: list[Engine] = []

    def engine(self) -> Engine:
        self._engines.append(self.folder.engine())
        return self._engines[-1]

    def table_files(self, table: str) -> Path:
        """The folder with the table's data files."""
        engine = self.engine()
        engine.connect()
        where = f"SELECT toString(uuid) FROM system.tables WHERE database = 'ch_mexc' AND name = '{table}'"
        uuid = str(engine.select(where)[0][0])
        engine.close()
        return self.folder.folder / "store" / uuid[:3] / uuid

    def close(self) -> None:
        for engine in self._engines:  # while one is open this process can open no other folder
            engine.close()
        self.folder.close()


class ServerBackend:
    name = "server"

    def __init__(self, folder: Path) -> None:
        self.server = ClickHouseServer(folder)
        self.server.start()

    def engine(self) -> Engine:
        from mexc_pipeline.store.server import ServerEngine

        return ServerEngine(self.settings().clickhouse, reply_s=10)

    def settings(self, port: int = 0) -> Config:
        text = f'[clickhouse]\nmode = "server"\nport = {port or self.server.port}\n'
        return parse(text, None)

    def table_files(self, table: str) -> Path:
        return self.server.data / "data" / "ch_mexc" / table

    def close(self) -> None:
        self.server.kill()


FETCHED_OR_PUSHED = [mt for mt in MT_NAMES if mt not in (Mt.DEAD_LETTER, Mt.EVENT)]


class Recording:
    """A symbol's spool folder and its writer, with a clock of its own."""

    def __init__(self, root: Path, symbol_id: str = "btc", known_seq: int = 0) -> None:
        self.id = symbol_id
        self.folder = root / symbol_id
        self.folder.mkdir(parents=True, exist_ok=True)
        self.spool = Spool(self.folder, symbol_id, f"{symbol_id.upper()}_USDT", PERIOD, known_seq=known_seq)
        self.now = max(T0, self.spool.last_rx)

    def add(self, count: int, size: int = 60, step_ns: int = 1000) -> Columns:
        """Commit that many frames of mixed types; some are not UTF-8."""
        frames = []
        for n in range(count):
            self.now += step_ns
            tail = bytes([n % 256]) if n % 7 == 0 else b"x"
            m = b'{"channel":"push.deal","n":%d,"pad":"' % n + tail * size + b'"}'
            mt = FETCHED_OR_PUSHED[n % len(FETCHED_OR_PUSHED)]
            frames.append(Frame(self.now, None if n % 5 == 0 else self.now // 10**6 - 3, mt, m))
        return self.spool.append(frames)

    def event(self, m: bytes) -> Columns:
        self.now += 1000
        return self.spool.append([Frame(self.now, None, int(Mt.EVENT), m)])

    def end_period(self) -> SegmentInfo:
        """Let the clock pass the edge; returns the closed segment."""
        self.now = PERIOD.end(PERIOD.start(self.now))
        sealed = self.spool.tick(self.now)
        assert sealed is not None
        return sealed

    def cut(self) -> SegmentInfo:
        self.now += 1000
        sealed = self.spool.cut(self.now)
        assert sealed is not None
        return sealed

    def rows(self, segment: SegmentInfo | None = None) -> list[Row]:
        """Every row of the spool, or of one segment, as it stands."""
        paths = [segment.path] if segment is not None else [path for _, path in segments(self.folder)]
        found: list[Row] = []
        for path in paths:
            with SegmentReader(path) as reader:
                found += [row for block in reader.blocks() for row in block.rows()]
        return found

    def close(self) -> None:
        self.spool.close()


def mark(segment: SegmentInfo) -> SegmentInfo:
    """Mark a closed segment exported, as export does once the file was read back."""
    mark_exported(
        segment.path,
        {
            "file": segment.file,
            "rows": segment.rows,
            "digest": segment.digest,
            "digests": segment.digests,
            "bytes": 1234,
            "raw_bytes": segment.bytes,
            "at_ns": segment.edge_ns + 5 * 10**9,
            "part": segment.name.part,
            "final": segment.final,
            "first_seq": segment.first_seq,
            "last_seq": segment.last_seq,
            "counts": segment.counts,
            "seconds": 0.5,
            "version": segment.version,
        },
    )
    return segment_info(segment.path)


def table_rows(engine: Engine, table: str) -> list[Row]:
    """Every row of a table, in its order."""
    return [row for block in engine.read_blocks(table) for row in block.rows()]


def table_names(engine: Engine) -> set[str]:
    return {row[0] for row in engine.select("SELECT name FROM system.tables WHERE database = 'ch_mexc'")}


def digests(rows: Iterable[Row]) -> dict[str, str]:
    digest = RowDigest()
    digest.update(Columns.of(rows))
    return digest.columns()


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0, what: str = "the condition") -> Any:
    """As :func:`support.waiting.until`, with the patience that an engine asks for."""
    return until(condition, timeout_s, what)


def asked(factory: EngineFactory, sql: str, max_rows: int) -> dict[str, Any]:
    """The answer to a user's statement."""
    answer: dict[str, Any] = json.loads(questions.query(factory, sql, max_rows))
    return answer
