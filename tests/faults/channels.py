"""Recordings that have every channel, in some seeds."""

from __future__ import annotations

import random

from mexc_pipeline.simulator import Fault, Simulator
from support.oracle import ALL_CHANNELS

SHARE = 0.4
BOTH = ("full20", "merged")
_OF_DEPTH = {"full20": "push.depth.full", "merged": "push.depth"}


def are_all_on(seed: int) -> bool:
    """Whether a seed's recording has all channels: drawn by itself, so that all else of the seed stays as it was."""
    return random.Random(f"channels of {seed}").random() < SHARE


def table(*depths: str) -> str:
    """The configuration's ``[channels]`` with all of them, the book in these ways."""
    listed = ", ".join(f'"{depth}"' for depth in depths)
    return (
        f"\n[channels]\ndepth = [{listed}]\nfunding = true\nindex_price = true\nfair_price = true\n"
        'kline = "Min1"\ncontract = true\nextra = ["sub.depth.step"]\n'
    )


def types(*depths: str) -> dict[str, int]:
    """The row types of these channels, by the oracle."""
    left_out = {channel for depth, channel in _OF_DEPTH.items() if depth not in depths}
    return {channel: mt for channel, mt in ALL_CHANNELS.items() if channel not in left_out}


CONTRACTS = (Fault("contract_change", at=0.4, every=0.4),)
"""Contracts change now and then: nothing else makes the exchange push any."""


def old_prices(sim: Simulator) -> None:
    """From now on each subscription to a price begins with an old one."""
    sim.inject(Fault("old_prices"))
