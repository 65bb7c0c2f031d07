"""The recording itself: live, loaded, exported on time, and all of it what the exchange sent."""

from __future__ import annotations

import json
import time

import pytest
from testinfra.host import Host

from deploy import site
from deploy.comparison import compare

READY_S = 240.0


def live(host: Host) -> dict[str, dict[str, object]] | None:
    """The data sockets of a host's collectors by symbol id, once all are live."""
    found = {i: s["collector"] for i, s in site.status(host).items()}
    assert {i: c.get("state") for i, c in found.items()} == dict.fromkeys(found, "live")
    return {i: c["egress"] for i, c in found.items()}


@pytest.mark.timeout(READY_S + 60)
def test_every_symbol_is_live(collector: Host) -> None:
    """A unit that runs but receives nothing is the failure nobody notices."""
    assert site.until("live", lambda: live(collector), READY_S)


@pytest.mark.timeout(180)
def test_the_checks_of_the_recorder_itself_pass(collector: Host) -> None:
    """What an operator asks first; it must not cry wolf on a healthy system, or nobody will believe it."""

    def passed() -> bool:
        said = site.run_json(collector, "mexc-pipeline verify --json")
        assert said["ok"], json.dumps(said, indent=1)
        return True

    site.until("mexc-pipeline verify", passed, 120, every=5)


@pytest.mark.timeout(180)
def test_periods_are_exported_by_the_timer(collector: Host) -> None:
    """Files come by themselves, and none is left out: nobody starts the export by hand at night."""
    seconds = site.period_s(collector)
    if seconds > 60:
        pytest.skip(f"periods of {seconds:g} s are too long to wait for one")
    began = time.time()
    for symbol_id in site.symbols(collector):

        def written(symbol_id: str = symbol_id) -> bool:
            last = site.status(collector)[symbol_id]["last_export"]
            return last is not None and time.time() - last["age_s"] > began

        site.until(f"a new file of {symbol_id}", written, seconds * 2 + 60)
    assert collector.check_output("systemctl show --value -p Result mexc-export.service") == "success"


def test_the_files_have_no_holes(collector: Host) -> None:
    """seq counts every row from 1 by one: a hole is a loss and a repeat is a duplicate."""
    for symbol_id in site.symbols(collector):
        seqs = [seq for _, seq, _, _ in site.exported(collector, symbol_id)]
        assert seqs, symbol_id
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), symbol_id


@pytest.mark.test_network
def test_the_files_are_what_the_exchange_sent(collector: Host, network: Host) -> None:
    """The product: every frame, once, in order, byte for byte."""
    for symbol_id, symbol in site.symbols(collector).items():
        frames = [said for _, _, mt, said in site.exported(collector, symbol_id) if mt in ("t", "d", "dp")]
        connections = [c for c in site.sent(network, symbol) if c.symbol == symbol]
        assert compare(connections, frames) > 50, symbol_id


@pytest.mark.test_network
@pytest.mark.timeout(READY_S + 60)
def test_every_symbol_leaves_by_its_own_address_as_recorded(collectors: list[Host], network: Host) -> None:
    """What Tor is for: the exchange sees a different address for each symbol, and the record says which."""
    seen = site.until("an address per symbol", lambda: agreed(collectors, network), READY_S)
    assert len(set(seen.values())) == len(seen) >= 3


def agreed(collectors: list[Host], network: Host) -> dict[str, str] | None:
    """Symbol id → the address that the exchange sees on its open data socket, if all collectors say the same."""
    recorded: dict[str, str] = {}
    names: dict[str, str] = {}
    for host in collectors:
        names |= site.symbols(host)
        recorded |= {i: str(e.get("exit")) for i, e in (live(host) or {}).items()}
    connections = site.sent(network)
    seen = {
        i: {c.address for c in connections if c.symbol == symbol and c.closed_ns is None} for i, symbol in names.items()
    }
    assert seen == {i: {address} for i, address in recorded.items()}
    return recorded


@pytest.mark.test_network
def test_nothing_but_exits_ever_spoke_to_the_exchange(network: Host) -> None:
    """Seen on the interfaces of the exchange itself since it began: not one packet from a host of ours."""
    exits = set(network.ansible.get_variables()["test_exits"])
    assert strangers(network, exits) == []


def strangers(network: Host, exits: set[str]) -> list[dict[str, object]]:
    """Packets to the exchange that came from elsewhere than the exits (its own health check excepted)."""
    lines = network.file("/srv/packets.jsonl").content_string.splitlines()
    own = network.ansible.get_variables()["test_exchange"]
    packets = [json.loads(line) for line in lines]
    assert packets, "the watch has seen nothing at all: it does not watch"
    return [p for p in packets if p["from"] not in {*exits, own}]
