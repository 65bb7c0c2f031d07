"""JSON that others may have written, damaged or nested deeper than Python follows, is never an unexpected error.

Each reader is tried as its command uses it, and what it says of such a file is one of its own words.
"""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from mexc_pipeline.config import Config, load
from mexc_pipeline.egress.uses import uses
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export import main
from mexc_pipeline.export.retention import rules
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.simulator.bundle import read_bundle
from mexc_pipeline.spool.lock import holder
from mexc_pipeline.spool.pending import Pending
from mexc_pipeline.spool.walk import exported_files, in_order
from mexc_pipeline.store.swaps import noted
from mexc_pipeline.verify import exports, ledger
from mexc_pipeline.verify.acknowledge import acknowledged
from support.repository import ROOT
from support.spools import configure, fill


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "playbooks" / "files" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


spool_copy = _script("spool_copy")
DEEP = "[" * 100_000
DAMAGE = {
    "deep": DEEP,
    "deep inside": f'{{"moments":{DEEP}',
    "deep and whole": "[" * 50_000 + "]" * 50_000,
    "infinite": '{"moments":[],"first_rx":Infinity,"buffered":Infinity,"file":"f","first_seq":1,"last_seq":Infinity}',
    "long": "9" * 5000,
    "list": "[]",
    "null": "null",
    "text": '"x"',
    "none": "\x00\xff",
    "empty": "",
}


def _on_account(config: Config, damage: str) -> None:
    for _, path in exported_files(config.export_dir):
        said = pq.read_metadata(path).metadata
        kept = {key: value for key, value in said.items() if key.startswith(b"mexc.")}
        kept[b"mexc.account"] = damage.encode(errors="surrogateescape")
        pq.write_table(pq.read_table(path).replace_schema_metadata(kept), path)
    failed = [f.text for f in exports(config).findings if not f.ok]
    assert any("its account" in text for text in failed), failed
    assert {e.verdict for e in ledger(config)} == {"differs"}


def _on_acknowledged(config: Config, damage: str) -> None:
    (config.data_dir / "acknowledged.jsonl").write_text(damage + "\n", errors="surrogateescape")
    said = acknowledged(config)
    assert (said.entries, len(said.troubles)) == ([], 1)


def _on_swaps(config: Config, damage: str) -> None:
    (config.data_dir / "store").mkdir()
    path = config.data_dir / "store" / "btc.swaps"
    path.write_text('{"file":"a","buffered":3}\n' + damage, errors="surrogateescape")
    assert noted(config.data_dir, "btc") == {"a": 3}


def _on_lock(config: Config, damage: str) -> None:
    folder = config.spool_dir / "btc"
    (folder / "lock").write_text(damage, errors="surrogateescape")
    assert holder(folder) in (None, {}) or damage == DAMAGE["infinite"]


def _on_segment(config: Config, damage: str) -> None:
    segment, *_ = sorted((config.spool_dir / "btc").glob("*.sqlite"))
    for key in ("account", "exported", "id", "counts"):
        with sqlite3.connect(segment) as db:
            (before,) = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            db.execute("UPDATE meta SET value = ? WHERE key = ?", (damage, key))
            db.execute("DELETE FROM meta WHERE key = 'check'")  # with it, no value is looked at
        db.close()
        found = in_order(config.spool_dir / "btc")
        assert segment in [path for path, _ in found.unreadable]
        with sqlite3.connect(segment) as db:
            db.execute("UPDATE meta SET value = ? WHERE key = ?", (before, key))
        db.close()


def _on_pending(config: Config, damage: str) -> None:
    folder = config.spool_dir / "btc"
    Pending(folder, "BTC_USDT").close()
    with sqlite3.connect(folder / "pending.db") as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'id'", (damage,))
        db.execute("DELETE FROM meta WHERE key = 'check'")
    db.close()
    again = Pending(folder, "BTC_USDT")
    again.close()
    assert again.set_apart or isinstance(json.loads(damage), str)


def _on_attempts(config: Config, damage: str) -> None:
    path = config.data_dir / "attempts"
    path.write_text(damage, errors="surrogateescape")
    shared = Attempts(path, lambda: 100.0)
    assert shared.wait_s("x", free=False)[0] == 0
    assert shared.trouble is None


def _on_exits_log(_: Config, damage: str) -> None:
    assert not uses([["btc", 1, "1", damage]], {}, 10)


def _on_bundle(config: Config, damage: str) -> None:
    path = config.data_dir / "bundle"
    for text in (damage, '{"bundle":1,"symbols":["BTC_USDT"]}\n' + damage):
        path.write_text(text, errors="surrogateescape")
        with pytest.raises(ConfigError):
            read_bundle(path)


def _on_configuration(config: Config, damage: str) -> None:
    path = config.data_dir / "other.toml"
    path.write_text(f"symbols = {damage}", errors="surrogateescape")
    with pytest.raises(ConfigError):
        load(path)


def _on_archive_check(_: Config, damage: str) -> None:
    if damage:
        with pytest.raises(ConfigError):
            rules(None, None, None, damage)


def _on_manifest(config: Config, damage: str) -> None:
    backup = config.data_dir / "backup" / "20261121T200000Z"
    backup.mkdir(parents=True)
    (backup / "manifest.json").write_text(damage, errors="surrogateescape")
    with pytest.raises(UserError, match=r"is none of ours.*nothing was changed"):
        spool_copy.load(config, backup.parent, backup.name)


READERS: dict[str, Callable[[Config, str], None]] = {
    name.removeprefix("_on_"): reader for name, reader in list(globals().items()) if name.startswith("_on_")
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_takes_what_is_no_json_of_ours_for_damage(tmp_path: Path, reader: str, damage: str) -> None:
    config = configure(tmp_path)
    fill(config)
    assert main(config).ok
    READERS[reader](config, DAMAGE[damage])
