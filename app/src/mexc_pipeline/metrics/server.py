"""The HTTP server that answers ``/metrics`` and ``/healthz``: each request asks the parts anew, one at a time, and
nothing of an answer is kept."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

import mexc_pipeline
from mexc_pipeline import overview
from mexc_pipeline.config import Config
from mexc_pipeline.metrics.families import families
from mexc_pipeline.serving import Access, HttpHandler, HttpServer, until_told

log = logging.getLogger("mexc_pipeline.metrics")

SHOWN = 20
"""Faults in an answer of ``/healthz``; the others are counted."""


def serve(config: Config, access: Access) -> int:
    """Answer until SIGTERM, SIGINT or SIGHUP; returns the exit status. Raises as :func:`listening`."""
    return until_told(_Server(config, access), "metrics")


@contextmanager
def listening(config: Config, access: Access) -> Iterator[int]:
    """Answer in threads meanwhile, at the port given. UserError where nothing can be listened to, ConfigError for an
    access that does not fit."""
    with _Server(config, access).answering() as port:
        yield port


class _Server(HttpServer):
    def __init__(self, config: Config, access: Access) -> None:
        self.config = config
        self.one_at_a_time = threading.Lock()
        super().__init__(access, _Handler, log)

    def gather(self) -> tuple[dict[str, Any], float]:
        """What the parts say, and how long that took in s."""
        with self.one_at_a_time:
            began = time.monotonic()
            return overview.gather(self.config), time.monotonic() - began


class _Handler(HttpHandler):
    server: _Server

    def respond(self, path: str, query: str) -> None:  # noqa: ARG002 - nothing is asked by it
        """The two pages that there are."""
        if path == "/metrics":
            self._metrics()
        elif path == "/healthz":
            self._health()
        else:
            self.answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"there are /metrics and /healthz\n")

    def _metrics(self) -> None:
        found, took_s = self.server.gather()
        registry = CollectorRegistry()
        disks = overview.disks(self.server.config)
        registry.register(_Found(list(families(found, disks, mexc_pipeline.__version__, took_s))))
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        self.answer(HTTPStatus.OK, kind, encode(registry))

    def _health(self) -> None:
        found, _ = self.server.gather()
        body = json.dumps(health_of(found), ensure_ascii=False).encode() + b"\n"
        status = HTTPStatus.OK if found["ok"] else HTTPStatus.SERVICE_UNAVAILABLE
        self.answer(status, "application/json", body)


class _Found:
    """What the library takes for a source of metrics."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        """The metrics of this one scrape."""
        return iter(self._found)


def health_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of ``/healthz``: ``ok``; how many ``symbols``; ``faults``, how many of each kind; ``worst``, the first
    of them with the part's id, the worst first."""
    faults = overview.faults_of(found)
    return {
        "ok": found["ok"],
        "symbols": len(found["symbols"]),
        "faults": dict(Counter(reason["kind"] for _, reason in faults)),
        "worst": [{"id": who, **reason} for who, reason in faults[:SHOWN]],
    }
