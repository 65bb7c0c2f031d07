"""The same seq given by two sources is told, whichever places show it; copies of one source's rows are no repeat."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.ledger.repeats import Given, joined, repeats

HELD = st.lists(
    st.builds(
        Given,
        st.sampled_from(["btc", "eth"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 30),
        st.integers(0, 30),
        st.sampled_from(["file", "table"]),
    ),
    max_size=12,
)


def sources_of(everything: list[Given]) -> dict[tuple[str, int], set[str]]:
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    for e in everything:
        for seq in range(max(1, e.first_seq), e.last_seq + 1) if e.first_seq else ():
            found[e.id, seq].add(e.source)
    return found


@given(HELD)
def test_exactly_the_seqs_that_several_sources_gave_are_told(everything: list[Given]) -> None:
    twice = {key for key, sources in sources_of(everything).items() if len(sources) > 1}
    told = repeats(everything)
    assert {(r.one.id, seq) for r in told for seq in range(r.first_seq, r.last_seq + 1)} == twice
    for repeat in told:
        assert repeat.one.source != repeat.other.source
        assert repeat.one.id == repeat.other.id
        for side in (repeat.one, repeat.other):
            assert side.first_seq <= repeat.first_seq <= repeat.last_seq <= side.last_seq


@given(HELD, st.randoms(use_true_random=False))
def test_neither_their_order_nor_joining_changes_what_is_told(everything: list[Given], random: st.DataObject) -> None:
    mixed = list(everything)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert repeats(mixed) == repeats(everything) == repeats(joined(everything))
    assert sources_of(joined(everything)) == sources_of(everything)


def test_an_empty_new_disk_while_clickhouse_knows_twenty_million() -> None:
    old = [Given("sol", "old", 1, 20_408_258, "table sol_orphan_20261125010203")]
    new = [Given("sol", "new", 2, 90, "segment 2026112501.sqlite"), Given("sol", "new", 91, 99, "sol_current")]
    (repeat,) = repeats([*new, *old])
    assert (repeat.first_seq, repeat.last_seq, repeat.rows) == (2, 99, 98)
    assert (repeat.one.source, repeat.other.where) == ("old", "segment 2026112501.sqlite")
    assert repeats([Given("sol", "new", 20_408_259, 20_408_300, "x"), *old]) == []
