"""Control sockets: one JSON line each way over a unix socket in ``data_dir/control``, mode 0660."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pwd
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.paths import as_user, make_folder, not_a_file, not_a_folder, not_allowed, owner

log = logging.getLogger("mexc_pipeline.control")

Handler = Callable[[dict[str, Any]], dict[str, Any] | bytearray]
"""The answer, or the JSON text of one that is too large to be made into objects: an object with something in it."""
MAX_ANSWER = 64 << 20
MAX_REQUEST = 256 << 10
REQUEST_S = 5.0
ANSWER_S = 30.0
FOR_OWNER = 128
"""Connections at a time of the process's own user, and of root: at a start every collector asks the store."""
FOR_USER = 16
"""The same for any other user, and for all others together:"""
FOR_GROUP = 64
PACE_S = 0.01
"""Between the beginnings of two answers to one user of the group. What he asks is answered one at a time."""
BACKLOG = 128
ACCEPT_AGAIN_S = 0.1
LONG_S = 30.0
ALIVE_S = 10.0
"""Who is given longer than ``LONG_S`` for an answer is first asked for its status, which it has at once."""
NOT_UNDERSTOOD = "the store's answer is not understood; it may be of another version, restart it"
ODD = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)
"""What reading an answer of another shape than expected raises."""
NO_COMMAND = "not a command"
"""How the refusal of an unknown command begins, in every version: by it the two sides' difference is told."""
OPEN_AGAIN_S = 1.0
"""Between two attempts to have a socket, and two looks whether it is still there."""


class ControlError(UserError):
    """The process did not answer, or answered that it could not do what was asked."""


class RefusalError(ControlError):
    """The process answered that it will not: ``said`` is its own words, ``wrong_usage`` whether what was asked is never
    done."""

    def __init__(self, who: str, said: str, wrong_usage: bool) -> None:
        super().__init__(f"{who}: {said}")
        self.said = said
        self.wrong_usage = wrong_usage


class NotRunningError(ControlError):
    """Nobody listens at the socket."""


class UnseenError(ControlError):
    """Whether anybody listens at the socket cannot be told from here: ``said`` is why, ``todo`` what to do."""

    def __init__(self, said: str, todo: str) -> None:
        super().__init__(f"{said}; {todo}")
        self.said = said
        self.todo = todo


class SilentError(ControlError):
    """The process let the time for its answer pass."""


class _Short:
    """A path to a socket that fits ``sun_path`` (108 bytes) however deep the folder is."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        self.address = f"/proc/self/fd/{self._fd}/{path.name}"

    def __enter__(self) -> str:
        return self.address

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


@dataclass(slots=True)
class _Turn:
    """Whose turn it is among the questions of one user."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    next_at: float = 0.0


@dataclass(slots=True, eq=False)
class _Client:
    """One accepted connection and the user on its other end."""

    socket: socket.socket
    uid: int
    is_silent: bool = True
    """The next step is its own: to finish its request, or to take the answer."""


def caller(client: socket.socket) -> int:
    """Who connected: the kernel's word for it, taken at the moment of ``connect``."""
    _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


def is_owner(uid: int) -> bool:
    """Whether the user with that number is the process's own or root."""
    return uid in (0, os.geteuid())


