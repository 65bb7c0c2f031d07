"""systemd hears what it is told, and a collector waits for no systemd that is absent or does not listen."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mexc_pipeline import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify.ready()
        notify.watchdog()
        notify.status("live, seq 5")
        notify.stopping()
        said = [systemd.recv(100) for _ in range(4)]
    assert said == [b"READY=1", b"WATCHDOG=1", b"STATUS=live, seq 5", b"STOPPING=1"]


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.ready()
    notify.watchdog()


@pytest.mark.parametrize("way", ["missing", "refused", "unread", "too long", "empty name"])
def test_nobody_waits_for_who_does_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    name = {"too long": f"/{'x' * 300}", "empty name": "@"}.get(way, str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        if way in ("refused", "unread"):
            systemd.bind(name)
        if way == "refused":
            systemd.close()
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        for _ in range(2000):  # more than the kernel keeps for a socket that is not read
            notify.watchdog()
        notify.status("a line\ud800")
