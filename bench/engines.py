"""The two engines that are tested, as factories of connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.site import clickhouse, server_pid
from mexc_pipeline.config import parse
from mexc_pipeline.store.embedded import EmbeddedFolder
from mexc_pipeline.store.engine import EngineFactory
from mexc_pipeline.store.server import ServerEngine

EMBEDDED, SERVER = "embedded", "server"
NAMES = {EMBEDDED: "chDB embedded", SERVER: "ClickHouse 18.16"}


@contextmanager
def engines(kind: str, folder: Path) -> Iterator[tuple[EngineFactory, int]]:
    """A factory of engines of that kind, and the process id of its server (0: it is in this process).

    Close every engine before leaving.
    """
    if kind == EMBEDDED:
        opened = EmbeddedFolder(folder / "embedded", "ch_mexc")
        try:
            yield opened.engine, 0
        finally:
            opened.close()
        return
    with clickhouse(folder) as server:
        settings = parse(f'[clickhouse]\nmode = "server"\nport = {server.port}\n', None).clickhouse
        yield (lambda: ServerEngine(settings)), server_pid(server)
