"""The exchange at several addresses, of which some are dead, moved or silent at any time; at least one serves."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from pathlib import Path

from faults.bench import Bench, Outcome, Process, bench, end
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.peers import free_port
from support.waiting import until

EPISODES = 8
_PAGE = (
    b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nLocation: http://elsewhere.invalid/\r\nContent-Length: 4\r\n\r\ngone"
)
ANSWERS = {
    "closes": b"",
    "301": _PAGE % b"301 Moved Permanently",
    "403": _PAGE % b"403 Forbidden",
    "404": _PAGE % b"404 Not Found",
    "502": _PAGE % b"502 Bad Gateway",
    "a page": _PAGE % b"200 OK",
    "hints": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000,
    "a head without end": b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 200_000,
    "garbage": b"\x16\x03\x01 this is not HTTP\r\n\r\n",
}
"""What an address says that does not serve; ``mute`` accepts and says nothing."""
MODES = ("serves", "mute", *ANSWERS)


class Front:
    """One address of the exchange: hands on to the simulator, or does what its ``mode`` says. A change of mode ends the
    connections made before it."""

    def __init__(self, target: int, known_as: dict[str, str]) -> None:
        self._target = target
        self._known_as = known_as
        self._mode = "serves"
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def become(self, mode: str) -> None:
        with self._guard:
            self._mode = mode
            ended, self._open = self._open, set()
        for sock in ended:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.become("closes")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            with self._guard:
                mode = self._mode
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client, mode), daemon=True).start()

    def _serve(self, client: socket.socket, mode: str) -> None:
        with client, contextlib.suppress(OSError):
            if mode == "serves":
                with socket.create_connection(("127.0.0.1", self._target), 5) as far:
                    self._known_as[_name(far.getsockname())] = _name(client.getpeername())
                    threading.Thread(target=_pump, args=(far, client), daemon=True).start()
                    _pump(client, far)
                return
            client.recv(65536)
            if mode == "mute":
                client.recv(1)  # until it is given up
            else:
                client.sendall(ANSWERS[mode])
        with self._guard:
            self._open.discard(client)


def _name(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    for sock in (source, target):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def hosts(folder: Path, seed: int) -> Outcome:
    """One collector with three addresses; after each change it must be recording by one that serves."""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=rng.choice((60.0, 300.0)), seed=seed)) as sim,
        bench(folder, sim, rng, period="5s", exchange='ping_interval = "2s"') as place,
    ):
        fronts = [Front(sim.port, place.known_as) for _ in range(3)]
        try:
            _configure(place, sim, fronts, rng)
            _turn(fronts, rng)
            place.witness.start()
            collector = place.fork("collect", "btc")
            place.recorded(collector, 5)
            for _ in range(EPISODES):
                _episode(place, collector, fronts, rng, outcome)
            status = end(collector)
            outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
            place.settle(outcome)
        finally:
            for front in fronts:
                front.close()
    return outcome


def _configure(place: Bench, sim: Simulator, fronts: list[Front], rng: random.Random) -> None:
    """The three, and before and among them some where nobody listens."""
    text = place.config.read_text()
    ports = [front.port for front in fronts]
    for _ in range(rng.randint(0, 3)):
        ports.insert(rng.randrange(3), free_port())
    for url in (sim.ws_url, sim.rest_url):
        several = [url.replace(f":{sim.port}", f":{port}") for port in ports]
        text = text.replace(json.dumps(url), json.dumps(several))
    place.config.write_text(text)


def _turn(fronts: list[Front], rng: random.Random) -> list[str]:
    """Another mode for each; at least one serves. A mute one costs the whole deadline of a handshake, so there is at
    most one."""
    others = [rng.choice(MODES), rng.choice([mode for mode in MODES if mode != "mute"])]
    modes = rng.sample(["serves", *others], 3)
    for front, mode in zip(fronts, modes, strict=True):
        front.become(mode)
    return modes


def _episode(place: Bench, collector: Process, fronts: list[Front], rng: random.Random, outcome: Outcome) -> None:
    before = sum((place.status() or {"rows": {}})["rows"].values())
    turned_ns = time.time_ns()
    modes = _turn(fronts, rng)
    for mode in modes:
        outcome.happened(mode)
    serving = {f":{front.port}/" for front, mode in zip(fronts, modes, strict=True) if mode == "serves"}

    def goes_on() -> bool:
        status = place.status()
        anew = status is not None and (status["connected_since_ns"] or 0) > turned_ns
        return anew and status is not None and sum(status["rows"].values()) > before + 15

    until(goes_on, 90, f"recording with {modes}")
    used = str((place.status() or {}).get("egress", {}).get("url"))
    outcome.expect(any(port in used for port in serving), f"{modes}: says it uses {used}")
    outcome.expect(collector.poll() is None, f"{modes}: the collector ended")
