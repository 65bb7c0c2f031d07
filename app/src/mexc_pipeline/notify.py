"""Tells systemd how the service is doing; does nothing where systemd did not start it (no ``NOTIFY_SOCKET``).

What systemd can be told is never worth the work: who does not listen, or does not read, is not waited for. It will
notice by itself that it hears nothing.

Protocol: sd_notify(3).
"""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger("mexc_pipeline.notify")


def _send(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(message.encode(errors="replace"), socket.MSG_DONTWAIT, address)
    except (OSError, ValueError) as error:  # ValueError: no address at all
        log.warning("systemd cannot be told", extra={"fields": {"why": str(error)}})


def ready() -> None:
    """The service works: locks are held and its loops run."""
    _send("READY=1")


def watchdog() -> None:
    """The loops made progress since the last call."""
    _send("WATCHDOG=1")


def stopping() -> None:
    """The service is ending."""
    _send("STOPPING=1")


def status(text: str) -> None:
    """Show one line in ``systemctl status``."""
    _send(f"STATUS={text}")
