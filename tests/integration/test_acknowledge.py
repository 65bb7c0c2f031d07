"""A hole that somebody answers for is shown for ever and fails no check; any other hole does, the next one too."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mexc_pipeline.cli.app import invoke
from mexc_pipeline.config import Config
from mexc_pipeline.errors import UserError
from mexc_pipeline.export import main
from mexc_pipeline.ledger.acknowledged import Acknowledged, acknowledgement
from mexc_pipeline.spool.lifecycle import remove
from mexc_pipeline.spool.walk import segments
from mexc_pipeline.verify import by_hour, exports, ledger
from mexc_pipeline.verify.acknowledge import FILE, MOST, acknowledge, acknowledged, holes_of
from support.spools import configure, fill


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Five files of which the second and the fourth are gone, and no spool that could tell."""
    config = configure(tmp_path)
    fill(config, periods=5)
    assert main(config).ok
    for _, path in segments(config.spool_dir / "btc"):
        remove(path)
    files = sorted(config.export_dir.glob("*.parquet"))
    files[1].unlink()
    files[3].unlink()
    return config


def wrong(config: Config) -> list[str]:
    return [finding.text for finding in exports(config).findings if not finding.ok]


def verdicts(config: Config) -> set[str]:
    return {hour.verdict for hour in by_hour(config, ledger(config))}


def test_every_hole_fails_until_it_is_answered_for(config: Config) -> None:
    first, second = holes_of(config, "btc")
    assert len(wrong(config)) == 2
    acknowledge(config, "btc", *first, by="ada", reason="disk of the old host")
    (left,) = wrong(config)
    assert f"seq {second[0]} to {second[1]}" in left
    assert "hole" in verdicts(config)
    acknowledge(config, "btc", *second, by="ada", reason="the same")
    assert wrong(config) == []
    assert "hole" not in verdicts(config)
    said = [finding.text for finding in exports(config).findings if "acknowledged by ada" in finding.text]
    assert len(said) == 2
    assert "disk of the old host" in said[0]
    missing = sum(hour.seq_missing for hour in by_hour(config, ledger(config)))
    assert missing == sum(last - first + 1 for first, last in (first, second))


def test_a_hole_that_grows_is_a_new_one(config: Config) -> None:
    first, _ = holes_of(config, "btc")
    acknowledge(config, "btc", *first, by="ada", reason="x")
    sorted(config.export_dir.glob("*.parquet"))[1].unlink()
    assert len(wrong(config)) == 1


def test_only_a_hole_that_is_there_can_be_answered_for(config: Config) -> None:
    first, second = holes_of(config, "btc")
    with pytest.raises(UserError, match=f"its holes between files: {first[0]} to {first[1]}, {second[0]}"):
        acknowledge(config, "btc", first[0], first[1] + 1, by="ada", reason="x")
    assert acknowledged(config) == ([], [])


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", '{"id": "btc"}', '{"id":"btc","first_seq":"1","last_seq":2,"at":1}']
    + [
        '{"id":"btc","first_seq":1,"last_seq":99,"at":AT,"by":"ada","reason":"x"}'.replace("AT", at)
        for at in ("-1", "253402300800", "9" * 18, "9" * 30)
    ],
)
def test_what_cannot_be_read_excuses_nothing(config: Config, line: str) -> None:
    (config.data_dir / FILE).write_text(line + "\n")
    assert len([text for text in wrong(config) if "line 1" not in text]) == 2, "both holes, and the rest is judged"
    assert any("line 1" in text for text in wrong(config))
    assert sum(hour.seq_missing for hour in by_hour(config, ledger(config))) > 0


@pytest.mark.parametrize("what", ["folder", "FIFO", "not text", "huge"])
def test_whatever_stands_in_its_place_is_one_finding(config: Config, what: str) -> None:
    path = config.data_dir / FILE
    match what:
        case "folder":
            path.mkdir()
        case "FIFO":
            os.mkfifo(path)
        case "not text":
            path.write_bytes(bytes(range(256)))
        case _:
            path.touch()
            os.truncate(path, 1 << 33)
    found = exports(config)
    assert {f.subject for f in found.findings if not f.ok and not f.symbol} == {FILE}
    assert len(wrong(config)) >= 3


def test_another_symbols_acknowledgement_is_not_this_ones() -> None:
    known = [Acknowledged("eth", 1, 10, 0, "ada", "x"), Acknowledged("btc", 5, 7, 0, "ada", "x")]
    assert acknowledgement(known, "btc", 5, 7) == known[1]
    assert acknowledgement(known, "btc", 6, 7) == known[1]
    assert acknowledgement(known, "btc", 4, 7) is None


def test_by_the_command_line(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'data_dir = "{config.data_dir}"\nexport_dir = "{config.export_dir}"\nperiod = "10s"\n')

    def run(*words: str) -> int:
        return invoke(["--config", str(path), *words])

    first, second = holes_of(config, "btc")
    assert run("verify", "exports") == 1
    for hole in (first, second):
        words = ("acknowledge", "BTC_USDT", *map(str, hole), "--reason", "restored\x1b[2J from 2026", "--by", "ada")
        assert run(*words) == 0
    assert run("verify", "exports") == 0
    assert "\x1b" not in capsys.readouterr().out
    run("ledger", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert found["totals"]["all"]["acknowledged"] == found["totals"]["all"]["seq_missing"] > 0


@pytest.mark.parametrize("left", [b'{"id":"btc","fi', b'\n{"id"', b"x" * 5000, b"{}\n"])
def test_an_acknowledgement_is_read_also_behind_half_a_line(config: Config, left: bytes) -> None:
    (config.data_dir / FILE).write_bytes(left)
    first, second = holes_of(config, "btc")
    written = [acknowledge(config, "btc", *hole, by="ada", reason="lost") for hole in (first, second)]
    found = acknowledged(config)
    assert found.entries == written
    assert len(found.troubles) == 1, "what was left is named"


def test_an_acknowledgement_that_nobody_would_read_is_refused(config: Config) -> None:
    path = config.data_dir / FILE
    path.touch()
    os.truncate(path, MOST)
    with pytest.raises(UserError, match=f"cannot write {path}: .*longer"):
        acknowledge(config, "btc", *holes_of(config, "btc")[0], by="ada", reason="lost")
    assert path.stat().st_size == MOST
