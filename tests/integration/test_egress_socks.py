"""Recording through a SOCKS5 proxy and over TLS, and never round them."""

from __future__ import annotations

from pathlib import Path

from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from support.collecting import Site, check_whole, collecting
from support.peers import SocksProxy, certificates, free_port, serving, silent
from support.spooled import check, named

NAME = "contract.exchange.invalid"


def test_names_are_resolved_at_the_proxy_and_tls_is_checked_against_the_name(tmp_path: Path) -> None:
    files = certificates(tmp_path / "tls", NAME)
    config = SimulatorConfig(rate=100, tls_cert=files.certificate, tls_key=files.key)
    proxy = SocksProxy({NAME: "127.0.0.1"})
    with Simulator(config) as sim, serving(proxy.serve) as front:
        site = Site(
            tmp_path,
            f"wss://{NAME}:{sim.port}/edge",
            f"https://{NAME}:{sim.port}",
            exchange=f'ca_file = "{files.authority}"',
            extra=f'[egress]\nmode = "socks5h://127.0.0.1:{front.port}"',
        )
        with collecting(site) as btc:
            status = btc.wait(lambda s: s["rows"]["t"] >= 3 and s["listing"] == "listed")
            assert btc.stop() == 0
        rows = check(site.spool())
        check_whole(rows, sim.sent)
        assert proxy.asked == [(3, NAME, sim.port)] * 2, "REST goes the same way"
    connected = named(rows, "connected")[0]
    assert connected["egress"] == f"socks5h://127.0.0.1:{front.port}"
    assert connected["peer"] == status["egress"]["peer"] == f"127.0.0.1:{front.port}"


def test_a_wrong_authority_and_a_wrong_name_are_refused(tmp_path: Path) -> None:
    files, other = certificates(tmp_path / "tls", "localhost"), certificates(tmp_path / "other", "localhost")
    with Simulator(SimulatorConfig(tls_cert=files.certificate, tls_key=files.key)) as sim:
        for host, authority in (("localhost", other.authority), ("127.0.0.1", files.authority)):
            folder = tmp_path / host
            folder.mkdir()
            address = f"{host}:{sim.port}"
            site = Site(folder, f"wss://{address}/edge", f"https://{address}", exchange=f'ca_file = "{authority}"')
            with collecting(site) as btc:
                assert f"TLS with {host}" in btc.event("disconnected")["reason"]
                assert btc.stop() == 0
        assert sim.connections == []
        assert sim.requests == []


def test_with_a_dead_or_silent_proxy_the_exchange_sees_nothing(tmp_path: Path) -> None:
    with Simulator() as sim, serving(silent) as mute, serving(SocksProxy({}, refuse=5).serve) as refusing:
        for port in (free_port(), mute.port, refusing.port):
            folder = tmp_path / str(port)
            folder.mkdir()
            proxy = f'[egress]\nmode = "socks5h://127.0.0.1:{port}"'
            site = Site(folder, sim.ws_url, sim.rest_url, extra=proxy)
            with collecting(site) as btc:
                if port == mute.port:
                    btc.wait(lambda s: s["state"] == "connecting" and mute.accepted >= 2)
                else:
                    assert f"proxy 127.0.0.1:{port}" in btc.event("disconnected", count=2)["reason"]
                assert btc.stop() == 0
            assert sim.connections == []
            assert sim.requests == []


def test_a_proxy_that_asks_for_name_and_password_gets_them_from_a_file_and_nobody_else_does(tmp_path: Path) -> None:
    secrets = tmp_path / "proxy"
    secrets.write_text("customer-7\nopen sesame\n")
    secrets.chmod(0o600)
    proxy = SocksProxy({NAME: "127.0.0.1"}, login=(b"customer-7", b"open sesame"))
    with Simulator(SimulatorConfig(rate=100)) as sim, serving(proxy.serve) as front:
        by_proxy = f'[egress]\nmode = "socks5h://127.0.0.1:{front.port}"\ncredentials_file = "{secrets}"'
        site = Site(tmp_path, f"ws://{NAME}:{sim.port}/edge", f"http://{NAME}:{sim.port}", extra=by_proxy)
        with collecting(site) as btc:
            status = btc.wait(lambda s: s["rows"]["t"] >= 3 and s["listing"] == "listed")
            command = Path(f"/proc/{btc.process.pid}/cmdline").read_bytes()
            environment = Path(f"/proc/{btc.process.pid}/environ").read_bytes()
            secrets.write_text("customer-7\nwrong\n")
            sim.inject(Fault("close"))
            reason = btc.event("disconnected", count=2)["reason"]
            assert (
                reason
                == f"proxy 127.0.0.1:{front.port}: connect to {NAME}:{sim.port}: refuses the name or the password"
            )
            secrets.write_text("customer-7\nopen sesame\n")
            btc.wait(lambda s: s["state"] == "live")
            assert btc.stop() == 0
        rows = check(site.spool())
        check_whole(rows, sim.sent)
    said = [str(status), btc.said(), *(str(row) for row in rows), command.decode(), environment.decode()]
    for secret in ("customer-7", "open sesame"):
        assert not any(secret in text for text in said)
