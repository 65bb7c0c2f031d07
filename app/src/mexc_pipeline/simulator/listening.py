"""What is said where the simulated exchange cannot listen."""

from __future__ import annotations

import errno
import os
import socket


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """One line that names what is in the way: only a port that is taken or not allowed is helped by another one."""
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {host}: {error.strerror}; give this machine's name or address with --host"
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        return f"cannot listen on {host}:{port}: {why}; choose another --port"
    if error.errno in (errno.EADDRNOTAVAIL, None):  # None: asyncio of 3.13 on passes it over
        return f"cannot listen on {host}: no address of this machine; choose another --host, such as 127.0.0.1"
    return f"cannot listen on {host}:{port}: {why}"
