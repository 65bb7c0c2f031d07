"""The command that compares the exchange with what this version expects."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import click

from mexc_pipeline import signals
from mexc_pipeline.cli import printing
from mexc_pipeline.cli.options import Command, Number, SymbolId, UserPath, configuration, json_option, start_logs
from mexc_pipeline.config import Config, Symbol
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.exchange.options import is_name

UNASKED = 3
"""Symbols of the configuration that are probed where none is named."""
MOST = 20


@click.command(cls=Command)
@click.argument("symbols", metavar="[SYMBOL]...", nargs=-1, type=SymbolId())
@click.option(
    "--seconds",
    type=Number(min=1, max=3600),
    default=60.0,
    show_default=True,
    help="How long to listen.",
)
@click.option(
    "--save",
    type=UserPath(dir_okay=False),
    metavar="FILE",
    help="Keep frames and answers, and nothing of this machine, for `simulate --like` (.gz: compressed).",
)
@json_option
@click.pass_context
def probe(ctx: click.Context, symbols: tuple[str, ...], seconds: float, save: Path | None, as_json: bool) -> int:
    """Compare what the exchange sends with what this version expects.

    Connects the configured way, twice in a row, and asks REST; makes no file but that of --save, and may run
    beside a recording. Without SYMBOL, the first three of the configuration; one that is not configured is probed like
    the first. Ctrl-C prints what was seen so far. Exit status 0: as expected, or richer; 1: different, or not reached.
    """
    from mexc_pipeline.probe.main import probe as look

    config = configuration(ctx)
    chosen = _chosen(config, symbols)
    start_logs(ctx, quiet=True)

    def progress(left: float, frames: int) -> None:
        printing.progress(f"{max(0.0, left):5.0f} s left, {frames} frames")

    stop = threading.Event()
    with signals.handled(signals.ending(stop.set)):
        report = look(config, chosen, seconds, save, progress, stop)
    printing.progress("")
    status = printing.result(report, as_json)
    if report.unsaved is not None:
        raise UserError(report.unsaved)
    return status


def _chosen(config: Config, keys: tuple[str, ...]) -> list[Symbol]:
    if not keys:
        return list(config.symbols[:UNASKED])
    if len(keys) > MOST:
        raise ConfigError(f"probe takes at most {MOST} symbols at a time")
    return list(dict.fromkeys(_symbol(config, key) for key in keys))


def _symbol(config: Config, key: str) -> Symbol:
    known = {name: symbol for symbol in config.symbols for name in (symbol.id, symbol.name)}
    if key in known:
        return known[key]
    if not is_name(key):
        raise ConfigError(f"{key!r} is neither configured nor a name of the exchange, such as BTC_USDT")
    return replace(config.symbols[0], name=key, id=key.lower())
