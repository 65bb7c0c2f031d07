"""The simulator as a program of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Protocol

from mexc_pipeline.simulator.bundle import Bundle
from mexc_pipeline.simulator.config import SimulatorConfig
from mexc_pipeline.simulator.exchange import WS_PATH, Exchange
from mexc_pipeline.simulator.like import Imitation


class Served(Protocol):
    """What can be served; `port` is known once it has started."""

    port: int

    async def start(self) -> None:
        """Listen. Raises UserError where the port cannot be had."""

    async def stop(self) -> None:
        """End every connection."""


def serve(config: SimulatorConfig, ready: Callable[[str, str], None] | None = None) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP. `ready` is told the WebSocket and REST addresses once it listens.

    Raises UserError where the port or the TLS files cannot be had.
    """
    asyncio.run(_serve(lambda: Exchange(config), config.host, "s" if config.tls_cert else "", ready))


def serve_like(bundle: Bundle, host: str, port: int, ready: Callable[[str, str], None] | None = None) -> None:
    """Run an imitation of what a bundle holds, as :func:`serve` does."""
    asyncio.run(_serve(lambda: Imitation(bundle, host, port), host, "", ready))


async def _serve(make: Callable[[], Served], host: str, secure: str, ready: Callable[[str, str], None] | None) -> None:
    exchange = make()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, stop.set)
    await exchange.start()
    try:
        if ready is not None:
            where = f"{host}:{exchange.port}"
            ready(f"ws{secure}://{where}{WS_PATH}", f"http{secure}://{where}")
        await stop.wait()
    finally:
        await exchange.stop()
