"""Every command and every piece of code that the documents show is run, beside a recording that is going on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from mexc_pipeline.config import parse
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from support.peers import free_port
from support.waiting import until

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "app/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
ELSEWHERE = {"operators.md", "sizing.md"}
"""Pages whose commands need the deployed system; the deployment tests run those."""
_FENCE = re.compile(r"^```(\S*) ?(\S*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(mexc-pipeline [^`]+)`")
_WORDS = {"SQL": "SELECT 1", "DIR": "copied", "FILE…": "--help", "btc": "btc"}


@dataclass(frozen=True)
class Block:
    """A fenced block: page, language, what it is for, text."""

    page: str
    language: str
    note: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}: {self.text.strip().splitlines()[0][:50]}"


def blocks(language: str, note: str = "") -> list[Block]:
    """Blocks of a language from all pages run here."""
    found = []
    for page in PAGES:
        if page.name in ELSEWHERE:
            continue
        for match in _FENCE.finditer(page.read_text()):
            if match[1] == language and (not note or match[2] == note):
                found.append(Block(page.name, match[1], match[2], match[3]))
    return found


def commands() -> list[str]:
    """``mexc-pipeline`` commands that the pages show, in blocks and in running text."""
    found: dict[str, None] = {}
    for page in PAGES:
        if page.name in ELSEWHERE:
            continue
        text = page.read_text()
        for match in _FENCE.finditer(text):
            if match[1] == "sh":
                for line in match[3].splitlines():
                    command = line.split("  #")[0].strip().removeprefix(".venv/bin/")
                    if command.startswith("mexc-pipeline "):
                        found[command] = None
        for match in _INLINE.finditer(_FENCE.sub("", text)):
            found[match[1]] = None
    return list(found)


class Recording:
    """A folder in which a recording of three symbols is going on."""

    def __init__(self, folder: Path, sim: Simulator) -> None:
        self.folder = folder
        config = folder / "config.toml"
        config.write_text(
            f'period = "8s"\n[exchange]\nwebsocket = "{sim.ws_url}"\nrest = "{sim.rest_url}"\n'
            '[clickhouse]\nmode = "embedded"\n'
            '[channels]\nfunding = true\nindex_price = true\nfair_price = true\nkline = "Min1"\ncontract = true\n'
        )
        (folder / "demo-data").mkdir()
        (folder / "demo-data" / "latest").symlink_to(folder)  # its name after a demo
        (folder / "demo.toml").symlink_to(config)
        self.environment = {**os.environ, "MEXC_PIPELINE_CONFIG": str(config)}
        with (folder / "run.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mexc_pipeline", "run"],
                cwd=folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def call(self, *arguments: str, timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout_s
        )

    def command(self, command: str) -> subprocess.CompletedProcess[str]:
        """A ``mexc-pipeline`` command as a page shows it."""
        words = [_WORDS.get(word, word) for word in shlex.split(command)]
        arguments = [sys.executable, "-m", "mexc_pipeline", *words[1:]]
        if words[1] in ("run", "demo", "collect", "store", "simulate", "egress", "metrics", "dashboard"):
            # Each lasts until told otherwise, or needs what is not here; their own tests run them.
            arguments.append("--help")
        return self.call(*arguments)

    def files(self) -> list[Path]:
        return sorted((self.folder / "exports").glob("*.parquet"))


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    changes = (Fault("contract_change", at=1, every=1),)
    with Simulator(SimulatorConfig(rate=60.0, seed=11, faults=changes)) as sim:
        running = Recording(tmp_path, sim)
        try:
            until(lambda: len(running.files()) >= 6, 60, "two files per symbol")
            yield running
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(90) == 0, (running.folder / "run.log").read_text()[-3000:]
        finally:
            if running.process.poll() is None:
                running.process.kill()


def test_pages_show_something() -> None:
    assert len(blocks("python")) >= 2
    assert len(commands()) >= 10


@pytest.mark.timeout(300)
def test_all_that_needs_a_recording(recording: Recording, subtests: pytest.Subtests) -> None:
    """One test: each that is run beside others would make a recording of its own. A probe looks for as long as it is
    told to, and the recording costs more than what is run; so the probes look while everything else is run."""
    probes = [command for command in commands() if command.startswith("mexc-pipeline probe ")]
    with ThreadPoolExecutor(len(probes)) as beside:
        looking = {command: beside.submit(recording.command, command) for command in probes}
        for block in blocks("python"):
            with subtests.test(block.name):
                done = recording.call(sys.executable, "-c", block.text)
                assert done.returncode == 0, done.stderr
                assert done.stdout or "print" not in block.text
        for block in blocks("sql", "duckdb"):
            with subtests.test(block.name), duckdb.connect() as db:
                db.execute(f"SET file_search_path = '{recording.folder}'")
                assert db.execute(block.text).fetchall()
        for block in blocks("sql", "clickhouse"):
            with subtests.test(block.name):
                # An engine of its own: the recording's one stands under the store's care and reads no files.
                code = "import sys, chdb; print(chdb.query(sys.argv[1], 'TSV'))"
                done = recording.call(sys.executable, "-c", code, block.text)
                assert done.returncode == 0, done.stderr
                assert done.stdout.strip()
        for command in sorted(commands(), key=lambda command: command in looking):
            with subtests.test(command):
                done = looking[command].result() if command in looking else recording.command(command)
                assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
                assert done.stdout


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda b: b.name)
def test_configuration(block: Block) -> None:
    assert tomllib.loads(block.text)
    assert parse(block.text, None).symbols


def test_recording_the_simulator_goes_as_the_guide_says(tmp_path: Path) -> None:
    """Its file and its two commands, at a port that is free here and for a shorter while."""
    section = (
        (ROOT / "docs" / "user-guide.md")
        .read_text()
        .partition("### Recording the simulator\n")[2]
        .partition("\n## ")[0]
    )
    section = section.replace("8765", str(free_port())).replace("--duration 20s", "--duration 4s")
    (configuration,), (commands,) = (
        [m[3] for m in _FENCE.finditer(section) if m[1] == kind] for kind in ("toml", "sh")
    )
    (tmp_path / "simulated.toml").write_text(configuration)
    simulate, run = ([sys.executable, "-m", "mexc_pipeline", *shlex.split(c)[1:]] for c in commands.splitlines())
    with subprocess.Popen(simulate, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as exchange:
        try:
            assert exchange.stdout is not None
            assert exchange.stdout.readline().startswith("simulating ")
            done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=90)
        finally:
            exchange.send_signal(signal.SIGINT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert exchange.returncode == 0
    names = {path.name[:3] for path in (tmp_path / "simulated" / "exports").glob("*.parquet")}
    assert names == {"btc", "eth", "sol"}


def test_make_knows_the_verbs() -> None:
    verbs = set(re.findall(r"(?:`|^)make ([a-z-]+)", "".join(page.read_text() for page in PAGES), re.MULTILINE))
    assert {"demo", "run", "test"} <= verbs
    for verb in verbs:
        done = subprocess.run(["make", "--dry-run", verb], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"make {verb}: {done.stderr}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
