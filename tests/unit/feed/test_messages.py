"""Messages taken from what was read ahead against the same bytes read by the library alone."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable

import pytest
import websocket
from hypothesis import example, given
from hypothesis import strategies as st

from mexc_pipeline.feed.link import Messages, ReadAhead

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
Answer = list[tuple[int, bytes] | str]


def frame(opcode: int, payload: bytes, fin: int = 1, rsv: int = 0, mask: bytes = b"", form: int = 0) -> bytes:
    """``form``: least number of bytes of the length field, so that it may be longer than it has to be."""
    size = len(payload)
    field = size if size < 126 and form < 2 else 126 if size < 1 << 16 and form < 8 else 127
    length = b"" if field < 126 else size.to_bytes(2 if field == 126 else 8)
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([fin << 7 | rsv << 4 | opcode, (0x80 if mask else 0) | field]) + length + mask + payload


payloads = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"", b"x" * 125, b"x" * 126, b"\x81\x02ab" * 60, b"y" * 65_535, b"z" * 65_536]),
)
plain = payloads.map(lambda payload: frame(TEXT, payload))
pieces = st.one_of(
    plain,
    plain,
    plain,
    st.builds(frame, st.just(TEXT), payloads, form=st.sampled_from([2, 8])),
    st.builds(frame, st.sampled_from([BINARY, PING, PONG, CLOSE, 0, 3]), payloads.filter(lambda p: len(p) < 126)),
    st.builds(frame, st.sampled_from([TEXT, BINARY, 0]), payloads, fin=st.sampled_from([0, 1])),
    st.builds(frame, st.just(TEXT), payloads, rsv=st.sampled_from([1, 2, 3, 5, 6, 7])),
    st.builds(frame, st.just(TEXT), payloads, mask=st.just(b"abcd")),
    st.just(frame(TEXT, b"one", fin=0) + frame(PING, b"?") + frame(0, b"two")),
    st.just(frame(TEXT, b"one", fin=0) + frame(PING, b"?") + frame(TEXT, b"not a fragment") + frame(0, b"two")),
    st.binary(max_size=8),
)


class Wire:
    """Bytes as they arrive, in pieces of given sizes; None in their place is a timeout."""

    def __init__(self, data: bytes, sizes: Iterable[int | None]) -> None:
        self._data = data
        self._sizes = iter(sizes)
        self.sent = bytearray()

    def recv(self, most: int) -> bytes:
        size = next(self._sizes, most)
        if size is None:
            raise TimeoutError
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def sendall(self, data: bytes) -> None:
        self.send(data)

    def gettimeout(self) -> float:
        return 1.0

    def settimeout(self, seconds: float | None) -> None: ...
    def shutdown(self, how: int) -> None: ...
    def fileno(self) -> int:
        return 0

    def close(self) -> None: ...


def read(data: bytes, sizes: list[int | None], mine: bool) -> tuple[Answer, int]:
    """What comes until an error, and how many answers were sent."""
    wire = Wire(data, sizes)
    link = ReadAhead(wire, lambda: None)  # type: ignore[arg-type]
    ws = websocket.WebSocket(skip_utf8_validation=True)
    ws.sock, ws.connected = link, True  # type: ignore[assignment]

    def library() -> tuple[int, bytes]:
        opcode, found = ws.recv_data_frame(True)
        return opcode, found.data

    messages = Messages(ws, link) if mine else None

    def ours() -> tuple[int, bytes]:
        assert messages is not None
        found = messages.next()
        if messages.ping is not None:
            ws.send(messages.ping, PONG)
            messages.ping = None
        return found

    take: Callable[[], tuple[int, bytes]] = ours if mine else library
    answer: Answer = []
    while True:
        try:
            answer.append(take())
        except (TimeoutError, websocket.WebSocketTimeoutException):
            continue
        except (websocket.WebSocketException, OSError) as error:
            return [*answer, type(error).__name__], len(wire.sent)


@given(
    st.lists(pieces, max_size=12).map(b"".join),
    st.lists(st.none() | st.integers(1, 300), max_size=40),
    st.integers(0, 3),
)
@example(frame(TEXT, b"first") + frame(TEXT, b"second"), [1, None, 1, None, 1, 1, 1, 1, 1, None, 2], 0)
@example(frame(TEXT, b"one", fin=0) + frame(PING, b"") + frame(TEXT, b"no fragment"), [], 0)
def test_messages_are_those_the_library_reads(data: bytes, sizes: list[int | None], missing: int) -> None:
    """And no fewer: what the library refuses to go on after is passed over where the next frame's place is clear."""
    data = data[: len(data) - missing]
    mine, library = read(data, sizes, mine=True), read(data, sizes, mine=False)
    if library[0][-1] == "WebSocketProtocolException":
        before = [found for found in library[0][:-1] if found[0] not in (PING, PONG)]
        assert [found for found in mine[0] if found[0] not in (PING, PONG)][: len(before)] == before
    else:
        assert mine == library


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@given(payload=payloads, cut=st.booleans())
def test_data_marked_as_compressed_are_data(opcode: int, payload: bytes, cut: bool) -> None:
    """Nobody agreed on it: the library would end this connection, and each one after it."""
    marked = frame(opcode, payload, rsv=4)
    if cut:
        half = len(payload) // 2
        marked = frame(opcode, payload[:half], fin=0, rsv=4) + frame(0, payload[half:])
    found, _ = read(marked + frame(TEXT, b"next"), [], mine=True)
    assert found[:2] == [(opcode, payload), (TEXT, b"next")]


