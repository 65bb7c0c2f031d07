"""Configuration of the way out in mode tor, and of a ClickHouse behind TLS."""

from __future__ import annotations

import pytest

from mexc_pipeline.config import parse
from mexc_pipeline.errors import ConfigError

TOR = '[egress]\nmode = "tor"\n'


def test_each_symbol_has_its_own_tor_and_knows_with_whom_it_shares() -> None:
    btc, eth, sol = (symbol.egress for symbol in parse(TOR, None).symbols)
    assert btc.socks_socket == "/run/tor-instances/btc/socks"
    assert eth.control_socket == "/run/tor-instances/eth/control"
    assert sol.symbol == "sol"
    assert btc.deployment == eth.deployment == ("btc", "eth", "sol")


def test_a_deployment_names_the_symbols_of_other_hosts_too() -> None:
    text = 'symbols = ["SOL_USDT"]\n' + TOR + 'deployment = ["sol", "eth", "btc"]\n'
    assert parse(text, None).symbols[0].egress.deployment == ("btc", "eth", "sol")


def test_ways_without_tor_are_equal_for_all_symbols() -> None:
    """So that what asks each way once asks once."""
    assert len({symbol.egress for symbol in parse("", None).symbols}) == 1


def test_a_symbol_may_leave_otherwise_than_the_rest() -> None:
    text = TOR + '[symbol.ETH_USDT.egress]\nmode = "direct"\n[symbol.SOL_USDT.egress]\nsocks_socket = "/x/socks"\n'
    btc, eth, sol = (symbol.egress for symbol in parse(text, None).symbols)
    assert (btc.mode, eth.mode, eth.symbol) == ("tor", "direct", "")
    assert (sol.socks_socket, sol.control_socket) == ("/x/socks", "/run/tor-instances/sol/control")


def test_clickhouse_behind_tls() -> None:
    clickhouse = parse('[clickhouse]\nmode = "server"\nsecure = true\nca_file = "/ca.pem"\n', None).clickhouse
    assert (clickhouse.secure, clickhouse.ca_file) == (True, "/ca.pem")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOR + 'control_socket = "/run/tor/control"\n', r"egress.control_socket: btc and eth share one Tor"),
        (TOR + 'socks_socket = "socks"\n', r"egress.socks_socket: the absolute path"),
        (TOR + 'deployment = ["btc", "eth"]\n', r"egress.deployment: sol is recorded here and missing there"),
        (TOR + 'deployment = ["BTC_USDT"]\n', r"egress.deployment: 'BTC_USDT' is not a symbol's id"),
        (TOR + 'symbol = "btc"\n', r"egress.symbol: unknown key"),
        (TOR + "min_exits = 0\n", r"min_exits: at least 1"),
        ('[symbol.BTC_USDT.egress]\ndeployment = ["btc"]\n', r"egress.deployment: unknown key"),
    ],
)
def test_what_does_not_fit_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text, None)
