"""Whether a collector of this host says that its clock is wrong: then nothing goes by age."""

from __future__ import annotations

from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlError, NotRunningError, ask


def wrong_clock(config: Config) -> str | None:
    """What is the matter with the clock, in a line; None where no collector that runs says so. One that runs and cannot
    be asked may have found anything."""
    for symbol in config.symbols:
        try:
            said = ask(config.control_dir / f"{symbol.id}.sock", "status").get("clock") or {}
        except NotRunningError:
            continue  # nobody is there to compare
        except ControlError as why:
            return f"nothing is deleted by age: whether this host's clock is right cannot be asked: {why}"
        if said.get("suspect"):
            error = said.get("error_ms")
            how = "was set and not compared since" if error is None else f"is {error / 1000:+,.1f} s off"
            return f"nothing is deleted by age: this host's clock {how}, says the collector {symbol.id}"
    return None
