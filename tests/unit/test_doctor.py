"""What the examination of a machine finds, and which findings stop a run."""

from __future__ import annotations

import http.server
import importlib.util
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
from mexc_pipeline.errors import UserError
from mexc_pipeline.run import main as run_main
from mexc_pipeline.spool.disk_level import Usage
from mexc_pipeline.spool.reserve import Reserve
from mexc_pipeline.verify.egress import egress
from support.peers import Certificates, Serve, certificates, free_port, saying, serving, silent


def _config(tmp_path: Path, rest: str = "http://127.0.0.1:1", more: str = "") -> Config:
    text = f'data_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"\n[exchange]\nrest = "{rest}"\n{more}'
    return parse(text, None)


@contextmanager
def _rest(offset_ms: int, status: int = 200, page: bytes | None = None) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"success": True, "code": 0, "data": time.time_ns() // 10**6 + offset_ms}).encode()
            body = page or body
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


@pytest.mark.engine
def test_a_good_machine_passes(tmp_path: Path) -> None:
    with _rest(0) as rest:
        found = doctor.examine(_config(tmp_path, rest))
    assert found.ok
    assert _named(found, "exchange by direct").ok
    assert _named(found, "clock against exchange by direct").ok
    assert not (tmp_path / "data").exists(), "an examination makes no folders"
    assert list(tmp_path.iterdir()) == [], "and leaves no probe file"


@pytest.mark.engine
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


@pytest.mark.parametrize("page", [b"<html>please log in</html>", b'{"data":"soon"}', b'{"data":5}'])
def test_whoever_answers_in_its_place_is_not_the_exchange(tmp_path: Path, page: bytes) -> None:
    with _rest(0, page=page) as rest:
        (check,) = doctor.exchange(_config(tmp_path, rest))
        finding = egress(_config(tmp_path, rest)).findings[-1]
    assert (check.ok, check.text) == (False, f"{rest}: answered something else than a ping")
    assert (finding.ok, finding.text) == (False, f"{rest} by direct: HTTP 200 without the exchange's time")


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
    check = doctor.clickhouse(_server(tmp_path, free_port()))
    assert not check.ok
    assert not check.hard
    assert "refused" in check.text


def test_a_missing_embedded_engine_is_hard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    check = doctor.clickhouse(_config(tmp_path))
    assert not check.ok
    assert check.hard
    assert "app[embedded]" in check.advice


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls"), "localhost")


def _server(tmp_path: Path, port: int, *more: str) -> Config:
    lines = "\n".join(more)
    return _config(tmp_path, more=f'[clickhouse]\nmode = "server"\nport = {port}\n{lines}\n')


def _hangs_up(client: socket.socket, over: threading.Event) -> None:
    client.recv(10)


_NESTED = b"\x01\0\0\0\x01x\x01x\x01x\x01"
"""A server's exception in the native protocol: code, name, message, stack, and that there is one inside of it."""


