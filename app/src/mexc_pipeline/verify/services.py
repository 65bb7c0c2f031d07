"""Whether every part runs and does its work, by what it says of itself and what lies in the spool."""

from __future__ import annotations

from typing import Any

from mexc_pipeline import health, running
from mexc_pipeline.config import Config, Symbol
from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.text import with_advice
from mexc_pipeline.verify.report import Finding, Report

SILENT_S = 60.0
"""A subscribed channel without a frame for longer is worth a note; the ticker alone comes every few seconds."""


def services(config: Config) -> Report:
    """Judge collectors and store. Never raises for what does not run."""
    report = Report("services")
    for symbol in config.symbols:
        _collector(config, symbol, report)
    try:
        said = ask(config.control_dir / "store.sock", "status")
    except ControlError as error:
        report.findings.append(Finding("", "store", False, str(error)))
    else:
        ok = bool(said.get("reachable"))
        text = f"{said.get('engine')} answers" if ok else f"{said.get('engine')} does not answer: {said.get('error')}"
        report.findings.append(Finding("", "store", ok, text))
        if old := running.outdated(said.get("running"), running.report(config)):
            report.findings.append(Finding("", "store", False, f"{old.why}; {old.verb} it"))
        for symbol_id, loaded in (said.get("symbols") or {}).items():
            report.findings.append(_loading(symbol_id, loaded))
    return report


def _collector(config: Config, symbol: Symbol, report: Report) -> None:
    try:
        said = ask(config.control_dir / f"{symbol.id}.sock", "status")
    except ControlError as error:
        report.findings.append(Finding(symbol.id, "collector", False, str(error)))
        return
    found = health.of_symbol(said, silent_s=symbol.silent_s)
    text = f"{found.state}, seq {said.get('last_seq')}, {said.get('reconnects')} reconnects"
    if said.get("exchange_said"):
        text += f"; the exchange said: {said['exchange_said']}"
    report.findings.append(Finding(symbol.id, "collector", found.state in ("live", "quiet"), text))
    for reason in found.reasons:
        if reason.kind is not health.Kind.CLOCK:
            report.findings.append(Finding(symbol.id, reason.kind.value, False, f"{reason.text}; {reason.advice}"))
    if "clock" in said:
        report.findings.append(_clock(symbol.id, said["clock"]))
    if old := running.outdated(said.get("running"), running.report(config, symbol)):
        report.findings.append(Finding(symbol.id, "collector", False, f"{old.why}; {old.verb} it"))
    for name, channel in (said.get("channels") or {}).items():
        age = channel.get("age_s")
        if age is None or age > SILENT_S:
            quiet = "no frame yet" if age is None else f"no frame for {age:.0f} s"
            report.notes.append(f"{symbol.id} {name}: {quiet}")
    told = {finding.text for finding in report.findings}
    warnings = [str(warning) for warning in said.get("warnings") or []]
    report.notes += [f"{symbol.id}: {text}" for text in warnings if not any(text in already for already in told)]


def _clock(symbol_id: str, said: dict[str, Any]) -> Finding:
    """This host's clock against the exchange's, as its collector has compared them."""
    error = said.get("error_ms")
    text = "not compared yet" if error is None else f"{error / 1000:+,.3f} s against the exchange's"
    if said.get("suspect"):
        text += f"; {with_advice(str(said.get('warning') or ''), str(said.get('todo') or ''))}"
    return Finding(symbol_id, "clock", not said.get("suspect"), text)


def _loading(symbol_id: str, loaded: dict[str, Any]) -> Finding:
    skipped, unreadable = loaded.get("skipped_rows") or 0, loaded.get("unreadable_segment")
    wrong = [f"{skipped} rows refused by ClickHouse"] if skipped else []
    if unreadable:
        wrong.append(f"segment {unreadable} cannot be read")
    wrong += [
        f"table of {file} differs in {', '.join(compared.get('columns') or []) or 'content'}"
        for file, compared in (loaded.get("compared") or {}).items()
        if not compared.get("ok")
    ]
    backlog = loaded.get("backlog")
    text = "backlog not known" if backlog is None else f"backlog {backlog} rows"
    return Finding(symbol_id, "loading", not wrong, "; ".join([text, *wrong]))
