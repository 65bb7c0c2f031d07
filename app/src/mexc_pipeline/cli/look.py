"""The commands that look: verify, status, ledger, query, doctor. None of them changes anything."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from mexc_pipeline.cli import printing
from mexc_pipeline.cli.options import Command, configuration, json_option, start_logs
from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.rows import MT_NAMES

if TYPE_CHECKING:
    from mexc_pipeline.ledger.conservation import Conservation

QUERY_S = 300.0


@click.command(cls=Command)
@click.argument("what", required=False, type=click.Choice(["egress", "clickhouse", "exports"]))
@json_option
@click.pass_context
def verify(ctx: click.Context, what: str | None, as_json: bool) -> int:
    """Prove what was recorded.

    Without an argument everything, services included.

    exports: every file from its own metadata, the sequence across files, against the spool while it has the period.
    clickhouse: rates and shares per type, freshness, counts against the spool. egress: exits as configured.
    """
    from mexc_pipeline import verify as proofs

    config = configuration(ctx)
    start_logs(ctx, quiet=True)
    known = {
        "exports": proofs.exports,
        "clickhouse": proofs.clickhouse,
        "egress": proofs.egress,
        "services": proofs.services,
    }
    reports = {name: proof(config) for name, proof in known.items() if what in (None, name)}
    if as_json:
        ok = all(report.ok for report in reports.values())
        printing.as_json({"ok": ok, **{name: report.to_json() for name, report in reports.items()}})
        return 0 if ok else 1
    worst = 0
    for name, report in reports.items():
        if what is None:
            click.echo(f"{name}:")
        worst = max(worst, printing.result(report, False))
    return worst


@click.command(cls=Command)
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> int:
    """Examine this machine.

    Python, disk, clock, writable folders, ClickHouse, the exchange. Exit 1 where recording could not work (FAIL).
    """
    from mexc_pipeline import doctor as examination

    found = examination.examine(configuration(ctx))
    if as_json:
        printing.as_json(found.to_json())
    else:
        for check in found.checks:
            click.echo(check.line())
    return 0 if found.ok else 1


@click.command(cls=Command)
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> int:
    """Show what every part is doing.

    Collectors, last frame per channel, backlog, last export, what the exchange answered. Exit 1 where a part does not
    answer.
    """
    config = configuration(ctx)
    found = gather(config)
    if as_json:
        printing.as_json(found)
    else:
        _print_status(found)
    return 0 if found["ok"] else 1


def gather(config: Config) -> dict[str, Any]:
    """What every part says of itself: ``ok``, ``store``, ``symbols`` (each with collector, store and last export)."""
    store = _status_of(config, "store")
    loaded: Mapping[str, Any] = store.get("symbols") or {}
    symbols = []
    for symbol in config.symbols:
        symbols.append(
            {
                "id": symbol.id,
                "symbol": symbol.name,
                "collector": _status_of(config, symbol.id),
                "store": loaded.get(symbol.id),
                "last_export": last_export(config, symbol.id),
            }
        )
    ok = "problem" not in store and all("problem" not in s["collector"] for s in symbols)  # type: ignore[operator]
    return {
        "ok": ok,
        "store": {key: value for key, value in store.items() if key != "symbols"},
        "symbols": symbols,
    }


def _status_of(config: Config, who: str) -> dict[str, Any]:
    try:
        return ask(config.control_dir / f"{who}.sock", "status")
    except ControlError as error:
        return {"problem": str(error)}


def _far_end(egress: Mapping[str, Any]) -> str | None:
    """The exchange's or the proxy's address; by Tor the exit's."""
    return f"exit {egress['exit']}" if "exit" in egress else egress.get("peer")


def last_export(config: Config, symbol_id: str) -> dict[str, Any] | None:
    """The newest file of a symbol: ``file``, ``bytes`` and ``age_s`` since it was written; None where there is none."""
    from mexc_pipeline.export.names import exported_files

    found = exported_files(config.export_dir, symbol_id)
    if not found:
        return None
    stat = found[-1][1].stat()
    return {"file": found[-1][1].name, "bytes": stat.st_size, "age_s": round(time.time() - stat.st_mtime, 1)}


