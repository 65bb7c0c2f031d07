"""What commands share: ``--config`` and ``--debug`` on either side of the command, durations, symbol ids."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mexc_pipeline import config, lifeline, logs
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.paths import not_a_folder

_F = TypeVar("_F", bound=Callable[..., Any])
_CONFIG = "mexc_pipeline.config"
_DEBUG = "mexc_pipeline.debug"


class UserPath(click.Path):
    """A path; ``~`` and ``~user`` at its head are home folders, also where no shell has seen to it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(path_type=Path, **kwargs)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            meant = Path(value).expanduser()
        except RuntimeError:
            self.fail(f"{value}: no such home folder", param, ctx)
        return super().convert(meant, param, ctx)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        ctx.meta[_CONFIG if param.name == "config" else _DEBUG] = value


def common_params() -> list[click.Option]:
    """The options that may stand before or after a command; the one after it wins."""
    return [
        click.Option(
            ["--config"],
            type=UserPath(),
            envvar="MEXC_PIPELINE_CONFIG",
            show_envvar=True,
            expose_value=False,
            callback=_remember,
            metavar="PATH",
            help="Configuration file (TOML). Without one, the defaults.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Log in detail, with a traceback for an unexpected error.",
        ),
    ]


class Command(click.Command):
    """A command that also takes the common options after its name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        add_common_params(self)


class ChildCommand(Command):
    """A command that a supervisor may start: it takes the hidden ``--parent-fd``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(parent_option())


def add_common_params(command: click.Command) -> None:
    """Give a command made elsewhere the options every command takes."""
    own = {param.name for param in command.params}
    # The variable is read once, by the group; a command's own option must be given to override.
    for option in common_params():
        if option.name not in own:
            option.envvar = None
            command.params.append(option)


def configuration(ctx: click.Context, *, whatever_is_there: bool = False) -> config.Config:
    """The checked configuration this invocation names. ConfigError where it does not fit; UserError where ``data_dir``
    is something else than a folder, but for who judges that himself (``whatever_is_there``)."""
    found = config.load(ctx.meta.get(_CONFIG))
    if not whatever_is_there and (wrong := not_a_folder(found.data_dir)):
        raise UserError(f"data_dir: {wrong}, or set another")
    return found


def debug(ctx: click.Context) -> bool:
    """Whether ``--debug`` was given."""
    return bool(ctx.meta.get(_DEBUG))


def start_logs(ctx: click.Context, quiet: bool = False) -> None:
    """Send logs to standard error; ``quiet`` leaves only warnings, for commands whose output is the answer."""
    logs.setup("DEBUG" if debug(ctx) else "WARNING" if quiet else "INFO")
    logging.captureWarnings(True)


class Duration(click.ParamType[float]):
    """A duration such as ``60s`` or ``1h``; the value is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            seconds = config.duration_ns(value) / 1e9
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not seconds:
            self.fail(f"{value!r} is no time at all; give one such as 60s", param, ctx)
        return seconds


class Number(click.FloatRange):
    """A finite number within bounds: click takes ``nan`` for one of any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class ListenAt(click.ParamType[tuple[str, int]]):
    """Where to listen: ``HOST:PORT``, an IPv6 address in brackets. The value is host and port; port 0 picks one."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Host and port; a usage error where it is neither."""
        if isinstance(value, tuple):
            return value
        host, colon, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
            self.fail(f"{value!r} is not HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464", param, ctx)
        return host, int(port)


def access_options(default: str) -> Callable[[_F], _F]:
    """The options of a command that answers over HTTP, at ``default`` unless it is told another place."""
    options = [
        click.option(
            "--listen",
            type=ListenAt(),
            default=default,
            show_default=True,
            metavar="HOST:PORT",
            help="Where to answer.",
        ),
        click.option(
            "--certificate", type=UserPath(), metavar="FILE", help="Certificate (PEM) to answer over TLS with."
        ),
        click.option("--key", type=UserPath(), metavar="FILE", help="Its private key (PEM)."),
        click.option(
            "--password-file", type=UserPath(), metavar="FILE", help="Whoever asks needs the password in this file."
        ),
    ]

    def add(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class SymbolId(click.ParamType[str]):
    """A configured symbol by id or exchange name, completed from the configuration; checked by the command."""

    name = "id"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[click.shell_completion.CompletionItem]:
        try:
            ids = [symbol.id for symbol in configuration(ctx, whatever_is_there=True).symbols]
        except ConfigError:
            return []  # a half-typed command line is no place for an error
        return [click.shell_completion.CompletionItem(i) for i in ids if i.startswith(incomplete)]


def json_option(function: _F) -> _F:
    """Add ``--json``: the answer as JSON on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(function)


def _watch(_ctx: click.Context, _param: click.Parameter, value: int | None) -> None:
    if value is None:
        return
    try:
        lifeline.watch(value)
    except OSError as error:
        raise ConfigError(f"--parent-fd: {value} is not an open file descriptor") from error


def parent_option() -> click.Option:
    """Add the hidden ``--parent-fd N``: end when the process that holds the other end of this pipe ends."""
    return click.Option(
        ["--parent-fd"],
        type=int,
        hidden=True,
        expose_value=False,
        callback=_watch,
        help="Read end of the supervisor's lifeline pipe.",
    )
