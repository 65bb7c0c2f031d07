"""Rows of a symbol that were given the same seq by two spools, wherever files, segments or tables show it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mexc_pipeline.config import Config
from mexc_pipeline.export.parquet import FileError, metadata
from mexc_pipeline.ledger.repeats import Given, repeats
from mexc_pipeline.spool.segment import SegmentInfo
from mexc_pipeline.spool.walk import by_symbol, exported_files
from mexc_pipeline.verify.report import Finding


def findings(held: Iterable[Given]) -> list[Finding]:
    """A failure for each stretch of rows that two spools gave."""
    return [
        Finding(
            repeat.one.id,
            "seq",
            False,
            f"seq {repeat.first_seq} to {repeat.last_seq} ({repeat.rows} rows) was given twice: by spool "
            f"{repeat.one.source} ({repeat.one.where}) and by spool {repeat.other.source} ({repeat.other.where}); "
            "both have rows of their own: keep one as it is, set the other apart (see the operators' guide)",
        )
        for repeat in repeats(held)
    ]


def of_segments(segments: Iterable[SegmentInfo]) -> Iterator[Given]:
    """What the spool's segments hold, the open ones too."""
    for segment in segments:
        yield Given(segment.id, segment.spool_id, segment.first_seq, segment.last_seq, f"segment {segment.path.name}")


def of_host(config: Config) -> Iterator[Given]:
    """What this host's files and segments say that they hold. Those that cannot be read say nothing: ``verify exports``
    tells why."""
    for name, path in exported_files(config.export_dir):
        try:
            said = metadata(path)
            yield Given(name.id, said["spool_id"], int(said["first_seq"]), int(said["last_seq"]), path.name)
        except (FileError, KeyError, ValueError):
            continue
    for _, found in by_symbol(config.spool_dir):
        yield from of_segments(found.readable)
