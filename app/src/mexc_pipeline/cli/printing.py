"""Answers on standard output: tables and lines for people, JSON for programs.

The only place that prints for the command line: what others wrote (the exchange, a file's metadata, ClickHouse) is
cleaned here, whatever way it came.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import click

from mexc_pipeline.text import LONG, clean, json_line


class Result(Protocol):
    """What export and verification hand back."""

    @property
    def ok(self) -> bool: ...
    def lines(self) -> list[str]: ...
    def to_json(self) -> dict[str, Any]: ...


def as_json(value: Any) -> None:
    """One JSON document on one line."""
    click.echo(json_line(value))


def line(text: str, *, err: bool = False) -> None:
    """One line, on standard output or standard error."""
    click.echo(clean(text, LONG), err=err)


def verbatim(text: str, *, err: bool = False) -> None:
    """Lines made by the program alone: help, a script."""
    click.echo(text, err=err)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[str] = ()) -> None:
    """A plain table; columns named in ``right`` are right-aligned. Lines are never folded off a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    ends = set(right)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in headers:
        shown.add_column(Text(clean(name)), justify="right" if name in ends else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text("" if cell is None else clean(cell, LONG)) for cell in row))
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(shown)


def result(found: Result, json_wanted: bool) -> int:
    """Print a result; failures are part of it. The exit status."""
    if json_wanted:
        as_json(found.to_json())
    else:
        for text in found.lines():
            line(text)
    return 0 if found.ok else 1
