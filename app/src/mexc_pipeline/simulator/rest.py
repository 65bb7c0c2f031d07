"""The REST side: public contract endpoints answered from the same books the socket shows.

Shapes, the 510-in-200 throttle and newest-first commits: measured on the venue, 2026-09 and 2026-10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from itertools import islice
from random import Random
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from mexc_pipeline.simulator.book import Levels
from mexc_pipeline.simulator.frames import INTERVALS, SymbolFeed
from mexc_pipeline.simulator.numbers import spell

PREFIX = "/api/v1/contract/"
ECHO_PATH = "/echo"
"""Not the exchange's: answers the address the request came from, for clients that go through a proxy."""
MAX_LEVELS = 1500
MAX_CANDLES = 2000

FORBIDDEN_PAGE = (
    b"<HTML><HEAD>\n<TITLE>Access Denied</TITLE>\n</HEAD><BODY>\n<H1>Access Denied</H1>\n"
    b"You don't have permission to access this resource on this server.\n</BODY>\n</HTML>\n"
)


class RestAnswer(NamedTuple):
    """An answer as it is sent: status, content type, body."""

    status: HTTPStatus
    content_type: str
    body: bytes


def json_answer(text: str, status: HTTPStatus = HTTPStatus.OK) -> RestAnswer:
    """Return an answer of that JSON text."""
    return RestAnswer(status, "application/json", text.encode())


def success(data: str) -> RestAnswer:
    """Return an answer with that JSON text as its `data`."""
    return json_answer(f'{{"success":true,"code":0,"data":{data}}}')


def failure(code: int, message: str) -> RestAnswer:
    """Return a refusal as the exchange gives it: inside HTTP 200."""
    return json_answer(f'{{"success":false,"code":{code},"message":"{message}"}}')


def throttled() -> RestAnswer:
    """Return the refusal of too many requests."""
    return failure(510, "Requests are too frequent")


def forbidden() -> RestAnswer:
    """Return the page that the content network refuses with."""
    return RestAnswer(HTTPStatus.FORBIDDEN, "text/html", FORBIDDEN_PAGE)


def with_a_bad_byte(answer: RestAnswer) -> RestAnswer:
    """Return the answer with a field in each book and each change of one whose text is not UTF-8."""
    return answer._replace(body=answer.body.replace(b'"version":', b'"note":"\xff","version":'))


def odd_detail(kind: str) -> RestAnswer:
    """Return an answer to a question for a contract's details that does not have it."""
    match kind:
        case "510":
            return throttled()
        case "empty":
            return success("{}")
        case "missing":
            return success('[{"symbol":"OTHER_USDT"}]')
        case "html":
            return RestAnswer(HTTPStatus.OK, "text/html", FORBIDDEN_PAGE)
        case "garbage":
            return RestAnswer(HTTPStatus.OK, "application/json", bytes(range(256)))
        case _:
            return failure(1001, "Contract does not exist")


def odd_candles(kind: str) -> RestAnswer:
    """Return an answer to a question for candles that does not have them, whole."""
    match kind:
        case "429":
            said = '{"success":false,"code":429,"message":"Too Many Requests"}'
            return json_answer(said, HTTPStatus.TOO_MANY_REQUESTS)
        case "none":
            return success('{"time":[],"open":[],"close":[],"high":[],"low":[],"vol":[],"amount":[]}')
        case "empty":
            return success("{}")
        case "missing":
            return success('{"time":[1790000040],"open":[1],"close":[1],"high":[1],"low":[1]}')
        case "short":
            return success('{"time":[1790000040,1790000100],"vol":[0]}')
        case "html":
            return RestAnswer(HTTPStatus.OK, "text/html", FORBIDDEN_PAGE)
        case "garbage":
            return RestAnswer(HTTPStatus.OK, "application/json", bytes(range(256)))
        case _:
            return throttled()


