"""A store that knows nothing, for collectors that record without one: an empty spool waits for an answer. And one that
never answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mexc_pipeline.control import ControlServer


class StandIn:
    """Answers in the store's place until each of the spools has its first segment."""

    def __init__(self, data: Path, ids: Sequence[str]) -> None:
        self._spools = [data / "spool" / symbol_id for symbol_id in ids]
        self._over = threading.Event()
        answers = {"known": {"last_seq": 0, "writer": None}, "given": {"held": []}}
        handlers = {name: lambda _, answer=answer: answer for name, answer in answers.items()}
        self._server = ControlServer(data / "control" / "store.sock", handlers)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._over.wait(0.01):
            if not any(map(_is_empty, self._spools)):
                break
        self._server.close()


def stand_in(data: Path, ids: Sequence[str]) -> StandIn | None:
    """One where it is needed and can be: a spool is empty, and there is nothing in the socket's place."""
    control = data / "control"
    socket = control / "store.sock"
    if socket.exists() or (control.exists() and not control.is_dir()):
        return None
    if not any(_is_empty(data / "spool" / symbol_id) for symbol_id in ids):
        return None
    return StandIn(data, ids)


@contextmanager
def late_store(data: Path, after_s: float) -> Iterator[None]:
    """In the store's place is one that knows nothing and takes so long to say it."""

    def known(_: dict[str, object]) -> dict[str, object]:
        over.wait(after_s)
        return {"last_seq": 0, "writer": None}

    over = threading.Event()
    server = ControlServer(data / "control" / "store.sock", {"known": known})
    try:
        yield
    finally:
        over.set()
        server.close()


@contextmanager
def silent_store(data: Path) -> Iterator[None]:
    """In the store's place is one that takes every question and answers none."""
    path = data / "control" / "store.sock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1000)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _is_empty(spool: Path) -> bool:
    try:
        return not any(spool.glob("*.sqlite"))
    except OSError:
        return True
