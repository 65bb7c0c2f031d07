"""What this host's kernel has acknowledged is recorded, however the connection over which it came ends."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest
import websocket

from mexc_pipeline import config
from mexc_pipeline.egress import dial as dial_module
from mexc_pipeline.events import Rotated
from mexc_pipeline.feed import session as module
from mexc_pipeline.feed.feed import Feed
from mexc_pipeline.feed.link import READ_AHEAD
from mexc_pipeline.feed.watch import Action, Probe, Reconnect, Resubscribe, Watch
from mexc_pipeline.rows import Frame, Mt
from support.gathering import Gathered
from support.peers import Certificates, acknowledged, certificates, greet, reset, serving
from support.waiting import until

CLOSE = b"\x88\x06\x03\xe9away"


def frame(number: int) -> bytes:
    text = b'{"symbol":"BTC_USDT","channel":"push.ticker","data":"%s%d","ts":1795000000000}' % (b"x" * 800, number)
    return b"\x81\x7e" + len(text).to_bytes(2) + text


FIRST = frame(0)
BURST = b"".join(frame(number) for number in range(1, 181))
assert len(BURST) > 2 * READ_AHEAD


class HeldUp(Gathered):
    """Does not go on from the moment at which it is told to wait, until it may."""

    def __init__(self, at: Callable[[Frame], bool]) -> None:
        self.got: list[Frame] = []
        self.waits, self.may_go = threading.Event(), threading.Event()
        self._at = at
        super().__init__(self._keep)

    def _keep(self, batch: list[Frame]) -> None:
        self.got += batch
        if any(map(self._at, batch)):
            self.waits.set()
            assert self.may_go.wait(60)

    def note(self, mt: int, m: bytes) -> None:
        super().note(mt, m)
        if self._at(Frame(0, None, mt, m)):
            self.waits.set()
            assert self.may_go.wait(60)


def _leave(feed: Feed, patch: pytest.MonkeyPatch) -> None:
    feed.leave(feed.state.connection, "another exit was asked for", Rotated(exit="e1"))


def _due(action: Action) -> Callable[[Feed, pytest.MonkeyPatch], None]:
    """What is done about a channel that is silent, or a connection."""

    def act(feed: Feed, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Watch, "due", lambda *_: [action])

    return act


def _ping(feed: Feed, patch: pytest.MonkeyPatch) -> None:
    assert feed.session is not None
    feed.session.next_ping = 0.0


def _full(feed: Feed, patch: pytest.MonkeyPatch) -> None:
    def send(*_: Any) -> None:
        raise websocket.WebSocketTimeoutException("timed out")

    patch.setattr(websocket.WebSocket, "send", send)
    _ping(feed, patch)


def _unanswered(feed: Feed, patch: pytest.MonkeyPatch) -> None:
    """Our goodbye is not answered in time."""
    patch.setattr(module, "GOODBYE_S", -1.0)
    feed.stop()


def _close_and_reset(client: socket.socket) -> None:
    client.sendall(CLOSE)
    acknowledged(client, threading.Event())
    reset(client)


ACTS: dict[str, Callable[[Feed, pytest.MonkeyPatch], None]] = {
    "ping": _ping,
    "pong": lambda feed, patch: None,
    "resubscribe": _due(Resubscribe("push.deal")),
    "probe": _due(Probe()),
    "silent": _due(Reconnect("no pong", False)),
    "silent, in order": _due(Reconnect("no data", True)),
    "another exit": _leave,
    "stop": lambda feed, patch: feed.stop(),
    "hold": lambda feed, patch: feed.hold("a while"),
    "takes nothing": _full,
    "stop, unanswered": _unanswered,
}
ENDS: dict[str, Callable[[socket.socket], None]] = {
    "reset": reset,
    "end": lambda client: client.shutdown(socket.SHUT_RDWR),
    "close": lambda client: client.sendall(CLOSE),
    "close, then reset": _close_and_reset,
    "none": lambda client: None,
}
ALONE = ("silent", "takes nothing", "stop, unanswered")
"""What ends a connection of which the exchange knows nothing."""


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1")


def _roomy(*asked: Any) -> dial_module.Dialled:
    dialled = dial_module.dial(*asked)
    dialled.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return dialled


def _record(
    proof: Certificates | None,
    intake: HeldUp,
    act: Callable[[Feed], None],
    end: Callable[[socket.socket], None],
    first: bytes,
) -> list[Frame]:
    """One connection: ``first`` comes, and once the recorder waits, the rest of it and its end; then it goes on with
    the act that is due."""
    ended = threading.Event()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if proof is not None:
        context.load_cert_chain(proof.certificate, proof.key)

    def serve(client: socket.socket, over: threading.Event) -> None:
        if ended.is_set():
            return
        if proof is not None:
            client = context.wrap_socket(client, server_side=True)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        greet(client, after=first)
        assert intake.waits.wait(30)
        client.sendall(BURST)
        acknowledged(client, over)
        end(client)
        ended.set()
        over.wait(60)

    with serving(serve) as far:
        scheme, ca_file = ("ws", "") if proof is None else ("wss", str(proof.authority))
        where = config.ExchangeTable(websocket=f"{scheme}://127.0.0.1:{far.port}/edge", ca_file=ca_file)
        feed = Feed(config.parse("", None).symbols[0], where, intake, _roomy)
        thread = threading.Thread(target=feed.run)
        thread.start()
        try:
            assert ended.wait(30)
            act(feed)
            intake.may_go.set()
            until(lambda: any(b'"disconnected"' in row.m for row in intake.got if row.mt == Mt.EVENT), 30, "its end")
        finally:
            intake.may_go.set()
            feed.stop()
            thread.join(10)
        assert not thread.is_alive()
    return intake.got


def _texts(raw: bytes) -> list[bytes]:
    found = []
    while raw:
        size = int.from_bytes(raw[2:4])
        found.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return found


def _check(rows: list[Frame]) -> dict[str, Any]:
    """Everything was recorded before the end; returns what is said of that."""
    said = [n for n, row in enumerate(rows) if row.mt == Mt.EVENT and b'"disconnected"' in row.m]
    assert [row.m for row in rows[: said[0]] if row.mt == Mt.TICKER] == _texts(FIRST + BURST)
    found: dict[str, Any] = json.loads(rows[said[0]].m)
    return found


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize(("due", "end"), [(due, end) for due in ACTS for end in ENDS if end != "none" or due in ALONE])
def test_whatever_ends_a_connection_what_had_come_is_recorded_first(
    due: str, end: str, secure: bool, proof: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder is about to read on, and has something to do before."""
    intake = HeldUp(lambda row: row.mt == Mt.TICKER and row.m.endswith(b'x0","ts":1795000000000}'))
    first = FIRST + (b"\x89\x01?" if due == "pong" else b"")
    said = _check(
        _record(proof if secure else None, intake, lambda feed: ACTS[due](feed, monkeypatch), ENDS[end], first)
    )
    if end.startswith("close") and due in ("ping", "pong", "resubscribe", "probe"):
        assert (said["code"], said["reason"]) == (1001, "away"), "in its own words, though nothing could be sent"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_what_comes_with_the_handshake_is_recorded_where_nothing_can_be_asked_any_more(
    secure: bool, proof: Certificates
) -> None:
    intake = HeldUp(lambda row: row.mt == Mt.EVENT and b'"connected"' in row.m)
    _check(_record(proof if secure else None, intake, lambda feed: None, reset, FIRST))


