"""The simulator as a program of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from mexc_pipeline.simulator.config import SimulatorConfig
from mexc_pipeline.simulator.exchange import WS_PATH, Exchange


def serve(config: SimulatorConfig, ready: Callable[[str, str], None] | None = None) -> None:
    """Run until SIGTERM or SIGINT. `ready` is told the WebSocket and REST addresses once it listens.

    Raises UserError where the port or the TLS files cannot be had.
    """
    asyncio.run(_serve(config, ready))


async def _serve(config: SimulatorConfig, ready: Callable[[str, str], None] | None) -> None:
    exchange = Exchange(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await exchange.start()
    try:
        if ready is not None:
            secure = "s" if config.tls_cert else ""
            where = f"{config.host}:{exchange.port}"
            ready(f"ws{secure}://{where}{WS_PATH}", f"http{secure}://{where}")
        await stop.wait()
    finally:
        await exchange.stop()
