"""The live table of a run on terminals of every width: whole columns go, never a name or a digit."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from mexc_pipeline.run.display import Display
from mexc_pipeline.run.watch import Overview, View

SYMBOLS = ("BTC_USDT", "CHEEMS_USDT")
FAULT = "no market frame for 75 s: the exchange said: too many subscriptions on one connection"


def shown(monkeypatch: pytest.MonkeyPatch, width: int) -> list[str]:
    """What a terminal of so many columns gets."""
    page = io.StringIO()
    views = tuple(
        View(
            f"id{n}",
            symbol,
            "connecting",
            rows={"t": 12_345, "d": 23_456, "dp": 345_678, "ev": 9},
            rate=1234.5,
            last_seq=9_412_345,
            frame_age_s=12.3,
            segment="20261122T030000Z.sqlite",
            backlog=1_234,
            faults=(FAULT,) if n else (),
        )
        for n, symbol in enumerate(SYMBOLS)
    )
    display = Display()
    console = Console(file=page, force_terminal=True, color_system=None, width=width, height=40, soft_wrap=True)
    monkeypatch.setattr(display, "_console", console)
    display.start()
    display.show(Overview(views, "ok"), {"id0": 7}, "recording for 12 s, Ctrl-C ends")
    drawn = page.getvalue()
    display.close()
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).splitlines()]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 130, 200])
def test_a_live_table_that_is_too_wide_loses_whole_columns(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = shown(monkeypatch, width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    at = next(n for n, line in enumerate(lines) if line.split()[:2] == ["symbol", "state"])
    cells = {
        "frames": "381,479", "frames/s": "1234.5", "t": "12,345", "d": "23,456", "dp": "345,678", "dl": "0", "ev": "9",
        "r": "0", "seq": "9412345", "last frame": "12.3 s", "backlog": "1,234", "segment": "20261122T030000Z",
    }  # fmt: skip
    headers = re.split(r"\s{1,}(?!frame\b)", lines[at].strip())
    stay = [cell for name, cell in cells.items() if name in headers]
    files = ["7"] if "files" in headers else []
    assert lines[at + 2].split() == " ".join([SYMBOLS[0], "connecting", *stay, *files]).split()
    assert lines[at + 3].split()[:2] == [SYMBOLS[1], "connecting"]
    assert "last frame" in headers
    if width >= 80:
        assert {"frames", "seq", "backlog"} <= set(headers)
    if width >= 200:
        assert set(headers) == {"symbol", "state", *cells, "files"}


@pytest.mark.parametrize("width", [40, 80])
def test_what_is_wrong_is_folded_below_the_live_table(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    text = " ".join(" ".join(shown(monkeypatch, width)).split())
    assert f"{SYMBOLS[1]}: {FAULT}" in text
