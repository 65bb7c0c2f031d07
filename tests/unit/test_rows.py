"""Rows and columns are two views of the same; names and wrapped payloads are those of the contract."""

from __future__ import annotations

import base64

from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.rows import MT_CODES, MT_NAMES, Columns, Mt, Row, is_utf8, wrap
from support.examples import examples

ROWS = st.lists(
    st.builds(Row, st.integers(1, 99), st.integers(0, 99), st.integers(0, 99), st.integers(1, 6), st.binary(max_size=5))
)


def test_the_names_are_those_of_the_contract() -> None:
    first = {1: "t", 2: "d", 3: "dp", 4: "dl", 5: "ev", 6: "r"}
    assert first | {7: "f", 8: "i", 9: "p", 10: "k", 11: "c", 12: "x"} == MT_NAMES
    assert set(MT_NAMES) == set(Mt)
    assert all(MT_CODES[name] == code for code, name in MT_NAMES.items())


@given(ROWS)
def test_columns_and_rows_are_two_views_of_the_same(rows: list[Row]) -> None:
    columns = Columns.of(rows)
    assert list(columns.rows()) == rows
    assert len(columns) == len(rows)
    assert list(columns.slice(1, 3).rows()) == rows[1:3]


@given(st.binary(max_size=100) | st.integers(0, 3 << 20).map(lambda n: b"\xff\x00" * n), st.sampled_from([1, 2]))
@settings(max_examples=examples(30), deadline=None)
def test_what_is_wrapped_is_the_base64_of_the_whole(payload: bytes, opcode: int) -> None:
    assert wrap(opcode, payload) == b'{"base64":"%s","opcode":%d}' % (base64.b64encode(payload), opcode)


@given(st.text(max_size=50), st.integers(-4, 4))
def test_utf8_is_judged_across_pieces(text: str, shift: int) -> None:
    padded = b"x" * ((1 << 20) - len(text.encode()) // 2 + shift) + text.encode(errors="surrogatepass") + "ä".encode()
    try:
        padded.decode()
        good = True
    except UnicodeDecodeError:
        good = False
    assert is_utf8(padded) is good
    assert not is_utf8(padded[:-1])
