"""``egress rotate``: what an operator can ask of a symbol's way out."""

from __future__ import annotations

import click

from mexc_pipeline.cli import printing
from mexc_pipeline.cli.options import Command, SymbolId, configuration, json_option, start_logs
from mexc_pipeline.control import ask

ROTATE_S = 60.0


@click.group()
def egress() -> None:
    """Act on a symbol's way out."""


@egress.command(cls=Command)
@click.argument("symbol", metavar="ID", type=SymbolId())
@json_option
@click.pass_context
def rotate(ctx: click.Context, symbol: str, as_json: bool) -> int:
    """Give a symbol another Tor exit.

    Its collector connects anew by an exit of its share that is not the present one, and leaves that one alone for ten
    minutes. Exit 1 where there is no other, or no new connection within 50 s.
    """
    config = configuration(ctx)
    chosen = config.symbol(symbol)
    start_logs(ctx, quiet=True)
    answer = ask(config.control_dir / f"{chosen.id}.sock", "rotate", timeout_s=ROTATE_S)
    if as_json:
        printing.as_json({"symbol": chosen.id, **answer})
    else:
        printing.line(f"{chosen.id}: exit {answer['before']} → {answer['now']}")
    return 0
