"""A report as lines of at most 80 columns. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from mexc_pipeline.exchange.rest import short_path
from mexc_pipeline.probe.judge import ChannelFigures, ProbeReport

WIDTH = 80
MOST_CONNECTIONS = 9
"""That are shown: three symbols have six, and one more carries what is not configured."""


def lines(report: ProbeReport) -> list[str]:
    """What a person reads: figures first, findings and the verdict last."""
    return [line.rstrip() for line in _lines(report)]


def _lines(report: ProbeReport) -> Iterator[str]:
    early = " (interrupted)" if report.interrupted else ""
    yield from _wrap(
        f"probed {report.websocket} and {report.rest}, {report.egress}, "
        f"{', '.join(report.symbols)}, {report.seconds:g}s{early}"
    )
    yield ""
    if report.reached:
        yield from _channels(report)
        yield from _connection(report)
    if report.answers:
        yield from _rest(report)
    for note in report.notes:
        yield from _wrap(f"note: {note}", "  ")
    for kind, title in (("different", "different from what this version expects:"), ("richer", "more than expected:")):
        texts = [finding.text for finding in report.findings if finding.kind == kind]
        if texts:
            yield ""
            yield title
            for text in texts:
                yield from _wrap(f"- {text}", "  ")
    yield ""
    yield f"verdict: {report.verdict}" + (f": {report.why_not_reached}" if report.why_not_reached else "")


def _channels(report: ProbeReport) -> Iterator[str]:
    yield f"{'channel':<20} {'acked':<6} {'frames':>6}  {'ts':<6} {'ms p50 / p99':>13} {'fields':>7}  versions"
    for configured in (True, False):
        figures = [channel for channel in report.channels if channel.configured is configured]
        if figures and not configured:
            yield "not configured, for information:"
        for channel in figures:
            yield _channel(channel)
    yield ""


def _channel(channel: ChannelFigures) -> str:
    acked = (
        "yes" if channel.acked == channel.asked else f"{channel.acked} of {channel.asked}" if channel.acked else "NO"
    )
    delay = f"{channel.delay_ms[0]:.0f} / {channel.delay_ms[1]:.0f}" if channel.delay_ms else "-"
    new = f"+{len(channel.new_fields)}" if channel.new_fields else ""
    fields = f"{channel.fields_seen}/{channel.fields_expected}{new}" if channel.frames else "-"
    units = ",".join(channel.ts)[:6] or "-"
    return (
        f"{channel.channel[:20]:<20} {acked:<6} {channel.frames:>6}  {units:<6} {delay:>13} {fields:>7}  "
        f"{channel.versions[:14]}"
    )


def _connection(report: ProbeReport) -> Iterator[str]:
    for connection in report.connections[:MOST_CONNECTIONS]:
        yield from _wrap(f"connection   {connection}", " " * 13)
    more = len(report.connections) - MOST_CONNECTIONS
    if more > 0:
        yield f"{'':<12} and {more} more, which --json lists"
    trip = f", {report.pong_ms:.0f} ms" if report.pong_ms is not None else ""
    yield f"heartbeat    {report.pings} pings, {report.pongs} pongs{trip}"
    if report.clock_ahead_ms is not None:
        yield f"clock        {report.clock_ahead_ms:+.0f} ms against the exchange"
    spelled = [channel for channel in report.channels if channel.configured and channel.spellings]
    for head, channel in zip(["numbers", *[""] * len(spelled)], spelled, strict=False):
        counts = ", ".join(f"{count} {name}" for name, count in channel.spellings.items())
        text = f"{head:<12} {channel.channel}: {counts}; longest {channel.longest_number} digits"
        yield from _wrap(text, " " * 13)


def _rest(report: ProbeReport) -> Iterator[str]:
    for answer in report.answers:
        took = f"{answer.took_ms:.0f} ms" if answer.took_ms is not None else ""
        path = short_path(answer.path)
        yield from _wrap(f"REST         {path:<34} {answer.status or '-':>3} {took:>8}  {answer.said}", " " * 13)


def _wrap(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True, replace_whitespace=False
    )
