"""What the product's public classes and functions are called and say of themselves: one name means one thing, and a
docstring says whose it is and what is done.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

import pytest

from support.repository import ROOT

PACKAGE = ROOT / "app" / "src" / "mexc_pipeline"

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

OTHERS_OWN = {
    "LazyGroup": "click's",
    "UserPath": "click's",
    "Duration": "click's",
    "Number": "click's",
    "SymbolId": "click's",
    "JsonFormatter": "logging's",
    "TextFormatter": "logging's",
    "Output": "those of a text stream",
    "Socket": "those of a socket",
    "EmbeddedEngine": "those of Engine, which says what each does",
    "ServerEngine": "those of Engine, which says what each does",
}
"""Classes with methods of somebody else's, and whose: what such a method does is said there."""

CONFIGURATION = {
    "ExchangeTable",
    "_EgressTable",
    "ClickHouse",
    "SpoolTable",
    "_Health",
    "_Checks",
    "_SymbolTable",
    "_File",
}
"""The tables of the configuration; an override says what it overrides, whose keys mean the same."""


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Read when a test asks: each worker of a run imports this, and one or two of them need it."""
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def public(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Public definitions, by their name within the module."""
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")


def documented() -> Iterator[tuple[str, str | None]]:
    """Every public module, class and function with its docstring."""
    for file, tree in modules().items():
        yield file, ast.get_docstring(tree)
        for name, node in public(tree):
            yield f"{file}:{name}", ast.get_docstring(node)


def is_fragment(text: str) -> bool:
    """Whether a docstring begins with what needs another sentence before it to be understood: a preposition, a pronoun,
    a possessive without its noun, the name of an error, or a word or two alone; or goes on with a result that nothing
    returns."""
    begins = (
        r"(Of|For|As|In|On|By|With|Without|Until|Back|Before|After|Also)\b(?! (how|which|what|whom|whose)\b)"
        r"|(It|Its|They|Their|Those|That|Both|(One|All|Each) of (them|those))\b"
        r"|The (same|one) (of|with|together|for|that)\b"
        r"|\w+ \w+'s[.,;:]"
        r"|See (:|``)|\w+Error\b"
        r"|[^.:;]+; (whether|how many|seconds|the rows|True|False)\b"
    )
    return re.match(begins, text) is not None or len(text.split()) < 3


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for file, tree in modules().items():
        for name, node in public(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{file}:{name}")
    assert len(places) >= 250
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_everything_public_says_what_it_is() -> None:
    silent = [name for name, text in documented() if not text]
    assert [name for name in silent if name.partition(":")[2].partition(".")[0] not in OTHERS_OWN] == []


def test_a_docstring_has_a_subject() -> None:
    assert {name: text for name, text in documented() if text and is_fragment(text)} == {}


@pytest.mark.parametrize(
    "text",
    [
        "One symbol's.",
        "One reader's. ``path`` None: a budget of this process alone.",
        "The same of a channel that had been given up.",
        "Of the file system that holds the folder.",
        "For ``--json``: ok, checks.",
        "As :meth:`Budget.wait_s`, and why.",
        "See :class:`engine.Engine`.",
        "It was answered.",
        "ConfigError where a file is missing.",
        "All of them.",
        "Move a log into its file; whether it is empty now.",
    ],
)
def test_a_fragment_is_recognised(text: str) -> None:
    assert is_fragment(text)


@pytest.mark.parametrize("text", ["By how much the clock is ahead; ms.", "The one digest.", "Whether it is there."])
def test_a_sentence_is_none(text: str) -> None:
    assert not is_fragment(text)


def fields(node: ast.ClassDef) -> Iterator[tuple[str, bool]]:
    """The fields of a class, and whether a docstring follows each."""
    for at, child in enumerate(node.body):
        if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            after = node.body[at + 1] if at + 1 < len(node.body) else None
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            yield child.target.id, said and isinstance(after.value.value, str)  # type: ignore[union-attr]


def classes(file: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in modules()[file].body if isinstance(node, ast.ClassDef)}


def test_each_key_of_the_configuration_says_what_it_means() -> None:
    tables = {name: node for name, node in classes("config.py").items() if name in CONFIGURATION}
    assert tables.keys() == CONFIGURATION
    tables["Channels"] = classes("exchange/options.py")["Channels"]
    silent = {f"{name}.{key}" for name, node in tables.items() for key, said in fields(node) if not said}
    # A table of the file says for itself what it is.
    of_tables = ("spool", "exchange", "channels", "egress", "clickhouse", "health", "checks")
    assert silent == {f"_File.{key}" for key in of_tables}


def test_each_action_of_the_feed_says_what_its_fields_are() -> None:
    watch = classes("feed/watch.py")
    (said,) = [node for node in modules()["feed/watch.py"].body if isinstance(node, ast.Assign) and _names(node)]
    actions = [node.id for node in ast.walk(said.value) if isinstance(node, ast.Name)]
    assert len(actions) == 8
    for action in actions:
        text = ast.get_docstring(watch[action]) or ""
        assert [name for name, _ in fields(watch[action]) if name != "reason" and f"``{name}``" not in text] == []


def _names(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "Action" for target in node.targets)
