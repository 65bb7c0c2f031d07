"""The bench's own arithmetic, and that its check for lost frames can fail. The measuring itself is ``make bench``."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from bench import child, findings, texts
from bench.material import open_spool
from bench.measure import Spread, Window, cpu_ns, quantile, rss_mb
from bench.model import Report, Result
from bench.page import KEPT, ROOT, pages, tables
from bench.paper import RATE, need
from bench.rows.ingest import differing
from bench.sizing import dozen_mb, per_symbol
from bench.table import lines
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.simulator.sentlog import ConnectionLog
from support.waiting import until

SYMBOLS = [
    {
        "symbols": n,
        "cores": n / 100,
        "cores with ClickHouse": n / 80,
        "% of a core per symbol": 1.0,
        "collector µs/frame": 600.0,
        "store µs/frame": 400.0,
        "ClickHouse µs/frame": 300.0,
        "frames/s": n * RATE,
        "collectors MB": n * 30.0,
        "store MB": 60 + n,
    }
    for n in (3, 50)
]


def report() -> Report:
    """With a figure in every row, and those that the page calculates with."""
    made = Report({"revision": "abc", "at": "now"})
    for name in texts.ROWS:
        result = made.results[name] = Result(name, name.title(), revision="abc", at="now")
        result.add("speed", "ours", [3.0, 1.0, 2.0], "rows/s", at_least=2)
    made.results["fifty"].curves["symbols"] = SYMBOLS
    for row, what, value in (
        ("export", "raw JSON divided by the file", 10.0),
        ("export", "end to end", 200_000.0),
        ("export", "mean frame", 500.0),
        ("live", "CPU of a collector", 400.0),
        ("ingest", "20,000 frames/s: CPU of collector", 20.0),
        ("ingest", "flat out", 50_000.0),
        ("ingest", "flat out: CPU of collector", 18.0),
    ):
        made.results[row].add(what, "ours", value, "")
    return made


def test_a_figure_is_the_median_and_knows_its_target() -> None:
    result = Result("row", "Row")
    result.add("up", "ours", [5, 1, 3], "rows/s", at_least=4)
    result.add("down", "ours", 3, "ms", at_most=3)
    up, down = result.figures
    assert (up.value, up.low, up.high, up.takes, up.target, up.met) == (3, 1, 5, 3, "≥ 4", False)
    assert (down.target, down.met) == ("≤ 3", True)
    assert result.value("up") == 3
    assert result.value("up", "theirs") is None
    assert any("MISSED" in line for line in lines(result))
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread.of([])


def test_a_report_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    report().save(tmp_path / "new" / "bench.json")
    assert Report.load(tmp_path / "new" / "bench.json") == report()


def test_quantiles() -> None:
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile(range(1, 101), 0.99) == 100
    assert quantile([7], 0.99) == 7


def test_the_paper_calculation() -> None:
    found = need(report(), 1000)
    assert found.frames == 10_000
    assert found.cores == pytest.approx(6 + 4 + 3)
    assert found.memory_gb == pytest.approx((1000 * 31 + 63) / 1024)
    assert found.spool_gb == pytest.approx(10_000 * 500 * 1.15 * 86_400 / 1e9)
    assert found.files_gb_day == pytest.approx(10_000 * 50 * 86_400 / 1e9)
    assert found.symbols_per_store == pytest.approx(250)
    assert found.export_s == pytest.approx(180)


def test_the_tables_have_every_row_and_are_not_written_without_one() -> None:
    text = tables(report())
    assert all(heading in text for heading in ("## Export", "## Codec", "1,000 symbols", "| 40 | 400 |"))
    assert "| speed | ours | 2 (1–3) rows/s | ≥ 2 | met |" in text
    less = report()
    del less.results["swap"]
    with pytest.raises(KeyError):
        tables(less)


@pytest.mark.parametrize("name", ["docs/performance.md", "docs/performance/tables.md", "docs/sizing.md", "README.md"])
def test_the_pages_are_those_that_the_kept_results_make(name: str) -> None:
    assert pages(Report.load(ROOT / KEPT))[name] == (ROOT / name).read_text(), "make performance writes them"


def test_the_machine_that_is_advised_carries_a_dozen_symbols() -> None:
    page = (ROOT / "docs" / "sizing.md").read_text()
    (advised,) = re.findall(
        r"^2 cores, (\d+) GB of memory and (\d+) GB of disk carry a dozen symbols", page, re.MULTILINE
    )
    kept = Report.load(ROOT / KEPT)
    of_one = per_symbol(kept)
    (spool,), (files,) = ([float(of_one[name][0].split()[0])] for name in ("spool, 24 hours kept", "files"))
    assert dozen_mb(kept) / 1e3 < int(advised[0])
    assert 12 * (spool + 30 * files) < int(advised[1])
    assert need(kept, 1).symbols_per_vm > 12


_MEASURED = re.compile(r"\d[\d.,]*\s?(?:ns|µs|ms|s|KB|MB|GB|MiB|%|×|rows/s|cores?|times)(?!\w)")


@pytest.mark.parametrize("module", [findings, texts])
def test_no_figure_is_typed(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) for part in ast.walk(node)}
    words = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in inside]
    typed = [found for text in words if isinstance(text, str) for found in _MEASURED.findall(text)]
    assert any(isinstance(text, str) and len(text) > 200 for text in words)
    assert typed == []


def test_findings_follow_the_results_and_need_every_figure() -> None:
    kept = Report.load(ROOT / KEPT)
    before = findings.findings(kept)
    swap = kept.results["swap"].figures.pop(0)
    with pytest.raises(KeyError, match=f"swap: '{swap.what}' of {swap.who}"):
        findings.findings(kept)
    kept.results["swap"].figures.insert(0, swap)
    export = kept.results["export"]
    ours = next(f for f in export.figures if (f.what, f.who) == ("end to end", "ours"))
    export.figures.remove(ours)
    with pytest.raises(ValueError, match="export has no figure 'end to end'"):
        findings.findings(kept)
    export.add("end to end", "ours", 123_456, "rows/s", at_least=200_000)
    after = findings.findings(kept)
    assert "at 123,000 rows/s" in after
    assert "at 123,000 rows/s" not in before
    assert "- end to end: 123,000 rows/s, asked for ≥ 200,000" in after
    assert findings.evidence(kept)["a file is proven quickly"] == "123,000 rows/s"


def test_cpu_and_memory_of_a_process() -> None:
    window = Window({"me": os.getpid(), "nobody": 2**22})
    before = cpu_ns(os.getpid())
    until(lambda: sum(range(300_000)) and cpu_ns(os.getpid()) > before, what="the scheduler to count what was run")
    spent = window.close()
    assert 0 < spent.of("me") <= spent.seconds * (os.cpu_count() or 1) * 1.5
    assert spent.of("nobody") == 0
    assert cpu_ns(2**22) == 0
    assert rss_mb(os.getpid()) > 5
    assert rss_mb(2**22) == 0


SENT = [b'{"n":%d}' % n for n in range(5)]


@pytest.mark.parametrize(
    ("recorded", "wrong"),
    [
        (SENT, 0),
        (SENT[:-1], 1),
        ([*SENT, SENT[0]], 1),
        ([*SENT[:2], b"{}", *SENT[3:]], 1),
        ([SENT[1], SENT[0], *SENT[2:]], 2),
    ],
    ids=["all", "lost", "repeated", "altered", "out of order"],
)
def test_what_was_lost_repeated_or_altered_is_counted(tmp_path: Path, recorded: Sequence[bytes], wrong: int) -> None:
    (tmp_path / "sent").mkdir()
    log = ConnectionLog(1, "peer", 0, keep=False, folder=tmp_path / "sent")
    log.frame(0, 1, "", b'{"channel":"pong"}')
    for payload in SENT:
        log.frame(0, 1, "BTC_USDT", payload)
    log.end(0, "over")
    spool = open_spool(tmp_path / "btc")
    rx = 1_800_000_000 * 10**9
    spool.append([Frame(rx, None, int(Mt.EVENT), b"{}"), *(Frame(rx, None, int(Mt.DEAL), m) for m in recorded)])
    spool.close()
    assert differing(tmp_path / "btc", tmp_path / "sent") == wrong


def test_a_commands_peak_of_memory_is_its_own() -> None:
    ballast = bytearray(200 << 20)  # written, so it is resident while the command is started
    done = child.run(["-c", "print('said')"])
    assert len(ballast) >> 20 > done.peak_mb
    assert done.output == "said\n"
    with pytest.raises(RuntimeError, match="ended with 3: why"):
        child.run(["-c", "print('why'); raise SystemExit(3)"])
