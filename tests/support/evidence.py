"""README's table of evidence: what came of each claim, written by the command that measured it."""

from __future__ import annotations

from collections.abc import Mapping


def with_evidence(readme: str, came: Mapping[str, str]) -> str:
    """README with the last cell of each claim's row replaced. ValueError where a claim has no row of its own."""
    lines = readme.splitlines(keepends=True)
    for claim, text in came.items():
        (at,) = (n for n, line in enumerate(lines) if line.startswith(f"| {claim} |"))
        lines[at] = f"{lines[at].rpartition(' | ')[0]} | {text} |\n"
    return "".join(lines)
