"""Who used which exit when: from rows of the log to collisions, and what verification says of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.config import parse
from mexc_pipeline.control import ControlError, ControlServer
from mexc_pipeline.egress.partition import owner
from mexc_pipeline.egress.uses import Use, collisions, local, logged, uses
from mexc_pipeline.store.service import FOR_GROUP
from mexc_pipeline.verify import exits
from support.fake_tor import DEPLOYMENT, FakeTor, fingerprint, owned_by

NOW = 1_800_000_000


def row(symbol: str, second: int, address: str | None, seen: str | None = None, seq: int = 0) -> list[Any]:
    if address is None:
        event: dict[str, Any] = {"event": "disconnected", "code": 1006, "reason": "gone", "exit": "x"}
    else:
        event = {"event": "connected", "egress": "tor", "exit": address} | ({"seen": seen} if seen else {})
    return [symbol, second, str(seq or second), json.dumps(event)]


def test_a_use_ends_with_the_next_row_of_its_symbol() -> None:
    rows = [row("btc", 10, "1.1.1.1"), row("eth", 15, "9.9.9.9"), row("btc", 20, None), row("btc", 25, "2.2.2.2")]
    found = uses(rows, {"btc": NOW, "eth": NOW}, NOW)
    assert [(u.symbol, u.exit, u.begin, u.end) for u in found] == [
        ("btc", "1.1.1.1", 10, 20),
        ("btc", "2.2.2.2", 25, None),
        ("eth", "9.9.9.9", 15, None),
    ]


def test_the_last_use_of_a_host_that_vanished_ends_with_its_last_statistics() -> None:
    found = uses([row("btc", 10, "1.1.1.1"), row("eth", 10, "2.2.2.2")], {"btc": NOW - 600}, NOW)
    assert [use.end for use in found] == [NOW - 600, 10]


def test_connections_by_other_ways_are_no_uses() -> None:
    direct = ["btc", 30, "1", json.dumps({"event": "connected", "egress": "direct", "peer": "192.0.2.1:443"})]
    assert uses([row("btc", 10, "1.1.1.1"), direct], {"btc": NOW}, NOW) == [Use("btc", "1.1.1.1", "1.1.1.1", 10, 30)]


def test_an_address_handed_over_is_no_collision() -> None:
    rows = [row("btc", 10, "1.1.1.1"), row("btc", 20, None), row("eth", 20, "1.1.1.1")]
    assert collisions(uses(rows, {"btc": NOW, "eth": NOW}, NOW)) == []


def test_a_collision_that_is_over_is_still_found() -> None:
    rows = [row("btc", 10, "1.1.1.1"), row("eth", 15, "1.1.1.1"), row("btc", 20, None), row("eth", 40, None)]
    ((one, other),) = collisions(uses(rows, {}, NOW))
    assert (one.symbol, other.symbol) == ("btc", "eth")


def test_what_the_world_sees_counts_not_what_the_consensus_says() -> None:
    rows = [row("btc", 10, "1.1.1.1", seen="5.5.5.5"), row("eth", 15, "2.2.2.2", seen="5.5.5.5")]
    assert len(collisions(uses(rows, {"btc": NOW, "eth": NOW}, NOW))) == 1


spans = st.builds(
    lambda symbol, address, begin, length: Use(
        symbol, address, address, begin, None if length is None else begin + length
    ),
    st.sampled_from(["btc", "eth", "sol"]),
    st.sampled_from(["1.1.1.1", "2.2.2.2"]),
    st.integers(0, 30),
    st.none() | st.integers(0, 10),
)


@settings(deadline=None)  # the look at every second is slow where the machine is busy
@given(st.lists(spans, max_size=15))
def test_collisions_are_all_those_that_a_look_at_every_second_finds(found: list[Use]) -> None:
    def lasts(use: Use, second: float) -> bool:
        return use.begin <= second and (use.end is None or second < use.end)

    seen = {
        frozenset({i, j})
        for second in range(50)
        for i, one in enumerate(found)
        for j, other in enumerate(found)
        if one.symbol != other.symbol and one.outside == other.outside and lasts(one, second) and lasts(other, second)
    }
    got = collisions(found)
    keyed = {frozenset({(a.symbol, a.begin, a.end, a.exit), (b.symbol, b.begin, b.end, b.exit)}) for a, b in got}
    wanted = {frozenset((found[i].symbol, found[i].begin, found[i].end, found[i].exit) for i in pair) for pair in seen}
    assert keyed == wanted


def serve(folder: Path, name: str, **answers: dict[str, Any]) -> ControlServer:
    return ControlServer(folder / f"{name}.sock", {key: (lambda _, a=a: a) for key, a in answers.items()})  # type: ignore[misc]


def test_a_collector_that_is_not_connected_uses_nothing(tmp_path: Path) -> None:
    server = serve(tmp_path, "eth", status={"egress": {"exit": "1.1.1.1"}, "connected_since_ns": None})
    try:
        assert local(tmp_path, "eth") is None
    finally:
        server.close()
    with pytest.raises(ControlError):
        local(tmp_path, "eth")


def test_the_log_is_read_through_the_store(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"rows": [row("btc", 10, "1.1.1.1")], "alive": [["btc", NOW - 5, NOW]]}

    server = ControlServer(tmp_path / "store.sock", {"exits": answer})
    try:
        assert logged(tmp_path, 0, newest_only=True) == [Use("btc", "1.1.1.1", "1.1.1.1", 10, None)]
    finally:
        server.close()
    assert asked == [{"cmd": "exits", "since": 0, "newest": True}]


AS_MEMBER = """
import os, sys
from pathlib import Path
from mexc_pipeline.egress.uses import logged
os.setgroups([]); os.setgid(60_001); os.setuid(60_001)
print([use.exit for use in logged(Path(sys.argv[1]), 0)])
"""


@pytest.mark.as_root
def test_a_member_of_the_group_may_ask_the_store_for_the_exits() -> None:
    """``query`` is the owner's; ``verify egress`` needs none."""
    said = {"rows": [row("btc", 10, "1.1.1.1")], "alive": [["btc", NOW - 5, NOW]]}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        server = ControlServer(Path(folder) / "store.sock", {"exits": lambda _: said}, for_group=FOR_GROUP)
        try:
            server.path.chmod(0o666)  # in place of a group of their own
            done = subprocess.run(
                [sys.executable, "-c", AS_MEMBER, folder], capture_output=True, text=True, timeout=60, check=False
            )
        finally:
            server.close()
    assert (done.stdout.strip(), done.stderr) == ("['1.1.1.1']", "")