NEXT = (TEXT, b"next")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        *((frame(opcode, b"new"), [(opcode, b"new")]) for opcode in (3, 7, 11, 15)),
        (frame(TEXT, b"a", fin=0) + frame(5, b"new") + frame(0, b"b"), [(5, b"new"), (TEXT, b"ab")]),
        (frame(0, b"stray"), [(0, b"stray")]),
        (frame(0, b"stray", fin=0), [(0, b"stray")]),
        (frame(TEXT, b"a", fin=0) + frame(0, b"b", fin=0) + frame(TEXT, b"c"), [(0, b"ab"), (TEXT, b"c")]),
        (frame(TEXT, b"a", fin=0) + frame(BINARY, b"b", fin=0) + frame(0, b"c"), [(0, b"a"), (BINARY, b"bc")]),
        (frame(PING, b"cut", fin=0), [(PING, b"cut")]),
        (frame(PING, b"x" * 126), [(PING, b"x" * 126)]),
        (frame(TEXT, b"masked", mask=b"abcd"), [(TEXT, b"masked")]),
        (frame(TEXT, b"", fin=0) + frame(PONG, b"") + frame(0, b""), [(PONG, b""), (TEXT, b"")]),
    ],
)
def test_what_breaks_the_rules_ends_nothing_where_the_next_frame_begins_is_clear(data: bytes, found: Answer) -> None:
    for sizes in ([], [1, None] * 200):
        assert read(data + frame(*NEXT), sizes, mine=True)[0][:-1] == [*found, NEXT]


@pytest.mark.parametrize("reason", [b"", b"\x03", b"\x00\x05odd", b"\x03\xe8" + b"x" * 200, b"\x03\xe8\xff"])
def test_however_it_is_said_a_close_is_one(reason: bytes) -> None:
    assert read(frame(CLOSE, reason) + b"more", [], mine=True)[0][0] == (CLOSE, reason)


@given(st.lists(st.tuples(st.integers(0, 15), payloads, st.sampled_from([0, 1])), max_size=12))
def test_no_payload_is_lost(frames: list[tuple[int, bytes, int]]) -> None:
    """Of whatever frames in whatever order; the last one ends what was left unfinished."""
    data = b"".join(frame(*one) for one in [*frames, (TEXT, b"last", 1)])
    found = [said for said in read(data, [], mine=True)[0] if not isinstance(said, str)]
    assert sum(len(payload) for _, payload in found) == sum(len(payload) for _, payload, _ in frames) + 4
    assert found[-1] == (TEXT, b"last")


@pytest.mark.parametrize("data", [frame(PING, b"", rsv=4), frame(0, b"", rsv=4), frame(TEXT, b"", rsv=6)])
def test_other_reserved_bits_mean_that_no_frame_begins_here(data: bytes) -> None:
    assert read(data, [], mine=True)[0] == ["WebSocketProtocolException"]


