"""The least that durable can cost: a bare reader that appends each frame to a plain file and syncs it at once."""

from __future__ import annotations

import os
import tempfile

import websocket

from bench.peers.meter import arguments, measure, subscriptions


def main() -> None:
    options = arguments()
    ws = websocket.WebSocket(skip_utf8_validation=True)
    ws.connect(options.url)  # type: ignore[no-untyped-call]
    for request in subscriptions(options.symbol):
        ws.send(request)
    frames = [0]
    measure(options, lambda: frames[0], dict)
    with tempfile.TemporaryFile(dir=options.folder) as file:
        fd = file.fileno()
        while True:
            os.write(fd, ws.recv_data()[1])
            os.fdatasync(fd)
            frames[0] += 1


if __name__ == "__main__":
    main()
