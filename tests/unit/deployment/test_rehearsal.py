"""What the program is asked on a host before anything that runs there is stopped, as the role's task asks it."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.repository import ROOT
from support.spools import configure, fill


def rehearse(configuration: str) -> subprocess.CompletedProcess[str]:
    task = (ROOT / "roles" / "mexc_pipeline" / "tasks" / "rehearse.yml").read_text()
    found = re.search(r"- -c\n +- \|\n((?: {8}.*\n)+)", task)
    assert found is not None
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(found[1])],
        input=configuration,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def changed(text: str, old: str, new: str) -> str:
    """With a table at its end, where the new text has one."""
    line, _, table = new.partition("\n")
    return f"{text.replace(old, line)}{table}\n"


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        ("", "", ""),
        ('["BTC_USDT"]', '["BTC_USDC"]\n[symbol.BTC_USDC]\nid = "btc"', "holds what was recorded of BTC_USDT"),
        ('["BTC_USDT"]', '["BTC_USDC"]\n[symbol.BTC_USDC]\nid = "btcusdc"', ""),
        ('period = "10s"', 'period = "7s"', "period"),
    ],
    ids=["as it is", "an id that was another's", "an id of its own", "a period that is none"],
)
def test_what_a_collector_would_end_with_is_refused_in_one_line(
    tmp_path: Path, old: str, new: str, refused: str
) -> None:
    config = configure(tmp_path)
    text = (tmp_path / "config.toml").read_text()
    assert rehearse(text).returncode == 0, "nothing was recorded yet"
    fill(config)
    done = rehearse(changed(text, old, new))
    assert done.returncode == (1 if refused else 0), done.stderr
    assert refused in done.stderr
    assert done.stderr.count("\n") == bool(refused)
