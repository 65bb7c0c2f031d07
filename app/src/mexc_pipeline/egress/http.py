"""One REST request over the configured egress: the same way out as the frames."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

from mexc_pipeline import __version__
from mexc_pipeline.config import Egress
from mexc_pipeline.egress.dial import Dial, EgressError, deadline, dial

MAX_BODY = 16 << 20


def get(
    egress: Egress, base: str, path: str, *, ca_file: str = "", within_s: float = 5.0, dialler: Dial = dial
) -> tuple[int, bytes]:
    """GET ``base + path``; (status, body). Raises EgressError where no answer came within ``within_s`` seconds of
    being connected. Redirects are not followed: they could lead anywhere."""
    parts = urlsplit(base)
    dialled = dialler(egress, base, ca_file)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.sock = dialled.sock
    connection.auto_open = 0  # never connects by itself
    try:
        with deadline(dialled.sock, within_s, f"GET {base}{path}"):
            headers = {"User-Agent": f"mexc-pipeline/{__version__}", "Accept": "application/json"}
            connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
            response = connection.getresponse()
            body = response.read(MAX_BODY)
            if response.length:  # http.client lets a body that breaks off pass as whole
                raise EgressError(f"GET {base}{path}: broke off after {len(body)} bytes, or is longer than {MAX_BODY}")
            return response.status, body
    except (OSError, http.client.HTTPException) as error:
        raise EgressError(f"GET {base}{path}: {error or type(error).__name__}") from error
    finally:
        connection.close()
        dialled.sock.close()
