"""The page on what is in a file shows real frames, each under its type, and names every key of the metadata."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mexc_pipeline.events import read as read_event
from mexc_pipeline.exchange.options import Channels
from mexc_pipeline.exchange.protocol import Classifier, subscriptions
from mexc_pipeline.export import main
from mexc_pipeline.export.parquet import metadata
from mexc_pipeline.rows import MT_NAMES, Frame
from mexc_pipeline.simulator.samples import frames as real_frames
from support.repository import ROOT
from support.spools import T0, configure, open_spool

PAGE = (ROOT / "docs" / "what-is-in-a-file.md").read_text()
SHOWN = re.findall(r"^```json (\w+)\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
OF_SOCKET = [(mt, text) for mt, text in SHOWN if mt != "ev"]
EVERYTHING = Channels(
    depth=("full20", "merged"),
    funding=True,
    index_price=True,
    fair_price=True,
    kline="Min1",
    contract=True,
    extra=("sub.depth.step",),
)


def test_each_type_is_shown() -> None:
    assert {mt for mt, _ in SHOWN} == set(MT_NAMES.values()) - {"r"}
    assert re.findall(r"^### `(\w+)`", PAGE, re.MULTILINE) == [
        "t", "d", "dp", "f", "i", "p", "k", "c", "x", "dl", "r", "ev"
    ]  # fmt: skip
    assert all(read_event(text.encode()) for mt, text in SHOWN if mt == "ev")


@pytest.mark.parametrize(("mt", "text"), OF_SOCKET, ids=[mt for mt, _ in OF_SOCKET])
def test_a_frame_is_real_and_of_the_type_under_which_it_stands(mt: str, text: str) -> None:
    frame = text.encode()
    symbol = json.loads(text).get("symbol", "BTC_USDT")
    assert MT_NAMES[Classifier(symbol, subscriptions(symbol, EVERYTHING)).classify(1, frame).mt] == mt
    if mt == "c":
        assert "No capture of this frame is public" in PAGE.partition(text)[0][-200:]
    else:
        assert frame in real_frames()


def test_every_key_of_the_metadata_is_explained(tmp_path: Path) -> None:
    config = configure(tmp_path)
    spool = open_spool(config)
    spool.append([Frame(T0 + mt, None, mt, b'{"contractSize":1}') for mt in MT_NAMES])
    spool.cut(T0 + 100)
    spool.close()
    assert main(config).ok
    (path,) = config.export_dir.glob("*.parquet")
    named = set(re.findall(r"`mexc\.(\w+)`", PAGE))
    assert named - {"copy"} == set(metadata(path))
