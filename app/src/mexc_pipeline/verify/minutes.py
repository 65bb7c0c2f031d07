"""Trades against the exchange's candles, in files that are proven: what each says of its own minutes, and every minute
of all together, those at the files' edges too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from mexc_pipeline.errors import UserError
from mexc_pipeline.export.minutes import MINUTES, FileMinutes, evidence_in
from mexc_pipeline.ledger.minutes import Minute, Minutes, counted
from mexc_pipeline.ledger.shares import from_text, is_told
from mexc_pipeline.ledger.sums import FIELDS
from mexc_pipeline.read.minutes import blocks
from mexc_pipeline.text import counted as number_of
from mexc_pipeline.verify.report import Finding

if TYPE_CHECKING:
    from mexc_pipeline.verify.exports import FileProof

SHOWN = 20
"""Minutes that are named one by one."""


def check(symbol_id: str, proofs: Sequence[FileProof]) -> tuple[list[Finding], list[str]]:
    """Judge a symbol's proven files, given in the order of their rows: a failure for each that says something else of
    its minutes than its rows do, and lines for a reader. That trades differ from candles is no failure of a file, which
    holds what was received."""
    findings: list[Finding] = []
    together: Minutes | None = None
    for proof in proofs:
        if proof.wrong:
            continue
        symbol = proof.said.get("symbol", "")
        together = together or Minutes(symbol)
        alone = FileMinutes(symbol, proof.name.start_ns, proof.name.part)
        try:
            for block in blocks(proof.path):
                what = evidence_in(symbol, block)
                alone.take(block, what)
                together.goes_on(int(block.seq[0]), int(block.seq[-1]))
                for one in what:
                    together.take(one)
        except (UserError, OSError):  # gone since it was proven
            continue
        edge = proof.said.get("edge_ns", "")
        final = proof.said.get("final") == "true"
        counts = alone.counts(int(edge), final=final) if edge.isdigit() and len(edge) <= 19 else None
        if MINUTES in proof.said and not is_told(proof.said[MINUTES], counts):
            told = from_text(proof.said[MINUTES])
            text = f"metadata says of its minutes {_text(told)}, its rows {_text(counts)}"
            findings.append(Finding(symbol_id, proof.path.name, False, text))
    return findings, list(_lines(symbol_id, together.result())) if together is not None else []


def _text(counts: tuple[int, int, int] | None) -> str:
    return "nothing" if counts is None else "{} agree, {} differ, {} unknown".format(*counts)


def _lines(symbol_id: str, minutes: Sequence[Minute]) -> Iterator[str]:
    counts = counted(minutes)
    if not counts.agree and not counts.differ:
        return
    differing = [minute for minute in minutes if minute.verdict == "differs"]
    for minute in differing[:SHOWN]:
        yield f"warn {symbol_id}: trades differ from the exchange's candle: {_differs(minute)}"
    if len(differing) > SHOWN:
        yield f"warn {symbol_id}: and {number_of(len(differing) - SHOWN, 'minute')} more"
    without = sum(minute.rule == "without self-trades" for minute in minutes)
    said = f", {without:,} of them without self-trades" if without else ""
    repeated = sum(minute.repeated for minute in minutes)
    again = f"; {number_of(repeated, 'trade')} came again and counted once" if repeated else ""
    yield (
        f"     {symbol_id} of {number_of(sum(counts), 'minute')} {counts.agree:,} agree with the exchange's "
        f"candles{said}, {counts.differ:,} differ, {counts.unknown:,} unknown{again}"
    )


def _differs(minute: Minute) -> str:
    at = datetime.fromtimestamp(minute.start_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    wrong = minute.why.split(", ")
    figures = [
        f"{name} {_number(minute.own[name])} against {_number(minute.candle[name])}" for name in FIELDS if name in wrong
    ]
    return f"{at} {', '.join(figures)}"


def _number(value: Decimal | None) -> str:
    if value is None:
        return "–"
    text = f"{value:f}"  # some prices are sent with tails of thirty zeros
    return text.rstrip("0").rstrip(".") if "." in text else text
