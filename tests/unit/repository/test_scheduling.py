"""What is forgiven to a recorder on a busy machine is what scheduling held back in that moment, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scheduling import HOPS, Wait, due, held_ns, measured

WAITS = [Wait(100, 110), Wait(200, 230), Wait(300, 305)]


@pytest.mark.parametrize(
    ("since", "until", "longest"),
    [(0, 100, 0), (0, 101, 10), (109, 150, 10), (110, 150, 0), (150, 400, 30), (220, 225, 30), (250, 400, 5)],
)
def test_the_longest_wait_that_lies_in_a_stretch_is_held_back(since: int, until: int, longest: int) -> None:
    assert held_ns(WAITS, since, until) == HOPS * longest


@pytest.mark.parametrize(
    ("killed", "bound", "count"),
    [(60, 50, 1), (60, 60, 0), (101, 50, 3), (400, 50, 30), (400, 100, 29), (250, 50, 11), (250, 1000, 0)],
)
def test_what_had_longer_than_that_is_due(killed: int, bound: int, count: int) -> None:
    sent = list(range(0, 300, 10))
    assert due([ns for ns in sent if ns < killed], killed, bound, WAITS) == count


def test_waits_are_written_down_until_it_is_finished(tmp_path: Path) -> None:
    with measured(tmp_path / "waits", tmp_path / "page") as scheduling:
        first = scheduling.waits()[0]
        waits = scheduling.finish()
    assert waits[0] == first
    assert waits == sorted(waits)
    assert all(wait.since_ns < wait.until_ns for wait in waits)
