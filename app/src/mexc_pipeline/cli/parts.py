"""The commands that services run, and the small ones, from ``prune`` to ``completion``."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from mexc_pipeline.cli.options import (
    ChildCommand,
    Command,
    SymbolId,
    UserPath,
    access_options,
    configuration,
    json_option,
    start_logs,
)
from mexc_pipeline.config import check_mounted


@click.command(cls=ChildCommand)
@click.argument("symbol", metavar="ID", type=SymbolId())
@click.pass_context
def collect(ctx: click.Context, symbol: str) -> int:
    """Record one symbol until SIGTERM.

    Then it commits and exits 0 within 5 s, never cutting a segment.
    """
    from mexc_pipeline import collector

    config = configuration(ctx)
    chosen = config.symbol(symbol)
    start_logs(ctx)
    return collector.main(config, chosen)


@click.command(cls=ChildCommand)
@click.pass_context
def store(ctx: click.Context) -> int:
    """Load the recording into ClickHouse until SIGTERM.

    What was loaded is compared with the recording by content, at every period's end.
    """
    from mexc_pipeline import store as part

    config = configuration(ctx)
    start_logs(ctx)
    return part.main(config)


@click.command(cls=Command)
@access_options("127.0.0.1:9464")
@click.pass_context
def metrics(
    ctx: click.Context,
    listen: tuple[str, int],
    certificate: Path | None,
    key: Path | None,
    password_file: Path | None,
) -> int:
    """Answer Prometheus until SIGTERM.

    /metrics has the state of every part in numbers, /healthz status 200 or 503 and the faults as JSON. Beyond this host
    only over TLS and with a password.
    """
    from mexc_pipeline import metrics as part
    from mexc_pipeline.serving import Access

    config = configuration(ctx)
    start_logs(ctx)
    return part.serve(config, Access(*listen, certificate, key, password_file))


@click.command(cls=Command)
@access_options("127.0.0.1:9465")
@click.option(
    "--proxy", metavar="ADDRESS", help="Answer nobody but the reverse proxy at this address, which speaks TLS."
)
@click.pass_context
def dashboard(
    ctx: click.Context,
    listen: tuple[str, int],
    certificate: Path | None,
    key: Path | None,
    password_file: Path | None,
    proxy: str | None,
) -> int:
    """Show every symbol's state in a browser until SIGTERM.

    Open http://127.0.0.1:9465. Parts are asked once a second while somebody looks, whoever they are. Beyond this host
    only with a password and over TLS, or behind a named proxy that speaks it.
    """
    from mexc_pipeline import dashboard as part
    from mexc_pipeline.serving import Access

    config = configuration(ctx)
    start_logs(ctx)
    return part.serve(config, Access(*listen, certificate, key, password_file, proxy))


@click.command(cls=ChildCommand)
@click.argument("symbols", metavar="[ID]...", nargs=-1, type=SymbolId())
@click.option("--once", is_flag=True, help="Cut the running period now and export what it holds so far.")
@click.option(
    "--missing", is_flag=True, help="Also write again the files that are gone while the spool still has their rows."
)
@click.option(
    "--copy-to",
    type=UserPath(file_okay=False),
    metavar="DIR",
    help="Write the open period's rows into this folder and change nothing else.",
)
@json_option
@click.pass_context
def export(
    ctx: click.Context, symbols: tuple[str, ...], once: bool, missing: bool, copy_to: Path | None, as_json: bool
) -> int:
    """Turn ended periods into proven Parquet files.

    Every closed segment, oldest first, is written, read back and compared before its file gets its name.
    """
    from mexc_pipeline import export as part
    from mexc_pipeline.cli import printing

    if once and copy_to is not None:
        raise click.UsageError("--once cuts the period, --copy-to leaves it alone: choose one", ctx)
    if missing and copy_to is not None:
        raise click.UsageError("--missing writes exported files again, --copy-to an open period: choose one", ctx)
    config = configuration(ctx)
    ids = [config.symbol(key).id for key in symbols] or None
    start_logs(ctx, quiet=True)
    return printing.done(part.main(config, ids, once=once, copy_to=copy_to, missing=missing), as_json)


@click.command(cls=Command)
@click.option("--keep", metavar="AGE", help="Delete files whose period ended this long ago, such as 90d.")
@click.option("--min-free", metavar="SIZE", help="Delete the oldest files while less than this is free, such as 20G.")
@click.option(
    "--archive",
    type=UserPath(file_okay=False),
    metavar="DIR",
    help="Only files that have an equal copy in this folder.",
)
@click.option(
    "--archive-check",
    metavar="JSON",
    help='Only files for which this command exits 0, such as ["in-archive", "{file}"].',
)
@json_option
@click.pass_context
def prune(
    ctx: click.Context,
    keep: str | None,
    min_free: str | None,
    archive: Path | None,
    archive_check: str | None,
    as_json: bool,
) -> int:
    """Delete exported files that are old, or while the disk is full.

    A file goes only if it was read just now and is what it says it is, and if the archive, where one is named, has it.
    The newest file of a symbol stays, and so do those whose segment is still in the spool (spool_keep, 24h).
    Without --keep and --min-free nothing goes.
    """
    from mexc_pipeline.cli import printing
    from mexc_pipeline.export import retention

    config = configuration(ctx)
    rules = retention.rules(keep, min_free, archive, archive_check)
    start_logs(ctx, quiet=True)
    return printing.done(retention.prune(config, rules), as_json)


@click.command(cls=Command)
@click.argument("symbol", type=SymbolId())
@click.argument("first_seq", type=click.IntRange(min=1))
@click.argument("last_seq", type=click.IntRange(min=1))
@click.option("--reason", required=True, help="Why these rows are missing; stands in every listing from now on.")
@click.option("--by", help="Who answers for it. [default: who runs this]")
@json_option
@click.pass_context
def acknowledge(
    ctx: click.Context, symbol: str, first_seq: int, last_seq: int, reason: str, by: str | None, as_json: bool
) -> None:
    """Answer for rows that are in no file, after a restore or a lost disk.

    The hole stays in every listing and no longer makes verify and ledger fail. It must be one that verify exports
    names.
    """
    import dataclasses

    from mexc_pipeline.cli import printing
    from mexc_pipeline.verify.acknowledge import acknowledge as write_down

    config = configuration(ctx)
    names = {s.name: s.id for s in config.symbols}
    who = by or os.environ.get("SUDO_USER") or _user()
    entry = write_down(config, names.get(symbol, symbol), first_seq, last_seq, by=who, reason=reason)
    if as_json:
        printing.as_json(dataclasses.asdict(entry))
    else:
        printing.line(f"{entry.id}: seq {first_seq} to {last_seq} {entry}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without an entry, as in a container
        return f"uid {os.getuid()}"


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    For bash: `mexc-pipeline completion bash > ~/.local/share/bash-completion/completions/mexc-pipeline`.
    """
    from mexc_pipeline.cli import printing
    from mexc_pipeline.cli.app import PROGRAM, cli

    found = get_completion_class(shell)
    assert found is not None, shell
    printing.verbatim(found(cli, {}, PROGRAM, "_MEXC_PIPELINE_COMPLETE").source())


@click.command("import", cls=Command)
@click.argument("files", nargs=-1, required=True, type=UserPath())
@click.option(
    "--to",
    type=UserPath(file_okay=False),
    metavar="DIR",
    help="Folder for the imported files. [default: export_dir/imported]",
)
@click.option("--symbol", metavar="ID", type=SymbolId(), help="Symbol id, where a file's name does not tell it.")
@json_option
@click.pass_context
def import_files(
    ctx: click.Context, files: tuple[Path, ...], to: Path | None, symbol: str | None, as_json: bool
) -> int:
    """Take over Parquet files of the v4 pipeline.

    They are marked as imported and kept apart: their rows were never proven.
    """
    from mexc_pipeline import importer
    from mexc_pipeline.cli import printing
    from mexc_pipeline.paths import check_apart

    config = configuration(ctx)
    check_mounted(config)
    start_logs(ctx, quiet=True)
    if to is not None:
        check_apart(config.data_dir, to, "--to")
    wanted = config.symbol(symbol).id if symbol is not None else None
    report = importer.import_files(config.export_dir, files, to, wanted)
    status = printing.done(report, as_json)
    if not as_json:
        for failure in report.failures:
            printing.line(f"mexc-pipeline: {failure}", err=True)
    return status
