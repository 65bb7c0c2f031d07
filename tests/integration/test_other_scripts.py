"""A contract whose name is of another script is recorded, repaired and exported like any other."""

from __future__ import annotations

import json
from pathlib import Path

from mexc_pipeline import read
from mexc_pipeline.config import load
from mexc_pipeline.export import main
from mexc_pipeline.rows import Mt
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from support.collecting import collecting, site_of
from support.spooled import check, named

NAME = "币安人生_USDT"


def test_from_the_socket_and_rest_to_the_file(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(symbols=(NAME,), rate=100)) as sim:
        extra = f'[channels]\ndepth = "merged"\n[symbol."{NAME}"]\nid = "bian"\n'
        site = site_of(tmp_path, sim, symbols=(NAME,), extra=extra)
        with collecting(site, "bian") as bian:
            bian.wait(lambda s: s["rows"]["t"] >= 3 and s["listing"] == "listed")
            sim.inject(Fault("version_gap"))
            bian.wait(lambda s: s["rows"]["r"] >= 1)
            assert bian.stop() == 0
        rows = check(site.spool("bian"))
        sent = [frame.payload for frame in sim.sent if frame.symbol == NAME]
        assert [row.m for row in rows if row.mt == Mt.TICKER] == [m for m in sent if b'"push.ticker"' in m]
        assert named(rows, "repaired")
    config = load(site.config)
    report = main(config, once=True)
    assert report.ok
    frames = read.frames(NAME, export_dir=config.export_dir)
    assert len(frames) == len(rows) + 1, "and the row that the cut ends with"
    assert json.loads(frames[frames["mt"] == "t"]["m"].iloc[0])["symbol"] == NAME
