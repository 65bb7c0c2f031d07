"""Control sockets: one JSON line each way, whatever the other side does."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline import control, health
from mexc_pipeline.control import ControlError, ControlServer, Handler, SilentError, UnseenError, ask
from mexc_pipeline.errors import UserError
from support.examples import examples
from support.waiting import until


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


def test_who_answers_nothing_is_not_waited_for_as_long_as_a_question_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ALIVE_S", 0.05)
    path = tmp_path / "store.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(SilentError, match=r"status within 0\.05 s: it hangs or is stopped; restart it"):
            ask(path, "query", timeout_s=300.0)


@pytest.mark.parametrize("status", [{}, None])
def test_who_answers_is_waited_for(tmp_path: Path, status: dict[str, Any] | None) -> None:
    """A refusal to say how it is, as of a version that does not know the command, is an answer."""
    handlers: dict[str, Handler] = {"query": lambda _: {"rows": 3}}
    if status is not None:
        handlers["status"] = lambda _: {}
    server = ControlServer(tmp_path / "store.sock", handlers)
    try:
        assert ask(server.path, "query", timeout_s=300.0)["rows"] == 3
    finally:
        server.close()


def test_an_answer_may_be_its_own_text(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "store.sock", {"query": lambda _: bytearray('{"rows": [["ä", 1e3]]}'.encode())})
    try:
        assert ask(server.path, "query") == {"rows": [["ä", 1000.0]]}
    finally:
        server.close()


# -- who may ask what, and how many at a time

GROUP_USER, OTHER_USER = 60_001, 60_002

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


@pytest.mark.as_root
def test_others_get_status_and_nothing_that_acts(open_path: Path) -> None:
    assert ask_as(GROUP_USER, open_path, "status") == "{'did': 'status'}"
    for command in ("cut", "query"):
        assert ask_as(GROUP_USER, open_path, command) == (
            f"btc: {command} is for the recorder's own user; run it as root or root"
        )
        assert ask_as(0, open_path, command) == f"{{'did': '{command}'}}"


@pytest.mark.as_root
def test_a_command_is_for_the_owner_unless_it_is_said_to_be_for_the_group(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "x.sock", HANDLERS)
    try:
        tmp_path.chmod(0o755)
        assert _answer_for(server, GROUP_USER, "echo")["ok"] is False
        assert _answer_for(server, os.geteuid(), "echo")["ok"] is True
    finally:
        server.close()


def _answer_for(server: ControlServer, uid: int, cmd: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(server._answered(json.dumps({"cmd": cmd}).encode(), uid))
    return answer


@contextmanager
def idle(path: Path, count: int, said: bytes = b"") -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(path))
            with suppress(BrokenPipeError, ConnectionResetError):  # of a client that has had to make way already
                client.sendall(said)
        yield


@pytest.mark.slow
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


@pytest.mark.as_root
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


# -- what a hostile client may do


def _open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def _clients() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "control-client"]


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


ODD = [
    b'{"cmd":"echo","cmd":"cut"}\n', b'{"cmd":"ech\\u0000o"}\n', b'{"cmd":"\x00"}\n', b'{"cmd":"\\ud800"}\n',
    b'{"cmd":' + b"9" * 5000 + b"}\n", b'{"cmd":1e999}\n', b'{"a":' * 30_000 + b"\n", b"\x00" * 1000 + b"\n",
    b'{"cmd":"\xed\xa0\x80"}\n', b"\xef\xbb\xbf{}\n", b'{"cmd":"echo"}\n{"cmd":"echo"}\n',
]  # fmt: skip


@pytest.mark.parametrize("line", ODD, ids=lambda line: str(line[:24]))
def test_what_is_no_request_gets_one_line(path: Path, line: bytes) -> None:
    answer = raw(path, line)
    assert answer.count(b"\n") == 1
    assert json.loads(answer)["ok"] is False


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300) | st.dictionaries(st.text(), st.text() | st.floats() | st.integers()).map(control._line))
def test_any_line_is_answered_by_one_object(path: Path, line: bytes) -> None:
    line = line.replace(b"\n", b"") + b"\n"
    answer = raw(path, line)
    assert answer.endswith(b"\n")
    assert isinstance(json.loads(answer), dict)


@given(st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False) | st.integers() | st.none() | st.booleans()))
def test_a_line_says_what_was_put_into_it(said: dict[str, Any]) -> None:
    line = control._line(said)
    assert line.count(b"\n") == 1
    assert json.loads(line) == said


def test_a_request_in_small_pieces_is_whole(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        for byte in control._line({"cmd": "echo", "text": "ä" * 500}):
            client.sendall(bytes([byte]))
        assert json.loads(client.recv(65536))["got"]["text"] == "ä" * 500


def test_no_file_that_is_passed_along_stays_open(path: Path) -> None:
    ask(path, "echo")
    before = _open_files()
    with open(os.devnull) as passed:
        for line in (b'{"cmd":"echo"}\n', b'{"cmd"', b"x"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(str(path))
                socket.send_fds(client, [line], [passed.fileno()] * 50)
                client.shutdown(socket.SHUT_WR)
                assert client.recv(65536)
    _until(lambda: not _clients())
    assert _open_files() <= before


def test_thousands_that_drop_leave_nothing(path: Path) -> None:
    ask(path, "echo")
    before = _open_files()
    for n in range(2000):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            if n % 2:
                with suppress(OSError):  # it was displaced by the next ones
                    client.sendall(b'{"cmd":"long"}\n' if n % 50 == 1 else b'{"cmd":"echo"}\n')
    assert ask(path, "echo")["got"] == {"cmd": "echo"}
    _until(lambda: not _clients())
    assert _open_files() <= before


def test_a_client_that_reads_no_more_is_no_trouble(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.shutdown(socket.SHUT_RD)
        client.sendall(b'{"cmd":"long"}\n')
        _until(lambda: not _clients())
    assert ask(path, "echo")["got"] == {"cmd": "echo"}


def test_an_answer_that_no_caller_would_take_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_ANSWER", 1 << 20)
    with pytest.raises(ControlError, match="btc: the answer is larger than 1 MiB; ask for less"):
        ask(path, "long")


def test_a_request_that_would_not_be_taken_is_not_sent(path: Path) -> None:
    with pytest.raises(ControlError, match="btc: echo is longer than 256 KiB; ask for less at a time"):
        ask(path, "echo", text="x" * control.MAX_REQUEST)


def test_text_of_any_script_takes_the_bytes_it_has() -> None:
    assert len(control._line({"m": "ä" * 1000})) < 2020


def test_a_user_of_the_group_is_answered_one_at_a_time_and_not_at_any_rate(tmp_path: Path) -> None:
    at_once, most, began = 0, 0, []

    def work(_: dict[str, Any]) -> dict[str, Any]:
        nonlocal at_once, most
        began.append(time.monotonic())
        at_once += 1
        most = max(most, at_once)
        threading.Event().wait(0.001)
        at_once -= 1
        return {}

    server = ControlServer(tmp_path / "x.sock", {"work": work}, ("work",), is_owner=lambda uid: uid == 1)
    try:
        many = [threading.Thread(target=server._in_turn, args=(b'{"cmd":"work"}', 7)) for _ in range(12)]
        for thread in many:
            thread.start()
        for thread in many:
            thread.join(10)
    finally:
        server.close()
    assert len(began) == 12
    assert most == 1
    assert min(b - a for a, b in itertools.pairwise(began)) >= control.PACE_S * 0.9


def test_one_users_long_question_holds_up_no_other(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def work(request: dict[str, Any]) -> dict[str, Any]:
        if request.get("long"):
            inside.set()
            assert go_on.wait(30)
        return {}

    server = ControlServer(tmp_path / "x.sock", {"work": work}, ("work",), is_owner=lambda uid: uid == 1)
    try:
        long = threading.Thread(target=server._in_turn, args=(b'{"cmd":"work","long":true}', 7))
        long.start()
        assert inside.wait(10)
        for uid in (1, 8):
            assert json.loads(server._in_turn(b'{"cmd":"work"}', uid)) == {"ok": True}
    finally:
        go_on.set()
        long.join(10)
        server.close()


def test_what_was_displaced_waits_for_no_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of a flood's connections would leave a thread behind, in the queue for its user's turn."""
    monkeypatch.setattr(control, "PACE_S", 60.0)
    path = tmp_path / "x.sock"
    with closing(ControlServer(path, HANDLERS, is_owner=lambda _: False)), idle(path, 400, b'{"cmd":'):
        _until(lambda: len(_clients()) <= control.FOR_USER)


