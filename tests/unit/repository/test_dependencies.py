"""The page on upgrades names what the code takes from inside of its libraries, and tests that exist."""

from __future__ import annotations

import ast
import re

from support.repository import ROOT

PAGE = (ROOT / "docs" / "dependencies.md").read_text()
PUBLIC = {"clickhouse_driver.errors", "msgspec.json", "msgspec.structs", "msgspec.inspect"}
"""Modules that their makers document."""
JUDGED = ("clickhouse_driver", "msgspec", "websocket")


def imported() -> set[str]:
    """Modules of those libraries that the package imports, but for the libraries themselves."""
    found: set[str] = set()
    for path in (ROOT / "app" / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
                found.add(node.module)
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] in JUDGED and "." in name}


def test_what_is_taken_from_inside_stands_on_the_page() -> None:
    inside = imported() - PUBLIC
    assert "websocket._abnf" in inside
    assert {name for name in inside if f"`{name}`" not in PAGE} == set()


def test_the_tests_of_the_page_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) >= 15
    assert [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE)
    ] == []


def test_the_modules_of_the_page_exist() -> None:
    where = [row.split("|")[3] for row in PAGE.splitlines() if row.startswith("| ")][1:]
    modules = [name for cell in where for name in re.findall(r"`([\w/]+\.py)`", cell)]
    assert len(modules) >= 6
    assert [name for name in modules if not (ROOT / "app/src/mexc_pipeline" / name).is_file()] == []
