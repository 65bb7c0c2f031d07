"""The command line. ``main`` is the entry point; it never returns and shows no traceback."""

from mexc_pipeline.cli.app import main

__all__ = ["main"]
