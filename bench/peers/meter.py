"""How a peer counts itself: frames and CPU between two marks, then one line of JSON and the end of the process."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

SUBSCRIPTIONS = (
    '{"method":"sub.ticker","param":{"symbol":"%s"}}',
    '{"method":"sub.deal","param":{"symbol":"%s"}}',
    '{"method":"sub.depth.full","param":{"symbol":"%s","limit":20}}',
)
FLOWING = 10
"""More than the answers to the subscriptions: data comes."""
PING = '{"method":"ping"}'


def arguments() -> argparse.Namespace:
    """URL, symbol, seconds of warm-up after the first frame and measured, ClickHouse's port, a folder to write in."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--rest", default="")
    parser.add_argument("--symbol", default="BTC_USDT")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", default=".")
    return parser.parse_args()


def subscriptions(symbol: str) -> list[str]:
    """The three requests for one symbol, and a ping."""
    return [*(request % symbol for request in SUBSCRIPTIONS), PING]


def measure(options: argparse.Namespace, count: Callable[[], int], more: Callable[[], dict[str, Any]]) -> None:
    """Start the clock in a thread: it prints ``frames``, ``seconds``, ``cpu_s``, ``peak_mb`` and what ``more`` gives,
    and ends the process. ``count`` is the number of frames handled so far."""
    threading.Thread(target=_measure, args=(options, count, more), daemon=True).start()


def _measure(options: argparse.Namespace, count: Callable[[], int], more: Callable[[], dict[str, Any]]) -> None:
    while count() < FLOWING:
        time.sleep(0.01)
    time.sleep(options.warmup)
    frames, cpu, began = count(), time.process_time(), time.monotonic()
    time.sleep(options.seconds)
    done = {
        "frames": count() - frames,
        "cpu_s": time.process_time() - cpu,
        "seconds": time.monotonic() - began,
        "peak_mb": _peak_mb(),
        **more(),
    }
    print(json.dumps(done), flush=True)
    os._exit(0)


def _peak_mb() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
