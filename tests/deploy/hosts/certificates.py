"""A private certificate authority and what it signs, for one run."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from deploy.hosts.errors import run


def make(folder: Path, servers: Mapping[str, str]) -> None:
    """Write ``ca.pem``, and ``<name>.pem`` and ``<name>.key`` for every server; the value is its name or address."""
    folder.mkdir(mode=0o700, parents=True)
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3"]
    run([
        *new, "-subj", "/CN=test authority", "-keyout", folder / "ca.key", "-out", folder / "ca.pem",
        "-addext", "keyUsage=critical,keyCertSign",
    ])  # fmt: skip
    for name, where in servers.items():
        run([
            *new, "-subj", f"/CN={where}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
            "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key",
            "-addext", f"subjectAltName={_kind(where)}:{where}", "-addext", "basicConstraints=critical,CA:FALSE",
        ])  # fmt: skip


def _kind(where: str) -> str:
    try:
        ipaddress.ip_address(where)
    except ValueError:
        return "DNS"
    return "IP"
