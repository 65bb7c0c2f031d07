"""Whoever listens where ClickHouse is looked for may say anything: it does not answer, which is one line."""

from __future__ import annotations

import struct

import pytest

from mexc_pipeline.config import parse
from mexc_pipeline.store.engine import UnreachableError
from mexc_pipeline.store.server import ServerEngine
from support.peers import saying, serving


def _text(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _exception(text: bytes, nested: bool) -> bytes:
    return struct.pack("<i", 60) + _text(b"DB::Exception") + _text(text) + _text(b"at") + bytes([nested])


@pytest.mark.parametrize(
    "answer",
    [
        b"\2" + _exception(b"DB::Exception: \xff", nested=False),
        b"\2" + _exception(b"DB::Exception: no", nested=True) * 3000,
        b"\0" + _text(b"\xff"),
    ],
    ids=["an exception that is no text", "exceptions without end", "a name that is no text"],
)
def test_what_is_no_answer_of_clickhouse_is_none(answer: bytes) -> None:
    """The driver stumbles over it in ways of its own; they were a traceback at each try, for ever."""
    with serving(saying(answer)) as far:
        engine = ServerEngine(parse(f'[clickhouse]\nmode = "server"\nport = {far.port}\n', None).clickhouse, 5.0)
        for ask in (engine.connect, engine.version):
            with pytest.raises(UnreachableError) as raised:
                ask()
            assert len(str(raised.value)) < 200
