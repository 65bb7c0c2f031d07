"""Undoes ``Content-Encoding`` of an HTTP answer within a bound on size. Pure.

Source: RFC 9110, section 8.4 (codings are listed in the order in which they were applied), RFC 1950 to 1952.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

MOST_CODINGS = 3
MOST_MEMBERS = 16
"""Of one gzip stream: more are no answer of a server, and each costs a copy of what follows it."""
_GZIP, _ZLIB, _RAW = 31, 15, -15
"""zlib's names for the three framings."""


class CodingError(Exception):
    """The body cannot be read; the message says why and holds nothing of the body."""


def decode(body: bytes, codings: Iterable[str], most: int) -> bytes:
    """The body as it was before these ``Content-Encoding`` headers were applied to it. Raises CodingError for codings
    that are not known, for bytes that do not fit, and for what is longer than ``most`` at any step."""
    names = [name.strip().lower() for header in codings for name in header.split(",")]
    names = [name for name in names if name and name != "identity"]
    unknown = [name for name in names if name not in ("gzip", "x-gzip", "deflate")]
    if unknown:
        raise CodingError(f"encoded as {unknown[0][:40]!r}; gzip and deflate are understood")
    if len(names) > MOST_CODINGS:
        raise CodingError(f"encoded {len(names)} times over")
    for name in reversed(names):
        if not body:
            break  # an answer without content carries the header all the same
        try:
            body = _deflate(body, most) if name == "deflate" else _gzip(body, most)
        except zlib.error as error:
            raise CodingError(f"said to be encoded as {name}, and cannot be decoded ({error})") from error
    return body


def _gzip(body: bytes, most: int) -> bytes:
    whole = b""
    for _ in range(MOST_MEMBERS):
        piece, body = _inflate(body, _GZIP, most - len(whole))
        whole += piece
        if not body.lstrip(b"\0"):  # a member may be padded
            return whole
    raise CodingError(f"a gzip stream of more than {MOST_MEMBERS} members")


def _deflate(body: bytes, most: int) -> bytes:
    """Zlib, as the standard has it, or the bare stream that some servers send."""
    zlib_header = body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    whole, rest = _inflate(body, _ZLIB if zlib_header else _RAW, most)
    if rest:
        raise CodingError(f"{len(rest)} bytes follow its end")
    return whole


def _inflate(body: bytes, framing: int, most: int) -> tuple[bytes, bytes]:
    """One stream, and what follows it."""
    stream = zlib.decompressobj(framing)
    whole = stream.decompress(body, most + 1)
    if len(whole) > most:
        raise CodingError("longer than is read")
    if not stream.eof:
        raise CodingError("compressed, and broke off")
    return whole, stream.unused_data
