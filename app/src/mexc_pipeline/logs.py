"""Structured logs: text on a terminal, one JSON object a line elsewhere, repeated lines held back.

Use ``logging.getLogger("mexc_pipeline.<part>").info("fixed phrase", extra={"fields": {...}})``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import Any, TextIO

from mexc_pipeline.output import Output
from mexc_pipeline.text import LONG, clean, clean_lines, json_line


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields["error"] = f"{type(error).__name__}: {error}"
    return {key: _bounded(value) for key, value in fields.items()}


def _bounded(value: Any) -> Any:
    return value if not isinstance(value, str) or len(value) <= LONG else clean(value, LONG)


class JsonFormatter(logging.Formatter):
    """Makes a record one JSON object on a line: ``{"at": ISO 8601 UTC, "level": …, "part": …, "msg": …, fields…}``."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        entry = {
            "at": at,
            "level": record.levelname.lower(),
            "part": record.name.removeprefix("mexc_pipeline."),
            "msg": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json_line(entry)


class TextFormatter(logging.Formatter):
    """Makes a record a line as ``12:00:00 INFO collector connected egress=direct``, time in UTC. Values are cleaned:
    each record is one line, a traceback follows it moved in."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.gmtime(record.created))
        part = record.name.removeprefix("mexc_pipeline.")
        pairs = "".join(f" {key}={clean(value)}" for key, value in _fields(record).items())
        line = f"{at} {record.levelname:<7} {part:<9} {clean(record.getMessage())}{pairs}"
        return f"{line}\n{clean_lines(self.formatException(record.exc_info), '  ')}" if record.exc_info else line


class RateLimit(logging.Filter):
    """Lets a phrase of one logger through ``burst`` times in ``window_s``; then says how many it held back."""

    def __init__(self, burst: int = 10, window_s: float = 60.0) -> None:
        super().__init__()
        self._burst = burst
        self._window_s = window_s
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is let through."""
        key = (record.name, str(record.msg))
        began, count = self._seen.get(key, (record.created, 0))
        held = count - self._burst
        if record.created - began >= self._window_s:
            began, count = record.created, 0
            if held > 0:
                record.fields = {**getattr(record, "fields", {}), "held_back": held}
        self._seen[key] = (began, count + 1)
        return count < self._burst


class _Handler(logging.StreamHandler[TextIO]):
    """A record that cannot be shown becomes one line that says so, not a traceback among the lines of the log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        plain = {"msg": str(record.msg), "error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError, ValueError):  # the stream itself may be what failed
            self.stream.write(f"{json_line(plain)}\n")


def _formatter() -> logging.Formatter:
    wanted = os.environ.get("MEXC_PIPELINE_LOG", "json" if "JOURNAL_STREAM" in os.environ else "text")
    return JsonFormatter() if wanted == "json" else TextFormatter()


def dropped(lines: int, reason: str) -> str:
    """The line that tells how many lines of the log could not be written, and why."""
    fields = {"lines": lines, "reason": reason}
    return line("mexc_pipeline.log", logging.WARNING, "lines could not be written", fields)


def line(logger: str, level: int, msg: str, fields: dict[str, Any]) -> str:
    """A line of the log, for whoever must write it himself."""
    record = logging.LogRecord(logger, level, "", 0, msg, None, None)
    record.fields = fields
    return _formatter().format(record)


def lost() -> int:
    """Lines that this process could not write on standard error."""
    return sys.stderr.lost if isinstance(sys.stderr, Output) else 0


def setup(level: str = "INFO") -> None:
    """Send the package's logs to standard error: JSON under systemd or ``MEXC_PIPELINE_LOG=json``, text otherwise."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(_formatter())
    handler.addFilter(RateLimit())
    root = logging.getLogger("mexc_pipeline")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
