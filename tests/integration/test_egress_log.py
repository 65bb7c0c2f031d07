"""``egress_log`` on both engines: what the loader writes is what verification and the collectors read from it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from mexc_pipeline.control import ControlServer
from mexc_pipeline.egress.uses import Use, logged
from mexc_pipeline.store import questions
from mexc_pipeline.store.loader import Loader
from support.storing import Backend, Recording, asked

CONNECTED = b'{"event":"connected","egress":"tor","peer":"unix:/s","local":"","circuit":"7","exit":"%s"}'
GONE = b'{"event":"disconnected","code":1006,"reason":"gone"%s}'


def test_what_the_loader_writes_is_read_back_as_uses(backend: Backend, tmp_path: Path) -> None:
    btc, eth = Recording(tmp_path / "spool", "btc"), Recording(tmp_path / "spool", "eth")
    second = 10**9
    try:
        btc.event(CONNECTED % b"203.0.113.11")
        btc.now += 5 * second
        btc.event(GONE % b',"exit":"203.0.113.11"')
        btc.event(GONE % b"")  # a try that never connected
        eth.now += 5 * second
        eth.event(CONNECTED % b"203.0.113.11")
        btc.now += second
        btc.event(CONNECTED % b"203.0.113.14")
        for recording in (btc, eth):
            loader = Loader(recording.id, recording.folder, backend.engine(), threading.Lock())
            until = time.monotonic() + 20
            while loader.progress.loaded_seq < recording.spool.last_seq:
                assert time.monotonic() < until
                loader.step()
            loader.detach()
        engine = backend.engine()
        engine.connect()
        assert engine.select("SELECT count() FROM egress_log")[0][0] == 4
        assert engine.select("SELECT circuit, exit FROM egress_log WHERE id = 'eth'") == [("7", "203.0.113.11")]
        now = int(time.time())
        for symbol in ("btc", "eth"):
            columns = [("at", "DateTime('UTC')"), ("id", "String")]
            engine.insert("collector_stats", columns, [[now, symbol]])
        engine.close()
        server = ControlServer(
            tmp_path / "store.sock",
            {"exits": lambda request: questions.exits(backend.engine, request["since"], request["newest"])},
        )
        try:
            everything = logged(tmp_path, 0)
            newest = logged(tmp_path, 0, newest_only=True)
        finally:
            server.close()
    finally:
        btc.close()
        eth.close()
    first = btc.rows()[0].rx // second
    assert everything == [
        Use("btc", "203.0.113.11", "203.0.113.11", first, first + 5),
        Use("btc", "203.0.113.14", "203.0.113.14", first + 6, None),
        Use("eth", "203.0.113.11", "203.0.113.11", first + 5, None),
    ]
    assert {use.symbol: use.exit for use in newest} == {"btc": "203.0.113.14", "eth": "203.0.113.11"}


def test_a_question_answered_in_several_blocks_has_one_header(backend: Backend) -> None:
    """The embedded engine writes names and types before every block."""
    engine = backend.engine()
    engine.connect()
    engine.close()
    found = asked(backend.engine, "SELECT number FROM system.numbers LIMIT 200000", 150_000)
    assert found["rows"] == [[number] for number in range(150_000)]
    assert found["truncated"]
