"""REST of the futures venue: paths and how to read their answers. Pure.

Sources: the official futures pages (2026-04) and observations of 2026-09/10 (throttling by code 510 inside HTTP 200).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

PING_PATH = "/api/v1/contract/ping"
THROTTLED = 510


def detail_path(symbol: str) -> str:
    """Contract details; an exchange that knows no ``symbol`` parameter answers with the whole list."""
    return f"/api/v1/contract/detail?symbol={symbol}"


@dataclass(frozen=True, slots=True)
class Listing:
    """Whether the exchange lists a symbol: ``unknown`` where its answer does not tell; ``said`` is the reason."""

    verdict: Literal["listed", "unlisted", "unknown"]
    said: str


def read_listing(symbol: str, status: int, body: bytes) -> Listing:
    """Read the answer to :func:`detail_path`."""
    if status != 200:
        return Listing("unknown", f"HTTP {status}")
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Listing("unknown", "an answer that is not JSON")
    if not isinstance(answer, dict):
        return Listing("unknown", "an answer that is not an object")
    code, message = answer.get("code"), answer.get("message") or answer.get("msg")
    if answer.get("success") is not True:
        said = f"code {code}" + (f": {message}" if message else "")
        # 1001 "contract does not exist" (official error code list); anything else says nothing about the symbol.
        return Listing("unlisted" if code == 1001 else "unknown", said)
    data: Any = answer.get("data")
    contracts = data if isinstance(data, list) else [data]
    names = {c.get("symbol") for c in contracts if isinstance(c, dict)}
    if symbol in names:
        return Listing("listed", "listed")
    if not names:
        return Listing("unknown", "an answer without contracts")
    return Listing("unlisted", f"not among its {len(names)} contracts")
