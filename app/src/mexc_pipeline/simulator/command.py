"""The `simulate` command."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from mexc_pipeline.errors import ConfigError
from mexc_pipeline.simulator.bundle import read_bundle
from mexc_pipeline.simulator.config import FlatOut, SimulatorConfig
from mexc_pipeline.simulator.faults import KINDS, parse_fault
from mexc_pipeline.simulator.frames import DealId, Style
from mexc_pipeline.simulator.market import NATURAL_RATE
from mexc_pipeline.simulator.service import serve, serve_like
from mexc_pipeline.simulator.shapes import STEPS

_SYMBOL = re.compile("[^\\W_]+_[A-Z0-9]+")


class _Path(click.Path):
    """A path; ``~`` at its head is the home folder, also where no shell has seen to it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(path_type=Path, **kwargs)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            meant = Path(value).expanduser()
        except RuntimeError:
            self.fail(f"{value}: no such home folder", param, ctx)
        return super().convert(meant, param, ctx)


_FILE = _Path(exists=True, dir_okay=False)
_KINDS = "\n".join(f"  {kind:<17} {text}" for kind, (_, text) in KINDS.items())
_STEPS = "\n".join(f"  {form:<17} {text}" for form, text in STEPS.items())
_EPILOG = f"""\b
Kinds of fault:
{_KINDS}

\b
Steps of a shape, joined by semicolons, as in
--fault 'kind=shape channel=deal value="ts=us; drop=data.cts"':
{_STEPS}
A PATH is names joined by points from the frame's top; lists are gone into.
Without channel= a shape holds for every frame, acks and pongs too."""


