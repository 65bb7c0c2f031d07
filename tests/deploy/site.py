"""A deployed system as its tests see it: collector hosts, the ClickHouse host, and what they say of themselves.

What should be there is read from the machines' own configuration, so that the same tests serve any inventory.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import testinfra
from testinfra.host import Host

from deploy.comparison import Sent

CONFIG = "/etc/mexc-pipeline/config.toml"
PYTHON = "/opt/mexc-pipeline/current/bin/python"
_REMOTE = Path(__file__).parent / "remote"
_T = TypeVar("_T")


def hosts(inventory: str, group: str) -> list[Host]:
    """The hosts of an inventory group."""
    found: list[Host] = testinfra.get_hosts([f"ansible://{group}"], ansible_inventory=inventory)
    return found


def name(host: Host) -> str:
    """The host's inventory name."""
    return str(host.backend.get_hostname())


def configuration(host: Host) -> dict[str, Any]:
    """The recorder's configuration on a collector host."""
    return tomllib.loads(host.file(CONFIG).content_string)


def period_s(host: Host) -> float:
    """The length of a file."""
    text = configuration(host)["period"]
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def symbols(host: Host) -> dict[str, str]:
    """Id → the exchange's name of the symbols that this host records."""
    config = configuration(host)
    return {config["symbol"][symbol]["id"]: symbol for symbol in config["symbols"]}


def run_json(host: Host, command: str, *arguments: str) -> Any:
    """What a command prints, as JSON. Its exit status is not judged: a failed check prints its findings too."""
    done = host.run(command, *arguments)
    assert done.stdout.strip(), f"{name(host)}: {command} printed nothing: {done.stderr}"
    return json.loads(done.stdout)


def status(host: Host) -> dict[str, dict[str, Any]]:
    """``mexc-pipeline status`` per symbol id: ``collector``, ``store``, ``last_export``."""
    said = run_json(host, "mexc-pipeline status --json")
    return {symbol["id"]: symbol for symbol in said["symbols"]}


def exported(host: Host, symbol_id: str) -> list[tuple[str, int, str, str]]:
    """(file, seq, mt, hash of m or the event) of every exported row of a symbol."""
    folder = configuration(host)["export_dir"]
    rows = run_json(host, f"{PYTHON} -c %s %s %s", (_REMOTE / "exported.py").read_text(), folder, symbol_id)
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def received(host: Host, symbol_id: str) -> list[tuple[int, str, int]]:
    """(seq, mt, rx in Unix ns) of every exported row of a symbol."""
    folder = configuration(host)["export_dir"]
    rows = run_json(host, f"{PYTHON} -c %s %s %s", (_REMOTE / "exported.py").read_text(), folder, symbol_id)
    return [(row[1], row[2], row[4]) for row in rows]


def sent(network: Host, symbol: str = "") -> list[Sent]:
    """The data connections the exchange has had, oldest first."""
    words = [(_REMOTE / "sent.py").read_text(), *([symbol] if symbol else [])]
    command = "/srv/simulator/bin/python -c %s /srv/sent" + (" %s" if symbol else "")
    return [Sent(**connection) for connection in run_json(network, command, *words)]


def until(what: str, probe: Callable[[], _T | None], seconds: float, every: float = 1.0) -> _T:
    """Ask until there is an answer, and return it; an assertion that probe makes in vain is shown at the end."""
    deadline = time.monotonic() + seconds
    problem: AssertionError | None = None
    while True:
        try:
            found = probe()
        except AssertionError as error:
            problem, found = error, None
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s") from problem
        time.sleep(every)
