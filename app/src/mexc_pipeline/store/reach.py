"""Asks ClickHouse ``SELECT 1`` as the store would, once: ``python -m mexc_pipeline.store.reach``.

For ``doctor``, which knows no ClickHouse client, and must live on where an engine takes its process with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

import msgspec

from mexc_pipeline.config import ClickHouse
from mexc_pipeline.errors import UserError
from mexc_pipeline.store.engine import EngineError

REPLY_S = 5.0


def version(settings: ClickHouse, folder: Path) -> str:
    """What answers: its version. For the embedded engine ``folder`` is where a throw-away one may be made. UserError
    or EngineError where nothing does."""
    if settings.mode == "server":
        from mexc_pipeline.store.server import ServerEngine

        logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)
        return ServerEngine(settings, REPLY_S).version()
    from mexc_pipeline.store.embedded import EmbeddedFolder

    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as own:
        opened = EmbeddedFolder(Path(own) / "clickhouse", settings.database)
        engine = opened.engine()
        try:
            return engine.connect().version
        finally:
            engine.close()
            opened.close()


def main() -> None:
    """Answer with ``version`` or ``error`` as JSON on standard output; settings and folder come as JSON on standard
    input."""
    asked = json.load(sys.stdin)
    settings = msgspec.convert(asked["clickhouse"], ClickHouse)
    answer = os.dup(1)
    os.dup2(2, 1)  # an engine may write there
    try:
        said = {"version": version(settings, Path(asked["folder"]))}
    except (UserError, EngineError, OSError) as error:
        said = {"error": " ".join(str(error).partition("Stack trace")[0].split())}
    with contextlib.closing(os.fdopen(answer, "w")) as out:
        json.dump(said, out)


if __name__ == "__main__":
    main()