class _Number(click.FloatRange):
    """A finite number within bounds: click takes ``nan`` for one of any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


@click.command("simulate", epilog=_EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8765,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port for WebSocket and REST; 0 picks a free one.",
)
@click.option("--seed", default=1, show_default=True, help="Same seed, same market.")
@click.option(
    "--symbols",
    default="BTC_USDT,ETH_USDT,SOL_USDT",
    show_default=True,
    help="Contracts that are listed, separated by commas.",
)
@click.option(
    "--rate",
    default=NATURAL_RATE,
    show_default=True,
    type=_Number(min=0, min_open=True),
    help="Frames/s per symbol of ticker, deal and depth.full together.",
)
@click.option(
    "--commit-rate",
    default=50.0,
    show_default=True,
    type=_Number(min=0),
    help="Book versions/s per symbol at the natural rate (ETH_USDT on the exchange: 2194).",
)
@click.option(
    "--heartbeat",
    default=60.0,
    show_default=True,
    type=_Number(min=0),
    help="Seconds without a JSON ping until a connection is closed; 0: never.",
)
@click.option(
    "--heartbeat-end",
    default="notice",
    show_default=True,
    type=click.Choice(["notice", "abrupt"]),
    help="Close with the rs.error notice and a close frame, or just end the connection.",
)
@click.option(
    "--deal-form",
    default="list",
    show_default=True,
    type=click.Choice(["list", "object"]),
    help="Deals as a list, or one object a frame as before 2025-08.",
)
@click.option(
    "--candles",
    default="all",
    show_default=True,
    type=click.Choice(["all", "without-self-trades"]),
    help="Which trades the volume and the amount of candles are made of.",
)
@click.option(
    "--tickers-rows",
    default=100,
    show_default=True,
    type=click.IntRange(min=1),
    help="Rows of the first push.tickers (the exchange: 1269).",
)
@click.option(
    "--rest-lag",
    default=20,
    show_default=True,
    type=click.IntRange(min=0),
    help="REST is up to this many versions behind.",
)
@click.option(
    "--rest-deal-id",
    default="absent",
    show_default=True,
    type=click.Choice(["absent", "string", "int"]),
    help="Ids of REST's trades; the documentation has none.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="'KEY=VALUE …'",
    help="What goes wrong when: kind=, at= (seconds), conn=, symbol=, channel=, for= (seconds), "
    "count=, every=, delay=, size=, value=, opcode=, headers=. May be repeated. Kinds are listed below.",
)
@click.option(
    "--log-dir",
    type=_Path(file_okay=False),
    help="Write every frame sent here, one file per connection.",
)
@click.option(
    "--clock-ahead",
    default=0.0,
    show_default=True,
    help="Seconds by which the exchange's clock is ahead of this host's; negative: behind. All it sends has its time.",
)
@click.option("--tls-cert", type=_FILE, help="Serve TLS with this certificate (PEM).")
@click.option("--tls-key", type=_FILE, help="Private key of the certificate (PEM).")
@click.option(
    "--flat-out",
    is_flag=True,
    help="Send frames rendered in advance, as fast as the client reads, once it has subscribed.",
)
@click.option(
    "--flat-out-rate", type=_Number(min=0, min_open=True), help="With --flat-out: this many frames/s instead."
)
@click.option("--flat-out-frames", type=click.IntRange(min=1), help="With --flat-out: stop after so many frames.")
@click.option(
    "--flat-out-seconds",
    type=_Number(min=0, min_open=True),
    help="With --flat-out: stop after so many seconds.",
)
@click.option(
    "--like",
    type=_FILE,
    metavar="BUNDLE",
    help="Do again what `probe --save` kept: its symbols, frames and answers, round and round with times, versions and "
    "ids further on. Of the other options only --host and --port go with it.",
)
@click.pass_context
def simulate(
    ctx: click.Context,
    host: str,
    port: int,
    seed: int,
    symbols: str,
    rate: float,
    commit_rate: float,
    heartbeat: float,
    heartbeat_end: str,
    deal_form: str,
    candles: str,
    tickers_rows: int,
    rest_lag: int,
    rest_deal_id: DealId,
    faults: tuple[str, ...],
    log_dir: Path | None,
    clock_ahead: float,
    tls_cert: Path | None,
    tls_key: Path | None,
    flat_out: bool,
    flat_out_rate: float | None,
    flat_out_frames: int | None,
    flat_out_seconds: float | None,
    like: Path | None,
) -> None:
    """Run an offline exchange: MEXC's futures WebSocket (/edge) and REST on one port.

    Ends with exit status 0 on SIGINT or SIGTERM.
    """
    if like is not None:
        _imitate(ctx, like, host, port)
        return
    names = tuple(name.strip() for name in symbols.split(",") if name.strip())
    if not names or len(set(names)) < len(names) or not all(_SYMBOL.fullmatch(name) for name in names):
        raise ConfigError("--symbols takes one or more different contracts, such as BTC_USDT,ETH_USDT")
    if not flat_out and (flat_out_rate or flat_out_frames or flat_out_seconds):
        raise ConfigError("--flat-out-rate, --flat-out-frames and --flat-out-seconds need --flat-out")
    given = [parse_fault(text) for text in faults]
    for fault in given:
        if fault.symbol is not None and fault.symbol not in names:
            raise ConfigError(f"fault {fault.kind}: symbol {fault.symbol!r} is not listed here; {', '.join(names)} are")
    config = SimulatorConfig(
        host=host,
        port=port,
        seed=seed,
        symbols=names,
        rate=rate,
        commit_rate=commit_rate,
        heartbeat=heartbeat,
        heartbeat_end="notice" if heartbeat_end == "notice" else "abrupt",
        style=Style(
            deal_form="object" if deal_form == "object" else "list",
            rest_deal_id=rest_deal_id,
            candle_self_trades=candles == "all",
        ),
        tickers_rows=tickers_rows,
        rest_lag=rest_lag,
        faults=tuple(given),
        retain=20_000,
        log_dir=log_dir,
        clock_ns=lambda: time.time_ns() + round(clock_ahead * 1e9),
        keep_sent=False,
        tls_cert=tls_cert,
        tls_key=tls_key,
        flat_out=FlatOut(flat_out_frames, flat_out_seconds, flat_out_rate) if flat_out else None,
    )
    serve(config, lambda ws, rest: _say(f"simulating {', '.join(names)} on {ws} and {rest}"))


def _imitate(ctx: click.Context, path: Path, host: str, port: int) -> None:
    given = [
        param.opts[0]
        for param in ctx.command.params
        if param.name not in ("like", "host", "port")
        and param.expose_value
        and ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    ]
    if given:
        raise ConfigError(f"{given[0]} does not go with --like: the bundle says how its exchange behaves")
    bundle = read_bundle(path)
    serve_like(bundle, host, port, lambda ws, rest: _say(f"simulating {', '.join(bundle.symbols)} on {ws} and {rest}"))


def _say(text: str) -> None:
    try:
        click.echo(text)
    except OSError as error:  # the exchange is there all the same
        click.echo(f"mexc-pipeline: standard output: {error.strerror or error}", err=True)
