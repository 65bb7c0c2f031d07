"""picows on uvloop that counts frames and does nothing else: the limit of what Python can take off a socket."""

from __future__ import annotations

import picows
import uvloop

from bench.peers.meter import arguments, measure, subscriptions


class _Counter(picows.WSListener):  # type: ignore[misc]  # the package is not typed
    def __init__(self, requests: list[str]) -> None:
        super().__init__()
        self._requests = requests
        self.frames = 0

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        for request in self._requests:
            transport.send(picows.WSMsgType.TEXT, request.encode())

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:  # noqa: ARG002
        self.frames += 1


async def _read() -> None:
    options = arguments()
    counter = _Counter(subscriptions(options.symbol))
    measure(options, lambda: counter.frames, dict)
    transport, _ = await picows.ws_connect(lambda: counter, options.url)
    await transport.wait_disconnected()


def main() -> None:
    uvloop.run(_read())


if __name__ == "__main__":
    main()
