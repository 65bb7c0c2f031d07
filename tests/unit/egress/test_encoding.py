"""Content codings of HTTP answers: whatever a server applied comes off again, and never more than is bounded."""

from __future__ import annotations

import gzip
import time
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.egress.encoding import MOST_MEMBERS, CodingError, decode

MOST = 1 << 16


def raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(body) + stream.flush()


APPLY = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZip": lambda body: gzip.compress(body[:3]) + gzip.compress(body[3:]) + b"\0\0",
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "identity": bytes,
}


@given(st.binary(min_size=1, max_size=2000), st.lists(st.sampled_from(sorted(APPLY)), max_size=3), st.booleans())
def test_codings_come_off_in_the_reverse_of_their_order(body: bytes, names: list[str], split: bool) -> None:
    encoded = body
    for name in names:
        encoded = APPLY[name](encoded)  # type: ignore[operator]
    headers = names if split else [" ,\t".join(names)]
    assert decode(encoded, headers, MOST) == body


@given(st.binary(max_size=300), st.lists(st.sampled_from(sorted(APPLY)), max_size=4))
def test_any_bytes_give_a_body_or_one_error_within_the_bound(body: bytes, names: list[str]) -> None:
    with suppress(CodingError):
        assert len(decode(body, names, 1000)) <= 1000


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br", "sdch", "none\r\nX"])
def test_an_unknown_coding_is_named_with_what_is_understood(coding: str) -> None:
    with pytest.raises(CodingError, match="gzip and deflate are understood"):
        decode(b"x", [coding], MOST)


@pytest.mark.parametrize("name", ["gzip", "deflate", "Deflate"])
def test_a_body_that_breaks_off_anywhere_is_never_taken_for_whole(name: str) -> None:
    whole = APPLY[name](b"0123456789" * 20)  # type: ignore[operator]
    for end in range(1, len(whole)):
        with pytest.raises(CodingError):
            decode(whole[:end], [name.lower()], MOST)


def test_one_wrong_bit_of_a_gzip_body_is_noticed() -> None:
    whole = bytearray(gzip.compress(b'{"version":123456789}', mtime=0))
    whole[-6] ^= 1  # its checksum
    with pytest.raises(CodingError, match="cannot be decoded"):
        decode(bytes(whole), ["gzip"], MOST)


@pytest.mark.parametrize("name", ["gzip", "deflate", "Deflate"])
def test_a_bomb_costs_no_more_than_the_bound(name: str) -> None:
    body = APPLY[name](b"\0" * (64 << 20))  # type: ignore[operator]
    began = time.process_time()
    with pytest.raises(CodingError, match="longer than is read"):
        decode(body, [name.lower()], MOST)
    twice = gzip.compress(body)
    with pytest.raises(CodingError, match="longer than is read"):
        decode(twice, [name.lower(), "gzip"], MOST)
    assert time.process_time() - began < 1


def test_what_is_just_as_long_as_the_bound_passes() -> None:
    assert decode(gzip.compress(b"x" * MOST), ["gzip"], MOST) == b"x" * MOST
    halves = gzip.compress(b"x" * (MOST // 2)) * 2
    assert decode(halves, ["gzip"], MOST) == b"x" * MOST
    with pytest.raises(CodingError, match="longer"):
        decode(halves + gzip.compress(b"x"), ["gzip"], MOST)


def test_many_members_and_many_codings_are_refused() -> None:
    with pytest.raises(CodingError, match="members"):
        decode(gzip.compress(b"") * (MOST_MEMBERS + 1), ["gzip"], MOST)
    with pytest.raises(CodingError, match="4 times over"):
        decode(b"x", ["gzip"] * 4, MOST)


def test_an_answer_without_content_needs_no_decoding() -> None:
    assert decode(b"", ["gzip"], MOST) == b""


def test_what_follows_the_end_is_refused() -> None:
    for body, name in ((gzip.compress(b"x") + b"junk", "gzip"), (zlib.compress(b"x") + b"junk", "deflate")):
        with pytest.raises(CodingError):
            decode(body, [name], MOST)
