"""The content digest equals one computed by hand, however the rows are cut, and names the columns that differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.ledger.digest import COLUMNS, RowDigest, combine, differing
from mexc_pipeline.rows import Columns, Row
from support.spooled import Stored, digest, digests

U64, I64 = st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.builds(Row, U64, I64, I64, st.integers(1, 6), st.binary(max_size=40)), max_size=12)


@given(ROWS, st.integers(0, 12))
def test_it_is_the_contracts_and_does_not_depend_on_how_rows_are_cut(rows: list[Row], cut: int) -> None:
    running = RowDigest()
    running.update(Columns.of(rows[:cut]))
    early = running.copy()
    running.update(Columns.of(rows[cut:]))
    stored = [Stored._make(r) for r in rows]
    assert running.columns() == digests(stored)
    assert running.total() == combine(running.columns()) == digest(stored)
    assert running.rows == len(rows)
    assert early.total() == digest(stored[:cut])


def test_it_names_the_columns_that_differ() -> None:
    def of(*rows: Row) -> dict[str, str]:
        running = RowDigest()
        running.update(Columns.of(rows))
        return running.columns()

    base = of(Row(1, 2, 3, 4, b"ab"), Row(2, 3, 4, 5, b"c"))
    assert differing(base, base) == []
    assert differing(base, of(Row(1, 2, 3, 4, b"ab"), Row(2, 3, 4, 5, b"d"))) == ["m"]
    assert differing(base, of(Row(1, 2, 3, 4, b"a"), Row(2, 3, 4, 5, b"bc"))) == ["len"]
    assert differing(base, of(Row(1, 9, 3, 4, b"ab"), Row(2, 3, 4, 6, b"c"))) == ["rx", "mt"]
    assert differing(base, {}) == list(COLUMNS)
