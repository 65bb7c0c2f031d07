"""Debian's ClickHouse server (18.16) for tests: on a loopback port, with a folder of its own, as the invoking user."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors

from support import needs
from support.machine import program
from support.peers import free_port

BINARY = program("clickhouse-server")

_CONFIG = """<?xml version="1.0"?>
<yandex>
  <logger><level>warning</level><log>{folder}/server.log</log><errorlog>{folder}/server.err.log</errorlog></logger>
  <tcp_port>{port}</tcp_port>
  <listen_host>127.0.0.1</listen_host>
  <path>{folder}/data/</path>
  <tmp_path>{folder}/tmp/</tmp_path>
  <user_files_path>{folder}/user_files/</user_files_path>
  <users_config>users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <mark_cache_size>5368709</mark_cache_size>
</yandex>
"""
_USERS = """<?xml version="1.0"?>
<yandex>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users><default>
    <password>{password}</password>
    <networks><ip>127.0.0.1</ip></networks>
    <profile>default</profile>
    <quota>default</quota>
  </default></users>
</yandex>
"""


def require_server() -> str:
    """Path of the server's binary; skips the test where there is none, but fails it where ``CI`` is set."""
    needs.programs("clickhouse-server")
    assert BINARY is not None
    return BINARY


class ClickHouseServer:
    """A server that can be stopped, killed, frozen and started again on the same port and folder."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self._binary = require_server()
        self.folder = folder
        self.port = free_port()
        self.password = password
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("data", "tmp", "user_files"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "config.xml").write_text(_CONFIG.format(folder=folder, port=self.port))
        (folder / "users.xml").write_text(_USERS.format(password=password))

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self, timeout_s: float = 30) -> None:
        """Start and wait until it answers."""
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._binary, f"--config-file={self.folder / 'config.xml'}"],
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()  # the driver logs each failure at length
                assert self.client().execute("SELECT 1") == [(1,)]
            except (driver_errors.Error, OSError, EOFError):
                assert self._process.poll() is None, (self.folder / "output").read_text()
                assert time.monotonic() < deadline, "the server did not answer in time"
                time.sleep(0.05)
            else:
                return

    def client(self) -> Client:
        return Client("127.0.0.1", port=self.port, password=self.password, connect_timeout=2, send_receive_timeout=20)

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """An orderly end; a hard one where that takes longer than 20 s."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._wait()
        except subprocess.TimeoutExpired:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(20)
            self._process = None
