"""The dashboard's page in a browser: what it shows is what was sent, it keeps itself up to date and says when it
cannot, takes hostile text for text, holds many symbols, and can be used by everybody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection

from mexc_pipeline.config import Config, load
from mexc_pipeline.dashboard.publisher import Gathered
from mexc_pipeline.dashboard.server import listening
from mexc_pipeline.overview import FileSystem
from mexc_pipeline.serving import Access
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support import needs
from support.browsing import MIB, Visit, browsing
from support.collecting import Site, collecting, site_of
from support.overviews import overview_of, silent, symbol
from support.peers import free_port
from support.sessions import serving_sessions
from support.spools import configure
from support.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE = Access("127.0.0.1", 0)
SHAPES = [
    {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    needs.browser()
    with browsing() as found:
        yield found


@pytest.fixture
def visiting(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Visits a page; at the end nothing may have gone wrong with any, and nothing been asked of others."""
    visits: list[Visit] = []

    def visit(port: int, **settings: Any) -> Visit:
        visits.append(Visit(browser, f"http://127.0.0.1:{port}/", **settings))
        return visits[-1]

    yield visit
    for one in visits:
        one.close()
        assert (one.errors, one.foreign) == ([], [])


def live(visit: Visit) -> None:
    until(lambda: visit.news().startswith("Live"), what="news")


def two(config: Config) -> Gathered:
    found = overview_of(symbol("btc", "BTC_USDT", silent(45), market={"age_s": 45.0}), symbol("eth", "ETH_USDT"))
    return found, {"spool": FileSystem(10 << 30, 4 << 30)}


def test_it_shows_what_was_sent_and_goes_on_by_itself(visiting: Callable[..., Visit], tmp_path: Path) -> None:
    """With a recording; then without the dashboard, which comes back; none of it by loading the page again."""
    with Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=40.0)) as sim:
        site = site_of(tmp_path, sim)
        config = load(site.config)
        with collecting(site) as collector:
            collector.live(5)
            access = Access("127.0.0.1", free_port())
            with listening(config, access) as port:
                visit = visiting(port)
                live(visit)
                visit.page.evaluate("globalThis.here = 1")
                visit.page.get_by_role("button", name="BTC_USDT").click()
                low = max(row.seq for row in site.rows())
                shown = until(lambda: seq(visit) >= low and seq(visit), what="the newest row")
                assert shown <= max(row.seq for row in site.rows())
                until(lambda: seq(visit) > shown, what="another row")
                sent, began = len(sim.sent), time.monotonic()
                until(lambda: len(sim.sent) > sent + 100 and visit.table()[0][2] != "–", what="a rate")
                expected = (len(sim.sent) - sent) / (time.monotonic() - began)
                assert 0.3 * expected < float(visit.table()[0][2]) < 3 * expected
            until(lambda: visit.news().startswith("No news since "), what="that what is shown is old")
            assert visit.page.title() == "Old · MEXC recorder"
            with listening(config, access):
                live(visit)
                collector.kill()
                until(lambda: visit.table()[0][1].startswith("down: "), what="that the collector is gone")
                assert visit.table()[0][2:5] == ["–"] * 3
                assert visit.page.evaluate("here") == 1
        visit.errors.clear()  # the browser notes each attempt that found nobody


def seq(visit: Visit) -> int:
    return int(visit.facts().get("Newest row (seq)", "0").replace(",", ""))