def test_users_that_share_out_all_places_keep_no_other_out(tmp_path: Path) -> None:
    """Four users who hold sixteen idle connections each, and the next one comes."""
    uids = [7] * 16 + [8] * 16 + [9] * 16 + [10] * 16 + [11]
    path = tmp_path / "x.sock"
    server = ControlServer(path, HANDLERS, is_owner=lambda uid: uid == 1, caller=lambda _: uids.pop(0) if uids else 12)
    with closing(server), idle(path, 64):
        for _ in range(2):
            assert "is for the recorder's own user" in json.loads(raw(path, b'{"cmd":"echo"}\n'))["error"]


@pytest.mark.parametrize("other", ["nothing", "a file", "a link", "a folder", "another socket", "no folder"])
def test_a_socket_that_was_taken_away_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    monkeypatch.setattr(control, "OPEN_AGAIN_S", 0.05)
    path = tmp_path / "control" / "btc.sock"
    server = ControlServer(path, HANDLERS)
    with socket.socket(socket.AF_UNIX) as stranger:
        try:
            path.unlink()
            match other:
                case "a file":
                    path.write_bytes(b"")
                case "a link":
                    path.symlink_to("/dev/null")
                case "a folder":
                    path.mkdir()
                case "another socket":
                    stranger.bind(str(path))
                    stranger.listen()
                case "no folder":
                    path.parent.rmdir()

            def is_back() -> bool:
                try:
                    return bool(ask(path, "echo", timeout_s=0.2)["got"] == {"cmd": "echo"})
                except ControlError:
                    return False

            _until(is_back)
        finally:
            server.close()
    assert not path.exists()


