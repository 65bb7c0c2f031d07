"""Which of several addresses of the same service is in use. Pure: nothing is contacted here."""

from __future__ import annotations

import threading
from collections.abc import Sequence


class Hosts:
    """Addresses (URLs) that serve the same, in order of preference. One that works is kept; where one fails the next is
    in use at once. Any thread may call."""

    def __init__(self, urls: Sequence[str]) -> None:
        if not urls:
            raise ValueError("at least one address is needed")
        self._urls = tuple(urls)
        self._lock = threading.Lock()
        self._failed: set[str] = set()
        self._url = self._urls[0]

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def url(self) -> str:
        """The address in use."""
        return self._url

    @property
    def in_turn(self) -> tuple[str, ...]:
        """All addresses, the one in use first."""
        url = self._url
        return (url, *self._after(url)[:-1])

    def use(self, url: str) -> None:
        """``url`` is in use from now on: another one may not be asked yet."""
        with self._lock:
            self._url = url

    def worked(self, url: str) -> None:
        """``url`` did what is asked of it: it is kept, and the others may be tried again when it fails."""
        with self._lock:
            self._url = url
            self._failed.clear()

    def failed(self, url: str) -> bool:
        """``url`` did not serve. True where another is in use now that has not failed since one last worked: try it at
        once. False where all have failed: the first is in use again, and a pause is due before it is tried."""
        with self._lock:
            self._failed.add(url)
            untried = [other for other in self._after(self._url) if other not in self._failed]
            if self._url in self._failed:
                self._url = untried[0] if untried else self._urls[0]
            if not untried:
                self._failed.clear()
            return bool(untried)

    def _after(self, url: str) -> tuple[str, ...]:
        """All addresses, that one last."""
        at = self._urls.index(url) + 1
        return self._urls[at:] + self._urls[:at]
