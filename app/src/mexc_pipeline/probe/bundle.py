"""A probe in one file, for whoever cannot reach the exchange: JSON, one record a line, gzip where the name says so.

The first line says what it is; then come the records in the order in which they were seen. ``at`` is ms since the
probe began. Nothing of the machine is in it: no clock, no host, no path, no address (what looks like an address of the
Internet in what the exchange said is overwritten), no reason of a failed connection.

- ``{"bundle":1,"program":…,"symbols":[…],"seconds":…}``
- ``{"at":…,"conn":…,"opened":SYMBOL,"spare":…}``; ``spare``: of channels that were not configured
- ``{"at":…,"conn":…,"refused":SYMBOL,"status":…,"headers":{…},"body":…}``
- ``{"at":…,"conn":…,"unreached":SYMBOL}``
- ``{"at":…,"conn":…,"sent":…}``
- ``{"at":…,"conn":…,"text":…}``, with ``"packed":"gzip"`` (or ``zlib``, ``deflate``) where that came compressed in a
  binary frame, and ``"opcode":1`` besides where it was a text frame; or ``{"at":…,"conn":…,"base64":…,"opcode":…}``
- ``{"at":…,"conn":…,"closed":CODE,"reason":…,"ours":…}``, with ``"breach":"rules"`` where what came next was no frame,
  ``"size"`` where it was one too large to be kept
- ``{"at":…,"rest":PATH,"status":…,"headers":{…},"text":…,"took":…}``, or with ``base64``
- ``{"at":…,"rest":PATH}`` where no answer came
- ``{"full":true}`` where the bundle has reached its bound; what follows was not kept
"""

from __future__ import annotations

import base64
import gzip
import ipaddress
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from mexc_pipeline import __version__
from mexc_pipeline.errors import UserError
from mexc_pipeline.exchange.protocol import BINARY, TEXT
from mexc_pipeline.probe.observe import unpack
from mexc_pipeline.probe.records import (
    Answered,
    Closed,
    Opened,
    Received,
    Record,
    Refused,
    Sent,
    Unanswered,
    Unreached,
)
from mexc_pipeline.text import without_secrets

FORMAT = 1
FLUSH_MS = 1_000
"""What a probe that is killed loses of its bundle."""
MOST_BYTES = 64 << 20
"""Of the lines, before compression, each with :data:`PER_LINE`."""
PER_LINE = 128
"""What a line costs whoever reads it, besides its bytes: an exchange that sends nothing but tiny frames makes many."""
_V4 = re.compile(r"(?<!\d)(?<!\d\.)\d{1,3}(?:\.\d{1,3}){3}(?!\d|\.\d)")
_V6 = re.compile(r"[0-9A-Fa-f]*(?::[0-9A-Fa-f]*){2,}(?:(?:\.\d{1,3}){3})?")


