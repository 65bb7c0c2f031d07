"""What a file's footer says of its rows, held against the rows themselves.

Readers act on it unseen: PyArrow, DuckDB and Spark leave out a row group whose least and greatest values do not fit
what was asked for. So every field is known here, of the type it has, and either proven or without effect on the rows
that anybody gets. Pure. Layouts: parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mexc_pipeline.export.headers import BINARY, BOOLS, LISTS, STRUCT, VARINTS, HeaderError, Walk

_I16, _I32, _I64 = VARINTS
_BOOL = BOOLS[0]
_PASSED = -1
"""What PyArrow gives out and is compared as it gives it (columns, metadata), and what no reader leaves rows out by."""

Layout = dict[int, Any]
_STATISTICS: Layout = {1: BINARY, 2: BINARY, 3: _I64, 4: _I64, 5: BINARY, 6: BINARY, 7: _BOOL, 8: _BOOL}
_SIZES: Layout = {1: _I64, 2: [_I64], 3: [_I64]}
_VALUES: Layout = {
    1: _I32,
    2: [_I32],
    3: [BINARY],
    4: _I32,
    5: _I64,
    6: _I64,
    7: _I64,
    9: _I64,
    11: _I64,
    12: _STATISTICS,
    13: [{1: _I32, 2: _I32, 3: _I32}],
    16: _SIZES,
}
_COLUMN: Layout = {2: _I64, 3: _VALUES}
_SORTING: Layout = {1: _I32, 2: _BOOL, 3: _BOOL}
_GROUP: Layout = {1: [_COLUMN], 2: _I64, 3: _I64, 4: [_SORTING], 5: _I64, 6: _I64, 7: _I16}
_FOOTER: Layout = {1: _I32, 2: _PASSED, 3: _I64, 4: [_GROUP], 5: _PASSED, 6: BINARY, 7: _PASSED}

_INT64, _BYTE_ARRAY = 2, 6
_ENCRYPTED = 8
"""The field of a column that says so."""
_NEEDED = {1, 2, 3, 4, 5, 6, 7, 9}
_MAGIC = 4
"""Bytes before the first column."""


@dataclass(slots=True)
class ColumnContent:
    """What a row group's rows have in a column: the least and the greatest value (texts as bytes), and the bytes of
    all texts."""

    rows: int = 0
    low: Any = None
    high: Any = None
    size: int = 0

    def range(self, low: Any, high: Any) -> None:
        """Take in some more values, which lie between these."""
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)


@dataclass(slots=True)
class Footer:
    """A footer: its row groups by the numbers of their fields, all rows, and what of it no file of ours has."""

    groups: list[dict[int, Any]]
    rows: int
    odd: list[str]

    def chunk(self, group: int, column: int) -> dict[int, Any]:
        """What the footer says of the values of a row group's column, by the numbers of their fields."""
        chunk: dict[int, Any] = self.groups[group][1][column][3]
        return chunk

    def compares(self, column: int) -> bool:
        """Whether the footer says of any row group what the least or the greatest value of the column is."""
        statistics = (chunk[3].get(12, {}) for group in self.groups for chunk in group[1][column : column + 1])
        return any(said.keys() & {1, 2, 5, 6} for said in statistics)


def parse(footer: bytes) -> Footer:
    """Read a footer. HeaderError where it lacks what every one has. What it says of columns is asked for here: PyArrow
    ends the process where it does not like one."""
    walk = Walk(footer, len(footer))
    odd: list[str] = []
    try:
        said = _struct(walk, _FOOTER, "the file", odd)
    except IndexError as error:
        raise HeaderError("its footer ends in its midst") from error
    if walk.at != len(footer):
        odd.append("its footer ends before its last byte")
    groups = said.get(4, [])
    chunks = [chunk for group in groups for chunk in group.get(1, [])]
    if any(_ENCRYPTED in chunk or _NEEDED - chunk.get(3, {}).keys() for chunk in chunks):
        raise HeaderError("its footer does not say what a column is")
    if not all({1, 2, 3} <= group.keys() for group in groups):
        raise HeaderError("its footer does not say what a row group is")
    return Footer(groups, said.get(3, 0), odd)


