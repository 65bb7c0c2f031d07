"""Control sockets: one JSON line each way, whatever the other side does."""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
    assert answer == {"ok": False, "error": "a control line is longer than 256 KiB"}
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


# -- who may ask what, and how many at a time

GROUP_USER, OTHER_USER = 60_001, 60_002
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")

ASK_AS = """
import os, sys
from pathlib import Path
from mexc_pipeline.control import ask
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
try:
    print(ask(Path(sys.argv[2]), sys.argv[3]))
except Exception as error:
    print(error)
"""


def ask_as(uid: int, path: Path, cmd: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK_AS, str(uid), str(path), cmd], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A socket that every user of this machine may open, in a folder that all may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "btc.sock"
        handlers: dict[str, Any] = {c: lambda request: {"did": request["cmd"]} for c in ("status", "cut", "query")}
        server = ControlServer(path, handlers, for_group=("status",))
        path.chmod(0o666)
        yield path
        server.close()


@as_root
def test_others_get_status_and_nothing_that_acts(open_path: Path) -> None:
    assert ask_as(GROUP_USER, open_path, "status") == "{'did': 'status'}"
    for command in ("cut", "query"):
        assert ask_as(GROUP_USER, open_path, command) == (
            f"btc: {command} is for the recorder's own user; run it as root or root"
        )
        assert ask_as(0, open_path, command) == f"{{'did': '{command}'}}"


@as_root
def test_a_command_is_for_the_owner_unless_it_is_said_to_be_for_the_group(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "x.sock", HANDLERS)
    try:
        tmp_path.chmod(0o755)
        assert _answer_for(server, GROUP_USER, "echo")["ok"] is False
        assert _answer_for(server, os.geteuid(), "echo")["ok"] is True
    finally:
        server.close()


def _answer_for(server: ControlServer, uid: int, cmd: str) -> dict[str, Any]:
    return server._answer(json.dumps({"cmd": cmd}).encode(), uid)


@contextmanager
def idle(path: Path, count: int, said: bytes = b"") -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(path))
            if said:
                client.sendall(said)
        yield


@pytest.mark.parametrize("said", [b"", b'{"cmd":', b'{"cmd":"long"}\n'], ids=["silent", "half a line", "never reading"])
def test_idle_clients_and_slow_readers_keep_nobody_out(path: Path, said: bytes) -> None:
    with idle(path, 400, said):
        assert ask(path, "echo")["got"] == {"cmd": "echo"}
        assert len([t for t in threading.enumerate() if t.name == "control-client"]) <= control.FOR_OWNER + 8


FLOOD_AS = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
clients = []
for _ in range(1200):
    clients.append(socket.socket(socket.AF_UNIX))
    clients[-1].connect(sys.argv[2])
print("there", flush=True)
sys.stdin.read()
"""


@as_root
def test_one_users_flood_keeps_no_other_user_out(open_path: Path) -> None:
    command = ["prlimit", "--nofile=4096", sys.executable, "-c", FLOOD_AS, str(GROUP_USER), str(open_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as flood:
        assert flood.stdout is not None
        assert flood.stdout.readline() == "there\n"
        assert ask(open_path, "cut") == {"did": "cut"}
        assert ask_as(OTHER_USER, open_path, "status") == "{'did': 'status'}"
        flood.communicate("")


def test_a_request_that_drips_has_an_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "REQUEST_S", 0.2)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        stop = threading.Event()

        def drip() -> None:
            try:
                while not stop.wait(0.05):
                    client.sendall(b" ")
            except OSError:
                pass  # the end that is waited for

        thread = threading.Thread(target=drip)
        thread.start()
        with suppress(ConnectionResetError):  # what dripped in last was not read any more
            assert client.recv(100) == b""
        stop.set()
        thread.join(5)


EMFILE = """
import logging, os, resource, socket, sys, threading
from pathlib import Path
from mexc_pipeline.control import ControlServer, ask
path = Path(sys.argv[1])
server = ControlServer(path, {"echo": lambda request: {}})
first, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
first.connect(str(path))  # the accept(2) that waits has its file already
client.connect(str(path))  # the next one fails by EMFILE
client.sendall(b'{"cmd":"echo"}\\n')
failed = threading.Event()
logging.getLogger("mexc_pipeline.control").addFilter(lambda record: failed.set() or True)
assert failed.wait(10)
for fd in held:
    os.close(fd)
client.settimeout(10)
print(client.recv(100), ask(path, "echo"))
"""


def test_it_answers_again_once_there_are_files_to_open(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EMFILE, str(tmp_path / "x.sock")], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "b'{\"ok\": true}\\n' {}\n"
    assert "cannot accept" in done.stderr