def test_an_exchange_that_goes_on_sending_keeps_nobody(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(module, "DRAIN_BYTES", 200_000)
    monkeypatch.setattr(Watch, "due", lambda *_: [Reconnect("no pong", False)])
    intake = HeldUp(lambda row: row.mt == Mt.EVENT and b'"connected"' in row.m)
    full = threading.Event()

    def flood(client: socket.socket, over: threading.Event) -> None:
        greet(client)
        client.setblocking(False)
        left = memoryview(BURST)
        while not over.is_set():
            try:
                left = left[client.send(left) :] or memoryview(BURST)  # whole frames, in however many pieces
            except BlockingIOError:  # the recorder's kernel takes no more: it is full whatever this thread is given
                full.set()
                client.settimeout(0.1)
            except TimeoutError:
                continue

    with serving(flood) as far:
        where = config.ExchangeTable(websocket=f"ws://127.0.0.1:{far.port}/edge")
        feed = Feed(config.parse("", None).symbols[0], where, intake)
        thread = threading.Thread(target=feed.run)
        thread.start()
        try:
            assert intake.waits.wait(30)
            assert full.wait(30)
            intake.may_go.set()
            until(lambda: any(b'"disconnected"' in row.m for row in intake.got if row.mt == Mt.EVENT), 30, "its end")
        finally:
            intake.may_go.set()
            feed.stop()
            thread.join(10)
    assert not thread.is_alive()
    assert "left unread" in caplog.messages
