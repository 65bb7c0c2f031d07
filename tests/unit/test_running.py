"""A process is told from what is on the disk now by what it reports of its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from mexc_pipeline import running
from mexc_pipeline.collector.recording import Recording
from mexc_pipeline.config import Config, parse
from mexc_pipeline.spool.lock import SpoolLock

BASE = """
symbols = ["BTC_USDT", "ETH_USDT"]
data_dir = "/srv/data"
export_dir = "/srv/exports"
[egress]
mode = "tor"
deployment = ["btc", "eth"]
"""


def _config(text: str = "") -> Config:
    return parse(text if "symbols" in text else BASE + text, Path("/etc/x.toml"))


def _outdated(text: str, symbol: str | None) -> running.Outdated | None:
    before, after = _config(), _config(text)
    was = running.report(before, before.symbol(symbol) if symbol else None)
    now = running.report(after, after.symbol(symbol) if symbol else None)
    return running.outdated(was, now)


def _changed(text: str, symbol: str | None) -> bool:
    return _outdated(text, symbol) is not None


@pytest.mark.parametrize("symbol", ["btc", "eth", None])
def test_the_same_configuration_is_the_same_whatever_file_it_came_from(symbol: str | None) -> None:
    assert not _changed("# a comment", symbol)


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("[symbol.BTC_USDT.channels]\nticker = false", {"btc"}),
        ('[exchange]\nping_interval = "10s"', {"btc", "eth"}),
        ("[spool]\nwarn_percent = 70", {"btc", "eth"}),
        ('[clickhouse]\nmode = "server"\nport = 9001', {None}),
        (BASE.replace("/srv/data", "/srv/other"), {"btc", "eth", None}),
        (BASE.replace("data_dir", 'period = "1m"\ndata_dir'), {"btc", "eth", None}),
        (BASE.replace("data_dir", 'spool_keep = "1h"\ndata_dir'), {"btc", "eth"}),
    ],
)
def test_a_change_concerns_who_reads_it_and_nobody_else(text: str, who: set[str | None]) -> None:
    assert {name for name in ("btc", "eth", None) if _changed(text, name)} == who


def test_a_symbol_more_restarts_the_store_and_no_running_collector() -> None:
    """The list of those who share Tor's exits is read again without a start; until then the old one is visible."""
    more = BASE.replace('"ETH_USDT"]', '"ETH_USDT", "SOL_USDT"]').replace('"eth"]', '"eth", "sol"]')
    found = [_outdated(more, name) for name in ("btc", "eth", None)]
    assert [one and one.verb for one in found] == ["reload", "reload", "restart"]
    direct = more.replace('"tor"', '"direct"')
    before, after = _config(BASE.replace('"tor"', '"direct"')), _config(direct)
    was, now = (running.report(settings, settings.symbol("btc")) for settings in (before, after))
    assert running.outdated(was, now) is None, "without Tor there is nothing to share"


def test_a_collector_that_has_read_the_list_again_says_so(tmp_path: Path) -> None:
    here = BASE.replace("/srv", str(tmp_path))
    more = here.replace('"ETH_USDT"]', '"ETH_USDT", "SOL_USDT"]').replace('"eth"]', '"eth", "sol"]')
    path = tmp_path / "config.toml"
    before, after = parse(here, path), parse(more, path)
    now = running.report(after, after.symbol("btc"))
    with SpoolLock(before.spool_dir / "btc") as lock:
        recording = Recording(before, before.symbol("btc"), lock)
        for text, verb in (("none at all", "reload"), (more, None)):
            path.write_text(text)
            recording.repartition()
            found = running.outdated(recording.running, now)
            assert (found and found.verb) == verb


def test_a_collector_of_a_version_that_does_not_tell_its_list_is_not_judged_by_it() -> None:
    settings = _config()
    now = running.report(settings, settings.symbol("btc"))
    assert running.outdated({key: now[key] for key in ("configuration", "program")}, now) is None


def test_another_installation_is_said() -> None:
    now = running.report(_config())
    assert running.outdated({**now, "program": "another"}, now) == (
        "it was started from another installation",
        "restart",
    )


def test_what_reports_nothing_is_not_judged() -> None:
    """An earlier version's process: the upgrade restarts it in any case."""
    assert running.outdated(None, running.report(_config())) is None
