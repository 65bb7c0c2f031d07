"""What a Parquet file would unpack to, by the headers of its footer and pages, before anything is unpacked.

PyArrow believes them: it makes an object of a few hundred bytes of a footer's three, and takes for a page what the page
says it holds. Here they are walked (Thrift's compact protocol) and counted, nothing is built. Layouts: parquet.thrift.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mexc_pipeline.files import has_hole

FOOTER = 256 << 10
"""Bytes of a footer that cannot become much, whatever they say: at most 250 times as many."""
MOST_ENTRIES = 200_000
"""Entries of all lists in a longer footer: forty a row group are usual, and one may take 700 bytes of memory."""
_HEADERS = 256, 64 << 10
"""Bytes read for a page's header: nearly all fit the first, those with statistics the second."""
TAIL = 8
_DEPTH = 16

BOOLS, _BYTE, VARINTS, _DOUBLE, BINARY, LISTS, STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12

_DATA, _DICTIONARY = 0, 2
_ENCODINGS = 0, 2, 5, 8
"""Of values: plain, by a dictionary, packed differences, by a dictionary. Others make a long text of hardly a byte."""


class HeaderError(ValueError):
    """A header that no file of this program has; the message says what it claims."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column of a row group, as the footer has it: where its pages lie, their bytes unpacked, and its values."""

    start: int
    stored: int
    unpacked: int
    values: int


def check_footer(path: Path) -> None:
    """Check the size of a file and of its footer. HeaderError where the footer would take more memory than that of any
    honest file, and where the file has a hole: what is read of that is as long as it claims. OSError as of opening it;
    what is no Parquet file at all is left to the reader to say."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode) and has_hole(fd):
            raise HeaderError("it is longer than what is in it: it has a hole")
        end = os.fstat(fd).st_size - TAIL
        size = int.from_bytes(os.pread(fd, 4, end), "little") if end > 0 else 0
        if not FOOTER < size <= end:
            return
        walk = Walk(os.pread(fd, size, end - size), MOST_ENTRIES)
        try:
            walk.skip(STRUCT)
        except IndexError as error:
            raise HeaderError("its footer ends in its midst") from error
    finally:
        os.close(fd)


def check_pages(fd: int, chunk: Chunk) -> int:
    """Bytes of the chunk's dictionary, 0 without one: values that are stored once may stand in many rows. HeaderError
    where its pages would unpack to other than the footer says."""
    at, end = chunk.start, chunk.start + chunk.stored
    values = unpacked = dictionary = pages = 0
    while values < chunk.values:
        page = _page(fd, at, end)
        at += page.header + page.stored
        unpacked += page.header + page.unpacked
        if min(page.unpacked, page.stored) < 0 or at > end or unpacked > chunk.unpacked:
            raise HeaderError(f"its pages hold other than the {chunk.unpacked:,} bytes that its footer says")
        if page.kind == _DICTIONARY and not pages and page.values * 4 <= page.unpacked:
            dictionary = page.unpacked
        elif page.kind == _DATA and page.values > 0:
            values += page.values
        else:
            raise HeaderError(f"its page {pages} is of kind {page.kind} with {page.values:,} values")
        if page.encoding not in _ENCODINGS:
            raise HeaderError(f"its page {pages} has values of encoding {page.encoding}")
        pages += 1
    if values != chunk.values:
        raise HeaderError(f"its pages hold {values:,} values, its footer says {chunk.values:,}")
    return dictionary


@dataclass(frozen=True, slots=True)
class _Page:
    """What a page's header says; -1 for what it does not say. ``header``: its own bytes."""

    kind: int
    unpacked: int
    stored: int
    values: int
    encoding: int
    header: int


def _page(fd: int, at: int, end: int) -> _Page:
    for most in _HEADERS:
        data = os.pread(fd, min(most, max(0, end - at)), at)
        walk = Walk(data, len(data))
        said: dict[int, int] = {}
        of_values: dict[int, int] = {}
        try:
            for field, of in walk.fields():
                if of == STRUCT and field in (5, 7):  # of a data page, of a dictionary
                    for inner, inner_of in walk.fields():
                        walk.take(inner, inner_of, of_values)
                else:
                    walk.take(field, of, said)
        except IndexError:
            continue
        kind, unpacked, stored = (said.get(n, -1) for n in (1, 2, 3))
        values, encoding = (of_values.get(n, -1) for n in (1, 2))
        return _Page(kind, unpacked, stored, values, encoding, walk.at)
    raise HeaderError(f"the header of a page at byte {at:,} has no end")


class Walk:
    """Goes over a compact struct from its beginning. IndexError at the end of the bytes, HeaderError where it nests
    deeper or has more entries than anything honest."""

    def __init__(self, data: bytes, most: int) -> None:
        self.at = 0
        self._data = data
        self._left = most

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field; whoever asks takes its value before the next one."""
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self.number()
            yield field, head & 15

    def number(self) -> int:
        """A signed integer of any width."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def take(self, field: int, of: int, into: dict[int, int]) -> None:
        """Note the field's value where it is a number, else pass it by."""
        if of in VARINTS:
            into[field] = self.number()
        else:
            self.skip(of)

    def skip(self, of: int, depth: int = 0) -> None:
        """Pass by a field's value."""
        if depth > _DEPTH:
            raise HeaderError("its headers nest deeper than any")
        if of in VARINTS:
            self._varint()
        elif of == BINARY:
            self.binary()
        elif of == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        elif of in LISTS:
            self._skip_list(depth)
        elif of in (_BYTE, _DOUBLE):
            self._pass(1 if of == _BYTE else 8)
        elif of not in BOOLS:
            raise HeaderError(f"its headers have a field of unknown type {of}")

    def binary(self) -> bytes:
        """The field's value: bytes, or a text as such."""
        size = self._varint()
        self._pass(size)
        return self._data[self.at - size : self.at]

    def entries(self) -> tuple[int, int]:
        """Number and type of a list's entries, whose values come next."""
        head = self._byte()
        count, of = head >> 4, head & 15
        if count == 15:
            count = self._varint()
        self._left -= count
        if self._left < 0:
            raise HeaderError("its footer has more entries than any of ours")
        return count, of

    def _skip_list(self, depth: int) -> None:
        count, of = self.entries()
        if of in BOOLS:
            self._pass(count)
            return
        for _ in range(count):
            self.skip(of, depth + 1)

    def _byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise HeaderError("its headers have a number of more than 64 bits")

    def _pass(self, size: int) -> None:
        self.at += size
        if self.at > len(self._data):
            raise IndexError
