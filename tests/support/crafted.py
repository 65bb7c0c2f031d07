"""Parquet files as an attacker makes them: a genuine one whose headers and pages say what they like.

Thrift's compact protocol is written here as it is, without asking what a field means: a struct is a list of
``[number, type, value]``, a list ``(type of its entries, entries)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
Struct = list[list[Any]]


@dataclass
class Page:
    header: Struct
    body: bytes

    def say(self, of: int, inner: int, value: int) -> None:
        """Set a field of the header's own struct ``of`` (5: of a data page, 7: of a dictionary)."""
        put(get(self.header, of), inner, value)

    def hold(self, content: bytes, *, honest: bool = True) -> None:
        """Have this content, packed; the header says its size, or what it said before."""
        self.body = pa.Codec("zstd").compress(content, asbytes=True)
        put(self.header, 3, len(self.body))
        if honest:
            put(self.header, 2, len(content))

    def content(self) -> bytes:
        size = get(self.header, 2)
        return bytes(pa.Codec("zstd").decompress(self.body, decompressed_size=size, asbytes=True))


def get(struct: Struct, field: int) -> Any:
    return next(value for number, _, value in struct if number == field)


def put(struct: Struct, field: int, value: Any) -> None:
    next(entry for entry in struct if entry[0] == field)[2] = value


def craft(path: Path, column: int, change: Callable[[list[Page], Struct], None]) -> None:
    """Rewrite a column of the first row group: ``change`` alters its pages and its ColumnMetaData in the footer, whose
    places and stored sizes are then set right."""
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer, _ = decoded(STRUCT, data, len(data) - 8 - length)
    group = get(footer, 4)[1][0]
    meta = get(get(group, 1)[1][column], 3)
    dictionary = [value for number, _, value in meta if number == 11]
    at = min([get(meta, 9), *dictionary])
    end = at + get(meta, 7)
    pages = []
    while at < end:
        header, at = decoded(STRUCT, data, at)
        pages.append(Page(header, data[at : at + get(header, 3)]))
        at += get(header, 3)
    change(pages, meta)
    body = bytearray(data[: len(data) - 8 - length])
    start = len(body)
    for page in pages:
        if get(page.header, 1) == 0 and get(meta, 9) < start:
            put(meta, 9, len(body))
        if get(page.header, 1) == 2:
            put(meta, 11, len(body))
        body += encoded(STRUCT, page.header) + page.body
    put(meta, 7, len(body) - start)
    write(path, bytes(body), encoded(STRUCT, footer))


def write(path: Path, body: bytes, footer: bytes) -> None:
    path.write_bytes(body + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def footer_of_chunks(path: Path, groups: int, chunks: int) -> None:
    """A footer of three bytes a column, each of which the reader makes an object of hundreds."""
    chunk = encoded(STRUCT, [[2, I64, 0]])
    rest = encoded(STRUCT, [[2, I64, 0], [3, I64, 0]])
    group = b"\x19\xfc" + varint(chunks) + chunk * chunks + b"\x16" + rest[1:]
    root = encoded(LIST, (STRUCT, [[[4, BINARY, b"x"], [5, I32, 0]]]))
    head = encoded(STRUCT, [[1, I32, 1]])[:-1] + b"\x19" + root + b"\x16\x00"
    write(path, b"PAR1", head + b"\x19\xfc" + varint(groups) + group * groups + b"\x00")


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def decoded(of: int, data: bytes, at: int) -> tuple[Any, int]:
    match of:
        case 1 | 2:
            return of == 1, at
        case 3:
            return data[at], at + 1
        case 4 | 5 | 6:
            value, at = _read_varint(data, at)
            return (value >> 1) ^ -(value & 1), at
        case 8:
            size, at = _read_varint(data, at)
            return data[at : at + size], at + size
        case 9:
            count, inner = data[at] >> 4, data[at] & 15
            count, at = _read_varint(data, at + 1) if count == 15 else (count, at + 1)
            entries = []
            for _ in range(count):
                entry, at = decoded(inner, data, at)
                entries.append(entry)
            return (inner, entries), at
        case 12:
            struct: Struct = []
            number = 0
            while head := data[at]:
                assert head >> 4, "fields of Parquet are near each other"
                number += head >> 4
                value, at = decoded(head & 15, data, at + 1)
                struct.append([number, head & 15, value])
            return struct, at + 1
    raise AssertionError(of)


def encoded(of: int, value: Any) -> bytes:
    match of:
        case 1 | 2:
            return b""
        case 3:
            return bytes([value])
        case 4 | 5 | 6:
            return varint((value << 1) ^ (value >> 63))
        case 8:
            return varint(len(value)) + bytes(value)
        case 9:
            inner, entries = value
            head = (
                bytes([len(entries) << 4 | inner])
                if len(entries) < 15
                else bytes([0xF0 | inner]) + varint(len(entries))
            )
            return head + b"".join(encoded(inner, entry) for entry in entries)
        case 12:
            out, last = b"", 0
            for number, inner, entry in value:
                out += bytes([(number - last) << 4 | inner]) + encoded(inner, entry)
                last = number
            return out + b"\x00"
    raise AssertionError(of)
