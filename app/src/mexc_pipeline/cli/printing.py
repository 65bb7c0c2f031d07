"""Answers on standard output: tables and lines for people, JSON for programs.

The only place that prints for the command line: what others wrote (the exchange, a file's metadata, ClickHouse) is
cleaned here, whatever way it came.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import click

from mexc_pipeline.errors import UserError
from mexc_pipeline.text import LONG, clean, json_line

_COMMAND = re.compile(
    r"\bmexc-pipeline [a-z]+(?: (?:exports|egress|clickhouse|rotate)\b)?(?: --[a-z-]+)*"
    r"|\bsudo -u \S+|\bch(?:own|mod) [^\s,]+"
)
"""What an advice tells to type, as far as that can be told from the words around it."""
_KEPT = "\ue000"
"""Stands for a space at which no line ends."""


class Result(Protocol):
    """What export and verification hand back."""

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""

    def lines(self) -> list[str]:
        """The lines that a terminal shows."""

    def to_json(self) -> dict[str, Any]:
        """The answer of ``--json``."""


class AnswerError(UserError):
    """Standard output does not take what was to be printed."""


def as_json(value: Any) -> None:
    """Print one JSON document on one line."""
    verbatim(json_line(value))


def line(text: str, *, err: bool = False) -> None:
    """Print one line on standard output or standard error."""
    verbatim(clean(text, LONG), err=err)


def verbatim(text: str, *, err: bool = False) -> None:
    """Print lines made by the program alone: help, a script, a table. AnswerError where standard output does not take
    it."""
    try:
        click.echo(text, err=err)
    except OSError as error:
        raise AnswerError(f"standard output: {error.strerror or error}") from error


def progress(text: str) -> None:
    """Show what is going on on a terminal's last line, in place of what stood there; empty to clear it."""
    if not sys.stderr.isatty():
        return
    with contextlib.suppress(OSError):  # nobody looks any more
        click.echo(f"\r{clean(text):<40}\r", nl=False, err=True)


def account(show: Callable[[], None], ok: bool) -> int:
    """Show what became of work that is done. The exit status tells of the work: it is the same where nobody can be
    shown anything any more."""
    try:
        show()
    except AnswerError as error:
        give_up(error)
    return 0 if ok else 1


def give_up(error: AnswerError) -> None:
    """Standard output is not usable any more: say so, but for a reader that has gone (``… | head``)."""
    if not isinstance(error.__cause__, BrokenPipeError):
        line(f"mexc-pipeline: {error}", err=True)
    _silence()


def flush() -> None:
    """Write out what is buffered, so that the interpreter has nothing to complain about when it ends."""
    try:
        sys.stdout.flush()
    except OSError:  # said where it was printed
        _silence()


def _silence() -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def columns() -> int:
    """How wide a line for people may be: the terminal's width; without one as wide as it gets, for whoever reads it by
    a program, or in an editor that folds by itself."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else sys.maxsize


def folded(text: str) -> None:
    """Print a line for people, folded at words where it is wider than the terminal; what follows is moved in. Commands
    stay in one piece, so that they can be pasted."""
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", _KEPT), clean(text, LONG))
    width = max(40, columns())
    filled = textwrap.fill(whole, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    verbatim(filled.replace(_KEPT, " "))


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Iterable[str] = (),
    drop: Sequence[str] | None = None,
) -> list[str]:
    """Print a plain table, its first line the headers; columns named in ``right`` are right-aligned.

    With ``drop`` it fits the terminal, where there is one: columns of these names go, the first one first. Returns
    those that went. Lines that are wider all the same are left to the terminal: no figure is ever broken up or cut.
    """
    gone: list[str] = []
    if drop is not None:
        cells = [["" if cell is None else clean(cell, LONG) for cell in row] for row in rows]
        headers = list(headers)
        for name in drop:
            if sum(max(map(len, column)) + 3 for column in zip(headers, *cells, strict=True)) <= columns():
                break
            place = headers.index(name)
            gone.append(name)
            del headers[place]
            for row_cells in cells:
                del row_cells[place]
        rows = cells
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from mexc_pipeline.rendering import WIDEST, rendered

    ends = set(right)
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in headers:
        shown.add_column(Text(clean(name)), justify="right" if name in ends else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text("" if cell is None else clean(cell, LONG)) for cell in row))
    verbatim(rendered(shown, WIDEST).removesuffix("\n"))
    return gone


def left_out(names: Sequence[str], where: str) -> None:
    """Say which columns a narrow terminal lacks, and where they are."""
    if names:
        folded(f"left out of a terminal this narrow: {', '.join(names)}; {where}")


def result(found: Result, json_wanted: bool) -> int:
    """Print a result; failures are part of it. Returns the exit status."""
    _show(found, json_wanted)
    return 0 if found.ok else 1


def done(found: Result, json_wanted: bool) -> int:
    """Print a result, as :func:`result` does, of work that is done: see :func:`account`."""
    return account(lambda: _show(found, json_wanted), found.ok)


def _show(found: Result, json_wanted: bool) -> None:
    if json_wanted:
        as_json(found.to_json())
    else:
        for text in found.lines():
            line(text)
