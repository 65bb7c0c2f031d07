"""Room for one large frame at a time in this process, whichever symbols have one.

A frame may be 80 MB as it is stored, and its copies on the way from a segment or a table as much again. What every
symbol may take at once, the process has no room for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mexc_pipeline.store.engine import EngineError

_WAIT_S = 60.0
"""Less than what a thread that stands still is taken for."""
_free = threading.Lock()


@contextmanager
def one_at_a_time() -> Iterator[Callable[[], None]]:
    """What is called before a large frame is read, any number of times: from the first call to the end nobody else has
    one. EngineError where others have theirs for too long."""
    has = False

    def take() -> None:
        nonlocal has
        if not has and not _free.acquire(timeout=_WAIT_S):
            raise EngineError(f"no room for a large frame within {_WAIT_S:g} s; another is still being loaded or read")
        has = True

    try:
        yield take
    finally:
        if has:
            _free.release()
