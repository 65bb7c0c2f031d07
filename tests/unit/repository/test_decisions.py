"""The list of decision records has each record, once, in order, under the number of its own heading."""

from __future__ import annotations

import re

from support.repository import ROOT

FOLDER = ROOT / "docs" / "decisions"
RECORDS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


def test_the_list_has_each_record_once_and_in_order() -> None:
    listed = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| \S", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert len(RECORDS) >= 50
    assert listed == [(record.name[:4], record.name) for record in RECORDS]


def test_a_record_has_the_number_of_its_name_and_no_other_has_it() -> None:
    numbers = [record.name[:4] for record in RECORDS]
    assert len(set(numbers)) == len(numbers)
    for record in RECORDS:
        assert re.match(rf"# {record.name[:4]} · \S", record.read_text()), record.name
