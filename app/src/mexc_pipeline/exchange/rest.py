"""REST of the futures venue: paths and how to read their answers. Pure.

Sources: the official futures pages (2026-04) and observations of 2026-09/10 (throttling by code 510 inside HTTP 200,
commits newest first against the prose of the documentation, books that lag behind the socket).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from mexc_pipeline.exchange.candles import INTERVAL, fetched
from mexc_pipeline.exchange.depth import MAX_VERSION, whole
from mexc_pipeline.exchange.trades import Trade, readable
from mexc_pipeline.rows import is_utf8
from mexc_pipeline.text import clean

BASE = "/api/v1/contract/"
"""What all paths of contracts begin with."""
PING_PATH = f"{BASE}ping"
THROTTLED = 510
MOST_COMMITS = 1000
"""As many as the documented recipe for a gap asks for."""
MOST_DEALS = 100
"""As many trades as the exchange gives at most."""
_MOST_ANSWERED = 10 * MOST_COMMITS
"""An exchange that counts otherwise may give more; beyond this it does not answer what was asked."""
MOST_VALUES = 500_000
"""Of an answer that is taken apart: each costs many times its bytes, and until all are there nothing else is done. The
list of all contracts has about 100,000."""


def too_many_values(data: bytes | msgspec.Raw) -> str | None:
    """What is to be said of more values than are read; there is a comma between any two."""
    return f"an answer of more than {MOST_VALUES:,} values" if bytes(data).count(b",") >= MOST_VALUES else None


def detail_path(symbol: str) -> str:
    """The path of contract details; an exchange that knows no ``symbol`` parameter answers with the whole list."""
    return f"{BASE}detail?symbol={quote(symbol)}"


@dataclass(frozen=True, slots=True)
class Listing:
    """Whether REST lists a symbol: ``unknown`` where its answer does not tell; ``said`` is the reason. The socket knows
    better: what it delivers is listed."""

    verdict: Literal["listed", "unlisted", "unknown"]
    said: str


def refusal(code: object, message: object) -> str:
    """The words for an answer that refuses, by as much as it says."""
    said = "no code" if code is None else f"code {clean(code, 200)}"
    return said + (f": {clean(message, 200)}" if message else "")


def read_listing(symbol: str, status: int, body: bytes) -> Listing:
    """Read the answer to :func:`detail_path`."""
    if status != 200:
        return Listing("unknown", f"HTTP {status}")
    if (said := too_many_values(body)) is not None:
        return Listing("unknown", said)
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Listing("unknown", "an answer that is not JSON")
    if not isinstance(answer, dict):
        return Listing("unknown", "an answer that is not an object")
    code = answer.get("code")
    if answer.get("success") is not True:
        said = refusal(code, answer.get("message") or answer.get("msg"))
        # 1001 "contract does not exist" (official error code list); anything else says nothing about the symbol.
        return Listing("unlisted" if code == 1001 else "unknown", said)
    data: Any = answer.get("data")
    contracts = data if isinstance(data, list) else [data]
    names = {name for c in contracts if isinstance(c, dict) and isinstance(name := c.get("symbol"), str)}
    if symbol in names:
        return Listing("listed", "listed")
    if not names:
        return Listing("unknown", "an answer without contracts")
    return Listing("unlisted", f"not among its {len(names)} contracts")


class _Time(msgspec.Struct):
    data: int


def read_time(status: int, body: bytes) -> int | None:
    """The exchange's time (Unix ms) in the answer to :data:`PING_PATH`; None for any other answer."""
    if status != 200:
        return None
    try:
        time_ms = msgspec.json.decode(body, type=_Time).data
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return time_ms if 10**12 <= time_ms < 10**13 else None


def depth_path(symbol: str) -> str:
    """The path of a snapshot; the exchange gives at most 1,500 levels a side (observed, 2026-10)."""
    return f"{BASE}depth/{quote(symbol)}"


def commits_path(symbol: str, count: int = MOST_COMMITS) -> str:
    """The path of the newest changes of the book, one version each."""
    return f"{BASE}depth_commits/{quote(symbol)}/{count}"


def deals_path(symbol: str, count: int = 20) -> str:
    """The path of the newest trades, at most 100."""
    return f"{BASE}deals/{quote(symbol)}?limit={count}"


def kline_path(symbol: str, start_s: int) -> str:
    """The path of the candles of one minute from that time (Unix s) until now, at most 2,000."""
    return f"{BASE}kline/{quote(symbol)}?interval={INTERVAL}&start={start_s}"