@pytest.mark.parametrize(
    "listener",
    [
        pytest.param(silent, marks=pytest.mark.slow),
        saying(b"HTTP/1.1 400 Bad\r\n\r\n"),
        saying(b"\0" * 64),
        saying(b"\x02" + _NESTED.replace(b"x", b"\xff")),
        saying(b"\x02" + _NESTED * 5000),
        _hangs_up,
    ],
)
def test_a_listener_that_is_no_clickhouse_does_not_count_as_one(
    tmp_path: Path, listener: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CLICKHOUSE_S", 20.0)
    with serving(listener) as far:
        check = doctor.clickhouse(_server(tmp_path, far.port))
    assert not check.ok
    assert not check.hard
    assert "\n" not in check.line()
    assert "ended with" not in check.text


def test_configured_files_that_are_missing_or_of_no_use_are_hard_and_named(
    tmp_path: Path, certificate: Certificates
) -> None:
    (tmp_path / "junk").write_text("no certificate")
    (tmp_path / "good").write_text("secret\n")
    (tmp_path / "good").chmod(0o640)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    good, authority = tmp_path / "good", certificate.authority
    assert doctor.files(_server(tmp_path, 1, f'password_file = "{good}"', f'ca_file = "{authority}"')).ok
    for name, why in (("none", "No such file"), ("folder", "not a file"), ("fifo", "not a file"), ("good/x", "Not a")):
        check = doctor.files(_server(tmp_path, 1, f'password_file = "{tmp_path}/{name}"'))
        assert (check.ok, check.hard) == (False, True)
        assert check.text.startswith(f"clickhouse.password_file: {tmp_path}/{name}: {why}")
    for name, why in (("none", "No such file"), ("junk", "no certificate (PEM)"), ("fifo", "not a file")):
        check = doctor.files(_server(tmp_path, 1, f'ca_file = "{tmp_path}/{name}"'))
        assert check.text == f"clickhouse.ca_file: {tmp_path}/{name}: {why}" or why in check.text
        assert not check.ok
        text = f'[exchange]\nca_file = "{tmp_path}/{name}"'
        assert not doctor.files(parse(text, None)).ok
    by_proxy = '[egress]\nmode = "socks5h://h:1"\ncredentials_file = "{}"'
    good.chmod(0o644)
    assert "others may use it" in doctor.files(parse(by_proxy.format(good), None)).text
    check = doctor.files(_server(tmp_path, 1, f'password_file = "{good}"'))
    assert check.text == f"clickhouse.password_file: {good}: others may use it; chmod 600 it"


def test_what_must_be_mounted_and_is_not_is_hard(tmp_path: Path) -> None:
    check = doctor.mounted(parse(f'data_dir = "{tmp_path}/data"\nrequire_mount = ["{tmp_path}"]', None))
    assert (check.ok, check.hard) == (False, True)
    assert f"nothing is mounted at {tmp_path}" in check.text
    assert doctor.mounted(parse('require_mount = ["/proc"]', None)).ok


@pytest.mark.engine
def test_an_unwritable_tmpdir_does_not_matter_to_the_embedded_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made a folder that refuses files for root too."""
    monkeypatch.setenv("TMPDIR", "/proc/self")
    check = doctor.clickhouse(_config(tmp_path))
    assert check.ok, check.line()
    assert list(tmp_path.iterdir()) == [], "an examination leaves nothing"


@pytest.mark.engine
def test_an_engine_that_takes_its_process_with_it_is_one_line(tmp_path: Path) -> None:
    assert "its client ended with 1" in doctor.clickhouse(_config(tmp_path), reach="this.module.is.nowhere").text
    assert "was ended by SIGILL" in doctor._ended(-4)


def test_too_little_room_is_told_in_one_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once `0.1 GiB free; at least 256 MiB are needed`."""
    usage = type("Usage", (), {"free": 130 << 20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)  # type: ignore[attr-defined]
    assert doctor.space("data_dir", tmp_path).sentence() == (
        "data_dir space: 130 MiB free; at least 256 MiB are needed"
    )


def test_a_run_starts_where_a_recording_under_way_would_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that starts again, busy or full, once left everything unrecorded until somebody came."""
    usage = type("Usage", (), {"free": 130 << 20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)  # type: ignore[attr-defined]
    monkeypatch.setattr(doctor, "CLICKHOUSE_S", 0.0)
    (tmp_path / "file").write_text("")
    waited_out = [
        doctor.space("data_dir", tmp_path),
        doctor.space("export_dir", tmp_path),
        doctor.writable("export_dir", Path("/proc/self"), passes=True),  # it refuses files, for root too
        *([doctor.clickhouse(_config(tmp_path))] if importlib.util.find_spec("chdb") else []),
    ]
    assert all(check.hard and not check.ok and check.passes for check in waited_out)
    refused = doctor.writable("data_dir", tmp_path / "file")
    monkeypatch.setattr(doctor, "examine", lambda _: doctor.Diagnosis([*waited_out]))
    run_main._examine(_config(tmp_path))
    monkeypatch.setattr(doctor, "examine", lambda _: doctor.Diagnosis([*waited_out, refused]))
    with pytest.raises(UserError) as said:
        run_main._examine(_config(tmp_path))
    assert str(said.value) == refused.sentence()
