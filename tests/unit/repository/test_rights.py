"""The page of rights says what the unit templates, the roles' tasks and the control sockets' request tables say, and
nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from mexc_pipeline.collector import process
from support.repository import ROOT

store = import_module("mexc_pipeline.store.service")
PAGE = ROOT / "docs" / "rights.md"
TEMPLATES = ROOT / "roles" / "mexc_pipeline" / "templates"
_GIVEN = ("mexc_pipeline_metrics_certificate", "mexc_pipeline_metrics_key", "mexc_pipeline_metrics_password_file")
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
    "{{ _mexc_pipeline_metrics_peers | join(' ') }}": "loopback and `mexc_pipeline_metrics_allow`",
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
                "_mexc_pipeline_is_watched_only": False,
                "_mexc_pipeline_tor": tor,
                "_mexc_pipeline_all_tor": tor,
                _TOR: tor,
                _ALLOWED: allowed,
                **dict.fromkeys(_GIVEN, True),
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

    monkeypatch.setattr(process, "ControlServer", server)
    process.Process._serve(MagicMock(_left=[MagicMock()]))
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


# -- users, groups and files


@dataclass(frozen=True)
class _Task:
    """A task as the house writes it: one key a line, its module by its full name, no anchors."""

    name: str
    module: str
    said: dict[str, str]
    """The module's arguments that stand on one line."""
    turns: list[dict[str, str]]
    """Of a loop that is written out in the task; one that is not, or none, is a single turn without values."""


_KEY = re.compile(r"( +)(\S+?): ?(.*)")


