"""The commands that report: verify, status, ledger, query, doctor. None of them changes anything."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mexc_pipeline import health, overview
from mexc_pipeline.cli import printing
from mexc_pipeline.cli.options import Command, SymbolId, configuration, json_option, start_logs
from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlError, RefusalError, ask
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.rows import shown_types
from mexc_pipeline.text import ago, counted, with_advice

if TYPE_CHECKING:
    from mexc_pipeline.ledger.hours import Hour

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
            printing.line(f"{name}:")
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

    found = examination.examine(configuration(ctx, whatever_is_there=True))
    if as_json:
        printing.as_json(found.to_json())
    else:
        for check in found.checks:
            printing.line(check.line())
    return 0 if found.ok else 1


@click.command(cls=Command)
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> int:
    """Show what every part is doing, and what is wrong, the worst first.

    Each symbol's health, last market frame per channel, backlog, last export. Exit 1 on any fault.
    """
    config = configuration(ctx)
    found = overview.gather(config)
    if as_json:
        printing.as_json(found)
    elif not found["recorded"]:
        printing.folded(f"nothing was recorded yet in {config.data_dir}; start it with: mexc-pipeline run")
    else:
        _print_status(found)
    return 0 if found["ok"] else 1


def rest_in_use(symbols: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which REST address is in use, and by whom, where several are configured."""
    by_url: dict[str, list[str]] = {}
    for symbol in symbols:
        rest = symbol["collector"].get("rest") or {}
        if rest.get("of", 1) > 1:
            unproven = "" if rest.get("answered") else ", which has not answered yet"
            by_url.setdefault(f"{rest['url']}{unproven}", []).append(symbol["id"])
    return [f"REST in use by {', '.join(ids)}: {url}" for url, ids in by_url.items()]


def _print_status(found: dict[str, Any]) -> None:
    store = found["store"]
    faults = _without_stopped(found, overview.faults_of(found))
    order = [kind.value for kind in health.Kind]
    advised: set[str] = set()  # what several have in common, as a full disk, is done once
    for who, reason in faults:
        since = "" if reason["for_s"] is None else f" (since {_clock_time(reason['for_s'])})"
        advice = "" if reason["advice"] in advised else reason["advice"]
        advised.add(advice)
        printing.folded(with_advice(f"FAULT {who}: {reason['kind']}: {reason['text']}{since}", advice))
    if store["health"]["ok"]:
        printing.folded(f"store: ClickHouse ({store.get('engine')}) answers")
    if store.get("outdated"):
        printing.folded(f"store: {store['outdated']}; {store['mended_by']} it")
    symbols = sorted(found["symbols"], key=lambda symbol: _rank(symbol["health"], order))
    rows = []
    for symbol in symbols:
        said, loaded, export = symbol["collector"], symbol["store"] or {}, symbol["last_export"]
        rows.append(
            [
                symbol["symbol"],
                symbol["health"]["state"],
                _age((said.get("market") or {}).get("age_s")) if "market" in said else None,
                said.get("last_seq"),
                loaded.get("backlog"),
                said.get("reconnects"),
                ago(export["age_s"]) if export else "none",
                overview.far_end(said.get("egress") or {}),
            ]
        )
    headers = ["symbol", "state", "last frame", "seq", "backlog", "reconnects", "exported", "peer"]
    gone = printing.table(
        headers, rows, ("last frame", "seq", "backlog", "reconnects", "exported"), drop=("reconnects", "peer")
    )
    for line in rest_in_use(found["symbols"]):
        printing.folded(line)
    channels = [
        [
            symbol["symbol"],
            name,
            f"given up {_age(channel['given_up_s'])}" if "given_up_s" in channel else channel.get("confirmed"),
            _age(channel.get("age_s")),
        ]
        for symbol in symbols
        for name, channel in (symbol["collector"].get("channels") or {}).items()
    ]
    if channels:
        printing.line("")
        gone += printing.table(
            ["symbol", "channel", "confirmed by", "last frame"], channels, ("last frame",), drop=("confirmed by",)
        )
    printing.left_out(gone, "a wider one and --json have them")
    for symbol in symbols:
        said = symbol["collector"]
        reasons = symbol["health"]["reasons"]
        told = {text for r in reasons for text in (r["text"], with_advice(r["text"], r["advice"]))}
        if said.get("outdated"):
            printing.folded(f"{symbol['id']}: {said['outdated']}; {said['mended_by']} it")
        if said.get("exchange_said"):
            printing.folded(f"{symbol['id']}: the exchange said: {said['exchange_said']}")
        for warning in said.get("warnings") or []:
            if warning not in told:
                printing.folded(f"{symbol['id']}: {warning}")


