"""The command group and what becomes of its errors: one line each, exit 1 or 2, no traceback."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

import mexc_pipeline
from mexc_pipeline import logs, output
from mexc_pipeline.cli import interrupt, printing
from mexc_pipeline.cli.options import add_common_params, common_params, debug, parent_option
from mexc_pipeline.config import parse
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.paths import not_allowed

log = logging.getLogger("mexc_pipeline.cli")

PROGRAM = "mexc-pipeline"

# Loaded when asked for: a collector must stay small, so its command line imports nothing of the others.
_COMMANDS = {
    "run": "mexc_pipeline.cli.machine:run",
    "demo": "mexc_pipeline.cli.machine:demo",
    "collect": "mexc_pipeline.cli.parts:collect",
    "store": "mexc_pipeline.cli.parts:store",
    "export": "mexc_pipeline.cli.parts:export",
    "prune": "mexc_pipeline.cli.parts:prune",
    "verify": "mexc_pipeline.cli.reports:verify",
    "status": "mexc_pipeline.cli.reports:status",
    "ledger": "mexc_pipeline.cli.reports:ledger",
    "acknowledge": "mexc_pipeline.cli.parts:acknowledge",
    "query": "mexc_pipeline.cli.reports:query",
    "egress": "mexc_pipeline.cli.egress:egress",
    "doctor": "mexc_pipeline.cli.reports:doctor",
    "metrics": "mexc_pipeline.cli.parts:metrics",
    "dashboard": "mexc_pipeline.cli.parts:dashboard",
    "probe": "mexc_pipeline.cli.probe:probe",
    "import": "mexc_pipeline.cli.parts:import_files",
    "simulate": "mexc_pipeline.simulator.command:simulate",
    "completion": "mexc_pipeline.cli.parts:completion",
}

_REMEDIES = {
    errno.EACCES: "give this user the right to use it, or choose another place",
    errno.EPERM: "give this user the right to use it, or choose another place",
    errno.EROFS: "choose another place, or mount it writable",
    errno.ENOSPC: "make room there, or choose another place",
    errno.EDQUOT: "make room there, or choose another place",
    errno.ENOTDIR: "move what stands in a folder's place away, or choose another",
    errno.EMFILE: "let this user open more files (ulimit -n)",
    errno.ENFILE: "let this machine open more files (sysctl fs.file-max)",
    errno.ENOMEM: "let it have more (ulimit -v), or end what else takes it",
    errno.EIO: "look at the disk: the kernel's log tells more",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, name = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        add_common_params(command)
        if cmd_name == "simulate" and "parent_fd" not in {param.name for param in command.params}:
            command.params.append(parent_option())  # the demo's simulator must not outlive the demo
        _answered_here(command.get_help_option(ctx))
        interrupt.in_order()
        return command

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        return _answered_here(super().get_help_option(ctx))


def _answered_here(option: click.Option | None) -> click.Option | None:
    """Help is printed as every other answer is: click itself would not say what became of it."""
    if option is not None:
        option.callback = _show_help
    return option


def _show_help(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        printing.verbatim(ctx.get_help())
        ctx.exit()


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        printing.line(f"{PROGRAM}, version {mexc_pipeline.__version__}")
        ctx.exit()


@click.command(
    cls=LazyGroup,
    params=list(common_params()),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Record MEXC futures market data frame by frame, and prove each period's file complete.

    Start with `demo` (offline), then `run`. Exit status: 0 done, 1 a check or job failed, 2 wrong usage or
    configuration, 130 ended by Ctrl-C.
    """


def main() -> NoReturn:
    """Run the command line; the process ends with its exit status, whatever becomes of what it writes."""
    errors = output.take_over(logs.dropped)
    status = invoke(sys.argv[1:])
    interrupt.at_once()
    printing.flush()
    errors.end()
    sys.exit(status)


def invoke(args: list[str]) -> int:
    """Run one command line and return its exit status; errors are said on standard error, one line each."""
    try:
        status = cli.main(args, prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        printing.verbatim(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
        return _fail(f"{_one_line(_what_number(error).format_message()).rstrip('.')}{where}", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _fail(interrupt.SAID, interrupt.STATUS)
    except ConfigError as error:
        return _fail(str(error), 2)
    except printing.AnswerError as error:
        printing.give_up(error)
        return 1
    except UserError as error:
        cause = error.__cause__
        said = _of_the_system(cause, args) if isinstance(cause, OSError) and str(cause) == str(error) else ""
        return _fail(said or str(error), 1)
    except Exception as error:
        if log.isEnabledFor(logging.DEBUG) and logging.getLogger("mexc_pipeline").handlers:
            log.exception("unexpected error")
        if isinstance(error, MemoryError):
            return _fail(f"{os.strerror(errno.ENOMEM)}: {_REMEDIES[errno.ENOMEM]}", 1)
        if isinstance(error, OSError) and (said := _of_the_system(error, args)):
            return _fail(said, 1)
        return _fail(f"unexpected {type(error).__name__}: {error} (--debug logs the traceback)", 1)
    return status if isinstance(status, int) else 0


def _what_number(error: click.UsageError) -> click.UsageError:
    """Where a number is not as it must be, say how one is written: click says "not a valid integer range"."""
    param = error.param if isinstance(error, click.BadParameter) else None
    if param is None or not isinstance(param.type, type(click.INT) | type(click.FLOAT)):
        return error
    given = error.message.partition(" is not ")[0]
    kind = "whole number" if isinstance(param.type, type(click.INT)) else "number"
    low, high, example = getattr(param.type, "min", None), getattr(param.type, "max", None), param.default
    bounds = f" from {low} to {high}" if high is not None else ""
    if low is not None and high is None:
        bounds = f" above {low}" if getattr(param.type, "min_open", False) else f" of at least {low}"
    if isinstance(example, bool) or not isinstance(example, int | float):
        example = max(low or 0, 1)
    return click.BadParameter(f"{given} is not a {kind}{bounds}, such as {example}", error.ctx, param)


def _of_the_system(error: OSError, args: list[str]) -> str:
    """Which file a refusal of the system is about, why, and what to do; empty where it is none that a user can mend."""
    if error.errno not in _REMEDIES:
        return ""
    why = error.strerror or str(error)
    if not isinstance(error.filename, str):
        return f"{why}: {_REMEDIES[error.errno]}"
    path = Path(error.filename).absolute()
    if isinstance(error, PermissionError) and (whose := not_allowed(path) or not_allowed(path, write=True)):
        return whose
    said = f"{path}: {why}: {_REMEDIES[error.errno]}"
    if _is_configured(args):
        return said
    defaults = parse("", None)
    if not any(path.is_relative_to(folder) for folder in (defaults.data_dir, defaults.export_dir)):
        return said
    return f"{said}; no configuration was given (--config), so its folders are those of where it is run"


def _is_configured(args: list[str]) -> bool:
    return bool(os.environ.get("MEXC_PIPELINE_CONFIG")) or any(arg.partition("=")[0] == "--config" for arg in args)


def _fail(message: str, status: int) -> int:
    printing.line(f"{PROGRAM}: {_one_line(message)}", err=True)
    return status


def _one_line(message: str) -> str:
    return " ".join(message.split())


__all__ = ["cli", "debug", "invoke", "main"]
