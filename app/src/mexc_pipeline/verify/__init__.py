"""Verification of what was recorded, from the outside: nothing here trusts what the recorder says it did."""

from mexc_pipeline.verify.clickhouse import clickhouse
from mexc_pipeline.verify.egress import egress
from mexc_pipeline.verify.exports import exports
from mexc_pipeline.verify.ledger import by_hour, ledger, unread, waiting
from mexc_pipeline.verify.report import Finding, Report
from mexc_pipeline.verify.services import services

__all__ = ["Finding", "Report", "by_hour", "clickhouse", "egress", "exports", "ledger", "services", "unread", "waiting"]
