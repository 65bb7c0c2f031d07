"""Ctrl-C while the program is loading or ending: one line and exit status 130, never a traceback of imports.

Imports nothing but what the interpreter has loaded already.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

STATUS = 130
"""Exit status of what Ctrl-C ended: 128 and SIGINT's number, as shells have it."""
SAID = "interrupted"


def at_once() -> None:
    """From now on Ctrl-C ends the process where it stands; nothing is under way that would have to be tidied up.

    Where it is ignored, as in the background of a script, that stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def in_order() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again: what is under way is tidied up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    try:
        os.write(2, f"mexc-pipeline: {SAID}\n".encode())
    except OSError:
        os._exit(STATUS)  # nobody is there to be told
    os._exit(STATUS)