def _without_stopped(found: dict[str, Any], faults: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The faults but for what was stopped in order, which is one line, and where all was, the store with it."""
    stopped = {s["id"]: s["collector"]["stopped_s"] for s in found["symbols"] if "stopped_s" in s["collector"]}
    if not stopped:
        return faults
    all_of_it = len(stopped) == len(found["symbols"]) and "problem" in found["store"]
    who = "nothing runs here" if all_of_it else ", ".join(stopped)
    at = _clock_time(min(stopped.values()))
    printing.folded(f"FAULT {who}: stopped in order at {at}; {health.START_AGAIN} (mexc-pipeline run, or its service)")
    down = health.Kind.DOWN.value
    return [
        (who, reason)
        for who, reason in faults
        if not (who in stopped and reason["kind"] == down) and not (all_of_it and who == "store")
    ]


def _rank(found: Mapping[str, Any], order: list[str]) -> int:
    return order.index(found["state"]) if found["reasons"] else len(order)


def _clock_time(seconds_ago: float) -> str:
    at = time.time() - seconds_ago
    return time.strftime("%H:%M:%S UTC" if seconds_ago < 43_200 else "%Y-%m-%d %H:%M UTC", time.gmtime(at))


def _age(seconds: float | None) -> str:
    return "never" if seconds is None else ago(seconds, 1)


@click.command(cls=Command)
@click.option("--since", help="Only hours that end after this time (ISO 8601, UTC without a zone).")
@click.option("--symbol", type=SymbolId(), help="Only this symbol (id or the exchange's name).")
@json_option
@click.pass_context
def ledger(ctx: click.Context, since: str | None, symbol: str | None, as_json: bool) -> int:
    """Show conservation: received, stored, exported, and what of each hour was covered.

    One line per symbol and period, those without rows too. Exit 1 where two places differ, rows are missing between
    files, or a part of the spool cannot be read.
    """
    from mexc_pipeline import verify as proofs
    from mexc_pipeline.export.files import wrong_place
    from mexc_pipeline.ledger.hours import total
    from mexc_pipeline.verify.acknowledge import acknowledged

    config = configuration(ctx)
    start_logs(ctx, quiet=True)
    names = {s.name: s.id for s in config.symbols}
    after = _instant(since)
    if wrong := wrong_place(config):
        raise UserError(f"{config.export_dir}: {wrong}")
    unknown: list[str] = []
    entries = proofs.ledger(config, unknown=unknown)
    found = proofs.by_hour(config, entries)
    for trouble in acknowledged(config).troubles:
        printing.line(trouble, err=True)
    if symbol is not None:
        found = [hour for hour in found if hour.id == names.get(symbol, symbol)]
        if not found:
            raise UserError(f"nothing of {symbol} is recorded; mexc-pipeline ledger lists every symbol")
    found = [hour for hour in found if hour.end_ns > after]
    shown = {file.file for hour in found for file in hour.files}
    unread = proofs.unread(config)
    unknown += [f"what was received is not known of all: {what}" for what in unread]
    waiting = proofs.waiting(config)
    ok = not unread and all(hour.verdict not in ("differs", "hole") for hour in found)
    ids = list(dict.fromkeys(hour.id for hour in found))
    totals = {i: total([hour for hour in found if hour.id == i]) for i in ids}
    if as_json:
        printing.as_json(
            {
                "ok": ok,
                "unknown": unknown,
                "waiting": waiting,
                "entries": [entry.to_json() for entry in entries if entry.file in shown],
                "hours": [hour.to_json() for hour in found],
                "totals": {**totals, "all": total(found)},
            }
        )
        return 0 if ok else 1
    types = shown_types(hour.counts for hour in found)
    headers, drop = ledger_columns(types)
    rows = [_ledger_row(hour, types) for hour in found]
    gone = printing.table(headers, rows, right=headers[2:-2], drop=drop)
    printing.left_out(gone, "a wider one, a pipe and --json have them")
    printing.line("")
    for i in [*totals, "all"]:
        printing.line(f"{i}: {_total_line(totals.get(i) or total(found))}")
    for what in (*unknown, *waiting):
        printing.line(what, err=True)
    return 0 if ok else 1


def _instant(since: str | None) -> int:
    from mexc_pipeline.read import files

    try:
        return files.instant_ns(since) if since is not None else 0
    except ValueError as error:
        raise click.BadParameter(f"{since!r} is no time such as 2026-11-21T20:00", param_hint="--since") from error


_SIDES = ("received", "stored", "exported")


def ledger_columns(types: Sequence[str]) -> tuple[list[str], list[str]]:
    """The headers of the ledger with those row types, and what goes first where the terminal is too narrow."""
    headers = [
        "symbol", "period", *types, *_SIDES, "seq", "gaps", "missing", "repaired", "reconnects",
        "no socket", "covered", "agree", "differ", "unknown", "buffered", "ratio", "digest", "verdict",
    ]  # fmt: skip
    drop = [
        "digest", "ratio", "buffered", "seq", *reversed(types), "repaired", "missing", "no socket",
        "reconnects", "unknown", "agree", "gaps", "differ", "covered",
    ]  # fmt: skip
    return headers, drop


def _ledger_row(hour: Hour, types: Iterable[str]) -> list[object]:
    first, last = (hour.files[0].first_seq, hour.files[-1].last_seq) if hour.files else (0, 0)
    digest = f"{len(hour.files)} parts" if len(hour.files) > 1 else "".join(f.digest[:12] for f in hour.files)
    verdict: str = hour.verdict
    if hour.seq_missing or hour.seq_repeated:
        known = " (acknowledged)" if hour.seq_missing and hour.seq_missing == hour.acknowledged else ""
        verdict += f": {hour.seq_missing} rows missing{known}, {hour.seq_repeated} twice before it"
    raw, size = sum(f.raw_bytes for f in hour.files), sum(f.bytes for f in hour.files)
    return [
        hour.id,
        hour.period or (f"{hour.periods} without rows" if hour.periods > 1 else "without rows"),
        *(hour.counts[name] for name in types),
        *("–" if (rows := hour.rows(side)) is None else rows for side in _SIDES),  # type: ignore[arg-type]
        f"{first}–{last}",
        hour.gaps,
        hour.missing,
        hour.repaired,
        hour.reconnects,
        f"{hour.without_socket_s:.1f} s",
        f"{hour.coverage:.2f} %",
        *(hour.minutes or ["–"] * 3),
        "–" if hour.buffered is None else hour.buffered,
        f"{raw / size:.1f}" if size else "–",
        digest,
        verdict,
    ]


def _trades(sums: dict[str, Any]) -> str:
    """What is told of trades that the socket did not bring, where there is anything to tell."""
    filled = f"{counted(sums['filled'], 'trade')} filled, " if sums["filled"] else ""
    return filled + (f"{counted(sums['unfilled'], 'gap')} of trades, " if sums["unfilled"] else "")


def _total_line(sums: dict[str, Any]) -> str:
    received, stored, exported = ("–" if sums[side] is None else f"{sums[side]:,}" for side in _SIDES)
    return (
        f"{counted(sums['hours'], 'period')} ({sums['absent']} without rows), {sums['coverage']:.2f} % covered, "
        f"{received} rows received, {stored} stored, {exported} exported where still or "
        f"already there, {counted(sums['dead_letters'], 'dead letter')}, "
        f"{counted(sums['gaps'], 'gap')} of {counted(sums['missing'], 'version')}, "
        f"{sums['repaired']:,} repaired, {_trades(sums)}{counted(sums['reconnects'], 'reconnect')}, "
        f"{sums['without_socket_s']:.1f} s without a socket" + _minutes_line(sums["minutes"])
    )


def _minutes_line(minutes: Mapping[str, int] | None) -> str:
    if minutes is None:
        return ""
    agree, differ, unknown = minutes["agree"], minutes["differ"], minutes["unknown"]
    of = counted(agree + differ + unknown, "minute")
    return f"; of {of} {agree:,} agree with the exchange's candles, {differ:,} differ, {unknown:,} unknown"


@click.command(cls=Command)
@click.argument("sql")
@click.option("--max-rows", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="Rows at most.")
@json_option
@click.pass_context
def query(ctx: click.Context, sql: str, max_rows: int, as_json: bool) -> int:
    """Ask ClickHouse one read-only SQL statement.

    It reaches the embedded engine of a running `run`, too.
    """
    if not sql.strip():
        raise click.UsageError("the statement is empty; one such as 'SELECT count() FROM btc_current' is needed", ctx)
    config = configuration(ctx)
    start_logs(ctx, quiet=True)
    answer = answer_query(config, sql, max_rows)
    if as_json:
        printing.as_json(answer)
        return 0
    printing.table(answer["columns"], answer["rows"])
    if answer.get("truncated"):
        printing.line(f"only the first {counted(len(answer['rows']), 'row')}; --max-rows asks for more", err=True)
    return 0


def answer_query(config: Config, sql: str, max_rows: int) -> dict[str, Any]:
    """Columns, types and rows: from the running store, else from the engine opened for this one question."""
    from mexc_pipeline import store
    from mexc_pipeline.run.supervisor import lock_holder

    path = config.control_dir / "store.sock"
    if path.exists():
        try:
            return ask(path, "query", timeout_s=QUERY_S, sql=sql, max_rows=max_rows)
        except RefusalError as error:
            raise (ConfigError if error.wrong_usage else UserError)(error.said) from error
        except ControlError:
            if lock_holder(config.data_dir / "store") is not None:
                raise  # a store runs: it refused, or it is too busy
    found: dict[str, Any] = store.query(config, sql, max_rows)
    return found
