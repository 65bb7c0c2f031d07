"""``demo``: one command, offline, everything proven; nothing of it survives it."""

from __future__ import annotations

import functools
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import duckdb

from support import waiting

_until = functools.partial(waiting.until, timeout_s=40.0)


def _start(folder: Path, *args: str) -> subprocess.Popen[str]:
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "mexc_pipeline", "demo", "--dir", str(folder / "demo"), *args],
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            text=True,
        )


def _port(folder: Path) -> int | None:
    """The simulator's port, once the demo has written its configuration."""
    for path in (folder / "demo").glob("*/demo.toml"):
        found = re.search(r"ws://127\.0\.0\.1:(\d+)/", path.read_text())
        if found:
            return int(found[1])
    return None


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_the_demo_proves_three_symbols_and_leaves_nothing_running(tmp_path: Path) -> None:
    process = _start(tmp_path, "--duration", "11s", "--json")
    try:
        assert process.wait(110) == 0, (tmp_path / "err").read_text()
    finally:
        process.kill()
        process.wait()
    answer = json.loads((tmp_path / "out").read_text())
    assert answer["ok"]
    assert {line["symbol"] for line in answer["periods"]} == {"BTC_USDT", "ETH_USDT", "SOL_USDT"}
    assert len(answer["periods"]) >= 6, "at least one rotation"
    for line in answer["periods"]:
        assert line["received"] == line["stored"] == line["exported"] > 0
    port = _port(tmp_path)
    assert port is not None
    assert not _listens(port)


def test_what_it_says_last_and_what_the_readme_shows_next_work_as_pasted(tmp_path: Path) -> None:
    """The readme's snippets name the default folder; the demo's own last lines the one it was given."""
    demo = [sys.executable, "-m", "mexc_pipeline", "demo", "--duration", "11s"]
    (tmp_path / "demo-data" / "earlier").mkdir(parents=True)
    (tmp_path / "demo-data" / "latest").symlink_to("earlier")
    done = subprocess.run(demo, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    files, read, asked, others, following = done.stdout.splitlines()[-5:]
    assert (tmp_path / files.removeprefix("files").strip()).is_dir()
    assert "run" in following
    command = read.removeprefix("read").strip()
    shown = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "seq" in shown.stdout, shown.stderr
    assert "--config" in others
    command = asked.removeprefix("ask").strip()
    shown = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    pasted = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert pasted.returncode == 0, pasted.stderr
    assert "price" in pasted.stdout
    of_demo = re.findall(r"^mexc-pipeline (--config demo-data/latest/demo.toml .*)$", readme, re.MULTILINE)
    assert len(of_demo) == 2
    for line in of_demo:
        words = [sys.executable, "-m", "mexc_pipeline", *shlex.split(line)]
        pasted = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    (query,) = re.findall(r"```sql duckdb\n(.*?)```", readme, re.DOTALL)
    with duckdb.connect() as db:
        db.execute(f"SET file_search_path = '{tmp_path}'")
        assert db.execute(query).fetchall()


def test_a_folder_in_the_place_of_the_newest_is_left_and_named(tmp_path: Path) -> None:
    (tmp_path / "demo" / "latest" / "mine").mkdir(parents=True)
    assert _start(tmp_path).wait(60) == 1
    said = (tmp_path / "err").read_text()
    assert said.count("\n") == 1
    assert f"{tmp_path}/demo/latest" in said
    assert (tmp_path / "demo" / "latest" / "mine").is_dir()


def test_kill_9_of_the_demo_ends_its_simulator_too(tmp_path: Path) -> None:
    process = _start(tmp_path)
    try:
        port: int = _until(lambda: _port(tmp_path), what="the simulator's address")
        assert _listens(port)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _until(lambda: not _listens(port), what="the simulator to end", timeout_s=3.0)
    finally:
        process.kill()
        process.wait()
