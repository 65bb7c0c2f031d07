"""What ClickHouse holds, judged by the store, which alone may open the embedded engine."""

from __future__ import annotations

from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.ledger.repeats import Given
from mexc_pipeline.verify import repeats
from mexc_pipeline.verify.report import Finding, Report

VERIFY_S = 600.0


def clickhouse(config: Config) -> Report:
    """Rates and shares per type, freshness, counts against the spool, content of sealed tables; no seq given twice
    by what tables, files and segments hold."""
    report = Report("clickhouse")
    try:
        answer = ask(config.control_dir / "store.sock", "verify", timeout_s=VERIFY_S)
    except ControlError as error:
        report.findings.append(Finding("", "store", False, str(error)))
        report.findings += repeats.findings([*repeats.of_host(config)])
        return report
    report.findings += [Finding(f["symbol"], f["table"], bool(f["ok"]), f["text"]) for f in answer["findings"]]
    if "held" not in answer:
        report.findings.append(Finding("", "seq", False, "the store does not say which spool gave what; restart it"))
    held = [Given(*one) for one in answer.get("held", [])]
    report.findings += repeats.findings([*held, *repeats.of_host(config)])
    return report
