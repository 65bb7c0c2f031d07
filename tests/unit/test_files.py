"""What is copied of a file is what is in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.files import copy, has_hole
from support.examples import examples

BLOCK = 4096
MADE_OF = st.lists(st.tuples(st.booleans(), st.integers(1, 5 * BLOCK)), max_size=6)


def make(path: Path, parts: list[tuple[bool, int]]) -> bytes:
    with path.open("wb") as file:
        for is_data, size in parts:
            if is_data:
                file.write(b"x" * size)
            else:
                file.seek(size, os.SEEK_CUR)
        file.truncate()
    return path.read_bytes()


@given(parts=MADE_OF, end=st.none() | st.integers(0, 20 * BLOCK))
@settings(max_examples=examples(60), deadline=None)
def test_a_copy_has_the_same_bytes_and_no_more_blocks(parts: list[tuple[bool, int]], end: int | None) -> None:
    with tempfile.TemporaryDirectory() as made:
        source, target = Path(made) / "source", Path(made) / "target"
        content = make(source, parts)
        copy(source, target, end)
        assert target.read_bytes() == content[:end]
        assert target.stat().st_blocks <= source.stat().st_blocks + 8


def test_terabytes_of_nothing_are_copied_as_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * BLOCK)
    os.truncate(source, 3 << 40)
    copy(source, target)
    assert (target.stat().st_size, target.stat().st_blocks * 512) == (3 << 40, BLOCK)


def test_what_is_there_is_neither_replaced_nor_followed(tmp_path: Path) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    source.write_bytes(b"x")
    other.write_bytes(b"theirs")
    (tmp_path / "link").symlink_to(other)
    for target in (other, tmp_path / "link"):
        with pytest.raises(FileExistsError):
            copy(source, target)
    assert other.read_bytes() == b"theirs"


@pytest.mark.parametrize(("size", "longer", "holes"), [(0, 0, False), (5000, 0, False), (5000, 1 << 30, True)])
def test_a_hole_is_known(tmp_path: Path, size: int, longer: int, holes: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    os.truncate(path, size + longer)
    fd = os.open(path, os.O_RDONLY)
    try:
        os.lseek(fd, 7, os.SEEK_SET)
        assert (has_hole(fd), os.lseek(fd, 0, os.SEEK_CUR)) == (holes, 7)
    finally:
        os.close(fd)
