"""Folders that are slow to make, kept outside the repository and made again when what they are made of changes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_KEEP_UNUSED_S = 7 * 86400


def folder() -> Path:
    """The cache: ``$MEXC_TEST_CACHE``, or ``~/.cache/mexc-pipeline-tests``."""
    return Path(os.environ.get("MEXC_TEST_CACHE") or "~/.cache/mexc-pipeline-tests").expanduser()


def key(parts: Iterable[str | bytes]) -> str:
    """A short name for the inputs, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:16]


def made(name: str, inputs: Iterable[str | bytes], build: Callable[[Path], None]) -> Path:
    """The folder of these inputs, made by ``build`` if there is none; never half-made, made once by many callers."""
    cache = folder()
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{name}-{key(inputs)}"
    with _locked(cache / f"{name}.lock"):
        if not target.is_dir():
            work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
            work.chmod(0o755)
            try:
                build(work)
                work.rename(target)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
        os.utime(target)
        _drop_unused(cache, name, target)
    return target


def _drop_unused(cache: Path, name: str, target: Path) -> None:
    oldest = time.time() - _KEEP_UNUSED_S
    for other in cache.glob(f"{name}-*"):
        if other != target and other.stat().st_mtime < oldest:
            shutil.rmtree(other)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
