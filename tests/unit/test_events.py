"""The events that the recorder writes are those of the user guide, and are told apart by how they begin."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mexc_pipeline import events
from support.repository import ROOT

GUIDE = ROOT / "docs" / "user-guide.md"
KINDS = events.kinds()


def documented() -> dict[str, set[str]]:
    """Each event's fields as the user guide's table has them, without the values it names in parentheses."""
    table = GUIDE.read_text().partition("| event | further fields | when |\n")[2].partition("\n\n")[0]
    found = {}
    for line in table.splitlines()[1:]:
        names, fields, _ = (cell.strip() for cell in line.strip("|").split(" | "))
        for name in re.findall(r"`(\w+)`", names):
            found[name] = set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", fields))) - {"echo_url"}
    return found


def test_the_user_guide_has_every_event_and_no_other() -> None:
    assert set(documented()) == set(KINDS)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_user_guide_has_its_fields(name: str) -> None:
    fields = set(events.fields(KINDS[name]))
    shown = documented()[name]
    if name == "repaired":
        shown = shown - {"reason"}  # of the other that stands in its line
    assert shown == fields


@pytest.mark.parametrize("name", sorted(KINDS))
def test_it_is_told_by_how_it_begins(name: str) -> None:
    kind = KINDS[name]
    values = {"book": msgspec.Raw(b"{}"), "ids": ["1"], "set_apart": ["x"]}
    said = kind(**{field: values.get(field, 1) for field in kind.__struct_fields__})
    assert [other for other in KINDS.values() if said.m.startswith(events.begin(other))] == [kind]
    assert list(json.loads(said.m)) == ["event", *events.fields(kind)]


def test_what_is_not_known_is_left_out() -> None:
    started = events.Started(clean=False, last_seq=0, version="1.0", set_apart=["ä"])
    assert started.m == '{"event":"started","clean":false,"last_seq":0,"version":"1.0","set_apart":["ä"]}'.encode()
    assert events.Moved(clean=True, host="h", spool_id="s", last_seq=3).m.startswith(
        b'{"event":"moved","clean":true,"from"'
    )
    assert events.Gap(channel="push.depth", first=1, last=2, count=2).m == (
        b'{"event":"gap","channel":"push.depth","from":1,"to":2,"count":2}'
    )


@given(st.binary() | st.text().map(str.encode))
@example(b"[" * 100_000)
@example(b"7")
@example(b'{"event":"\xff"}')
def test_anything_is_read_as_an_object_or_as_nothing(m: bytes) -> None:
    said = events.read(m)
    assert said is None or isinstance(said, dict)