def _tasks(role: Path) -> Iterator[_Task]:
    """A role's tasks and handlers, those within blocks too."""
    for path in sorted((*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml"))):
        for found in re.finditer(r"^( *)- name: (.*)\n((?:\1  .*\n|\n)*)", _flat(path.read_text()), re.MULTILINE):
            yield _task(found[2], found[3], len(found[1]) + 2)


def _flat(text: str) -> str:
    """Without the blocks around tasks, whose tasks then stand like any others; folded values on one line."""
    text = re.sub(r"^( +)(?=- name: )", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<=[,}])\n {8,}(?=\{)", " ", text)


def _task(name: str, body: str, depth: int) -> _Task:
    module, said, loop = "", {}, ""
    within = ""
    for line in body.splitlines():
        if not (match := _KEY.fullmatch(line)):
            loop += f"{line}\n" if within == "loop" else ""
            continue
        key, value = match[2], match[3].strip('"')
        if "." in key and key.startswith("ansible."):
            module, within = key, "module"
            depth = len(match[1])
        elif len(match[1]) == depth:
            within = key
            loop += value if key == "loop" else ""
        elif within == "module" and len(match[1]) == depth + 2:
            said[key] = value
        elif within == "loop":
            loop += f"{line}\n"
    turns = [{"dest": dest} for dest in re.findall(r"'?dest'?: '?([^'\s}]+(?: \}\}[^'\s}]+)?)", loop)]
    turns = turns or [{"": item} for item in re.findall(r"^ +- ([\w./]+)$", loop, re.MULTILINE)]
    return _Task(name, module, said, turns or [{}])


ROLES = sorted(path.parent.parent for path in (ROOT / "roles").glob("*/tasks/main.yml"))
_MAKING = tuple(
    f"ansible.builtin.{name}" for name in ("copy", "template", "file", "get_url", "unarchive", "lineinfile")
)
_PLACES = {"{{ item.name }}": "ID", "{{ symbol.id }}": "ID", "{{ item.id }}": "ID", "{{ item }}": "ID"} | _WORDS
Rule = tuple[str, str, str]
"""A path, its owner and group, its mode."""


def _named(text: str, role: Path) -> str:
    """A path or owner as the page writes it; a role's own constants are put in."""
    variables = role / "vars" / "main.yml"
    constants = re.findall(
        r'^(_\w+): "?([^">\n]+)"?$', variables.read_text() if variables.exists() else "", re.MULTILINE
    )
    for _ in range(3):
        for name, value in constants:
            text = text.replace(f"{{{{ {name} }}}}", value)
    for expression, word in _PLACES.items():
        text = text.replace(expression, word)
    return text


def _rules() -> list[Rule]:
    """Everything that the roles make and its rights: by tasks, and by what systemd-tmpfiles is given."""
    found: list[Rule] = []
    for role in ROLES:
        for task in _tasks(role):
            if task.module not in _MAKING or task.said.get("state") in ("link", "absent"):
                continue  # a link has no rights of its own
            assert {"owner", "group", "mode"} <= task.said.keys(), task
            owner = f"{_named(task.said['owner'], role)}:{_named(task.said['group'], role)}"
            path = task.said.get("dest") or task.said["path"]
            for turn in task.turns:
                placed = path.replace("{{ item.dest }}", turn.get("dest", "")).replace("{{ item }}", turn.get("", "ID"))
                found.append((_named(placed, role), owner, f"{int(task.said['mode'], 8):04o}"))
    for line in _rendered_lines(TEMPLATES / "tmpfiles.conf.j2"):
        kind, path, mode, owner, group, _ = _named(line, TEMPLATES.parent).split()
        assert kind == "d", line
        found.append((path, f"{owner}:{group}", mode))
    return sorted(set(found))


def _rendered_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith(("#", "{%"))]


def _is_for_all(rule: Rule) -> bool:
    return rule[1] == "root:root" and rule[2] in ("0644", "0755")


def _accounts() -> set[str]:
    """Users that the roles make, and those that own what the roles make."""
    made = {line.split()[1] for line in _rendered_lines(TEMPLATES / "sysusers.conf.j2")}
    for role in ROLES:
        for task in _tasks(role):
            if task.module == "ansible.builtin.user" and task.said.get("state") != "absent":
                made.add(_named(task.said["name"], role))
    return made | {name for _, owner, _ in _rules() for name in owner.split(":")}


def test_files() -> None:
    assert _table("Files") == [
        f"| `{p}` | `{owner}` | {mode} |" for p, owner, mode in _rules() if not _is_for_all((p, owner, mode))
    ]


def test_users() -> None:
    named = {row.split("|")[1].strip(" `") for row in _table("Users and groups")}
    assert named - {"a member of the group `mexc"} == _accounts()


def test_what_a_user_may_read_is_what_is_open_to_his_group() -> None:
    rules = _rules()
    for row in _table("Users and groups"):
        user = row.split("|")[1].strip(" `").removeprefix("a member of the group `")
        if user == "root":
            continue
        said = set(re.findall(r"`([/{][^` ]*)`", row.split("|")[3]))
        owners = {f"root:{user}"} if "member" not in row else {f"root:{user}", f"{user}:{user}"}
        # Of a folder and what lies in it the page names the folder.
        read = {path for path, owner, mode in rules if owner in owners and int(mode, 8) & 0o040}
        assert said == {path for path in read if not any(path.startswith(f"{other}/") for other in read)}, user


def test_no_group_may_write_and_no_secret_is_for_all() -> None:
    assert all(not int(mode, 8) & 0o022 for _, _, mode in _rules())
    assert all(not int(rule[2], 8) & 0o007 for rule in _rules() if not _is_for_all(rule))


def test_nobody_is_made_a_member_of_a_group() -> None:
    """Memberships are given to processes, by their units and by the command that root types, not to users."""
    for role in ROLES:
        for task in _tasks(role):
            assert task.module != "ansible.builtin.group", task
            assert task.module != "ansible.builtin.user" or not {"groups", "append", "group"} & task.said.keys(), task
    assert all(line.startswith("u ") for line in _rendered_lines(TEMPLATES / "sysusers.conf.j2"))


def test_the_command_that_root_types_runs_with_the_rights_of_a_unit() -> None:
    wrapper = (TEMPLATES / "mexc-pipeline.sh.j2").read_text()
    assert "setpriv --reuid mexc --regid mexc --groups " in wrapper
    assert "['mexc'] + _mexc_pipeline_tor | map('regex_replace', '^', '_tor-') | list" in wrapper
    assert "--no-new-privs --inh-caps=-all --bounding-set=-all" in wrapper
    assert (
        "{{ _mexc_pipeline_tor | map('regex_replace', '^', '_tor-') | join(' ') }}"
        in (TEMPLATES / "mexc-verify.service.j2").read_text()
    )


def test_a_secret_goes_to_the_unit_that_needs_it_alone() -> None:
    given = {
        (path.name, line.partition("=")[2].partition(":")[2])
        for path in TEMPLATES.glob("*.j2")
        for line in path.read_text().splitlines()
        if line.startswith(("LoadCredential", "SetCredential"))
    }
    password = "/etc/mexc-pipeline/clickhouse-password"
    files = {("mexc-metrics.service.j2", f"{{{{ {name} }}}}") for name in _GIVEN}
    assert given == {("mexc-store.service.j2", password), *files}
    assert (password, "root:root", "0400") in _rules()
