"""Makes a connection by whichever way out is configured, for those who ask once and keep none."""

from __future__ import annotations

from mexc_pipeline.config import Egress
from mexc_pipeline.egress import dial as single
from mexc_pipeline.egress.dial import Dialled
from mexc_pipeline.egress.tor import Tor


def dial(egress: Egress, url: str, ca_file: str = "") -> Dialled:
    """Connect to the host of ``url`` (ws, wss, http or https). Raises EgressError; there is no way round a proxy or Tor
    that fails."""
    if egress.mode == "tor":
        return Tor(egress).request(egress, url, ca_file)
    return single.dial(egress, url, ca_file)
