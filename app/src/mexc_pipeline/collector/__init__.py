"""The collector: a process and its recording, a symbol from feed to spool; it knows no database and no file format."""

from mexc_pipeline.collector.main import main

__all__ = ["main"]
