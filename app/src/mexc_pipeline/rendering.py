"""What rich makes of a table, as text: rich itself writes to the stream and ends the process where nobody reads it."""

from __future__ import annotations

import io
import sys

from rich.console import Console, RenderableType

WIDEST = 10_000
"""Columns a table may have: a narrower one would have rich break figures up."""


class _Page(io.StringIO):
    @property
    def encoding(self) -> str:  # type: ignore[override]
        return sys.stdout.encoding  # borders are plain where that has no others


def rendered(shown: RenderableType, width: int | None = None) -> str:
    """Lines for standard output, ``width`` columns wide (None: as wide as the terminal)."""
    page = _Page()
    Console(file=page, highlight=False, force_terminal=sys.stdout.isatty(), width=width, soft_wrap=True).print(shown)
    return page.getvalue()
