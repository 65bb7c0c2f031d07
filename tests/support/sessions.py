"""An exchange of a test's own making: whatever it does with a session, and answers over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve


@contextmanager
def serving_sessions(
    session: Callable[[ServerConnection], None],
    answer: Callable[[ServerConnection, Request], Response | None],
    over: threading.Event,
) -> Iterator[int]:
    """The port where it listens. ``answer`` is asked of each request and gives None to a session's; ``over`` is set
    when sessions are to end."""
    with serve(session, "127.0.0.1", 0, compression=None, process_request=answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.socket.getsockname()[1])
        finally:
            over.set()
            server.shutdown()
            thread.join(10)
