"""Which refused commits are the disk's, and which a recording's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.collector.refusals import RefusedCommits, holds_alone, of_the_disk
from mexc_pipeline.spool.disk_level import REFUSED_S

seconds = st.one_of(st.just(0.0), st.floats(0.001, 100))
refusals = st.builds(
    lambda s, why: RefusedCommits(s, why if s else None), seconds, st.sampled_from([None, "I/O error"])
)
several = st.lists(refusals, min_size=1, max_size=20)


@given(refusals)
def test_that_of_a_single_recording_is_the_disks(refusal: RefusedCommits) -> None:
    assert of_the_disk([refusal]) == refusal


@given(several)
def test_want_of_room_is_everybodys(found: list[RefusedCommits]) -> None:
    longest = max((refusal.seconds for refusal in found if refusal.why is None), default=0.0)
    if longest:
        assert of_the_disk(found) == (longest, None)


@given(several)
def test_any_other_reason_is_the_disks_only_where_nobody_can_commit(found: list[RefusedCommits]) -> None:
    others = [refusal for refusal in found if refusal.why is not None or not refusal.seconds]
    judged = of_the_disk(others or [RefusedCommits(0.0, None)])
    assert (judged.seconds > 0) == (bool(others) and all(refusal.seconds for refusal in others))


@given(st.lists(seconds, min_size=1))
def test_one_that_is_held_alone_goes_on_with_the_first_commit(history: list[float]) -> None:
    held = False
    for s in history:
        held = holds_alone(RefusedCommits(s, "I/O error" if s else None), held)
        assert held or s < REFUSED_S
        assert not held or s > 0
