"""Answers on standard output: tables and lines for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import click


class Result(Protocol):
    """What export and verification hand back."""

    @property
    def ok(self) -> bool: ...
    def lines(self) -> list[str]: ...
    def to_json(self) -> dict[str, Any]: ...


def as_json(value: Any) -> None:
    """One JSON document on one line."""
    click.echo(json.dumps(value, default=str, ensure_ascii=False))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[str] = ()) -> None:
    """A plain table; columns named in ``right`` are right-aligned. Lines are never folded off a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    ends = set(right)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in headers:
        shown.add_column(name, justify="right" if name in ends else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(shown)


def result(found: Result, json_wanted: bool) -> int:
    """Print a result; failures are part of it. The exit status."""
    if json_wanted:
        as_json(found.to_json())
    else:
        for line in found.lines():
            click.echo(line)
    return 0 if found.ok else 1
