"""What is freed goes back to the system, also from between what is kept, and threads share one heap."""

from __future__ import annotations

import subprocess
import sys

_BEGIN = """
import threading
from pathlib import Path
from mexc_pipeline.collector.heap import Heap

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
