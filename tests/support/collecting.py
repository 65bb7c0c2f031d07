"""A collector process recording from a simulator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.simulator import SentFrame, Simulator
from support.oracle import expected
from support.spooled import FRAMES, Stored, events, is_fetched, named, read_rows
from support.standin import stand_in
from support.waiting import until

IMPATIENT = "import mexc_pipeline.spool.last_seq as last_seq; last_seq.ANSWER_S = 5.0"
"""For a collector's ``first``: where its store never answers it waits for it 5 s, not 35 s."""


class Site:
    """One configuration file and its folders."""

    def __init__(
        self,
        folder: Path,
        websocket: str,
        rest: str,
        *,
        period: str = "1h",
        ping: str = "15s",
        extra: str = "",
        exchange: str = "",
        candles: str = "off",
        symbols: tuple[str, ...] = ("BTC_USDT",),
    ) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.data = folder / "data"
        self.exports = folder / "exports"
        self.config.write_text(
            f"symbols = {json.dumps(symbols)}\n"
            f'data_dir = "{self.data}"\nexport_dir = "{self.exports}"\nperiod = "{period}"\n'
            f'[checks]\ncandles = "{candles}"\n'
            f'[exchange]\nwebsocket = "{websocket}"\nrest = "{rest}"\nping_interval = "{ping}"\n{exchange}\n{extra}'
        )

    def rows(self, symbol_id: str = "btc") -> list[Stored]:
        return read_rows(self.data / "spool" / symbol_id)

    def spool(self, symbol_id: str = "btc") -> Path:
        return self.data / "spool" / symbol_id


def site_of(folder: Path, sim: Simulator, **settings: Any) -> Site:
    return Site(folder, sim.ws_url, sim.rest_url, **settings)


class Collector:
    """A running ``mexc-pipeline collect``; unless it is ``alone``, with a store that knows nothing for its start.
    ``first`` is Python that its process runs before anything else."""

    def __init__(
        self,
        site: Site,
        symbol_id: str = "btc",
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        *,
        alone: bool = False,
        first: str = "",
    ) -> None:
        self._store = None if alone else stand_in(site.data, [symbol_id])
        self.site = site
        self.id = symbol_id
        self.log = site.folder / f"{symbol_id}.log"
        module = "import runpy; runpy.run_module('mexc_pipeline', run_name='__main__')"
        program = ["-c", f"{first}\n{module}"] if first else ["-m", "mexc_pipeline"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, *program, "--config", str(site.config), "collect", symbol_id],
                stdout=log,
                stderr=log,
                env={**os.environ, "MEXC_PIPELINE_LOG": "json", **(env or {})},
                start_new_session=True,
            )

    def status(self) -> dict[str, Any] | None:
        """What it says of itself; None while it does not answer."""
        if self.process.poll() is not None:
            raise AssertionError(f"the collector ended with {self.process.returncode}:\n{self.said()}")
        try:
            return ask(self.site.data / "control" / f"{self.id}.sock", "status", timeout_s=5)
        except ControlError:
            return None

    def wait(self, wanted: Callable[[dict[str, Any]], Any], timeout_s: float = 40.0) -> dict[str, Any]:
        """Its status once it satisfies ``wanted``."""

        def probe() -> dict[str, Any] | None:
            status = self.status()
            return status if status is not None and wanted(status) else None

        found = until(probe, timeout_s, "the wanted status")
        assert found is not None
        return found

    def live(self, frames: int = 1) -> dict[str, Any]:
        """Wait until it has committed and numbered that many frames since its start."""
        return self.wait(lambda s: sum(s["rows"][name] for name in ("t", "d", "dp")) >= frames and not s["pending"])

    def event(self, name: str, timeout_s: float = 40.0, count: int = 1) -> dict[str, Any]:
        """Wait for the ``count``-th event of that name in the spool and return it."""
        until(lambda: len(named(self.site.rows(self.id), name)) >= count, timeout_s, f"event {name}")
        return named(self.site.rows(self.id), name)[count - 1]

    def stop(self, within_s: float = 5.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within_s)
        finally:
            self._leave_store()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)
        self._leave_store()

    def _leave_store(self) -> None:
        if self._store is not None:
            self._store.close()

    def said(self) -> str:
        return self.log.read_text()


@contextmanager
def collecting(
    site: Site, symbol_id: str = "btc", env: dict[str, str] | None = None, *, alone: bool = False, first: str = ""
) -> Iterator[Collector]:
    """A collector that is killed at the end where it still runs."""
    collector = Collector(site, symbol_id, env, alone=alone, first=first)
    try:
        yield collector
    finally:
        collector.kill()


def frames(rows: list[Stored]) -> list[tuple[int, bytes]]:
    """Type and bytes of the rows that are frames."""
    return [(r.mt, r.m) for r in rows if r.mt in FRAMES and not is_fetched(r.mt, r.m)]


def wanted(
    sent: list[SentFrame], symbol: str = "BTC_USDT", channels: dict[str, int] | None = None
) -> list[tuple[int, bytes]]:
    """Type and bytes of the rows that frames sent whole must become, by the oracle."""
    rows = [expected(f.opcode, f.payload, symbol, channels) for f in sent if f.whole]
    return [(row.mt, row.m) for row in rows if row is not None]


def check_whole(
    rows: list[Stored],
    sent: list[SentFrame],
    symbol: str = "BTC_USDT",
    channels: dict[str, int] | None = None,
) -> None:
    """Assert that the rows of one connection, ended by an orderly stop, hold every frame that was sent on it.

    Where the simulator was too busy to answer the close in time (the machine is), its last frames met a closed socket.
    """
    rows = [r for r in rows if not r.m.startswith(b'{"event":"sealed"')]
    got, want = frames(rows), wanted(sent, symbol, channels)
    if [e.get("reason") for e in events(rows)[-2:-1]] == ["stopped"]:
        assert got == want
    else:
        assert got == want[: len(got)]
        assert len(want) - len(got) < 50


def check_times(rows: list[Stored], symbol: str = "BTC_USDT") -> None:
    """Assert that ``ts`` is the frame's own where it has one, else ``rx`` in whole milliseconds."""
    for row in rows:
        own = expected(1, row.m, symbol) if row.mt in FRAMES else None
        assert row.ts == (row.rx // 1_000_000 if own is None or own.ts is None else own.ts)
