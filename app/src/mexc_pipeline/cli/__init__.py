"""The command line. ``main`` is the entry point; it never returns and shows no traceback."""

from __future__ import annotations

from typing import NoReturn

from mexc_pipeline.cli import interrupt


def main() -> NoReturn:
    """Run the command line of this process."""
    interrupt.at_once()
    from mexc_pipeline.cli.app import main as run

    run()


__all__ = ["main"]