class ControlServer:
    """Answers ``{"cmd": NAME, …}`` with what the handler of that name returns, plus ``ok``; one thread a client.

    Whoever may open the socket (owner and group, mode 0660) may ask the commands ``for_group``; all others are for the
    process's own user and root, as the kernel names the caller (SO_PEERCRED, unix(7)). Each user has a number of
    connections; one more displaces the oldest whose turn it is to do something, so that idle ones and slow readers keep
    nobody out; where the group has all of its, that of the user with the most. A user of the group is answered one
    question at a time, :data:`PACE_S` apart, so that no number of them takes the process from its work. Where there can
    be no socket (no permission, no room), or it was taken away, it is tried again until there is one. A request must be
    whole within :data:`REQUEST_S`, an answer read within :data:`ANSWER_S`. ``caller`` says whose a connection is,
    ``is_owner`` whether that is the process's own user or root.
    """

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        for_group: Iterable[str] = (),
        *,
        is_owner: Callable[[int], bool] = is_owner,
        caller: Callable[[socket.socket], int] = caller,
    ) -> None:
        self.path = path
        self._is_owner = is_owner
        self._caller = caller
        self._handlers = dict(handlers)
        self._for_group = frozenset(for_group)
        self._lock = threading.Lock()
        self._clients: list[_Client] = []
        """In the order of their coming."""
        self._turns: defaultdict[int, _Turn] = defaultdict(_Turn)
        self._socket: socket.socket | None = None
        self._file = (0, 0)
        """Device and inode of the socket's name."""
        self._trouble = ""
        self._closing = threading.Event()
        self._open()
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._closing.set()
        listening = self._socket
        if listening is not None:
            with contextlib.suppress(OSError):  # closed a moment ago: it was taken away
                listening.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join(timeout=5)

    def _open(self) -> bool:
        """Listen; False, with a word in the log, where that cannot be done now. Nobody's work depends on being asked
        about it."""
        try:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:  # no handle to be had
            self._say(str(error))
            return False
        try:
            make_folder(self.path.parent)
            if not_a_file(self.path) == "a folder":
                self.path.rename(self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}"))
            self.path.unlink(missing_ok=True)  # the caller holds the lock of what this socket controls
            with _Short(self.path) as address:
                listening.bind(address)
            self.path.chmod(0o660)
            self._file = _file(self.path)
            listening.listen(BACKLOG)
            # The kernel's timeout: shutdown wakes an accept that waits in the kernel, not one that Python lets poll.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(OPEN_AGAIN_S))
        except OSError as error:
            listening.close()
            folder = self.path.parent
            why = not_allowed(self.path, write=True) or not_allowed(folder, write=True) or not_a_folder(folder)
            self._say(why or str(error))
            return False
        self._say("")
        self._socket = listening
        return True

    def _say(self, trouble: str) -> None:
        fields = {"socket": str(self.path), "why": trouble}
        if trouble and trouble != self._trouble:
            log.error("no control socket, trying again", extra={"fields": fields})
        elif self._trouble and not trouble:
            log.info("control socket is there", extra={"fields": {"socket": str(self.path)}})
        self._trouble = trouble

    def _is_there(self) -> bool:
        try:
            return _file(self.path) == self._file
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # as far as can be told

    def _leave(self) -> None:
        """Stop listening. What others put in the socket's place is theirs."""
        if self._socket is None:
            return
        if self._is_there():
            with contextlib.suppress(OSError):  # a folder without permission; whoever comes next removes it
                self.path.unlink(missing_ok=True)
        self._socket.close()
        self._socket = None

    def _accept(self) -> None:
        try:
            while not self._closing.is_set():
                if self._socket is not None:
                    self._accept_one(self._socket)
                elif not self._open():
                    self._closing.wait(OPEN_AGAIN_S)
        finally:
            self._leave()

    def _accept_one(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
            client = _Client(connection, self._caller(connection))
        except BlockingIOError:
            if not self._is_there():
                log.warning("control socket was taken away", extra={"fields": {"socket": str(self.path)}})
                self._leave()
            return
        except OSError as error:
            if not self._closing.is_set():
                # Too many open files, no memory, or the client has gone again: none of it lasts.
                log.warning("control socket cannot accept", extra={"fields": {"error": str(error)}})
                self._closing.wait(ACCEPT_AGAIN_S)
            return
        if not self._admit(client):
            self._turn_away(client)
            return
        try:
            threading.Thread(target=self._serve, args=(client,), name="control-client", daemon=True).start()
        except RuntimeError:  # the system has no thread to give
            self._dismiss(client)
            self._turn_away(client)

    def _admit(self, client: _Client) -> bool:
        """Take the client on, in the place of a silent one if need be."""
        is_owner = self._is_owner(client.uid)
        with self._lock:
            in_the_way = self._in_the_way(client.uid, is_owner)
            if in_the_way:
                oldest = next((c for c in in_the_way if c.is_silent), None)
                if oldest is None:
                    return False
                self._clients.remove(oldest)
                with contextlib.suppress(OSError):  # it may have hung up by itself
                    oldest.socket.shutdown(socket.SHUT_RDWR)  # ends its thread's wait
            self._clients.append(client)
            return True

    def _in_the_way(self, uid: int, is_owner: bool) -> list[_Client]:
        """Those of whom one must go before another one of this user may come; none where there is room."""
        same = [c for c in self._clients if c.uid == uid]
        if len(same) >= (FOR_OWNER if is_owner else FOR_USER):
            return same
        group = [c for c in self._clients if not self._is_owner(c.uid)]
        if is_owner or len(group) < FOR_GROUP:
            return []
        ((greediest, _),) = Counter(c.uid for c in group if c.is_silent).most_common(1) or [(uid, 0)]
        return [c for c in group if c.uid == greediest]

    def _dismiss(self, client: _Client) -> None:
        with self._lock, contextlib.suppress(ValueError):  # displaced before
            self._clients.remove(client)

    def _has_spoken(self, client: _Client) -> bool:
        """Note that it is the process's turn now; False where the client was displaced: what it said may be half a
        line, and nobody waits for an answer."""
        with self._lock:
            client.is_silent = client not in self._clients
            return not client.is_silent

    def _turn_away(self, client: _Client) -> None:
        """Say that there is no room, without waiting for anything."""
        with client.socket as connection, contextlib.suppress(OSError):
            connection.settimeout(0)
            connection.sendall(_line({"ok": False, "error": "too many questions at a time; ask again"}))

    def _serve(self, client: _Client) -> None:
        with client.socket as connection:
            try:
                try:
                    line = _read_line(connection, MAX_REQUEST, REQUEST_S)
                    answer = self._in_turn(line, client.uid) if line and self._has_spoken(client) else b""
                except ControlError as error:
                    answer = _line({"ok": False, "error": str(error)})
                client.is_silent = True
                connection.settimeout(ANSWER_S)  # of the whole of sendall
                connection.sendall(answer)
            except OSError as error:
                log.debug("control client went away", extra={"fields": {"error": str(error)}})
            finally:
                self._dismiss(client)

    def _in_turn(self, line: bytes, uid: int) -> bytes | bytearray:
        """The line that answers a line."""
        if self._is_owner(uid):
            return self._answered(line, uid)
        turn = self._turns[uid]
        with turn.lock:
            self._closing.wait(max(0.0, turn.next_at - time.monotonic()))
            turn.next_at = time.monotonic() + PACE_S
            return self._answered(line, uid)

    def _answered(self, line: bytes, uid: int) -> bytes | bytearray:
        found = self._answer(line, uid)
        answer = found if isinstance(found, bytearray) else _line(found)
        if len(answer) > MAX_ANSWER:
            return _line({"ok": False, "error": f"the answer is larger than {MAX_ANSWER >> 20} MiB; ask for less"})
        return answer

    def _answer(self, line: bytes, uid: int) -> dict[str, Any] | bytearray:
        try:
            request = json.loads(line)
            handler = self._handlers[request["cmd"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"ok": False, "error": f"{NO_COMMAND}; known are {', '.join(sorted(self._handlers))}"}
        if request["cmd"] not in self._for_group and not self._is_owner(uid):
            owner = _name_of(os.geteuid())
            return {"ok": False, "error": f"{request['cmd']} is for the recorder's own user; run it as {owner} or root"}
        try:
            found = handler(request)
        except UserError as error:
            usage = {"wrong_usage": True} if isinstance(error, ConfigError) else {}
            return {"ok": False, "error": str(error), **usage}
        except Exception as error:  # a caller's question must not end the process that records
            log.exception("control command failed", extra={"fields": {"cmd": request["cmd"]}})
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}
        if isinstance(found, bytearray):
            found[-1:] = b', "ok": true}\n'
            return found
        return {**found, "ok": True}


def ask(path: Path, cmd: str, timeout_s: float = 5.0, **fields: Any) -> dict[str, Any]:
    """Ask the process behind a control socket. ControlError where it is not running, silent or refuses; within seconds
    where it answers nothing at all, however long the question may take."""
    who = path.stem
    if timeout_s > LONG_S:
        _require_answers(path)
    request = _line({"cmd": cmd, **fields})
    if len(request) > MAX_REQUEST:
        raise ControlError(f"{who}: {cmd} is longer than {MAX_REQUEST >> 10} KiB; ask for less at a time")
    deadline = time.monotonic() + timeout_s
    try:
        with _Short(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            _connect(client, address, timeout_s)
            client.settimeout(_left(deadline))
            with contextlib.suppress(BrokenPipeError):  # it has answered without waiting for the question
                client.sendall(request)
            line = _read_line(client, MAX_ANSWER, deadline - time.monotonic())
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunningError(f"{who} is not running (no answer at {path})") from error
    except PermissionError as error:
        todo = f"run this as {as_user(owner(path))} or in its group"
        raise UnseenError(f"{who}: no permission to use {path}", todo) from error
    except TimeoutError as error:
        raise SilentError(f"{who} did not answer {cmd} within {timeout_s:g} s") from error
    except NotADirectoryError as error:
        raise UnseenError(f"{who}: {path.parent} is not a folder", "move it away") from error
    except OSError as error:
        raise ControlError(f"{who}: {error.strerror or error}") from error
    if not line:
        raise ControlError(f"{who} closed the connection without an answer to {cmd}")
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = "sent no JSON as its" if line.endswith(b"\n") else "broke off in the middle of its"
        raise ControlError(f"{who} {what} answer to {cmd}") from error
    if not isinstance(answer, dict):
        raise ControlError(f"{who} sent no object as its answer to {cmd}")
    if not answer.pop("ok", False):
        refusal = str(answer.get("error", "refused"))
        if refusal.startswith(NO_COMMAND):
            known = refusal.removeprefix(NO_COMMAND)
            raise ControlError(f"{who} does not know {cmd}; it runs another version, restart it{known}")
        raise RefusalError(who, refusal, answer.get("wrong_usage") is True)
    return answer


def _require_answers(path: Path) -> None:
    """Raise SilentError where a process answers not even what it always knows. A refusal is an answer too."""
    try:
        ask(path, "status", timeout_s=ALIVE_S)
    except SilentError as error:
        raise SilentError(f"{error}: it hangs or is stopped; restart it") from error
    except ControlError:
        return  # what is wrong with it, the question itself will say


def _connect(client: socket.socket, address: str, timeout_s: float) -> None:
    """Connect, waiting for a place in the queue where there is none: a socket with a timeout of Python's would be told
    EAGAIN at once. TimeoutError where there is none in time."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout_s))
    try:
        client.connect(address)
    except BlockingIOError as error:
        raise TimeoutError from error


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("ll", whole, max(1, int((seconds - whole) * 1e6)))


def _read_line(client: socket.socket, most: int, timeout_s: float) -> bytes:
    """Up to the first line's end or the end of the stream. TimeoutError where that is not there in time, however the
    bytes drip."""
    parts: list[bytes] = []
    size = 0
    deadline = time.monotonic() + timeout_s
    while True:
        client.settimeout(_left(deadline))
        chunk = client.recv(65536)
        parts.append(chunk)
        size += len(chunk)
        if not chunk or chunk.endswith(b"\n"):
            return b"".join(parts)
        if size > most:
            raise ControlError(f"a control line is longer than {most >> 10} KiB")


def _left(deadline: float) -> float:
    """Seconds until then; TimeoutError where it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _line(answer: Mapping[str, Any]) -> bytes:
    # As UTF-8: escaped, a text of another script would take up to three times the bytes. Lone surrogates come through
    # as json.loads takes them.
    return json.dumps(answer, default=str, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"


def _file(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