def _print_status(found: dict[str, Any]) -> None:
    store = found["store"]
    if "problem" in store:
        click.echo(f"store: {store['problem']}")
    else:
        answers = "answers" if store.get("reachable") else f"does not answer: {store.get('error')}"
        click.echo(f"store: ClickHouse ({store.get('engine')}) {answers}")
    rows = []
    for symbol in found["symbols"]:
        said, loaded, export = symbol["collector"], symbol["store"] or {}, symbol["last_export"]
        rows.append(
            [
                symbol["symbol"],
                said.get("state", "down"),
                said.get("last_seq"),
                sum((said.get("rows") or {}).values()) if "rows" in said else None,
                said.get("reconnects"),
                loaded.get("backlog"),
                _far_end(said.get("egress") or {}),
                f"{export['file']} ({export['age_s']:.0f} s ago)" if export else None,
            ]
        )
    headers = ["symbol", "state", "seq", "rows", "reconnects", "backlog", "peer", "last export"]
    printing.table(headers, rows, right=("seq", "rows", "reconnects", "backlog"))
    channels = [
        [symbol["symbol"], name, channel.get("confirmed"), _age(channel.get("age_s"))]
        for symbol in found["symbols"]
        for name, channel in (symbol["collector"].get("channels") or {}).items()
    ]
    if channels:
        printing.table(["symbol", "channel", "confirmed by", "last frame"], channels, right=("last frame",))
    for symbol in found["symbols"]:
        said = symbol["collector"]
        if "problem" in said:
            click.echo(said["problem"])
        if said.get("exchange_said"):
            click.echo(f"{symbol['id']}: the exchange said: {said['exchange_said']}")
        for warning in said.get("warnings") or []:
            click.echo(f"{symbol['id']}: {warning}")


def _age(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s ago"


@click.command(cls=Command)
@json_option
@click.pass_context
def ledger(ctx: click.Context, as_json: bool) -> int:
    """Show conservation: received, stored, exported.

    One line per file or ended period; exit 1 where two places differ.
    """
    from mexc_pipeline import verify as proofs

    config = configuration(ctx)
    start_logs(ctx, quiet=True)
    entries = proofs.ledger(config)
    ok = all(entry.verdict != "differs" for entry in entries)
    if as_json:
        printing.as_json({"ok": ok, "entries": [entry.to_json() for entry in entries]})
        return 0 if ok else 1
    printing.table(
        ["file", *MT_NAMES.values(), "seq", "gaps", "bytes", "ratio", "digest", *_SIDES, "verdict"],
        [_ledger_row(entry) for entry in entries],
        right=(*MT_NAMES.values(), "seq", "gaps", "bytes", "ratio", *_SIDES),
    )
    return 0 if ok else 1


_SIDES = ("received", "stored", "exported")


def _ledger_row(entry: Conservation) -> list[object]:
    sides = [side.rows if side is not None else "–" for side in (entry.received, entry.stored, entry.exported)]
    return [
        entry.file,
        *(entry.counts.get(kind, 0) for kind in MT_NAMES.values()),
        f"{entry.first_seq}–{entry.last_seq}",
        entry.gaps,
        entry.bytes or "–",
        "–" if entry.ratio is None else f"{entry.ratio:.1f}",
        entry.digest[:12],
        *sides,
        entry.verdict,
    ]


@click.command(cls=Command)
@click.argument("sql")
@click.option("--max-rows", type=click.IntRange(min=1), default=10_000, show_default=True, help="Rows at most.")
@json_option
@click.pass_context
def query(ctx: click.Context, sql: str, max_rows: int, as_json: bool) -> int:
    """Ask ClickHouse one read-only SQL statement.

    Also into the embedded engine of a running `run`.
    """
    config = configuration(ctx)
    start_logs(ctx, quiet=True)
    answer = answer_query(config, sql, max_rows)
    if as_json:
        printing.as_json(answer)
        return 0
    printing.table(answer["columns"], answer["rows"])
    if answer.get("truncated"):
        click.echo(f"only the first {len(answer['rows'])} rows; --max-rows asks for more", err=True)
    return 0


def answer_query(config: Config, sql: str, max_rows: int) -> dict[str, Any]:
    """Columns, types and rows: from the running store, else from the engine opened for this one question."""
    from mexc_pipeline import store
    from mexc_pipeline.run.supervisor import lock_holder

    path = config.control_dir / "store.sock"
    if path.exists():
        try:
            return ask(path, "query", timeout_s=QUERY_S, sql=sql, max_rows=max_rows)
        except ControlError:
            if lock_holder(config.data_dir / "store") is not None:
                raise  # a store runs: it refused, or it is too busy
    found: dict[str, Any] = store.query(config, sql, max_rows)
    return found
