"""Recording through a private Tor network of real relays: three symbols, three exits, whatever happens to them.

The collectors run in network namespaces that have no network at all, as their units do: what reaches the exchange can
only have come through Tor.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.egress.partition import owner
from support.spooled import named, read_rows
from support.tor_network import ECHO, EXCHANGE, EXCHANGE_PORT, Seen, TorNetwork, certificates, need_it, seen
from support.waiting import until

IDS = ("btc", "eth", "sol")


class Scene:
    """The network, the exchange behind it, and the programs under test with one configuration."""

    def __init__(self, folder: Path, network: TorNetwork, stack: ExitStack) -> None:
        self.folder = folder
        self.network = network
        self._stack = stack
        self.sent = folder / "sent"
        self.sent.mkdir()
        self.ca, cert, key = certificates(folder, EXCHANGE)
        network.start_exchange(self.sent, cert, key)
        network.start_echo()
        self.config = self.configure("config", min_exits=3)

    def configure(self, name: str, min_exits: int) -> Path:
        path = self.folder / f"{name}.toml"
        url = f"{EXCHANGE}:{EXCHANGE_PORT}"
        path.write_text(
            f'data_dir = "{self.folder / name}"\nexport_dir = "{self.folder}/exports"\n'
            f'[exchange]\nwebsocket = "wss://{url}/edge"\nrest = "https://{url}"\nca_file = "{self.ca}"\n'
            'ping_interval = "2s"\n'
            f'[egress]\nmode = "tor"\nmin_exits = {min_exits}\necho_url = "http://{ECHO}/"\n'
            f'socks_socket = "{self.network.folder}/client-{{id}}/socks"\n'
            f'control_socket = "{self.network.folder}/client-{{id}}/control"\n'
        )
        return path

    def command(self, *words: str, config: Path | None = None) -> list[str]:
        """A command of ours where there is no network."""
        ours = [sys.executable, "-m", "mexc_pipeline", "--config", str(config or self.config), *words]
        return ["unshare", "--net", "setpriv", "--pdeathsig", "KILL", *ours]

    def start(self, *words: str, config: Path | None = None) -> Path:
        """Start a part; returns its log. It ends with the test."""
        log = self.folder / f"{(config or self.config).stem}-{'-'.join(words)}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(self.command(*words, config=config), stdout=out, stderr=out)
        self._stack.callback(process.wait, 10)
        self._stack.callback(process.kill)
        return log

    def ask(self, *words: str) -> tuple[int, Any]:
        done = subprocess.run(self.command(*words, "--json"), capture_output=True, text=True, timeout=100)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def status(self, symbol: str) -> dict[str, Any]:
        try:
            return ask(self.folder / "config" / "control" / f"{symbol}.sock", "status")
        except ControlError:
            return {}

    def live(self, symbol: str, but: str = "", seconds: float = 90) -> dict[str, Any]:
        """Wait until a symbol gets data by another exit than ``but``; its status."""

        def probe() -> dict[str, Any] | None:
            status = self.status(symbol)
            ages = [channel["age_s"] for channel in status.get("channels", {}).values()]
            fits = status.get("state") == "live" and status["egress"].get("exit") != but
            return status if fits and ages and None not in ages else None

        found = until(probe, seconds, f"data of {symbol}")
        assert found is not None
        return found

    def connections(self, symbol: str) -> list[Seen]:
        """What the exchange saw of a symbol."""
        return [c for c in seen(self.sent) if c.symbols == {f"{symbol.upper()}_USDT"}]

    def check(self, symbol: str, status: dict[str, Any]) -> str:
        """The exit, which must be of the symbol's share and the same wherever it is written down."""
        exit_used = status["egress"]["exit"]
        assert owner(exit_used, IDS) == symbol
        assert status["egress"]["seen"] == exit_used, "what the echo service saw"
        spool = self.folder / "config" / "spool" / symbol

        def row() -> list[dict[str, Any]]:  # it may not have its seq yet, or be of a connection before
            return [e for e in named(read_rows(spool), "connected")[-1:] if e["exit"] == exit_used]

        event = until(row, 40, "the row of the connection")[0]
        assert (event["seen"], event["egress"]) == (exit_used, "tor")
        assert event["circuit"]
        assert event["fingerprint"]
        until(
            lambda: self.connections(symbol)[-1:] and self.connections(symbol)[-1].address == exit_used, 20, "the log"
        )
        return str(exit_used)

    def verify(self) -> list[dict[str, Any]]:
        """``verify egress`` once it is content; what it found."""
        last: list[Any] = []

        def probe() -> bool:
            status, found = self.ask("verify", "egress")
            last[:] = found["egress"]["findings"]
            return status == 0

        try:
            until(probe, 150, "a verified egress")
        except AssertionError as error:
            raise AssertionError([f for f in last if not f["ok"]]) from error
        return last


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    need_it()
    folder = tmp_path / "tor"
    folder.mkdir()
    with TorNetwork(folder, IDS) as network, ExitStack() as stack:
        for symbol in IDS:
            network.wait_ready(symbol)
        yield Scene(tmp_path, network, stack)


