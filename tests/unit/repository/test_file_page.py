"""The page on what is in a file shows real frames, each under its type, and names every key of the metadata."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from mexc_pipeline.events import read as read_event
from mexc_pipeline.exchange import candles
from mexc_pipeline.exchange.contracts import contract_size, contracts_in
from mexc_pipeline.exchange.options import Channels
from mexc_pipeline.exchange.protocol import Classifier, subscriptions
from mexc_pipeline.exchange.rest import version_of
from mexc_pipeline.exchange.trades import is_trade
from mexc_pipeline.export import main
from mexc_pipeline.export.parquet import SCHEMA, metadata
from mexc_pipeline.rows import MT_NAMES, Frame
from mexc_pipeline.run.account import Closing, Line
from mexc_pipeline.run.table import closing_table
from mexc_pipeline.simulator.samples import frames as real_frames
from support.repository import ROOT
from support.spools import CANDLES, DETAIL, SECOND, T0, configure, open_spool

PAGE = (ROOT / "docs" / "what-is-in-a-file.md").read_text()
SHOWN = re.findall(r"^```json (\w+)\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
OF_REST = [(mt, text) for mt, text in SHOWN if mt == "r" or (mt == "c" and '"channel"' not in text)]
OF_SOCKET = [(mt, text) for mt, text in SHOWN if mt != "ev" and (mt, text) not in OF_REST]
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
    assert {mt for mt, _ in SHOWN} == set(MT_NAMES.values())
    assert re.findall(r"^### `(\w+)`", PAGE, re.MULTILINE) == [
        "t", "d", "dp", "f", "i", "p", "k", "c", "x", "dl", "r", "ev"
    ]  # fmt: skip
    assert all(read_event(text.encode()) for mt, text in SHOWN if mt == "ev")


def test_what_rest_gives_is_real_or_said_not_to_be_and_read_as_the_kind_it_stands_under() -> None:
    contract, commit, trade, answer = (text.encode() for _, text in OF_REST)
    assert (contract, answer) == (DETAIL.encode(), CANDLES.encode())
    assert contracts_in(b"[%s]" % contract).specifications == {"BTC_USDT": contract}
    assert contract_size(contract) == Decimal("0.0001")
    assert (version_of(commit), is_trade(commit), candles.fetched(commit)) == (8752808003, False, None)
    assert (is_trade(trade), candles.fetched(trade)) == (True, None)
    found = candles.fetched(answer)
    assert found is not None
    assert [candle.volume for candle in found] == [936229, 610923]
    assert all(candle.real for candle in found)
    assert "No capture of this and the next kind is public" in PAGE.partition(commit.decode())[0][-200:]


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
    config = configure(tmp_path, period="1m")
    spool = open_spool(config)
    spool.append([Frame(T0 + mt, None, mt, b'{"contractSize":1}') for mt in MT_NAMES])
    spool.tick(T0 + 60 * SECOND)
    spool.close()
    assert main(config).ok
    (path,) = config.export_dir.glob("*.parquet")
    named = set(re.findall(r"`mexc\.(\w+)`", PAGE))
    assert named - {"copy"} == set(metadata(path))


@pytest.mark.parametrize("page", ["README.md", "docs/user-guide.md", "docs/reading.md"])
def test_the_table_of_columns_is_the_schema(page: str) -> None:
    text = (ROOT / page).read_text()
    head = re.search(r"^\| column \| type[^|]*\| meaning \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert head is not None
    rows = [row.split(" | ") for row in head[1].splitlines()]
    types = {"string": "string", "uint64": "uint64"}
    said = {row[0].strip("|` "): row[1] for row in rows}
    assert list(said) == SCHEMA.names
    for name, shown in said.items():
        kind = str(SCHEMA.field(name).type)
        if kind.startswith("dictionary"):
            assert shown == "dictionary&lt;string&gt;"
        else:
            assert shown == types.get(kind, kind.replace("tz=", ""))
    (meaning,) = (row[2] for row in rows if row[0] == "| `mt`")
    assert set(re.findall(r"`(\w+)`", meaning)) >= set(MT_NAMES.values())


def test_the_table_of_a_demo_has_the_columns_that_one_has() -> None:
    """Each file has the contract's specification."""
    text = (ROOT / "README.md").read_text()
    shown = text[text.index("symbol    period") :].partition("\n```\n")[0].splitlines()
    columns, rows = shown[0].split(), [line.split() for line in shown[2:] if "verified" in line and "USDT" in line]
    types = columns[2 : columns.index("seq")]
    line = Line(
        id="btc", symbol="BTC_USDT", period="20261127083130", part=None, counts={"t": 1, "c": 1}, first_seq=1,
        last_seq=2, received=2, stored=2, exported=2, bytes=2, ratio=1.0, digest="", file="", verdict="verified",
    )  # fmt: skip
    assert columns == [str(column.header) for column in closing_table(Closing([line], [])).columns]
    assert rows
    for row in rows:
        counts = dict(zip(types, map(int, row[2:]), strict=False))
        assert counts["c"]
        assert sum(counts.values()) == int(row[columns.index("received")])