class Unread(Wire):
    """A far end that takes nothing."""

    def send(self, data: bytes) -> int:
        raise TimeoutError("timed out")


def test_reading_does_not_wait_for_an_answer_to_be_taken() -> None:
    link = ReadAhead(Unread(frame(PING, b"1") + frame(PING, b"2") + frame(TEXT, b"x"), []), lambda: None)  # type: ignore[arg-type]
    ws = websocket.WebSocket(skip_utf8_validation=True)
    ws.sock, ws.connected = link, True  # type: ignore[assignment]
    messages = Messages(ws, link)
    assert [messages.next() for _ in range(3)] == [(PING, b"1"), (PING, b"2"), (TEXT, b"x")]
    assert messages.ping == b"2"


class Gone(Wire):
    def send(self, data: bytes) -> int:
        raise BrokenPipeError("gone")


@pytest.mark.parametrize("wire", [Unread, Gone])
def test_why_the_far_end_closes_is_known_also_where_it_is_gone_by_then(wire: type[Wire]) -> None:
    link = ReadAhead(wire(frame(CLOSE, b"\x03\xe9maintenance"), []), lambda: None)  # type: ignore[arg-type]
    ws = websocket.WebSocket(skip_utf8_validation=True)
    ws.sock, ws.connected = link, True  # type: ignore[assignment]
    assert Messages(ws, link).next() == (CLOSE, b"\x03\xe9maintenance")


def test_plain_messages_do_not_go_through_the_library() -> None:
    link = ReadAhead(Wire(frame(TEXT, b"a" * 130) + frame(TEXT, b""), []), lambda: None)  # type: ignore[arg-type]
    messages = Messages(websocket.WebSocket(), link)  # not connected: it could read nothing
    assert [messages.next(), messages.next()] == [(TEXT, b"a" * 130), (TEXT, b"")]


def test_the_timers_are_looked_at_before_each_wait() -> None:
    calls: list[int] = []
    link = ReadAhead(Wire(frame(TEXT, b"ab") * 2, [3, 1, 4]), lambda: calls.append(link.received))  # type: ignore[arg-type]
    assert [link.text(), link.text()] == [b"ab", b"ab"]
    assert calls == [0, 3, 4]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535])
def test_over_a_real_socket(size: int) -> None:
    ours, theirs = socket.socketpair()
    payload = os.urandom(size)
    with ours, theirs:
        sender = threading.Thread(target=lambda: theirs.sendall(frame(TEXT, payload) * 3))
        sender.start()
        link = ReadAhead(ours, lambda: None)
        assert [link.text() for _ in range(3)] == [payload] * 3
        sender.join()
        theirs.close()
        assert link.text() is None


def _message(data: bytes) -> tuple[int, bytes]:
    """The first message of these bytes."""
    here, there = socket.socketpair()
    with here, there:
        sender = threading.Thread(target=there.sendall, args=(data,))
        sender.start()
        link = ReadAhead(here, lambda: None)
        ws = websocket.WebSocket(skip_utf8_validation=True)
        ws.sock, ws.connected = link, True  # type: ignore[assignment]
        try:
            return Messages(ws, link).next()
        finally:
            here.shutdown(socket.SHUT_RDWR)
            sender.join(5)


@pytest.mark.timeout(60)
def test_fragments_cost_no_more_than_their_bytes() -> None:
    """Copied anew for each fragment, this would be 400 GB."""
    piece = b"x" * 4096
    count = 14_000
    data = frame(TEXT, piece, fin=0) + frame(0, piece, fin=0) * (count - 2) + frame(0, piece)
    assert _message(data) == (TEXT, piece * count)


def test_fragments_without_end_are_looked_after() -> None:
    """They are no message for ever; the timers end them, and their size."""
    looks: list[int] = []
    data = frame(TEXT, b"x", fin=0) + frame(0, b"", fin=0) * 200_000
    link = ReadAhead(Wire(data, []), lambda: looks.append(messages.coming))  # type: ignore[arg-type]
    ws = websocket.WebSocket(skip_utf8_validation=True)
    ws.sock, ws.connected = link, True  # type: ignore[assignment]
    messages = Messages(ws, link)
    with pytest.raises(websocket.WebSocketConnectionClosedException):
        messages.next()
    assert len(looks) > 5
    assert looks[-1] == 1