class Throttle:
    """Counts requests per address in fixed windows; the next window always succeeds."""

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}

    def allows(self, address: str, endpoint: str, limit_factor: int, now: float) -> bool:
        """Whether one more request of that address is let through now."""
        if not self._limit:
            return True
        window = int(now / self._window)
        seen, count = self._counts.get((address, endpoint), (window, 0))
        count = count + 1 if seen == window else 1
        self._counts[address, endpoint] = (window, count)
        return count <= self._limit * limit_factor


class Rest:
    """Answers requests of REST. Owns the throttle and the lag of what it serves."""

    def __init__(self, feeds: Mapping[str, SymbolFeed], seed: int, lag: int, limit: int, window: float) -> None:
        self._feeds = feeds
        self._lag = lag
        self._rng = Random(f"rest:{seed}")
        self._throttle = Throttle(limit, window)
        self._served: dict[str, int] = {}
        self._deals_rng = Random(f"rest deals:{seed}")
        self._served_deals: dict[str, int] = {}
        self.specifications: dict[str, list[str]] = {symbol: [] for symbol in feeds}
        """Of each contract every specification that was served or pushed, in that order, each once until there was
        another."""

    def answer(
        self, target: str, address: str, now: float, now_ms: int, lag: int | None = None, stale: bool = False
    ) -> RestAnswer:
        """Answer a GET. `now` in monotonic seconds; `lag`: exact versions behind; `stale`: go back in time."""
        url = urlsplit(target)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if url.path == ECHO_PATH:
            return RestAnswer(HTTPStatus.OK, "text/plain", address.encode())
        if not url.path.startswith(PREFIX):
            return json_answer('{"success":false,"code":404,"message":"Not Found"}', HTTPStatus.NOT_FOUND)
        name, *args = unquote(url.path).removeprefix(PREFIX).rstrip("/").split("/")
        match name, args:
            case "ping", []:
                return success(str(now_ms))
            case "detail", []:
                return self._detail(query.get("symbol"))
            case "ticker", []:
                return self._ticker(query.get("symbol"))
            case "kline", [symbol]:
                feed = self._feeds.get(symbol.upper())
                return failure(1001, "Contract does not exist") if feed is None else self._klines(feed, query)
            case ("depth", [symbol]) | ("deals", [symbol]) | ("funding_rate", [symbol]):
                feed = self._feeds.get(symbol.upper())
                if feed is None:
                    return failure(1001, "Contract does not exist")
                limit = _number(query.get("limit"))
                if name == "deals":
                    return self._deals(feed, limit, lag, stale)
                if name == "funding_rate":
                    return self._funding(feed, now_ms)
                if limit != 20 and not self._throttle.allows(address, name, 1, now):
                    return throttled()
                return self._depth(feed, limit, now_ms, lag, stale)
            case "depth_commits", [symbol, count]:
                feed = self._feeds.get(symbol.upper())
                if feed is None:
                    return failure(1001, "Contract does not exist")
                if not self._throttle.allows(address, name, 2, now):
                    return throttled()
                return self._commits(feed, _number(count) or 0, lag or 0)
            case _:
                return json_answer('{"success":false,"code":404,"message":"Not Found"}', HTTPStatus.NOT_FOUND)

    def _version(self, feed: SymbolFeed, lag: int | None, stale: bool) -> int:
        book, symbol = feed.market.book, feed.spec.symbol
        version = book.version - (self._rng.randint(0, self._lag) if lag is None else lag)
        if stale and symbol in self._served:
            version = min(version, self._served[symbol] - 1 - self._rng.randint(0, 50))
        version = max(version, book.oldest())
        self._served[symbol] = version
        return version

    def _depth(self, feed: SymbolFeed, limit: int | None, now_ms: int, lag: int | None, stale: bool) -> RestAnswer:
        levels = feed.market.book.at(self._version(feed, lag, stale))
        count = min(limit or MAX_LEVELS, MAX_LEVELS)
        asks, bids = (feed.renderer.levels(side) for side in best_first(levels, count))
        return success(
            f'{{"cts":null,"asks":[{asks}],"bids":[{bids}],"version":{levels.version},"timestamp":{now_ms}}}'
        )

    def _commits(self, feed: SymbolFeed, count: int, lag: int) -> RestAnswer:
        newest_first = islice(feed.market.book.commits(), lag, lag + min(count, 1000))
        return success("[" + ",".join(feed.renderer.commit_data(change) for change in newest_first) + "]")

    def _deals(self, feed: SymbolFeed, limit: int | None, lag: int | None, stale: bool) -> RestAnswer:
        """The newest trades, newest first, up to the version of the book that REST has come to."""
        market, symbol = feed.market, feed.spec.symbol
        version = market.book.version - (self._deals_rng.randint(0, self._lag) if lag is None else lag)
        shown = [deal for deal in market.recent if deal.version <= version]
        if stale and symbol in self._served_deals:
            shown = [deal for deal in shown if deal.number < self._served_deals[symbol]]
        if shown:
            self._served_deals[symbol] = shown[-1].number
        newest = shown[::-1][: min(limit or 100, 100)]
        return success("[" + ",".join(map(feed.renderer.rest_deal, newest)) + "]")

    def _klines(self, feed: SymbolFeed, query: Mapping[str, str]) -> RestAnswer:
        """Candles of a stretch, the newest 2,000 of them, the one that runs included."""
        interval = query.get("interval", "Min1")
        if interval not in INTERVALS:
            return failure(600, "Parameter error")
        first, last = _number(query.get("start")) or 0, _number(query.get("end")) or 1 << 40
        starts = dict.fromkeys(
            candle.start - candle.start % INTERVALS[interval]
            for candle in feed.market.candles
            if first <= candle.start <= last
        )
        found = [feed.renderer.candle(feed.candle_of(start, interval), interval) for start in [*starts][-MAX_CANDLES:]]
        names = {
            "time": "t", "open": "o", "close": "c", "high": "h", "low": "l", "vol": "q", "amount": "a",
            "realOpen": "ro", "realClose": "rc", "realHigh": "rh", "realLow": "rl",
        }  # fmt: skip
        lists = (
            f'"{name}":[{",".join(candle[short] for candle in found)}]'
            for name, short in names.items()
            if all(short in candle for candle in found)
        )
        return success("{" + ",".join(lists) + "}")

    def _funding(self, feed: SymbolFeed, now_ms: int) -> RestAnswer:
        settle = (now_ms // 28_800_000 + 1) * 28_800_000
        rate = spell(feed.market.ticker.funding, 6)
        return success(
            f'{{"symbol":"{feed.spec.symbol}","fundingRate":{rate},"maxFundingRate":0.0018,'
            f'"minFundingRate":-0.0018,"collectCycle":8,"nextSettleTime":{settle},"timestamp":{now_ms}}}'
        )

    def _ticker(self, symbol: str | None) -> RestAnswer:
        if symbol is None:
            return success("[" + ",".join(f.renderer.ticker_data(f.market) for f in self._feeds.values()) + "]")
        feed = self._feeds.get(symbol.upper())
        if feed is None:
            return failure(1001, "Contract does not exist")
        return success(feed.renderer.ticker_data(feed.market))

    def _detail(self, symbol: str | None) -> RestAnswer:
        if symbol is None:
            return success("[" + ",".join(self.specification(feed) for feed in self._feeds.values()) + "]")
        feed = self._feeds.get(symbol.upper())
        return failure(1001, "Contract does not exist") if feed is None else success(self.specification(feed))

    def specification(self, feed: SymbolFeed) -> str:
        """Return a contract's specification as it is now, which is about to be served or pushed."""
        text, served = feed.specification(), self.specifications[feed.spec.symbol]
        if served[-1:] != [text]:
            served.append(text)
        return text


def best_first(levels: Levels, count: int) -> tuple[Iterable[tuple[int, int, int]], ...]:
    """Return the top `count` (tick, quantity, orders) of asks and of bids."""
    return (
        [(tick, *levels.asks[tick]) for tick in sorted(levels.asks)[:count]],
        [(tick, *levels.bids[tick]) for tick in sorted(levels.bids, reverse=True)[:count]],
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
