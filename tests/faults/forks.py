"""Starts the recorder's processes from an interpreter that has its modules loaded already.

A crash costs a fork instead of a start of Python; everything after the imports is what the installed command does.
The server is this module run as a program with the library preloaded: one JSON line asks, one answers.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from support.lifetime import end_with_parent

TESTS = Path(__file__).parents[1]


class ForkServer:
    """The harness's side: one server process with the environment given."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        self._guard = threading.Lock()
        with log.open("ab") as output:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "faults.forks"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**env, "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), env.get("PYTHONPATH")]))},
                start_new_session=True,
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        with self._guard:
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
            self._server.stdin.flush()
            answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def close(self) -> None:
        """End the server; its children must have been ended before."""
        self._server.kill()
        self._server.communicate()


class Forked:
    """A child of the server, used like a Popen."""

    def __init__(self, server: ForkServer, args: list[str], log: Path, kill: str) -> None:
        self._server = server
        self.pid = int(server.ask(args=args, log=str(log), kill=kill)["pid"])
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask(wait=self.pid)["status"]
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _serve() -> None:
    import mexc_pipeline.collector
    import mexc_pipeline.export  # noqa: F401 - loaded once, for all children
    from mexc_pipeline.cli.app import invoke

    arm = ctypes.CDLL(None).faults_arm
    arm.argtypes = [ctypes.c_char_p]
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = {"status": _status(int(request["wait"]))}
        else:
            pid = os.fork()
            if pid == 0:
                _become(request, arm)
                status = invoke(request["args"])
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _become(request: dict[str, Any], arm: Any) -> None:
    os.setsid()
    end_with_parent()  # nobody is left behind where the harness is killed
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(nothing)
    arm(request["kill"].encode())


def _status(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


if __name__ == "__main__":
    _serve()
