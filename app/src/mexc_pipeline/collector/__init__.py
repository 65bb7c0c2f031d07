"""The collector: one symbol's feed wired to its spool, in one process that knows of no database and no file format."""

from mexc_pipeline.collector.main import main

__all__ = ["main"]
