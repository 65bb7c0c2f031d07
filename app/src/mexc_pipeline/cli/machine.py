"""The commands that run everything on one machine: run and demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mexc_pipeline.cli import printing
from mexc_pipeline.cli.options import Command, Duration, Number, UserPath, configuration, debug, json_option

if TYPE_CHECKING:
    from mexc_pipeline.run.account import Closing


def _closed(closing: Closing, as_json: bool, more: str = "") -> int:
    from mexc_pipeline.run.table import closing_json, closing_text

    def show() -> None:
        if as_json:
            printing.as_json(closing_json(closing))
        else:
            printing.verbatim(closing_text(closing) + (f"\n{more}" if more else ""))

    return printing.account(show, closing.ok)


@click.command(cls=Command)
@click.option("--duration", type=Duration(), metavar="60s", help="End after this long; without it, on Ctrl-C.")
@json_option
@click.pass_context
def run(ctx: click.Context, duration: float | None, as_json: bool) -> int:
    """Record, load, export and verify, all on this machine.

    The first Ctrl-C (or SIGTERM, or the end of the duration) closes sockets and segments, exports and verifies. Exit
    status 0 only if every period of this run and every leftover verified, each symbol got a frame of the market and few
    were dead letters. A second signal kills at once; nothing committed is lost.
    """
    from mexc_pipeline.run import run as supervise

    config = configuration(ctx)
    return _closed(supervise(config, duration, "DEBUG" if debug(ctx) else "INFO"), as_json)


@click.command(cls=Command)
@click.option(
    "--dir",
    "folder",
    type=UserPath(file_okay=False),
    default="demo-data",
    show_default=True,
    help="Where to put the demo's folder; each demo makes a new one in it.",
)
@click.option("--duration", type=Duration(), default="45s", show_default=True, help="How long to record.")
@click.option(
    "--rate",
    type=Number(min=0.1),
    default=60.0,
    show_default=True,
    help="Frames a second and symbol from the simulated exchange.",
)
@json_option
@click.pass_context
def demo(ctx: click.Context, folder: Path, duration: float, rate: float, as_json: bool) -> int:
    """Show the whole job offline, in a minute.

    Three symbols from the bundled exchange simulator, ten-second periods, every file proven.
    """
    from mexc_pipeline.run.demo import afterwards
    from mexc_pipeline.run.demo import demo as show

    closing = show(folder, duration, rate, "DEBUG" if debug(ctx) else "INFO")
    return _closed(closing, as_json, afterwards(folder))
