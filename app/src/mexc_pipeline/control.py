"""Control sockets: one JSON line each way over a unix socket in ``data_dir/control``, mode 0660."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mexc_pipeline.errors import UserError

log = logging.getLogger("mexc_pipeline.control")

Handler = Callable[[dict[str, Any]], dict[str, Any]]
MAX_ANSWER = 64 << 20
MAX_REQUEST = 1 << 20


class ControlError(UserError):
    """The process did not answer, or answered that it could not do what was asked."""


class _Short:
    """A path to a socket that fits ``sun_path`` (108 bytes) however deep the folder is."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        self.address = f"/proc/self/fd/{self._fd}/{path.name}"

    def __enter__(self) -> str:
        return self.address

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class ControlServer:
    """Answers ``{"cmd": NAME, …}`` with what the handler of that name returns, plus ``ok``; one thread a client."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = dict(handlers)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        path.unlink(missing_ok=True)  # the caller holds the lock of what this socket controls
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _Short(path) as address:
            self._socket.bind(address)
        path.chmod(0o660)
        self._socket.listen(16)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._closing.set()
        self.path.unlink(missing_ok=True)
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        finally:
            self._socket.close()
        self._thread.join(timeout=5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                if self._closing.is_set():
                    return
                raise
            threading.Thread(target=self._serve, args=(client,), name="control-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(60)
            try:
                try:
                    line = _read_line(client, MAX_REQUEST)
                    answer = self._answer(line) if line else None
                except ControlError as error:
                    answer = {"ok": False, "error": str(error)}
                if answer is not None:
                    client.sendall(json.dumps(answer, default=str).encode() + b"\n")
            except OSError as error:
                log.debug("control client went away", extra={"fields": {"error": str(error)}})

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            handler = self._handlers[request["cmd"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"ok": False, "error": f"not a command; known are {', '.join(sorted(self._handlers))}"}
        try:
            return {**handler(request), "ok": True}
        except UserError as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:  # a caller's question must not end the process that records
            log.exception("control command failed", extra={"fields": {"cmd": request["cmd"]}})
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}


def ask(path: Path, cmd: str, timeout_s: float = 5.0, **fields: Any) -> dict[str, Any]:
    """Ask the process behind a control socket. ControlError where it is not running, silent or refuses."""
    who = path.stem
    try:
        with _Short(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            client.connect(address)
            client.sendall(json.dumps({"cmd": cmd, **fields}).encode() + b"\n")
            line = _read_line(client, MAX_ANSWER)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ControlError(f"{who} is not running (no answer at {path})") from error
    except PermissionError as error:
        raise ControlError(f"{who}: no permission to use {path}; run as its user or in its group") from error
    except TimeoutError as error:
        raise ControlError(f"{who} did not answer {cmd} within {timeout_s:g} s") from error
    except OSError as error:
        raise ControlError(f"{who}: {error.strerror or error}") from error
    if not line:
        raise ControlError(f"{who} closed the connection without an answer to {cmd}")
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise ControlError(f"{who} broke off in the middle of its answer to {cmd}") from error
    if not answer.pop("ok", False):
        raise ControlError(f"{who}: {answer.get('error', 'refused')}")
    return answer


def _read_line(client: socket.socket, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while chunk := client.recv(65536):
        parts.append(chunk)
        size += len(chunk)
        if chunk.endswith(b"\n"):
            break
        if size > most:
            raise ControlError(f"a control line is longer than {most >> 20} MiB")
    return b"".join(parts)