def funding_path(symbol: str) -> str:
    """The path of the present funding rate."""
    return f"{BASE}funding_rate/{quote(symbol)}"


def short_path(path: str) -> str:
    """The path as it is shown: without what all have in common."""
    return path.removeprefix(BASE)


def endpoint(path: str) -> str:
    """The name of what was asked for: ``depth`` of :func:`depth_path`, whatever its symbol."""
    return short_path(path).partition("?")[0].partition("/")[0]


class RestRefusedError(Exception):
    """An answer that is not what was asked for; ``throttled`` where the exchange wants fewer requests."""

    def __init__(self, reason: str, throttled: bool = False) -> None:
        super().__init__(reason)
        self.throttled = throttled


class DepthCommit(NamedTuple):
    """One change of the book; ``m`` is the exchange's JSON for it, byte for byte."""

    version: int
    m: bytes


class BookSnapshot(NamedTuple):
    """A snapshot of a book; ``book`` is the exchange's JSON for it, byte for byte."""

    version: int
    book: bytes


class _Answer(msgspec.Struct):
    success: bool = False
    code: int | None = None
    message: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Version(msgspec.Struct):
    version: int | str


_version = msgspec.json.Decoder(_Version).decode


def read_commits(status: int, body: bytes) -> list[DepthCommit]:
    """The answer to :func:`commits_path`, oldest first, without those that name no version. RestRefusedError for any
    other answer."""
    found = _pieces("commits", status, body)
    if len(found) > _MOST_ANSWERED:
        raise RestRefusedError(f"{len(found):,} commits, where {MOST_COMMITS:,} were asked for")
    commits: list[DepthCommit] = []
    why: Exception | None = None
    for raw in found:
        try:
            commits.append(DepthCommit(version_of(raw), bytes(raw)))
        except ValueError as error:
            why = error
    if why is not None and not commits:
        raise RestRefusedError(f"commits that cannot be read: {why}") from why
    return sorted(commits)


def read_deals(status: int, body: bytes) -> list[Trade]:
    """The answer to :func:`deals_path`, in its order, without what is no trade. RestRefusedError for any other
    answer."""
    found = _pieces("trades", status, body)
    if len(found) > 10 * MOST_DEALS:
        raise RestRefusedError(f"{len(found):,} trades, where {MOST_DEALS} were asked for")
    trades = readable(found)
    if found and not trades:
        raise RestRefusedError("trades that cannot be read")
    return trades


def read_snapshot(status: int, body: bytes) -> BookSnapshot:
    """The answer to :func:`depth_path`. RestRefusedError for any other answer."""
    data = answered(status, body)
    try:
        return BookSnapshot(version_of(data), bytes(data))
    except ValueError as error:
        raise RestRefusedError(f"a book that cannot be read: {error}") from error


def _pieces(what: str, status: int, body: bytes) -> list[msgspec.Raw]:
    data = answered(status, body)
    if (said := too_many_values(data)) is not None:
        raise RestRefusedError(said)
    try:
        return msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RestRefusedError(f"{what} that cannot be read: {error}") from error


def read_klines(status: int, body: bytes) -> bytes:
    """The answer to :func:`kline_path`: the exchange's JSON for the candles, byte for byte. RestRefusedError for any
    other answer, and for candles that cannot be read."""
    data = bytes(answered(status, body))
    if (said := too_many_values(data)) is not None:
        raise RestRefusedError(said)
    if not is_utf8(data) or fetched(data) is None:
        raise RestRefusedError("candles that cannot be read")
    return data


def version_of(piece: bytes | msgspec.Raw) -> int:
    """The ``version`` of a book or of one change of it, as a number or as its text. ValueError where it has none."""
    try:
        version = whole(_version(piece).version)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if version is None or not 0 <= version <= MAX_VERSION:
        raise ValueError(f"version {str(version)[:40]} is none")
    return version


def answered(status: int, body: bytes) -> msgspec.Raw:
    """The ``data`` of an answer that grants what was asked for, as it was sent. RestRefusedError for any other."""
    if status != 200:
        raise RestRefusedError(f"HTTP {status}", throttled=status == 429)
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RestRefusedError("an answer that is not JSON") from error
    if not answer.success:
        said = refusal(answer.code, answer.message)
        raise RestRefusedError(said, throttled=answer.code == THROTTLED)
    return answer.data
