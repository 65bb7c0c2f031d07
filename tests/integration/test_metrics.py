"""``mexc-pipeline metrics`` beside a real collector: it counts what lies in the spool, what changes shows at the next
scrape, and it ends in order."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mexc_pipeline.rows import MT_NAMES
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from mexc_pipeline.simulator.faults import Fault
from support.collecting import collecting, site_of
from support.served import answering
from support.waiting import until

BTC = 'id="btc",symbol="BTC_USDT"'


def scraped(address: str) -> dict[str, float]:
    """Samples by name and labels as they are written."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    assert list(text_string_to_metric_families(text))
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def healthz(address: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=60.0)) as simulator:
        yield simulator


def test_the_numbers_are_those_of_the_spool(sim: Simulator, tmp_path: Path) -> None:
    site = site_of(tmp_path, sim)
    with answering(site, "metrics") as port:
        address = f"http://127.0.0.1:{port}"
        found = scraped(address)
        assert found['mexc_scrape_success{part="btc"}'] == 0
        assert found[f"mexc_symbol_healthy{{{BTC}}}"] == 0
        with collecting(site) as collector:
            collector.live(20)
            before = {row.seq: row for row in site.rows()}
            found = scraped(address)
            after = site.rows()
            assert found['mexc_scrape_success{part="btc"}'] == 1
            for mt, kind in MT_NAMES.items():
                count = found[f'mexc_rows_total{{process="btc",type="{kind}"}}']
                low, high = (Counter(row.mt for row in rows)[mt] for rows in (before.values(), after))
                assert low - (kind == "ev") <= count <= high, f"{kind}: the first event is no commit's"
            sim.inject(Fault(kind="shape", value="ts=text", channel="deal", seconds=3600))
            until(
                lambda: scraped(address).get('mexc_dead_letters_total{process="btc",reason="ts"}'), what="dead letters"
            )
            sim.inject(Fault(kind="close"))
            closed = 'mexc_connection_ends_total{process="btc",reason="closed"}'
            until(lambda: scraped(address).get(closed), what="the end of a connection")
            found = scraped(address)
            assert found[f"mexc_reconnects_total{{{BTC}}}"] >= 1
            assert found['mexc_durable_seconds_bucket{le="+Inf",process="btc"}'] > 0
            assert collector.stop() == 0
        found = scraped(address)
        assert found['mexc_scrape_success{part="btc"}'] == 0
        assert f"mexc_frames_total{{{BTC}}}" not in found
        status, said = healthz(address)
        assert (status, b'"down"' in said) == (503, True)