def test_what_verification_says() -> None:
    one, other = Use("btc", "a", "a", 10, None), Use("eth", "b", "b", 10, None)
    assert [f.ok for f in exits.judge([one, other], [one, other], [])] == [True, True]
    clash = Use("eth", "a", "a", 12, None)
    assert [f.ok for f in exits.judge([one, clash], [one, clash], [clash])] == [False, False]
    assert [f.ok for f in exits.recorded([one], [one])] == [True]
    assert [f.ok for f in exits.recorded([one], [clash])] == [False]
    assert [f.ok for f in exits.recorded([one], [Use("btc", "z", "z", 10, None)])] == [False]


def test_without_the_log_nothing_is_said_of_the_past(tmp_path: Path) -> None:
    config = parse(f'symbols = ["BTC_USDT"]\ndata_dir = "{tmp_path}"\n[egress]\nmode = "tor"\n', None)
    status = {"egress": {"mode": "tor", "exit": "203.0.113.11"}, "connected_since_ns": 10**18}
    server = ControlServer(config.control_dir / "btc.sock", {"status": lambda _: status})
    try:
        found = exits.distinct(config)
    finally:
        server.close()
    assert [(f.subject, f.ok) for f in found] == [("exits", True), ("egress_log", False)]


def test_a_reported_exit_is_checked_with_tor_itself(tmp_path: Path) -> None:
    from mexc_pipeline.config import Symbol
    from mexc_pipeline.egress.tor import Tor
    from mexc_pipeline.exchange.options import Channels

    mine = owned_by("btc", 3)
    fake = FakeTor(tmp_path, mine)
    try:
        symbol = Symbol("BTC_USDT", "btc", Channels(), fake.egress())
        dialled = Tor(fake.egress()).dial(fake.egress(), "ws://exchange.example:443/")
        said = dict(dialled.details)
        assert exits.carried(symbol, said).ok
        elsewhere = next(a for a in mine if a != said["exit"])
        assert "recorded is" in exits.carried(symbol, said | {"fingerprint": fingerprint(elsewhere)}).text
        assert "no stream on circuit 99" in exits.carried(symbol, said | {"circuit": "99"}).text
        foreign = next(a for a in ("203.0.113.10", "203.0.113.12") if owner(a, DEPLOYMENT) != "btc")
        assert "belongs to" in exits.carried(symbol, said | {"exit": foreign}).text
        assert not exits.carried(symbol, {}).ok
        dialled.sock.close()
    finally:
        fake.close()
    assert not exits.carried(symbol, said).ok
