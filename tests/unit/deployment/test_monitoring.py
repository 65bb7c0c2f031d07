"""Alerts: each fires where it should and nowhere else, stands on a series that exists, and has its line on the page.
What the host tells besides is true.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mexc_pipeline.health import Kind
from support import needs
from support.repository import ROOT
from support.scripts import ended, script

ROLE = ROOT / "roles" / "monitoring"
RULES = ROLE / "files" / "mexc.rules.yml"
CASES = ROOT / "tests" / "monitoring" / "mexc.test.yml"
PAGE = (ROOT / "docs" / "operators.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
PROMETHEUS_OWN = {"up"}

textfile, bcrypt = script("roles/monitoring/files/textfile.py"), script("roles/monitoring/files/bcrypt.py")


class Alert(NamedTuple):
    """One alert of the file."""

    expression: str
    labels: str
    summary: str
    page: str


@cache
def rules() -> dict[str, Alert]:
    """Every alert by its name."""
    found = re.findall(
        r"^ {6}- alert: (\w+)\n {8}expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)(?: {8}for: .*\n)? {8}labels: (.*)\n"
        r" {8}annotations:\n {10}summary: (.*)\n {10}page: (.*)\n",
        RULES.read_text(),
        re.MULTILINE,
    )
    return {name: Alert(folded or single, *rest) for name, folded, single, *rest in found}


def run(*command: str | Path) -> str:
    """What a program prints; the test fails where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_rules_are_rules() -> None:
    needs.programs("promtool")
    assert f"{len(rules())} rules found" in run("promtool", "check", "rules", RULES)


def test_each_alert_fires_where_it_should_and_nowhere_else() -> None:
    needs.programs("promtool")
    assert "SUCCESS" in run("promtool", "test", "rules", CASES)


def test_each_alert_has_a_case_of_either_kind() -> None:
    told: dict[str, set[bool]] = {name: set() for name in rules()}
    for name, none in re.findall(r"alertname: (\w+)(, exp_alerts: \[\])?", CASES.read_text()):
        told[name].add(not none)
    assert {name: kinds for name, kinds in told.items() if kinds != {False, True}} == {}


def series(expression: str) -> set[str]:
    """The names of the series of an expression."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\b(?:by|on|without|ignoring|group_left|group_right) \([^)]*\)', " ", expression)
    words = set(re.findall(r"(?<![\w.])[a-z]\w+(?!\w*\s*\()", bare))
    return words - {"and", "or", "unless", "offset", "by", "on"} - set(re.findall(r"\b\d+([a-z])\b", bare))


def documented() -> set[str]:
    """The series of docs/metrics.md, those of its histograms included."""
    return set(re.findall(r"^\| `(\w+)` \|", METRICS, re.MULTILINE)) | PROMETHEUS_OWN


def test_each_series_of_a_rule_exists() -> None:
    used = {name: series(rule.expression) for name, rule in rules().items()}
    assert all(used.values())
    assert used["ClockOff"] == {"mexc_clock_error_seconds", "mexc_symbol_fault"}
    assert {name: unknown for name, found in used.items() if (unknown := found - documented())} == {}


def test_each_series_of_the_textfile_is_on_the_page() -> None:
    assert set(re.findall(r"^\| `(monitoring_\w+)` \|", METRICS, re.MULTILINE)) == set(textfile.HELP)


def test_each_kind_of_a_fault_is_told_once() -> None:
    """And a kind that is named is one that there is."""
    told: list[str] = []
    for name, rule in rules().items():
        for sign, value in re.findall(r'\bkind(=~|=|!~)"([^"]+)"', rule.expression):
            names = set(value.split("|"))
            assert names <= set(Kind), name
            told += sorted(set(Kind) - names if sign == "!~" else names)
    assert sorted(told) == sorted(Kind)


def anchors() -> set[str]:
    """What a link into the page may name."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_alert_says_whose_it_is_why_and_where_to_read_on() -> None:
    for name, rule in rules().items():
        page, _, anchor = rule.page.partition("#")
        assert page == "docs/operators.md", name
        assert anchor in anchors(), name
        assert "$labels.host" in rule.summary, name
        of_symbol = "mexc_symbol_fault" in rule.expression and "by (host" not in rule.expression
        assert not of_symbol or "$labels.symbol" in rule.summary, name
        assert rule.labels in ("{severity: page}", "{severity: warn}"), name


def test_each_alert_has_its_line_on_the_page() -> None:
    section = PAGE.split("### What an alert means\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(rules())


def test_when_a_certificate_ends(tmp_path: Path) -> None:
    needs.programs("openssl")
    path = tmp_path / "certificate.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days"]
    run(*new, "10", "-subj", "/CN=x", "-keyout", tmp_path / "key.pem", "-out", path)
    assert textfile.expiry(str(path)) == pytest.approx(time.time() + 10 * 86400, abs=120)
    path.write_text("none")
    with pytest.raises(textfile.UserError, match="when it ends cannot be told"):
        textfile.expiry(str(path))


def told(tmp_path: Path, **settings: Any) -> tuple[int, str, str]:
    """What is written for the node exporter, and how the script ended."""
    nothing = {"certificates": [], "backups": str(tmp_path / "backups"), "backup_hours": 0, "verification_hours": 0}
    (tmp_path / "settings.json").write_text(json.dumps(nothing | settings))
    done = ended(textfile, tmp_path / "settings.json", tmp_path / "it.prom")
    return done.status, (tmp_path / "it.prom").read_text(), done.said


def test_only_a_whole_backup_is_one(tmp_path: Path) -> None:
    assert told(tmp_path) == (0, "", "")
    limit = "monitoring_backup_age_limit_seconds 7200\n"
    assert told(tmp_path, backup_hours=2)[1].endswith(limit)
    for name in ("20261122T040750Z", "20261123T040750Z", "exports"):
        (tmp_path / "backups" / name).mkdir(parents=True)
    (tmp_path / "backups" / "20261122T040750Z" / "manifest.json").write_text("{}")
    (tmp_path / "backups" / "exports" / "manifest.json").write_text("{}")
    status, text, _ = told(tmp_path, backup_hours=2, verification_hours=3)
    assert status == 0
    assert "monitoring_backup_timestamp_seconds 1795320470\n" in text
    assert "monitoring_verification_age_limit_seconds 10800\n" in text


def test_what_cannot_be_told_hides_nothing_else(tmp_path: Path) -> None:
    status, text, said = told(tmp_path, certificates=[str(tmp_path / "away.pem")], verification_hours=3)
    assert status == 1
    assert "monitoring_verification_age_limit_seconds 10800\n" in text
    assert "expiry" not in text
    assert said.count("\n") == 1
    assert "away.pem" in said


def test_promtool_takes_what_the_host_tells(tmp_path: Path) -> None:
    needs.programs("promtool")
    _, text, _ = told(tmp_path, backup_hours=2, verification_hours=3)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_hash_is_the_same_on_one_host_and_another_on_the_next() -> None:
    one, again, other = (bcrypt.hashed(b"a password of mine", machine) for machine in (b"1", b"1", b"2"))
    assert one == again != other
    assert re.fullmatch(r"\$2b\$10\$[./A-Za-z0-9]{53}", one)
    assert bcrypt.hashed(b"another", b"1")[29:] != one[29:]
