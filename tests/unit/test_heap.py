"""What is freed goes back to the system, also from between what is kept, and threads share one heap."""

from __future__ import annotations

import subprocess
import sys

_BEGIN = """
import threading
from pathlib import Path
from mexc_pipeline.heap import Heap

def resident(file, row):
    return next(int(line.split()[1]) >> 10 for line in file.splitlines() if line.startswith(row))

def whole():
    return resident(Path("/proc/self/status").read_text(), "VmRSS:")

heap = Heap()
heap.share()
kept = []

def work():
    made = [bytes(2000) for _ in range(50_000)]
    kept.extend(made[::EVERY])

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def _said(code: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_empty_pages_between_what_is_kept_are_given_back() -> None:
    before, after = _said(_BEGIN.replace("EVERY", "100") + "before = whole()\nheap.give_back()\nprint(before, whole())")
    assert before > 90
    assert after < before / 2


def test_what_a_thread_makes_lies_in_the_heap_of_all() -> None:
    of_all = 'print(resident(Path("/proc/self/smaps").read_text().split("[heap]")[1], "Rss:"))'
    assert _said(_BEGIN.replace("EVERY", "1") + of_all)[0] > 90


def test_what_is_large_goes_back_when_it_is_freed() -> None:
    """After larger ones were freed, after which glibc takes it from a heap."""
    code = _BEGIN.replace("EVERY", "100000") + (
        "heap.map_large()\nkept = bytes(30 << 20)\nkept = None\n"
        "pieces = [b'x' * (2 << 20) for _ in range(20)]\nbefore, end = whole(), b'x' * 1000\n"
        "pieces.clear()\nprint(before, whole())"
    )
    before, after = _said(code)
    assert after < before - 30
