"""The body of an HTTP answer, in pieces, and never more of it than is wanted."""

from __future__ import annotations

from typing import Protocol

_PIECE = 64 << 10


class Response(Protocol):
    """What is needed of ``http.client.HTTPResponse``."""

    def read1(self, n: int = -1) -> bytes:
        """Read and return up to ``n`` bytes, empty at the end."""
        ...


def read(response: Response, most: int) -> bytes:
    """Up to ``most`` bytes; OSError and HTTPException as the response raises them.

    ``HTTPResponse.read`` is not used: it takes a chunk's size for a number of bytes to read as it stands. ``-1`` is all
    that comes until the end of the stream, whatever was asked for, ``-2`` a ValueError, and chunks of two bytes are
    kept one by one.
    """
    body = bytearray()
    while len(body) < most and (piece := response.read1(min(_PIECE, most - len(body)))):
        body += piece
    return bytes(body)
