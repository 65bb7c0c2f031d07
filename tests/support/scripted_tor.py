"""A control port that says what a test wants it to say."""

from __future__ import annotations

import hashlib
import hmac
import socket
import threading
from collections.abc import Callable
from pathlib import Path

COOKIE = bytes(range(32))
Answer = Callable[[str], bytes]


class ScriptedTor:
    """Speaks just enough of the protocol; ``answer`` says what follows a command after authentication."""

    def __init__(self, folder: Path, answer: Answer, *, cookie: bytes = COOKIE, lies: bool = False) -> None:
        self.path = str(folder / "control")
        self.cookie_file = folder / "cookie"
        self.cookie_file.write_bytes(cookie)
        self.heard: list[str] = []
        self.methods = "COOKIE,SAFECOOKIE"
        self._answer = answer
        self._lies = lies
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines:
                try:
                    for line in lines:
                        command = line.decode().rstrip("\r\n")
                        self.heard.append(command)
                        client.sendall(self._reply(command))
                except OSError:
                    continue  # the client has seen enough

    def _reply(self, command: str) -> bytes:
        if command == "PROTOCOLINFO 1":
            auth = f'250-AUTH METHODS={self.methods} COOKIEFILE="{self.cookie_file}"'
            return f'250-PROTOCOLINFO 1\r\n{auth}\r\n250-VERSION Tor="0.4.9.11"\r\n250 OK\r\n'.encode()
        if command.startswith("AUTHCHALLENGE SAFECOOKIE "):
            self._nonces = bytes.fromhex(command.split()[2]) + b"\x07" * 32
            key = b"Tor safe cookie authentication server-to-controller hash"
            known = b"\xff" * 32 if self._lies else COOKIE
            proof = hmac.digest(key, known + self._nonces, hashlib.sha256).hex()
            return f"250 AUTHCHALLENGE SERVERHASH={proof.upper()} SERVERNONCE={'07' * 32}\r\n".encode()
        if command.startswith("AUTHENTICATE "):
            key = b"Tor safe cookie authentication controller-to-server hash"
            wanted = hmac.digest(key, COOKIE + self._nonces, hashlib.sha256).hex()
            return b"250 OK\r\n" if command.split()[1].lower() == wanted else b"515 Authentication failed\r\n"
        return self._answer(command)