EVIL = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@contextmanager
def hostile_exchange() -> Iterator[int]:
    over = threading.Event()

    def session(connection: ServerConnection) -> None:
        try:
            while not over.wait(0.1):
                connection.send(json.dumps({"channel": "rs.error", "data": EVIL, "ts": time.time_ns() // 1_000_000}))
        except ConnectionClosed:
            return

    def answer(_connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/edge":
            return None
        headers = Headers({"Content-Type": "application/json", "Content-Length": "2", "Connection": "close"})
        return Response(HTTPStatus.OK, "OK", headers, b"{}")

    with serving_sessions(session, answer, over) as port:
        yield port


def test_a_hostile_frame_is_text(visiting: Callable[..., Visit], tmp_path: Path) -> None:
    with hostile_exchange() as exchange:
        site = Site(tmp_path, f"ws://127.0.0.1:{exchange}/edge", f"http://127.0.0.1:{exchange}")
        with collecting(site) as collector:
            collector.wait(lambda said: said["exchange_said"])
            with listening(load(site.config), HERE) as port:
                visit = visiting(port)
                live(visit)
                visit.page.get_by_role("button", name="BTC_USDT").click()
                until(lambda: EVIL in visit.page.inner_text("#detail"), what="what the exchange said")
                assert "taken" not in visit.page.title()
                assert visit.page.locator("img, #detail script").count() == 0


@pytest.mark.parametrize("shape", SHAPES, ids=["wide-light", "narrow-dark"])
def test_everybody_can_use_it(shape: dict[str, Any], visiting: Callable[..., Visit], tmp_path: Path) -> None:
    config = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    with listening(config, HERE, lambda: two(config)) as port:
        visit = visiting(port, **shape)
        live(visit)
        visit.page.get_by_label("Search").fill("btc")
        assert len(visit.table()) == 1
        visit.page.get_by_label("Search").fill("")
        visit.page.get_by_role("button", name="Symbol", exact=True).press("Enter")
        assert visit.page.get_by_role("columnheader", name="Symbol").get_attribute("aria-sort") == "ascending"
        figures = [row[3:5] for row in visit.table()]
        assert figures == [["12.5 (old)", "45 s (old)"], ["12.5", "0.4 s"]]
        visit.page.locator("#rows button").first.press("Enter")
        until(lambda: "no market frame for 45 s" in visit.page.inner_text("#detail"), what="details")
        assert "mexc-pipeline probe shows what the exchange sends" in visit.page.inner_text("#detail")
        assert visit.findings() == []
        assert not visit.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert visit.page.url.endswith("#btc")
        visit.page.keyboard.press("Escape")
        assert visit.page.locator("#detail").count() == 0
        assert visit.page.evaluate("document.activeElement.textContent") == "BTC_USDT"


def many(config: Config) -> Gathered:
    symbols = [
        symbol(one.id, one.name, *([silent(60)] if number % 100 == 7 else []), frames=number)
        for number, one in enumerate(config.symbols)
    ]
    return overview_of(*symbols), {}


def test_many_symbols(visiting: Callable[..., Visit], tmp_path: Path) -> None:
    names = [f"S{number:04}X_USDT" for number in range(1200)]
    config = configure(tmp_path, *names)
    with listening(config, HERE, lambda: many(config)) as port:
        visit = visiting(port)
        until(lambda: visit.page.locator("#rows tr").count() == 1200, what="a row for each")
        assert visit.spent_s() < 1, "processor time until there is something to read"
        live(visit)
        table = visit.table()
        assert [row[1] for row in table[:13]] == ["silent: no market frame for 60 s"] * 12 + ["live"]
        assert [row[0] for row in table[12:]] == [name for n, name in enumerate(names) if n % 100 != 7]
        by_symbol = visit.page.locator("#columns button").first
        by_symbol.click()
        assert [row[0] for row in visit.table()] == names
        by_symbol.click()
        assert visit.table()[0][0] == names[-1]
        visit.page.locator("#search").fill("silent s01")
        assert [row[0] for row in visit.table()] == ["S0107X_USDT"]
        visit.page.locator("#search").fill("")
        visit.page.locator("#faults").check()
        assert len(visit.table()) == 12
        visit.page.locator("#faults").uncheck()
        assert visit.memory() < 100 * MIB


def test_a_wrong_password_shows_nothing(visiting: Callable[..., Visit], tmp_path: Path) -> None:
    config = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    secret = tmp_path / "password"
    secret.write_text("sesame\n")
    secret.chmod(0o600)
    with listening(config, Access("127.0.0.1", 0, password_file=secret), lambda: two(config)) as port:
        wrong = visiting(port, http_credentials={"username": "me", "password": "open"})
        assert wrong.answer is not None
        assert wrong.answer.status == 401
        assert "BTC" not in wrong.page.content()
        wrong.close()
        wrong.errors.clear()  # the browser notes the refusal, also late
        right = visiting(port, http_credentials={"username": "me", "password": "sesame"})
        live(right)
        assert right.table()[0][0] == "BTC_USDT"
