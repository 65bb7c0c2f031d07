"""The page of rights says what the unit templates and the control sockets' request tables say, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

collector = import_module("mexc_pipeline.collector.main")  # the package has a function of that name
store = import_module("mexc_pipeline.store.service")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "rights.md"
TEMPLATES = ROOT / "roles" / "mexc_pipeline" / "templates"
_TOR = "egress.mode == 'tor'"
_ALLOWED = "mexc_pipeline_egress_allow"
_WORDS = {
    "{{ mexc_pipeline_data_dir }}": "{data_dir}",
    "{{ mexc_pipeline_export_dir }}": "{export_dir}",
    "{{ symbol.id }}": "ID",
    "%i": "ID",
    "{{ _mexc_pipeline_tor | map('regex_replace', '^', '_tor-') | join(' ') }}": "_tor-ID",
    "{{ (['localhost'] + _mexc_pipeline_store_allow) | join(' ') }}": "loopback and ClickHouse",
    "{{ mexc_pipeline_egress_allow | join(' ') }}": "`mexc_pipeline_egress_allow`",
}


def _rendered(text: str, truths: dict[str, bool]) -> str:
    """A template's lines with these conditions decided; KeyError for a condition nobody thought of."""
    text = re.sub(r"\{% include '([^']+)' %\}", lambda m: (TEMPLATES / m[1]).read_text(), text)
    text = re.sub(r"\{#.*?#\}|\{% set .*? %\}", "", text, flags=re.DOTALL)
    kept: list[str] = []
    shown = [True]
    for line in text.splitlines():
        if match := re.fullmatch(r"\{% if (.*) %\}", line):
            shown.append(truths[match[1]])
        elif line == "{% else %}":
            shown[-1] = not shown[-1]
        elif line == "{% endif %}":
            shown.pop()
        elif all(shown):
            kept.append(line)
    return "\n".join(kept)


def _settings(*texts: str) -> dict[str, list[str]]:
    """Directives as systemd adds them up: an empty one clears what was said before."""
    found: dict[str, list[str]] = {}
    for line in "\n".join(texts).splitlines():
        key, is_set, value = line.partition("=")
        if not is_set or line.startswith("#"):
            continue
        for expression, word in _WORDS.items():
            value = value.replace(expression, word)
        assert key not in ("SupplementaryGroups", "ReadWritePaths", "IPAddressAllow") or "{{" not in value, line
        found[key] = [*found.get(key, []), value] if value else []
    return found


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _network(said: dict[str, list[str]]) -> str:
    if said.get("PrivateNetwork", ["no"])[-1] == "yes":
        return "none"
    assert "AF_INET" in said["RestrictAddressFamilies"][-1]
    if said.get("IPAddressDeny"):
        return f"only {', '.join(said['IPAddressAllow'])}"
    return "any"


def _row(name: str, said: dict[str, list[str]]) -> str:
    groups = [group for value in said.get("SupplementaryGroups", []) for group in value.split()]
    writes = [path for value in said.get("ReadWritePaths", []) for path in value.split()]
    writes += [f"/run/{folder}" for folder in said.get("RuntimeDirectory", [])]
    assert said["ProtectSystem"] == ["strict"]
    assert said["NoNewPrivileges"] == said["PrivateDevices"] == said["ProtectHome"] == said["PrivateTmp"] == ["yes"]
    capabilities = [*said["CapabilityBoundingSet"], *said["AmbientCapabilities"]]
    user = f"{said['User'][-1]}:{said['Group'][-1]}"
    return f"| {name} | `{user}` | {_code(groups)} | {_code(capabilities)} | {_code(writes)} | {_network(said)} |"


def _units() -> list[str]:
    rows = []
    for path in sorted(TEMPLATES.glob("*.service.j2")):
        unit = f"`{path.name.removesuffix('.service.j2')}`"
        for tor, allowed in ((True, False), (False, False), (False, True)):
            truths = {
                "mexc_pipeline_on_failure": False,
                "_mexc_pipeline_tor": tor,
                "_mexc_pipeline_all_tor": tor,
                _TOR: tor,
                _ALLOWED: allowed,
            }
            texts = [_rendered(path.read_text(), truths)]
            if path.name.startswith("mexc-collector@"):
                texts.append(_rendered((TEMPLATES / "instance.conf.j2").read_text(), truths))
            way = "by Tor" if tor else "not by Tor, addresses named" if allowed else "not by Tor"
            rows.append((unit, way, _row("{}", _settings(*texts))))
    shown = []
    for unit in dict.fromkeys(unit for unit, _, _ in rows):
        ways = [(way, row) for name, way, row in rows if name == unit]
        if len({row for _, row in ways}) == 1:
            shown.append(ways[0][1].replace("{}", unit, 1))
        else:
            shown += [row.replace("{}", f"{unit}, {way}", 1) for way, row in ways]
    instance = _settings(_rendered((ROOT / "roles/tor/templates/hardening.conf.j2").read_text(), {}))
    return [*shown, _row("`tor@ID`", instance)]


def _sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[tuple[Iterable[str], Iterable[str]]] = []

    def server(_path: Path, handlers: dict[str, Callable[..., Any]], for_group: Iterable[str] = ()) -> None:
        made.append((handlers, for_group))

    monkeypatch.setattr(collector, "ControlServer", server)
    collector._Collector._serve(MagicMock())
    made.append((store.Store.handlers(MagicMock()), store.FOR_GROUP))
    (mine, mine_group), (stores, stores_group) = made
    return [
        f"| the units' user (`mexc`), root | {_code(sorted(mine))} | {_code(sorted(stores))} |",
        f"| another member of the group `mexc` | {_code(sorted(mine_group))} | {_code(sorted(stores_group))} |",
        "| anybody else | none | none |",
    ]


def _table(heading: str) -> list[str]:
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def test_units() -> None:
    assert _table("Units") == _units()


def test_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _table("Control sockets") == _sockets(monkeypatch)


def test_every_setting_that_is_named_is_one_of_a_role() -> None:
    named = set(re.findall(r"`((?:mexc_pipeline|clickhouse|tor)_\w+)`", PAGE.read_text()))
    specs = "".join(path.read_text() for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"))
    assert named
    assert named <= set(re.findall(r"^ +(\w+):", specs, re.MULTILINE))