class BundleWriter:
    """Writes records to ``path`` within a context; does nothing without one. Entering it raises UserError where that is
    not possible; what fails later is kept in ``trouble``, and nothing more is written."""

    def __init__(self, path: Path | None, symbols: Sequence[str], seconds: float, most: int = MOST_BYTES) -> None:
        self._path = path
        self._head = {
            "bundle": FORMAT,
            "program": f"mexc-pipeline {__version__}",
            "symbols": list(symbols),
            "seconds": seconds,
        }
        self._left = most
        self._file: gzip.GzipFile | BinaryIO | None = None
        self._flushed = 0.0
        self.trouble: str | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                # mode x: a bundle is evidence, and no other file is to be overwritten by a slip
                self._file = gzip.open(self._path, "xb") if self._path.suffix == ".gz" else self._path.open("xb")
            except FileExistsError as error:
                raise UserError(f"--save: {self._path} is there already; choose another name") from error
            except OSError as error:
                raise UserError(f"--save: cannot write {self._path}: {error.strerror}") from error
            with self._attempted():
                self._file.write(_dump(self._head) + b"\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with self._attempted():
                self._file.close()

    def keep(self, record: Record) -> None:
        """Write one record, within the bound on size."""
        if self._file is None or self._left < 0 or self.trouble is not None:
            return
        line = as_line(record)
        self._left -= len(line) + PER_LINE
        with self._attempted():
            self._file.write((_dump({"full": True}) if self._left < 0 else line) + b"\n")
            if record.at - self._flushed >= FLUSH_MS:
                self._flushed = record.at
                self._file.flush()

    @contextmanager
    def _attempted(self) -> Iterator[None]:
        """What was seen is worth more than the file: a disk without room costs the bundle alone."""
        try:
            yield
        except OSError as error:
            self.trouble = self.trouble or f"--save: {self._path} is not whole: {error.strerror or error}"


def as_line(record: Record) -> bytes:
    """One record as its line, without the line's end."""
    at = round(record.at, 1)
    match record:
        case Opened(_, conn, symbol, spare):
            return _dump({"at": at, "conn": conn, "opened": symbol, "spare": spare})
        case Refused(_, conn, symbol, status, headers, body):
            return _dump(
                {"at": at, "conn": conn, "refused": symbol, "status": status}
                | {"headers": _headers(headers), "body": masked(body.decode(errors="replace"))}
            )
        case Unreached(_, conn, symbol, _):
            return _dump({"at": at, "conn": conn, "unreached": symbol})
        case Sent(_, conn, text):
            return _dump({"at": at, "conn": conn, "sent": text})
        case Received(_, conn, opcode, payload):
            return _dump({"at": at, "conn": conn} | _frame(opcode, payload))
        case Closed(_, conn, code, reason, ours, breach):
            said = masked(reason) if code != 1006 else ""  # without a close frame the reason is this machine's
            line = {"at": at, "conn": conn, "closed": code, "reason": said, "ours": ours}
            return _dump(line | ({"breach": breach} if breach else {}))
        case Answered(_, path, status, headers, body, took):
            return _dump(
                {"at": at, "rest": path, "status": status, "headers": _headers(headers), "took": round(took, 1)}
                | _text(body)
            )
        case Unanswered(_, path, _):
            return _dump({"at": at, "rest": path})


def masked(text: str) -> str:
    """The text without known secrets and with every address of the Internet (IPv4, IPv6) overwritten; numbers and times
    stay."""
    return _V4.sub(_mask_v4, _V6.sub(_mask_v6, without_secrets(text)))


def _mask_v4(found: re.Match[str]) -> str:
    return "0.0.0.0" if _is_address(found[0]) else found[0]  # noqa: S104 - nothing listens there


def _mask_v6(found: re.Match[str]) -> str:
    """The longest address within, whatever colons stand before or behind it (``ip:2001:db8::1``)."""
    groups = found[0].split(":")
    for size in range(min(len(groups), 10), 2, -1):
        for first in range(len(groups) - size + 1):
            candidate = ":".join(groups[first : first + size])
            if candidate != "::" and _is_address(candidate):
                return ":".join([*groups[:first], "::", *groups[first + size :]])
    return found[0]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _headers(headers: Any) -> dict[str, str]:
    return {name: masked(value) for name, value in headers.items()}


def _frame(opcode: int, payload: bytes) -> dict[str, Any]:
    text, packing = unpack(opcode, payload) if opcode in (TEXT, BINARY) else (payload, "")
    if packing not in ("", "binary"):
        kept = _text(text)
        if "text" in kept:
            return {**kept, "packed": packing} | ({"opcode": TEXT} if opcode == TEXT else {})
    elif opcode == TEXT:
        kept = _text(payload)
        return kept if "text" in kept else {**kept, "opcode": TEXT}
    return {"base64": base64.b64encode(payload).decode(), "opcode": opcode}


def _text(body: bytes) -> dict[str, Any]:
    try:
        return {"text": masked(body.decode())}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
