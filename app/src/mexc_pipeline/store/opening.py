"""What comes before the embedded engine opens its folder, and the end of an opening that has none itself. The engine
holds the interpreter meanwhile, so the end comes from a process beside: this module, run."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from mexc_pipeline import logs
from mexc_pipeline.output import say_now
from mexc_pipeline.paths import not_a_file

WITHIN_S = 90
"""From the beginning until the engine is open: within the 120 s of the store's unit (``TimeoutStartSec``), so that the
line is said. A folder of 5,000 tables takes 2 s, and ten times as long on a machine that is ten times too busy."""
OF_FOLDER_S = 60
"""What the folder itself must have had of that to be taken for the cause: the engine alone is half a gigabyte, which a
cold disk may take its time to give."""
MARK = "did-not-open"
"""A file in the folder: it did not open in time. It goes with the folder where that is set aside."""
_MARK_S = 5.0
_WHOLE = (".sql", ".json")
"""Files that the engine reads whole when it opens: each has a few hundred bytes."""
_MOST = 1 << 20


def refused(folder: Path) -> str:
    """Why the engine is not to open a folder, empty where it may: it waits for a FIFO for ever, and fills the memory
    with a definition that claims to have gigabytes."""
    if os.path.lexists(folder / MARK):
        return "it did not open in time before"
    for path, _, names in os.walk(folder):
        for file in (Path(path, name) for name in names):
            if why := _unfit(file):
                return f"{file.relative_to(folder)} {why}"
    return ""


def _unfit(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:  # such as a link to nothing, which the engine leaves itself; of all else it says what it is
        return ""
    if not stat.S_ISREG(found.st_mode):
        return f"is {not_a_file(file)}"
    if file.suffix in _WHOLE and found.st_size > _MOST:
        return f"has {found.st_size} bytes"
    return ""


@contextlib.contextmanager
def watched(folder: Path, within_s: int, of_folder_s: int) -> Iterator[Callable[[], None]]:
    """End this process by SIGKILL, with a line, where what is done here takes longer than ``within_s``. What is given
    is called when the folder's own turn begins: one that had ``of_folder_s`` of that is marked."""
    asked = [sys.executable, "-m", __name__, *map(str, (os.getpid(), within_s, of_folder_s, folder))]
    with subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0) as watcher:
        pipe = watcher.stdin
        assert pipe is not None

        def begins() -> None:
            pipe.write(b".")

        yield begins


def main(pid: int, within_s: int, of_folder_s: int, folder: Path) -> None:
    """Wait for the end of standard input: the process is done then, or gone. Where it does not come, say so, mark the
    folder, and kill it."""
    # sent to all of a group: the one that is waited for decides what they end
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    had_s = _waited(within_s)
    if had_s is None:
        return
    marked = had_s >= of_folder_s and _marked(folder)
    then = "the next start sets it aside and loads a new one from the spool" if marked else "the next start tries again"
    fields = {"folder": str(folder), "within_s": within_s, "then": f"{then}; look at the disk and the machine's load"}
    said = logs.line("mexc_pipeline.store", logging.ERROR, "embedded ClickHouse did not open in time, ending", fields)
    say_now(f"{said}\n")
    os.kill(pid, signal.SIGKILL)


def _waited(within_s: int) -> int | None:
    """Seconds since the folder's turn began, None where the end was seen. They are counted one by one: while this
    machine or both processes stand still, no time passes."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    began = within_s
    for second in range(within_s):
        if poll.poll(1000):
            if not os.read(0, 1):
                return None
            began = second
    return within_s - began


def _marked(folder: Path) -> bool:
    """Whether the mark could be made. A disk that stands still is not waited for, and its folder is not at fault."""
    made = threading.Event()

    def mark() -> None:
        with contextlib.suppress(OSError):  # not marked; the line says that it is tried again
            os.close(os.open(folder / MARK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
            made.set()

    threading.Thread(target=mark, daemon=True).start()
    return made.wait(_MARK_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
