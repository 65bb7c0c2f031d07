"""Tables on terminals that are too narrow for them."""

from __future__ import annotations

import re
import sys

import pytest

from mexc_pipeline.cli import printing
from mexc_pipeline.cli.reports import ledger_columns
from mexc_pipeline.rows import MT_NAMES

_LEDGER, _LEDGER_DROP = ledger_columns(tuple(MT_NAMES.values()))
ROW = [f"c{n}x{10**7 + n}" for n in range(len(_LEDGER))]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


@pytest.mark.parametrize("width", [20, 40, 80, 200, 1000])
@pytest.mark.parametrize("drop", [None, _LEDGER_DROP])
def test_no_figure_is_broken_up_or_cut_on_any_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, drop: list[str] | None
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    gone = printing.table(_LEDGER, [ROW, ROW], drop=drop)
    header, rule, *rows = lines(capsys)
    assert header.split()[:2] == ["symbol", "period"]
    assert rule.strip("─ ") == ""
    stay = [cell for name, cell in zip(_LEDGER, ROW, strict=True) if name not in gone]
    assert [row.split() for row in rows] == [stay, stay]
    assert drop is None or not gone or set(gone) < set(_LEDGER)


def test_what_a_ledger_is_for_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    gone = printing.table(
        _LEDGER, [["btc", "2026112203", *["12345"] * (len(_LEDGER) - 3), "verified"]], drop=_LEDGER_DROP
    )
    assert max(map(len, lines(capsys))) <= 80
    assert not {"symbol", "period", "received", "stored", "exported", "verdict"} & set(gone)


ADVICE = "FAULT btc: not exported: a period that ended 95 min ago has no file; {} says what is in the way"
COMMANDS = ("mexc-pipeline export --missing", "mexc-pipeline verify exports", "sudo -u mexc", "chmod u+rwX")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", range(40, 120, 7))
def test_a_command_is_never_broken_over_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, command: str
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    printing.folded(ADVICE.format(command))
    found = lines(capsys)
    assert any(command in line for line in found), found
    assert max(map(len, found)) <= width
    assert " ".join(line.strip() for line in found) == ADVICE.format(command)


def test_what_no_terminal_shows_is_not_made_to_fit_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Once a pipe got lines of 80 columns and fewer columns of a table, whatever ``COLUMNS`` said."""
    printing.folded(ADVICE.format("mexc-pipeline export"))
    assert lines(capsys) == [ADVICE.format("mexc-pipeline export")]
    assert printing.table(_LEDGER, [ROW], drop=_LEDGER_DROP) == []
    assert len(lines(capsys)[-1].split()) == len(ROW)
