"""What the first file says of the rows before it, and what is said of a file of which nothing could be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mexc_pipeline.config import Config
from mexc_pipeline.events import Moved, Started
from mexc_pipeline.export import main
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.verify import Finding, exports
from mexc_pipeline.verify.acknowledge import acknowledge
from support.spools import SECOND, T0, configure, fill, some_frames

NAMES = tuple(f"btc202609151852{s}.parquet" for s in ("00", "10", "20"))


def begun(config: Config, m: bytes, last_seq: int = 312) -> None:
    """A file whose first row is this event, behind so many rows that are nowhere."""
    folder = config.spool_dir / "btc"
    folder.mkdir(parents=True)
    spool = Spool(folder, "btc", "BTC_USDT", config.period, known_seq=last_seq)
    spool.append([Frame(T0 + 5 * SECOND, None, Mt.EVENT, m), *some_frames(10, T0 + 6 * SECOND)])
    spool.tick(T0 + 10 * SECOND)
    spool.close()
    assert main(config).ok


def failed(config: Config) -> list[Finding]:
    return [finding for finding in exports(config).findings if not finding.ok]


def continuity(config: Config) -> str:
    return next(finding.text for finding in exports(config).findings if finding.subject == "continuity")


LOST = Started(clean=True, last_seq=312, last_rx=T0 + 2 * SECOND, version="0.1.0", spool_id="a" * 32)


def test_rows_of_the_first_files_own_period_that_are_nowhere_are_a_failure(tmp_path: Path) -> None:
    config = configure(tmp_path)
    begun(config, LOST.m)
    (finding,) = failed(config)
    assert finding.subject == NAMES[0]
    assert finding.text == (
        "begins at seq 313; rows 1 to 312 are in no file here, and the last of them is of this period"
    )
    acknowledge(config, "btc", 1, 312, by="somebody", reason="the disk was lost")
    assert failed(config) == []
    assert "1 acknowledged" in continuity(config)


@pytest.mark.parametrize(
    "m",
    [
        Started(clean=True, last_seq=312, last_rx=T0, version="0.1.0").m.replace(
            str(T0).encode(), str(T0 - 1).encode()
        ),
        Started(clean=False, last_seq=312, last_rx=T0 + 1, replaced=True, version="0.1.0").m,
        Moved(clean=True, host="a", spool_id="a" * 32, last_seq=312).m,
        b"{}",
    ],
    ids=["of an earlier period", "put back from a copy", "moved", "another row"],
)
def test_files_that_are_kept_elsewhere_are_no_failure_and_are_said(tmp_path: Path, m: bytes) -> None:
    config = configure(tmp_path)
    begun(config, m)
    assert failed(config) == []
    assert continuity(config).endswith("without a hole; rows 1 to 312 are in no file here in 1 files")


@pytest.mark.parametrize("damage", ["junk", "cut short"])
def test_a_file_of_which_nothing_can_be_read_is_one_line(tmp_path: Path, damage: str) -> None:
    config = configure(tmp_path)
    fill(config, periods=3)
    assert main(config).ok
    path = config.export_dir / NAMES[1]
    path.write_bytes(b"junk" if damage == "junk" else path.read_bytes()[:-100])
    (finding,) = failed(config)
    assert finding.subject == NAMES[1]
    assert "not a readable Parquet file" in finding.text


def test_what_is_said_of_a_sound_file_was_looked_at(tmp_path: Path) -> None:
    config = configure(tmp_path)
    fill(config)
    assert main(config).ok
    said = exports(config).findings[-1].text
    assert said == "has the 21 rows that segment 20260915185200.sqlite says it received, by their digests"
