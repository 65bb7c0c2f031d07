"""What the examination of a machine finds, and which findings stop a run."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mexc_pipeline import doctor
from mexc_pipeline.config import Config, parse
from mexc_pipeline.spool.reserve import Reserve
from mexc_pipeline.spool.room import Usage


def _config(tmp_path: Path, rest: str = "http://127.0.0.1:1", more: str = "") -> Config:
    text = f'data_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"\n[exchange]\nrest = "{rest}"\n{more}'
    return parse(text, None)


@contextmanager
def _rest(offset_ms: int, status: int = 200) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"success": True, "code": 0, "data": time.time_ns() // 10**6 + offset_ms}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _named(diagnosis: doctor.Diagnosis, name: str) -> doctor.Check:
    return next(check for check in diagnosis.checks if check.name == name)


def test_a_good_machine_passes(tmp_path: Path) -> None:
    with _rest(0) as rest:
        found = doctor.examine(_config(tmp_path, rest))
    assert found.ok
    assert _named(found, "exchange by direct").ok
    assert _named(found, "clock against exchange by direct").ok
    assert not (tmp_path / "data").exists(), "an examination makes no folders"
    assert list(tmp_path.iterdir()) == [], "and leaves no probe file"


def test_an_exchange_out_of_reach_only_warns(tmp_path: Path) -> None:
    found = doctor.examine(_config(tmp_path))
    check = _named(found, "exchange by direct")
    assert not check.ok
    assert not check.hard
    assert check.advice in check.line()
    assert found.ok


def test_an_exchange_that_refuses_only_warns(tmp_path: Path) -> None:
    with _rest(0, status=403) as rest:
        check = _named(doctor.examine(_config(tmp_path, rest)), "exchange by direct")
    assert not check.ok
    assert "HTTP 403" in check.text


def test_a_silent_exchange_is_not_waited_for_longer_than_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "EXCHANGE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        checks = doctor.exchange(_config(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert time.monotonic() - began < 3
    assert [check.ok for check in checks] == [False]
    assert "no answer within" in checks[0].text


def test_a_clock_that_differs_from_the_exchange_is_said(tmp_path: Path) -> None:
    with _rest(-60_000) as rest:
        check = _named(doctor.examine(_config(tmp_path, rest)), "clock against exchange by direct")
    assert not check.ok
    assert not check.hard
    assert check.text.startswith("+")


def test_every_way_out_is_tried(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    more = f'[symbol.ETH_USDT.egress]\nmode = "socks5h://127.0.0.1:{port}"\n'
    with _rest(0) as rest:
        checks = doctor.exchange(_config(tmp_path, rest, more))
    verdicts = {check.name: check.ok for check in checks}
    assert verdicts["exchange by direct"]
    assert not verdicts[f"exchange by socks5h://127.0.0.1:{port}"]


@pytest.mark.parametrize("key", ["data_dir", "export_dir"])
def test_a_file_in_place_of_a_folder_is_hard(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("")
    check = doctor.writable(key, tmp_path / "file" / "below")
    assert not check.ok
    assert check.hard
    assert "is not a folder" in check.text


def test_a_folder_that_refuses_files_is_hard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    check = doctor.writable("data_dir", tmp_path)
    assert not check.ok
    assert check.hard
    assert "Read-only file system" in check.text


@pytest.mark.parametrize(
    ("free", "ok", "hard"), [(10 << 20, False, True), (1 << 30, False, False), (1 << 40, True, False)]
)
def test_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, ok: bool, hard: bool) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    check = doctor.space("data_dir", tmp_path)
    assert (check.ok, check.hard) == (ok, hard)


@pytest.mark.parametrize(
    ("used", "free", "held", "ok", "hard"),
    [
        (10, 90, 3, True, False),
        (80, 20, 3, False, False),
        (85, 15, 3, False, True),
        (50, 271, 0, False, True),
        (50, 272, 0, True, False),
        (50, 144, 2, True, False),
    ],
)
def test_room_for_the_reserves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: int, free: int, held: int, ok: bool, hard: bool
) -> None:
    config = _config(tmp_path)
    monkeypatch.setattr(Usage, "of", lambda _folder: Usage(used << 20, free << 20))
    monkeypatch.setattr(Reserve, "is_held", lambda self: self._folder.name in ("btc", "eth", "sol")[:held])
    check = doctor.spool_room(config)
    assert (check.ok, check.hard) == (ok, hard), check.line()
    assert f"{100 * used / (used + free):.0f} % used" in check.text


def test_a_clock_that_was_never_set_is_hard() -> None:
    check = doctor.clock(0.0)
    assert not check.ok
    assert check.hard
    assert doctor.clock(time.time()).ok


@pytest.mark.parametrize(("state", "ok"), [(0, True), (5, False), (-1, False)])
def test_the_kernels_word_on_synchronisation(state: int, ok: bool) -> None:
    check = doctor.synchronised(lambda: state)
    assert check.ok is ok
    assert not check.hard


def test_the_kernel_can_be_asked() -> None:
    assert doctor._adjtimex() in range(-1, 6)


def test_a_clickhouse_server_that_does_not_answer_only_warns(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        more = f'[clickhouse]\nmode = "server"\nport = {port}\n'
        assert doctor.clickhouse(_config(tmp_path, more=more)).ok
    check = doctor.clickhouse(_config(tmp_path, more=more))
    assert not check.ok
    assert not check.hard


def test_a_missing_embedded_engine_is_hard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    check = doctor.clickhouse(_config(tmp_path))
    assert not check.ok
    assert check.hard
    assert "app[embedded]" in check.advice
