"""The HTTP server asks the parts when it is asked, lets in whom it should, and outlives what clients do."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlServer
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.metrics.server import listening
from mexc_pipeline.serving import CLIENTS, Access
from support.spools import configure

Handler = Callable[[dict[str, Any]], dict[str, Any]]
LIVE = {
    "state": "live",
    "market": {"age_s": 0.1, "waited_s": 0.1, "limit_s": 30.0},
    "rows": {"t": 3},
    "bytes": {"t": 9},
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configure(tmp_path, "BTC_USDT", "ETH_USDT")


@contextmanager
def parts(config: Config, **said: Handler) -> Iterator[None]:
    """Control sockets that answer ``status`` so."""
    with ExitStack() as stack:
        for name, handler in said.items():
            server = ControlServer(config.control_dir / f"{name}.sock", {"status": handler}, for_group=["status"])
            stack.callback(server.close)
        yield


@pytest.fixture
def whole(config: Config) -> Iterator[Config]:
    with parts(config, btc=lambda _: LIVE, eth=lambda _: LIVE, store=lambda _: {"reachable": True, "symbols": {}}):
        yield config


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def samples(text: str) -> dict[str, float]:
    found = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in found}


def test_it_tells_what_the_parts_say_now(whole: Config) -> None:
    with listening(whole, Access("127.0.0.1", 0)) as port:
        status, text = ask(port, "/metrics")
        assert status == 200
        assert samples(text)['mexc_frames_total{id="btc",symbol="BTC_USDT"}'] == 3
        status, text = ask(port, "/healthz")
        assert (status, json.loads(text)) == (200, {"ok": True, "symbols": 2, "faults": {}, "worst": []})


def test_a_part_that_is_gone_is_gone_at_the_next_scrape(config: Config) -> None:
    """A number whose source has died must not live on."""
    with listening(config, Access("127.0.0.1", 0)) as port:
        with parts(config, btc=lambda _: LIVE):
            assert 'mexc_scrape_success{part="btc"} 1.0' in ask(port, "/metrics")[1]
        text = ask(port, "/metrics")[1]
        assert 'mexc_scrape_success{part="btc"} 0.0' in text
        assert "mexc_frames_total" not in text
        status, said = ask(port, "/healthz")
        assert status == 503
        assert json.loads(said)["faults"]["down"] == 2
        assert {fault["id"] for fault in json.loads(said)["worst"]} == {"btc", "eth", "store"}


def test_a_part_that_hangs_keeps_nobody_from_the_others(config: Config) -> None:
    go_on = threading.Event()

    def hang(_: dict[str, Any]) -> dict[str, Any]:
        go_on.wait(30)
        return LIVE

    try:
        with parts(config, btc=hang, eth=lambda _: LIVE), listening(config, Access("127.0.0.1", 0)) as port:
            found = samples(ask(port, "/metrics")[1])
            assert found['mexc_scrape_success{part="btc"}'] == 0
            assert found['mexc_scrape_success{part="eth"}'] == 1
            assert found["mexc_scrape_duration_seconds"] < 8
    finally:
        go_on.set()


def test_what_is_not_there_or_not_asked_so(whole: Config) -> None:
    with listening(whole, Access("127.0.0.1", 0)) as port:
        assert ask(port, "/metrics?name=x")[0] == 200
        assert ask(port, "/metrics", "HEAD") == (200, "")
        assert ask(port, "/../metrics")[0] == 404
        assert ask(port, "/metrics", "POST")[0] == 501
        assert ask(port, "/metrics", Host="rebound.example")[0] == 421
        assert ask(port, "/metrics", Host=f"localhost:{port}")[0] == 200
        assert ask(port, "/metrics", Host=f"[::1]:{port}")[0] == 200


def test_idle_clients_keep_nobody_out(whole: Config) -> None:
    with ExitStack() as stack, listening(whole, Access("127.0.0.1", 0)) as port:
        for _ in range(2 * CLIENTS):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            idle.sendall(b"GET /metr")
        assert ask(port, "/metrics")[0] == 200


@pytest.mark.parametrize("data", [b"", b"\x00\xff" * 50, b"GET /metrics HTTP/9.9\r\n\r\n", b"GET " + b"x" * 100_000])
def test_what_is_no_request_ends_alone(whole: Config, data: bytes) -> None:
    with listening(whole, Access("127.0.0.1", 0)) as port:
        with socket.create_connection(("127.0.0.1", port)) as odd:
            odd.sendall(data)
        assert ask(port, "/healthz")[0] == 200


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "host.pem", tmp_path / "host.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=metrics", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def test_beyond_this_host_only_with_a_password_and_over_tls(
    whole: Config, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    secret = tmp_path / "password"
    secret.write_text("sesame\n")
    secret.chmod(0o600)
    context = ssl.create_default_context(cafile=str(certificate[0]))

    def status(port: int, authorization: str | None) -> int:
        headers = {"Host": "metrics.example"} | ({"Authorization": authorization} if authorization else {})
        with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)) as connection:
            connection.request("GET", "/metrics", headers=headers)
            return connection.getresponse().status

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    with listening(whole, Access("0.0.0.0", 0, *certificate, secret)) as port:
        assert status(port, basic("prometheus:sesame")) == 200
        for wrong in (None, basic("prometheus:open"), basic("sesame"), "Basic sesame", "Basic %%%", "Bearer sesame"):
            assert status(port, wrong) == 401
        with pytest.raises(OSError, match=r"reset|closed|without"):
            ask(port, "/metrics")
        secret.write_text("changed\n")
        assert status(port, basic("prometheus:changed")) == 200


def test_an_access_that_would_let_anybody_in_is_refused(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    secret = tmp_path / "password"
    secret.write_text("sesame\n")
    for access, said in [
        (Access("0.0.0.0", 9464), "only over TLS and with a password"),
        (Access("0.0.0.0", 9464, *certificate), "only over TLS and with a password"),
        (Access("metrics.example", 9464, password_file=secret), "only over TLS and with a password"),
        (Access("127.0.0.1", 9464, certificate[0]), "belong together"),
        (Access("127.0.0.1", 9464, password_file=secret), "others may use it"),
        (Access("127.0.0.1", 9464, password_file=tmp_path / "none"), "No such file"),
        (Access("127.0.0.1", 9464, secret, secret), "--certificate"),
    ]:
        with pytest.raises(ConfigError, match=said):
            access.check()
    secret.write_text("\n")
    secret.chmod(0o600)
    with pytest.raises(ConfigError, match="is empty"):
        Access("127.0.0.1", 9464, password_file=secret).check()


def test_a_port_that_is_taken_is_one_line(whole: Config) -> None:
    with (
        listening(whole, Access("127.0.0.1", 0)) as port,
        pytest.raises(UserError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"),
        listening(whole, Access("127.0.0.1", port)),
    ):
        pass
