"""Whether frames and REST requests leave as configured: the far end of every data socket, and a ping by each way.

In mode tor the exit that a collector reports is compared with what its Tor says carries a stream now, with the share
that belongs to the symbol, with ``egress_log``, and with the exits of all other symbols, now and in the past.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from mexc_pipeline.config import Config, Symbol
from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.egress.dial import EgressError
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.exchange.rest import PING_PATH, read_time
from mexc_pipeline.verify import exits
from mexc_pipeline.verify.report import Finding, Report

ANSWER_S = 15.0
"""For REST: three relays and the exit's own distance to the exchange."""


def egress(config: Config) -> Report:
    """Judge each symbol's data socket and REST. Never raises for what does not run."""
    report = Report("egress")
    for symbol in config.symbols:
        report.findings.append(_data_socket(config, symbol))
        report.findings.append(_rest(config, symbol))
    if any(symbol.egress.mode == "tor" for symbol in config.symbols):
        report.findings += exits.distinct(config)
    return report


def _data_socket(config: Config, symbol: Symbol) -> Finding:
    try:
        status = ask(config.control_dir / f"{symbol.id}.sock", "status")
    except ControlError as error:
        return Finding(symbol.id, "data socket", False, str(error))
    said = status.get("egress") or {}
    mode, peer = said.get("mode"), said.get("peer")
    if not peer or not status.get("connected_since_ns"):  # without a connection ``egress`` is that of the one before
        return Finding(symbol.id, "data socket", False, "not connected")
    if mode != symbol.egress.mode:
        text = f"connected by {mode}, configured is {symbol.egress.mode}; restart its collector"
        return Finding(symbol.id, "data socket", False, text)
    if mode == "tor":
        return exits.carried(symbol, said)
    url = str(said.get("url") or config.exchange.websocket_urls[0])
    if url not in config.exchange.websocket_urls:
        return Finding(symbol.id, "data socket", False, f"connected to {url}, which is not configured; restart it")
    ok, text = judge_peer(symbol.egress.mode, str(peer), url)
    return Finding(symbol.id, "data socket", ok, text)


def judge_peer(mode: str, peer: str, websocket: str) -> tuple[bool, str]:
    """Whether ``peer`` (``address:port``) is what the mode says it must be: the proxy, or the exchange.

    Behind a name that is spread over many addresses the peer need not be in today's answer; there the certificate,
    checked when the socket was made, says whose it is.
    """
    target = urlsplit(websocket if mode == "direct" else mode)
    what = "the exchange" if mode == "direct" else "the proxy"
    host, _, port = peer.rpartition(":")
    wanted = target.port or (443 if target.scheme == "wss" else 80)
    known = _addresses(target.hostname or "")
    if port != str(wanted):
        return False, f"peer {peer} is not {what}: its port is {wanted}"
    if host.strip("[]") in known:
        return True, f"peer {peer} is {what}"
    if mode == "direct" and target.scheme == "wss":
        return True, f"peer {peer} proved by certificate to be {target.hostname}"
    return False, f"peer {peer} is not {what}: {target.hostname} is {', '.join(sorted(known)) or 'not resolvable'}"


def _addresses(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def _rest(config: Config, symbol: Symbol) -> Finding:
    try:
        answer = RestClient(symbol.egress, config.exchange).get(PING_PATH, ANSWER_S)
    except EgressError as error:
        return Finding(symbol.id, "REST", False, str(error))
    text = f"{answer.url} by {symbol.egress.mode}: HTTP {answer.status}"
    if read_time(answer.status, answer.body) is None:
        return Finding(symbol.id, "REST", False, f"{text} without the exchange's time")
    return Finding(symbol.id, "REST", True, text)