@pytest.mark.tor
@pytest.mark.timeout(550)
def test_every_symbol_leaves_by_exits_of_its_own_whatever_happens_to_them(scene: Scene) -> None:
    scene.start("store")
    for symbol in IDS:
        scene.start("collect", symbol)
    exits = {symbol: scene.check(symbol, scene.live(symbol)) for symbol in IDS}
    assert len(set(exits.values())) == 3
    assert {finding["symbol"] for finding in scene.verify()} >= {*IDS, "all"}

    # An exit dies: its symbol goes on by another one. (It may have been a relay of the others' circuits, too.)
    scene.network.end(scene.network.exit_name(exits["btc"]))
    assert scene.check("btc", scene.live("btc", but=exits["btc"])) != exits["btc"]

    # An exit freezes: the pings notice it.
    before = scene.check("sol", scene.live("sol"))
    frozen = scene.network.exit_name(before)
    scene.network.end(frozen, signal.SIGSTOP)
    assert scene.check("sol", scene.live("sol", but=before)) != before
    scene.network.end(frozen, signal.SIGCONT)

    # Another exit is asked for.
    before = scene.check("eth", scene.live("eth"))
    status, answer = scene.ask("egress", "rotate", "eth")
    assert (status, answer["before"]) == (0, before)
    assert answer["now"] == scene.check("eth", scene.live("eth", but=before)) != before
    rotated = named(read_rows(scene.folder / "config" / "spool" / "eth"), "rotated")
    assert [event["exit"] for event in rotated] == [before]

    # Its Tor goes away: the symbol waits for it and nothing of it reaches the exchange by any other way.
    known = len(scene.connections("sol"))
    tries = scene.status("sol")["reconnects"]
    scene.network.end("client-sol")
    until(lambda: scene.status("sol")["reconnects"] >= tries + 3, 60, "three vain tries")
    assert scene.status("sol")["state"] == "connecting"
    assert len(scene.connections("sol")) == known
    status, found = scene.ask("verify", "egress")
    assert status == 1
    assert {f["symbol"] for f in found["egress"]["findings"] if not f["ok"]} == {"sol"}
    scene.network.start_client("sol")
    scene.check("sol", scene.live("sol", seconds=90))

    # A share that is too small: the collector says so and does not connect.
    strict = scene.configure("strict", min_exits=5)
    known = len(scene.connections("btc"))
    log = scene.start("collect", "btc", config=strict)
    until(lambda: log.read_text().count("5 are needed (egress.min_exits)") >= 2, 30, "two refusals")
    assert len(scene.connections("btc")) == known

    # Through all of it no two symbols ever left by the same address.
    assert all(finding["ok"] for finding in scene.verify())
    addresses = {symbol: {c.address for c in scene.connections(symbol)} for symbol in IDS}
    assert (
        not addresses["btc"] & addresses["eth"]
        | addresses["eth"] & addresses["sol"]
        | addresses["sol"] & addresses["btc"]
    )
