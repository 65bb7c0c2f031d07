"""Everything a connection can do wrong, on a collector that goes on recording."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

from faults import channels
from faults.bench import Bench, Outcome, Process, bench, end, pause, settings_of
from mexc_pipeline.simulator import Fault, Simulator
from support.peers import Server, SocksProxy
from support.waiting import until

EPISODES = 12
STOOD_STILL_S = 1.6
"""From then on a reading loop says that it was away."""
CHANNELS = ("ticker", "deal", "depth.full")

# kind and value; those of the last group need the connection to be made anew
ENDS = (
    ("reset", ""),
    ("reset", "acked"),
    ("abort", ""),
    ("close", "1001"),
    ("close", "1011"),
    ("close_notice", ""),
    ("garbage", ""),
    ("half", "fin"),
    ("half", "reset"),
)
DISTURBANCES = (
    "stall one",
    "stall all",
    "burst",
    "slow reader",
    "stood still",
    "fragmented",
    "duplicate",
    "drop",
    "no_pong",
    "ws_ping",
)
REFUSALS = ("refuse_connect", "mute", "tls_failure", "refuse_handshake")


class Proxy:
    """A SOCKS proxy on the way, which goes away with all that it carries and comes back."""

    def __init__(self) -> None:
        self._socks = SocksProxy({})
        self._server = Server(self._socks.serve)
        self.known_as = self._socks.known_as
        self.egress = f'\n[egress]\nmode = "socks5h://127.0.0.1:{self._server.port}"'

    def go_away(self, seconds: float) -> None:
        self._server.close()
        pause(seconds)
        self._server = Server(self._socks.serve, self._server.port)

    def close(self) -> None:
        self._server.close()


def sockets(folder: Path, seed: int) -> Outcome:
    """One collector, one fault after another; after each it must be recording again. In some runs a proxy is on the
    way, in some the exchange sends its newest deals again on every connection, in some every channel is on."""
    rng = random.Random(seed)
    are_all_on = channels.are_all_on(seed)
    table = channels.table(*channels.BOTH) if are_all_on else ""
    changes = channels.CONTRACTS if are_all_on else ()
    outcome = Outcome()
    proxy = Proxy() if rng.random() < 0.5 else None
    egress = proxy.egress if proxy else ""
    with (
        contextlib.closing(proxy) if proxy else contextlib.nullcontext(),
        Simulator(settings_of(seed, rng.choice((60.0, 300.0)), changes)) as sim,
        bench(folder, sim, rng, period="5s", exchange=f'ping_interval = "2s"{egress}{table}') as place,
    ):
        if are_all_on:
            place.channels = channels.types(*channels.BOTH)
            channels.old_prices(sim)
            outcome.notes["channels"] = "all"
        if proxy:
            place.known_as = proxy.known_as
        if rng.random() < 0.5:
            sim.inject(Fault("resend_deals"))
            outcome.notes["deals again"] = "on every connection"
        place.repeats = True
        place.witness.start()
        collector = place.fork("collect", "btc")
        place.recorded(collector, 5)
        for _ in range(EPISODES):
            _episode(place, sim, collector, proxy, rng, outcome)
        status = end(collector)
        outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
        place.settle(outcome)
    return outcome


def _episode(
    place: Bench, sim: Simulator, collector: Process, proxy: Proxy | None, rng: random.Random, outcome: Outcome
) -> None:
    draw = rng.random()
    was = place.status() or {"rows": {}}
    before = sum(was["rows"].values())
    if draw < 0.55:
        kind, value = rng.choice(ENDS)
        if proxy:
            value = value.replace("acked", "")  # by the proxy's host: what it does with that is its own affair
        if value == "acked" and rng.random() < 0.5:
            place.stand_still(collector, STOOD_STILL_S, lambda: sim.inject(Fault(kind, value=value)))
            hit = 1
        else:
            hit = sim.inject(Fault(kind, value=value))
        name = f"{kind} {value}".strip()
    elif draw < 0.85:
        name, hit = _disturb(place, sim, collector, rng)
    elif proxy and draw < 0.92:
        name, hit = "the proxy gone", 1
        proxy.go_away(rng.uniform(0.3, 3.0))
    else:
        name = rng.choice(REFUSALS)
        sim.inject(Fault(name, seconds=rng.uniform(0.3, 1.5), value="403" if name == "refuse_handshake" else ""))
        hit = sim.inject(Fault("reset"))
    if hit:
        outcome.happened(name)

    def goes_on() -> bool:
        status = place.status()
        return status is not None and sum(status["rows"].values()) > before + 15

    until(goes_on, 90, f"recording after {name}")
    outcome.expect(collector.poll() is None, f"{name}: the collector ended")
    now = place.status() or {}
    connection = now.get("connected_since_ns")
    if name == "stood still" and connection is not None and connection == was.get("connected_since_ns"):
        said = now.get("paused")  # without a connection there was nothing to be read
        outcome.expect(said is not None and said["for_s"] >= STOOD_STILL_S, f"nothing was said of a pause: {said}")


def _disturb(place: Bench, sim: Simulator, collector: Process, rng: random.Random) -> tuple[str, int]:
    name = rng.choice(DISTURBANCES)
    seconds = rng.uniform(0.3, 1.5)
    match name:
        case "stall one":
            hit = sim.inject(
                Fault("stall", channel=rng.choice(CHANNELS), seconds=seconds, value=rng.choice(("lose", "hold")))
            )
        case "stall all":
            hit = sim.inject(Fault("stall", seconds=seconds, value=rng.choice(("lose", "hold"))))
        case "burst" | "no_pong":
            hit = sim.inject(Fault(name, seconds=seconds))
        case "slow reader":
            sim.inject(Fault("burst", seconds=seconds))
            place.stand_still(collector, seconds)
            hit = 1
        case "stood still":
            place.stand_still(collector, STOOD_STILL_S + seconds)
            hit = 1
        case _:
            hit = sim.inject(Fault(name, count=rng.randint(1, 5)))
    return name, max(hit, 1)