def test_closing_leaves_what_others_put_there(tmp_path: Path) -> None:
    path = tmp_path / "btc.sock"
    server = ControlServer(path, HANDLERS)
    path.unlink()
    path.write_text("theirs")
    server.close()
    assert path.read_text() == "theirs"


# -- what a hostile server may do


@contextmanager
def answering(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server that does with each client what it likes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            with suppress(OSError):  # the end
                while True:
                    client, _ = listener.accept()
                    with client, suppress(OSError):
                        serve(client)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _endless(client: socket.socket) -> None:
    while True:
        client.sendall(b"x" * 65536)


def _dripping(client: socket.socket) -> None:
    while True:
        client.sendall(b" ")
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"[]\n", "no object"), (b"5\n", "no object"), (b"null\n", "no object"), (b"[" * 100_000 + b"\n", "no JSON"),
     (b"\xff\n", "no JSON"), (b'{"ok":true' + b'"' * 10 + b"\n", "no JSON"), (b"{}\n", "refused")],
    ids=lambda value: str(value[:12]),
)  # fmt: skip
def test_any_answer_becomes_one_line(tmp_path: Path, answer: bytes, said: str) -> None:
    path = tmp_path / "sol.sock"
    with answering(path, lambda client: client.sendall(answer)), pytest.raises(ControlError, match=said):
        ask(path, "status")


@given(st.binary(max_size=100))
def test_no_answer_is_more_than_an_error(answer: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, suppress(ControlError):
        path = Path(folder) / "sol.sock"
        with answering(path, lambda client: client.sendall(answer)):
            assert isinstance(ask(path, "status"), dict)


def test_an_endless_answer_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_ANSWER", 1 << 20)
    path = tmp_path / "sol.sock"
    with answering(path, _endless), pytest.raises(ControlError, match="longer than 1024 KiB"):
        ask(path, "status")


def test_an_answer_that_drips_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "sol.sock"
    with answering(path, _dripping), pytest.raises(ControlError, match="did not answer status within"):
        ask(path, "status", timeout_s=0.3)


@pytest.mark.parametrize("errno_of", ["denied", "a file"])
def test_what_cannot_be_looked_at_says_what_to_do_and_not_to_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errno_of: str
) -> None:
    folder = tmp_path / "control"
    if errno_of == "a file":
        folder.touch()
    else:
        folder.mkdir()

        def denied(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", denied)
    with pytest.raises(UnseenError) as raised:
        ask(folder / "btc.sock", "status")
    said = {
        "denied": (f"btc: no permission to use {folder}/btc.sock", "run this as "),
        "a file": (f"btc: {folder} is not a folder", "move it away"),
    }[errno_of]
    assert raised.value.said == said[0]
    assert raised.value.todo.startswith(said[1])
    assert str(raised.value) == f"{raised.value.said}; {raised.value.todo}"
    for found in (health.of_symbol, health.of_store):
        (fault,) = found({"problem": raised.value.said, "todo": raised.value.todo}).reasons
        assert fault.advice == raised.value.todo


def test_a_socket_is_there_once_there_is_a_handle_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[int] = []
    made = socket.socket

    def refusing(*args: Any, **kwargs: Any) -> socket.socket:
        if not refused:
            refused.append(24)
            raise OSError(24, "Too many open files")
        return made(*args, **kwargs)

    monkeypatch.setattr(control, "OPEN_AGAIN_S", 0.01)
    monkeypatch.setattr(socket, "socket", refusing)
    with closing(ControlServer(tmp_path / "x.sock", {"status": lambda _: {"n": 1}})):
        until(lambda: (tmp_path / "x.sock").exists(), 10, "the socket")
        assert refused
        until(lambda: answers(tmp_path / "x.sock"), 10, "an answer")


def answers(path: Path) -> bool:
    with suppress(ControlError):
        return bool(ask(path, "status")["n"])
    return False
