"""Control sockets: one JSON line each way, whatever the other side does."""

from __future__ import annotations

import gc
import json
import logging
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline import control
from mexc_pipeline.control import ControlError, ControlServer, ask
from mexc_pipeline.errors import UserError


def _refuse(_: dict[str, Any]) -> dict[str, Any]:
    raise UserError("not now; try later")


def _fail(_: dict[str, Any]) -> dict[str, Any]:
    raise ZeroDivisionError("oops")


HANDLERS = {
    "echo": lambda request: {"got": request},
    "refuse": _refuse,
    "fail": _fail,
    "long": lambda _: {"text": "x" * (3 << 20)},
}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "control" / "btc.sock"
    server = ControlServer(path, HANDLERS)
    yield path
    server.close()
    assert not path.exists()


def raw(path: Path, data: bytes) -> bytes:
    """Send bytes and what comes back until the end."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_questions_are_answered(path: Path) -> None:
    assert ask(path, "echo", n=[1, "ä"]) == {"got": {"cmd": "echo", "n": [1, "ä"]}}
    assert len(ask(path, "long")["text"]) == 3 << 20
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_refusal_and_a_failure_are_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ControlError, match="btc: not now; try later"):
        ask(path, "refuse")
    with caplog.at_level(logging.ERROR), pytest.raises(ControlError, match="btc: ZeroDivisionError: oops"):
        ask(path, "fail")
    assert "control command failed" in caplog.text
    with pytest.raises(ControlError, match="known are echo, fail, long, refuse"):
        ask(path, "reboot")


@pytest.mark.parametrize(
    "garbage",
    [b"\n", b"hello\n", b"[]\n", b"5\n", b'{"cmd":["echo"]}\n', b'{"cmd":null}\n', b"\xff\xfe\n",
     b'{"cmd":"echo"', b"{}\n", b"[" * 100_000 + b"\n"],
)  # fmt: skip
def test_garbage_is_refused_and_the_next_one_served(path: Path, garbage: bytes) -> None:
    answer = json.loads(raw(path, garbage))
    assert answer["ok"] is False
    assert "not a command" in answer["error"]
    assert ask(path, "echo")["got"] == {"cmd": "echo"}


def test_an_oversized_line_is_refused(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        block = b"x" * 65536
        sent = 0
        try:
            while sent <= control.MAX_REQUEST + len(block):
                client.sendall(block)
                sent += len(block)
        except OSError:
            pass  # it hung up on us: the answer waits in the buffer
        answer = json.loads(client.recv(65536))
    assert answer == {"ok": False, "error": "a control line is longer than 1 MiB"}
    assert ask(path, "echo")["got"] == {"cmd": "echo"}


def test_a_client_that_goes_away_is_no_trouble(path: Path) -> None:
    assert raw(path, b"") == b""
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b'{"cmd":"long"}\n')
    assert ask(path, "echo")["got"] == {"cmd": "echo"}


def test_a_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100) / "btc.sock"
    server = ControlServer(deep, HANDLERS)
    try:
        assert ask(deep, "echo")["got"] == {"cmd": "echo"}
    finally:
        server.close()
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(ControlError, match="btc is not running"):
            ask(deep, "echo")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_who_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="eth is not running"):
        ask(tmp_path / "nowhere" / "eth.sock", "status")
    left = tmp_path / "eth.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    with pytest.raises(ControlError, match="eth is not running"):
        ask(left, "status")
    server = ControlServer(left, HANDLERS)  # a socket left by a killed process is replaced
    assert ask(left, "echo")
    server.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"", "closed the connection without an answer"), (b'{"ok":tr', "broke off"), (b'{"ok":false}\n', "refused")],
)
def test_an_answer_that_is_none(tmp_path: Path, answer: bytes, said: str) -> None:
    path = tmp_path / "sol.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ControlError, match=said):
            ask(path, "status")
        thread.join(5)


def test_silence_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "sol.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(ControlError, match=r"sol did not answer status within 0\.05 s"):
            ask(path, "status", timeout_s=0.05)
