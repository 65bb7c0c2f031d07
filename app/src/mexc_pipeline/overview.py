"""What every part on this host says of itself, and how it is: asked for over the control sockets, all at a time and
under one deadline, so that a part that hangs keeps nobody from the others. ``status``, metrics and the dashboard are
made of it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mexc_pipeline import health, running
from mexc_pipeline.config import Config, Symbol
from mexc_pipeline.control import ControlError, NotRunningError, UnseenError, ask
from mexc_pipeline.paths import device, existing
from mexc_pipeline.spool.disk_level import Usage
from mexc_pipeline.spool.ending import stopped_at
from mexc_pipeline.spool.segment import ended_ns
from mexc_pipeline.spool.walk import exported_files, in_order

DEADLINE_S = 5.0
AT_A_TIME = 32
"""Parts that are asked at a time: each answers within milliseconds, unless it hangs."""
_LEAST_S = 0.05
"""What the last to be asked is given, however long the others took."""


class FileSystem(NamedTuple):
    """One file system: bytes in all, and bytes that this user may still fill."""

    total: int
    free: int


def gather(config: Config, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
    """What every part says of itself and how it is: ``ok``, ``recorded`` (whether anything ever was), ``store``,
    ``export`` (its disk), ``symbols`` (each with ``health``, collector, store and last export). What does not answer
    within ``deadline_s`` has a ``problem``, and a ``todo`` where that is not to start it."""
    deadline = time.monotonic() + deadline_s
    with ThreadPoolExecutor(min(AT_A_TIME, 1 + len(config.symbols)), "asking") as pool:
        asked_store = pool.submit(_status_of, config, "store", None, deadline)
        asked = [pool.submit(_symbol, config, symbol, deadline) for symbol in config.symbols]
        store = asked_store.result()
        told = [one.result() for one in asked]
    loaded: Mapping[str, Any] = store.get("symbols") or {}
    export = _export_disk(config)
    faults = not (health.of_store(store).ok and export.ok)
    symbols: list[dict[str, Any]] = []
    for symbol, (said, unexported_s, last) in zip(config.symbols, told, strict=True):
        found = health.of_symbol(said, loaded.get(symbol.id), silent_s=symbol.silent_s, unexported_s=unexported_s)
        faults = faults or not found.ok
        symbols.append(
            {
                "id": symbol.id,
                "symbol": symbol.name,
                "health": found.to_json(),
                "collector": said,
                "store": loaded.get(symbol.id),
                "last_export": last,
            }
        )
    return {
        "ok": not faults,
        "recorded": not _is_new(config, symbols),
        "store": {
            **{key: value for key, value in store.items() if key != "symbols"},
            "health": health.of_store(store).to_json(),
        },
        "export": {"health": export.to_json()},
        "symbols": symbols,
    }


def faults_of(found: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every fault of what was gathered with whose it is, the worst first."""
    parts = [(symbol["id"], symbol) for symbol in found["symbols"]]
    parts += [(who, found[who]) for who in ("store", "export")]
    order = [kind.value for kind in health.Kind]
    every = [(who, reason) for who, part in parts for reason in part["health"]["reasons"]]
    return sorted(every, key=lambda fault: order.index(fault[1]["kind"]))


def disks(config: Config) -> dict[str, FileSystem]:
    """The file systems of ``spool`` and ``exports``, of those that can be looked at."""
    found = {}
    for name, folder in (("spool", config.data_dir), ("exports", config.export_dir)):
        try:
            said = os.statvfs(folder)
        except OSError:
            continue  # not made yet, or not there: no number says so
        found[name] = FileSystem(said.f_blocks * said.f_frsize, said.f_bavail * said.f_frsize)
    return found


def far_end(egress: Mapping[str, Any]) -> str | None:
    """The exchange's or the proxy's address, by Tor the exit's, and the host it leads to: there may be several."""
    peer = f"exit {egress['exit']}" if "exit" in egress else egress.get("peer")
    host = urlsplit(str(egress.get("url") or "")).hostname
    return f"{host} ({peer})" if peer and host and host not in peer else peer


