"""Makes the text of a server's answer to a user's statement: ``python -m mexc_pipeline.store.answering``.

In a process of its own, under a limit of the kernel's. What a server sends becomes Python objects before its size is
known to anybody, and takes what it wants: 35 times the bytes for small integers, thousands of times for tuples in
tuples. Beyond the limit this process fails, and the store lives on.
"""

from __future__ import annotations

import datetime
import decimal
import itertools
import json
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import msgspec

from mexc_pipeline import lifeline, memory
from mexc_pipeline.config import ClickHouse
from mexc_pipeline.store.engine import (
    READING_BYTES,
    TOO_LARGE,
    EngineError,
    RefusedError,
    UnreachableError,
    answer,
    quote_name,
)
from mexc_pipeline.store.server import ServerEngine

_FINE_TIME = re.compile(r"(?:Nullable\()?DateTime64\([7-9]")
_ENCODER = json.JSONEncoder(ensure_ascii=False)
"""One for all rows: ``json.dumps`` makes one a call."""
FAILED = 1
"""The exit status where standard error says why there is no answer, as JSON."""


def answered(engine: ServerEngine, statement: str, max_rows: int) -> Iterator[bytes]:
    """The pieces of the answer, see :func:`engine.answer`."""
    blocks = engine.blocks(statement)
    first = next(blocks, None)
    header = list(first.columns_with_types) if first is not None else []
    fine = [name for name, kind in header if _FINE_TIME.match(kind)]
    if fine and re.match(r"\s*(SELECT|WITH)\b", statement, re.IGNORECASE):
        # The driver reads times finer than a microsecond through binary floats; have the server write them.
        exact = ", ".join(f"toString({quote_name(name)}) AS {quote_name(name)}" for name in fine)
        blocks.close()
        first, blocks = None, engine.blocks(f"SELECT * REPLACE ({exact}) FROM ({statement})")
    with closing(blocks):
        columns, types = (_json([pair[n] for pair in header]) for n in (0, 1))
        yield from answer(columns, types, _rows(first, blocks), max_rows)


def _rows(first: Any, blocks: Iterator[Any]) -> Iterator[bytes]:
    for block in itertools.chain([] if first is None else [first], blocks):
        for row in zip(*block.get_columns(), strict=True):
            yield _json([_json_safe(value) for value in row])


def _json(value: Any) -> bytes:
    return _ENCODER.encode(value).encode(errors="surrogatepass")


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


def main() -> int:
    """Answer the question that comes as one line of JSON on standard input, whose end is the asker's; the answer goes
    to standard output."""
    asked = json.loads(sys.stdin.buffer.readline())
    lifeline.watch(sys.stdin.fileno())
    logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)
    engine = ServerEngine(msgspec.convert(asked["clickhouse"], ClickHouse), asked["reply_s"])
    try:
        with memory.at_most(READING_BYTES):
            for piece in answered(engine, asked["statement"], asked["max_rows"]):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except MemoryError:
        return _failed(RefusedError(TOO_LARGE))
    except RecursionError:
        return _failed(RefusedError("the answer's types are nested too deep; ask for less deep ones"))
    except EngineError as error:
        return _failed(error)
    return 0


def _failed(error: EngineError) -> int:
    said = {"unreachable": isinstance(error, UnreachableError), "error": str(error), "code": error.code}
    sys.stderr.write(json.dumps(said))
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
