"""Writes each role's README from its argument specification: ``python roles/documentation.py [--check]``.

With ``--check`` nothing is written; exit 1 where a README is not what it should be, or where a role's defaults and its
specification do not name the same variables with the same values.
"""
# ruff: noqa: T201 - what it prints is its answer

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

ROLES = Path(__file__).parent
_MARKUP = re.compile(r"\b[CIBV]\(([^)]*)\)")


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


def text(value: str | list[str]) -> str:
    """A description as one paragraph of Markdown."""
    parts = [value] if isinstance(value, str) else value
    return _MARKUP.sub(r"`\1`", " ".join(parts))


def shown(value: Any) -> str:
    """A default as it is written in YAML, on one line."""
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def rows(options: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Lines of the table, those of nested options after their parent's."""
    for name, option in options.items():
        kind = option.get("type", "str")
        if kind == "list":
            kind = f"list of {option.get('elements', 'str')}"
        if "choices" in option:
            kind = " \\| ".join(f"`{choice}`" for choice in option["choices"])
        default = "required" if option.get("required") else shown(option["default"]) if "default" in option else ""
        yield f"| `{prefix}{name}` | {kind} | {default} | {text(option['description'])} |"
        if "options" in option:
            yield from rows(option["options"], f"{prefix}{name}[].")


def readme(role: str, spec: dict[str, Any]) -> str:
    """A role's README."""
    main = spec["main"]
    lines = [f"# Role `{role}`", "", f"{main['short_description']}.", ""]
    description = main.get("description", [])
    lines += [f"- {text(point)}" for point in ([description] if isinstance(description, str) else description)]
    lines += ["", "| variable | type | default | meaning |", "| --- | --- | --- | --- |", *rows(main["options"])]
    others = {name: entry for name, entry in spec.items() if name != "main"}
    if others:
        lines += ["", "Other entry points, with the same variables:", ""]
        lines += [
            f"- `{name}`: {entry['short_description'].lower()}. {text(entry.get('description', ''))}".rstrip()
            for name, entry in others.items()
        ]
    lines += ["", "Made by `python roles/documentation.py` from `meta/argument_specs.yml`; change it there.", ""]
    return "\n".join(lines)


def differences(role: str, options: dict[str, Any], defaults: dict[str, Any]) -> Iterator[str]:
    """Where a role's defaults and its specification do not agree."""
    for name in sorted(options.keys() | defaults.keys()):
        if name not in defaults:
            yield f"{role}: {name} has no default"
        elif name not in options:
            yield f"{role}: {name} is not in the specification"
        elif (said := options[name].get("default")) != defaults[name]:
            yield f"{role}: {name} is {defaults[name]!r} by default, its specification says {said!r}"
        if not name.startswith(f"{role}_"):
            yield f"{role}: {name} does not begin with the role's name"


def main() -> int:
    """Write, or with ``--check`` compare."""
    check = sys.argv[1:] == ["--check"]
    problems: list[str] = []
    for folder in sorted(path.parent.parent for path in ROLES.glob("*/meta/argument_specs.yml")):
        path = folder / "README.md"
        try:
            spec = yaml.safe_load((folder / "meta/argument_specs.yml").read_bytes())["argument_specs"]
            defaults = yaml.safe_load((folder / "defaults/main.yml").read_bytes())
            problems += differences(folder.name, spec["main"]["options"], defaults)
            wanted = readme(folder.name, spec)
        except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{folder.name}: its specification or defaults are none: {error!r}; mend them") from error
        if not check:
            path.write_text(wanted)
        elif not path.exists() or path.read_text() != wanted:
            problems.append(f"{path.relative_to(ROLES.parent)}: out of date; run python roles/documentation.py")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def end(main: Callable[[], int]) -> NoReturn:
    """End the process with ``main``'s status; what failed outside of this program is one line, and the status 1."""
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        is_of_file = isinstance(error, OSError) and error.filename is not None
        said = f"{error.filename}: {error.strerror}" if is_of_file else str(error)
        line = " ".join(said.split())
        sys.exit("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


if __name__ == "__main__":
    end(main)