def behind_s(said: Mapping[str, Any], loaded: Mapping[str, Any]) -> float | None:
    """By how many seconds ClickHouse's newest row is older than the recording's; None where that cannot be told: the
    store has loaded none of these rows since its start."""
    if loaded.get("backlog") == 0:
        return 0.0
    newest, last = said.get("last_rx_ns"), loaded.get("loaded_rx_ns")
    return None if newest is None or last is None else max(0.0, (newest - last) / 1e9)


def _export_disk(config: Config) -> health.Health:
    """Of what holds ``export_dir``; where that is the spool's disk too, its collectors watch it."""
    try:
        if device(config.export_dir) != device(config.spool_dir):
            return health.of_export_disk(str(config.export_dir), Usage.of(existing(config.export_dir)).free)
    except OSError:
        pass  # what cannot be looked at is said by whoever uses it
    return health.Health("ok")


def _symbol(
    config: Config, symbol: Symbol, deadline: float
) -> tuple[dict[str, Any], float | None, dict[str, Any] | None]:
    said = _status_of(config, symbol.id, symbol, deadline)
    return said, _unexported_s(config, symbol.id, said), last_export(config, symbol.id)


def _is_new(config: Config, symbols: Sequence[Mapping[str, Any]]) -> bool:
    """Whether nothing runs here, nothing was exported and there is no spool: what cannot be looked into is not new."""
    if any("problem" not in symbol["collector"] or symbol["last_export"] for symbol in symbols):
        return False
    try:
        config.spool_dir.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _status_of(config: Config, who: str, symbol: Symbol | None, deadline: float) -> dict[str, Any]:
    try:
        left_s = max(_LEAST_S, deadline - time.monotonic())
        said = ask(config.control_dir / f"{who}.sock", "status", timeout_s=left_s)
    except NotRunningError as error:
        return {"problem": str(error), **(_stopped(config.spool_dir / symbol.id) if symbol is not None else {})}
    except UnseenError as error:
        return {"problem": error.said, "todo": error.todo}
    except ControlError as error:
        return {"problem": str(error)}
    found = running.outdated(said.get("running"), running.report(config, symbol))
    return {**said, "outdated": found and found.why, "mended_by": found and found.verb}


def _stopped(folder: Path) -> dict[str, float]:
    """``stopped_s``: for how long it has been stopped in order; nothing where it ended otherwise."""
    at_ns = stopped_at(folder)
    return {} if at_ns is None else {"stopped_s": round(max(0.0, (time.time_ns() - at_ns) / 1e9), 1)}


def _unexported_s(config: Config, symbol_id: str, collector: Mapping[str, Any]) -> float | None:
    """Seconds since the end of the oldest period in the spool that has rows and no file yet; None: each has its own.
    Who may not look into the spool goes by what the collector says of it."""
    folder, now = config.spool_dir / symbol_id, time.time_ns()
    found = in_order(folder)
    if any(one.path == folder for one in found.unreadable):
        return collector.get("unexported_s")
    waiting = [one for one in found.readable if one.state != "exported"]
    ended = [at for one in waiting if one.rows and (at := ended_ns(one, now)) is not None]
    return (now - min(ended)) / 1e9 if ended else None


def last_export(config: Config, symbol_id: str) -> dict[str, Any] | None:
    """The file of a symbol that was written last: ``file``, ``bytes`` and ``age_s`` since then; None without any."""
    stats = []
    for _, path in exported_files(config.export_dir, symbol_id):
        with suppress(OSError):  # deleted just now, or a link to nowhere
            if stat.S_ISREG((found := path.stat()).st_mode):
                stats.append((found, path.name))
    if not stats:
        return None
    newest, name = max(stats, key=lambda found: found[0].st_mtime_ns)
    return {"file": name, "bytes": newest.st_size, "age_s": round(time.time() - newest.st_mtime, 1)}
