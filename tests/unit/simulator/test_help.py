"""What a fault takes is in the command's help."""

from __future__ import annotations

import click

from mexc_pipeline.simulator.command import simulate
from mexc_pipeline.simulator.faults import _PARSERS


def test_help_lists_every_key_of_a_fault() -> None:
    (option,) = [param for param in simulate.params if param.name == "faults"]
    assert isinstance(option, click.Option)
    assert option.help is not None
    named = {word.rstrip(",.=") for word in option.help.split() if "=" in word}
    assert set(_PARSERS) - {"payload", "hex", "base64"} <= named