def contradictions(said: Footer, columns: Sequence[str], found: Mapping[tuple[int, str], ColumnContent]) -> list[str]:
    """What a footer says otherwise than the rows ``found`` by row group and column; nothing is said of columns that
    could not be read."""
    wrong = list(said.odd)
    place = _MAGIC
    for number, group in enumerate(said.groups):
        chunks = [chunk[3] for chunk in group[1]]
        begin = place
        for name, chunk in zip(columns, chunks, strict=False):
            where = f"column {name} of row group {number}"
            wrong += [f"{where}: {text}" for text in _of_chunk(name, chunk, place, group, found.get((number, name)))]
            place += chunk[7]
        wrong += [f"row group {number}: {text}" for text in _of_group(group, chunks, columns, number, begin)]
    if said.rows != sum(group[3] for group in said.groups):
        wrong.append("its row groups have other rows than it says")
    return wrong


def _of_group(
    group: Mapping[int, Any], chunks: Sequence[Mapping[int, Any]], columns: Sequence[str], number: int, begin: int
) -> Iterator[str]:
    if len(chunks) != len(columns):
        yield f"it has {len(chunks)} columns"
    expected = {
        2: sum(chunk[6] for chunk in chunks),
        5: begin,
        6: sum(chunk[7] for chunk in chunks),
        7: number,
    }
    for field, name in {2: "size", 5: "place", 6: "size as stored", 7: "number"}.items():
        if field in group and group[field] != expected[field]:
            yield f"its {name} is said to be {group[field]}, and is {expected[field]}"
    for sorting in group.get(4, []):
        if sorting.get(1) != columns.index("seq") or sorting.get(2) is not False:
            yield "it is said to be sorted by something else than seq"


def _of_chunk(
    name: str, chunk: Mapping[int, Any], place: int, group: Mapping[int, Any], found: ColumnContent | None
) -> Iterator[str]:
    kind = _BYTE_ARRAY if name in ("mt", "m") else _INT64
    if chunk[1] != kind or chunk[3] != [name.encode()]:
        yield "it is said to be another one"
    if min(chunk[9], chunk.get(11, chunk[9])) != place:
        yield f"it does not begin at byte {place}"
    if found is None:
        return
    rows = found.rows
    if (chunk[5], group[3]) != (rows, rows):
        yield f"it has {rows} values, its footer says {chunk[5]} in {group[3]} rows"
    statistics = chunk.get(12, {})
    expected = {1: found.high, 2: found.low, 3: 0, 5: found.high, 6: found.low}
    for field, word in {1: "max", 2: "min", 3: "null_count", 5: "max_value", 6: "min_value"}.items():
        if field in statistics and statistics[field] != _stored(expected[field], field):
            yield f"its {word} is not that of its values"
    if 4 in statistics:
        yield "it says how many distinct values there are, as no file of ours does"
    sizes = chunk.get(16, {})
    if sizes.get(1, found.size) != found.size:
        yield f"its texts have {found.size} bytes, its footer says {sizes[1]}"
    if sizes.get(2, []) not in ([], [rows]) or sizes.get(3, []) not in ([], [0, rows]):
        yield "it is said to lack values"


def _stored(value: Any, field: int) -> Any:
    """A least or greatest value as statistics have it; they have a text of any length whole, or not at all."""
    if field == 3 or isinstance(value, bytes):
        return value
    return (value % (1 << 64)).to_bytes(8, "little")


def _struct(walk: Walk, layout: Layout, of: str, odd: list[str]) -> dict[int, Any]:
    said: dict[int, Any] = {}
    for field, kind in walk.fields():
        if field not in layout or field in said:
            odd.append(f"its footer has a field {field} of {of} that no file of ours has")
        said[field] = _value(walk, layout.get(field, _PASSED), kind, f"field {field} of {of}", odd)
    return said


def _value(walk: Walk, layout: Any, kind: int, of: str, odd: list[str]) -> Any:
    if layout == _PASSED:
        return walk.skip(kind)
    if isinstance(layout, list):
        _expect(kind in LISTS, of)
        count, inner = walk.entries()
        return [_value(walk, layout[0], inner, of, odd) for _ in range(count)]
    if isinstance(layout, dict):
        _expect(kind == STRUCT, of)
        return _struct(walk, layout, of, odd)
    if layout == _BOOL:
        _expect(kind in BOOLS, of)
        return kind == _BOOL
    _expect(kind == layout, of)
    return walk.binary() if kind == BINARY else walk.number()


def _expect(as_known: bool, of: str) -> None:
    if not as_known:
        raise HeaderError(f"its footer has a value of another type in {of}")
