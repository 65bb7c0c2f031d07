"""A segment under a second name, a copy or a hard link: its rows are exported, loaded and counted once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline.config import Config
from mexc_pipeline.export import main
from mexc_pipeline.periods import Period
from mexc_pipeline.read import frames
from mexc_pipeline.spool.names import SegmentName
from mexc_pipeline.spool.segment import MisnamedError, info
from mexc_pipeline.spool.walk import in_order, segments
from mexc_pipeline.verify.exports import exports as verify
from support.examples import examples
from support.spools import T0, configure, fill, open_spool, some_frames, tamper

LENGTH = 10 * 10**9
WAYS: dict[str, Callable[[Path, Path], object]] = {
    "link": os.link,
    "copy": shutil.copyfile,
    "symlink": lambda one, other: other.symlink_to(one),
}


def second_name(path: Path, periods: int, part: int) -> Path:
    name = SegmentName.parse(path.name)
    assert name is not None
    start = name.start_ns + periods * LENGTH
    return path.with_name(SegmentName(start, part, Period(LENGTH).name(start)).file)


def rows_in(config: Config) -> list[int]:
    return [int(seq) for seq in frames("btc", export_dir=config.export_dir).seq]


@given(
    which=st.integers(0, 2),
    way=st.sampled_from(sorted(WAYS)),
    periods=st.sampled_from([0, 0, -2, -1, 1, 2, 5]),
    part=st.integers(1, 3),
    exported=st.booleans(),
)
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_segment_under_a_second_name_is_named_and_passed_over(
    which: int, way: str, periods: int, part: int, exported: bool
) -> None:
    with tempfile.TemporaryDirectory() as made:
        config = configure(Path(made), "BTC_USDT", "ETH_USDT")
        fill(config, "btc", periods=3)
        fill(config, "eth", periods=1)
        if exported:
            assert main(config).ok
        there = [path for _, path in segments(config.spool_dir / "btc")]
        second = second_name(there[which], periods, part)
        if second in there:
            return
        WAYS[way](there[which], second)
        if exported:
            for file in config.export_dir.iterdir():
                file.unlink()
        report = main(config, missing=True)
        assert [(fail.segment, "named as another period" in fail.text) for fail in report.failures] == [
            (second.name, True)
        ]
        assert rows_in(config) == list(range(1, 64)), "each once"
        assert len(report.files) == 4, "the neighbours' too"
        found = verify(config)
        assert not found.ok
        assert any(second.name in finding.subject and "named as another" in finding.text for finding in found.findings)
        # The recorder goes on beside it.
        spool = open_spool(config)
        assert (spool.last_seq, spool.recovered.replaced) == (63, False)
        spool.close()
        assert {path.name for _, path in segments(config.spool_dir / "btc")} == {path.name for path in there}


def test_the_only_one_that_was_renamed_gives_no_seq_twice(tmp_path: Path) -> None:
    config = configure(tmp_path)
    fill(config, "btc", periods=2)
    newest = segments(config.spool_dir / "btc")[-1][1]
    newest.rename(second_name(newest, 3, 1))
    spool = open_spool(config)
    assert spool.last_seq == 42
    assert list(spool.append(some_frames(1, T0 + 9 * LENGTH)).seq) == [43]
    spool.close()


def test_one_of_a_version_that_did_not_say_its_part(tmp_path: Path) -> None:
    config = configure(tmp_path)
    fill(config, "btc")
    (path,) = (path for _, path in segments(config.spool_dir / "btc"))
    tamper(path, "DELETE FROM meta WHERE key IN ('part', 'check')")
    second = second_name(path, 0, 2)
    os.link(path, second)
    assert info(second).rows == 21, "it may be what it says"
    found = in_order(path.parent)
    assert [one.path for one in found.readable] == [path]
    assert "it has the rows of" in str(found.unreadable[0].error)
    report = main(config)
    assert [fail.segment for fail in report.failures] == [second.name]
    assert rows_in(config) == list(range(1, 22))


def test_what_it_was_written_as_is_said(tmp_path: Path) -> None:
    config = configure(tmp_path)
    fill(config, "btc")
    (path,) = (path for _, path in segments(config.spool_dir / "btc"))
    second = second_name(path, 1, 2)
    os.link(path, second)
    with pytest.raises(MisnamedError, match=f"{path.name}: a copy of that one or renamed"):
        info(second)


def test_rows_that_are_there_twice_are_no_clock_that_was_set_back(tmp_path: Path) -> None:
    config = configure(tmp_path)
    fill(config, "btc")
    assert main(config).ok
    (path,) = config.export_dir.iterdir()
    shutil.copyfile(path, path.with_name(path.name.replace(".parquet", ".part2.parquet")))
    with pytest.warns(UserWarning, match="seq goes back at 1: rows are there twice"):
        df = frames("btc", export_dir=config.export_dir)
    assert (df.attrs["repeated"], df.attrs["set_back"]) == ([1], [])
