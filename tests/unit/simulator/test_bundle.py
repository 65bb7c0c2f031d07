"""Playing a bundle again: what moves on, what stays, and that versions and ids never come twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.errors import ConfigError
from mexc_pipeline.simulator.bundle import Counting, RecordedFrame, Shift, Track, advanced, read_bundle
from mexc_pipeline.simulator.samples import frames


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"ts":1788335242156', b'"ts":1788335243156'),
        (b'"ts":1788335242156417', b'"ts":1788335243156417'),
        (b'"ts":1788335242156417093', b'"ts":1788335243156417093'),
        (b'"ts":1788335242', b'"ts":1788335243'),
        (b'"ts":"1788335242156"', b'"ts":"1788335243156"'),
        (b'"ts":1788335242156.5', b'"ts":1788335243156.5'),
        (b'"ts":0', b'"ts":0'),
        (b'"ts":null', b'"ts":null'),
        (b'"version":7,"end":null,"begin":0', b'"version":12,"end":null,"begin":0'),
        (b'"i":"16005949540","p":77525.90', b'"i":"16005949543","p":77525.90'),
        (b'"version":"8"', b'"version":"13"'),
    ],
)
def test_what_moves_on_keeps_its_unit_and_spelling(before: bytes, after: bytes) -> None:
    assert advanced(before, Shift(1_000, 5, 3)) == after


@given(st.sampled_from(frames()))
def test_without_a_shift_nothing_changes(frame: bytes) -> None:
    assert advanced(frame, Shift(0)) == frame


@given(st.sampled_from(frames()), st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**6))
def test_only_digits_change_and_it_can_be_undone(frame: bytes, ms: int, versions: int, ids: int) -> None:
    moved = advanced(frame, Shift(ms // 1000 * 1000, versions, ids))
    assert advanced(moved, Shift(-(ms // 1000 * 1000), -versions, -ids)) == frame
    json.loads(moved)


def track(versions: Sequence[int]) -> Track:
    made = Track("BTC_USDT", "depth.full", 1, 0.0)
    made.frames = [RecordedFrame(0.0, 1, b'{"version":%d}' % version, "") for version in versions]
    return made


@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=6),
    st.integers(1, 10**9),
    st.lists(st.booleans(), min_size=1, max_size=10),
)
def test_versions_rise_over_any_course_of_rounds_and_connections(sizes: list[int], at: int, again: list[bool]) -> None:
    """Tracks follow each other as the exchange sent them; each connection plays its own any number of times."""
    tracks = []
    for size in sizes:
        tracks.append(track(range(at, at + size)))
        at += size + 3  # what nobody heard between two connections
    counting, playing, last = Counting(tracks, versions=True), 0, 0
    for same in again:
        shift = counting.begin(playing)
        for frame in tracks[playing].frames:
            version = json.loads(frame.inside)["version"] + shift
            assert version > last
            last = version
        playing = playing if same else (playing + 1) % len(tracks)


def test_a_round_begins_where_the_one_before_ended() -> None:
    counting = Counting([track([7, 8, 9])], versions=True)
    assert [counting.begin(0) for _ in range(3)] == [0, 3, 6]


def test_versions_that_began_lower_do_so_again() -> None:
    counting = Counting([track([7000, 7001]), track([3, 4])], versions=True)
    assert [counting.begin(n) for n in (0, 1, 0, 1)] == [0, 0, 0, 0]


def test_a_bundle_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    from mexc_pipeline.simulator import bundle

    monkeypatch.setattr(bundle, "MOST_BYTES", 1000)
    path = tmp_path / "bundle.gz"
    path.write_bytes(gzip.compress(b"x" * 100_000))
    with pytest.raises(ConfigError, match="longer than"):
        read_bundle(path)
