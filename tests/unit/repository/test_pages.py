"""What a page shows once it is rendered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faults.report import evidence
from support.evidence import with_evidence
from support.repository import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "app/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "roles").glob("*/README.md")),
]
_CODE = re.compile(r"^```.*?^```|(`+)(?!`).+?(?<!`)\1(?!`)", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_outside_of_code_is_swallowed_as_a_tag(page: Path) -> None:
    assert re.findall(r"<[A-Za-z/!][^>]*>", _CODE.sub("", page.read_text())) == []


def test_readme_says_of_the_campaign_what_its_page_says() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert with_evidence(readme, evidence(page)) == readme, "make reliability writes both"
    changed = page.replace(" rows in files", "9 rows in files")
    assert with_evidence(readme, evidence(changed)) != readme


def test_evidence_needs_the_row_of_its_claim() -> None:
    with pytest.raises(ValueError, match="unpack"):
        with_evidence("| it flies | by wings | far |\n", {"it swims": "deep"})
    assert with_evidence("| it flies | by wings | far |\n", {"it flies": "near"}) == "| it flies | by wings | near |\n"
