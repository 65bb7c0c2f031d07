"""The settings that the role ``monitoring`` writes: the programs that read them take them, they hold no secret, and
nobody is answered but who may ask. Needs no host.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from support import needs
from support.repository import ROOT

ROLE = ROOT / "roles" / "monitoring"


def run(*command: str | Path) -> None:
    """The test fails where the program does."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rendered(template: str, **values: Any) -> str:
    """A template of the role, filled in with its defaults and variables, and those values over them."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        trim_blocks=True,
        autoescape=False,
    )
    environment.filters["to_json"] = json.dumps
    environment.tests["match"] = lambda value, pattern: re.match(pattern, value) is not None
    known: dict[str, Any] = {"ansible_managed": "ours", "ansible_host": "192.0.2.9", "inventory_hostname": "here"}
    for name in ("defaults", "vars"):
        known |= yaml.safe_load((ROLE / name / "main.yml").read_bytes())
    known |= values
    known |= {
        "_monitoring_is_asked": bool(known["monitoring_scrapers"]),
        "_monitoring_mails": bool(known["monitoring_mail_to"]),
        "_monitoring_asks": any(target["elsewhere"] for target in known["monitoring_targets"]),
    }
    return str(environment.get_template(template).render(known))


ELSEWHERE = {"host": "col1", "address": "192.0.2.21", "elsewhere": True, "recorder": True, "port": 9465}
HERE = {"host": "mon", "address": "192.0.2.10", "elsewhere": False, "recorder": True}
V6 = {"host": "col2", "address": "2001:db8::2", "elsewhere": True}


@pytest.mark.parametrize("targets", [[], [HERE], [HERE, ELSEWHERE, V6]], ids=["none", "itself", "others"])
def test_prometheus_takes_its_settings(tmp_path: Path, targets: list[dict[str, Any]]) -> None:
    needs.programs("promtool")
    path = tmp_path / "prometheus.yml"
    path.write_text(rendered("prometheus.yml.j2", monitoring_targets=targets, _monitoring_folder=str(ROLE / "files")))
    run("promtool", "check", "config", "--syntax-only", path)
    jobs = {job["job_name"]: job for job in yaml.safe_load(path.read_text())["scrape_configs"] or []}
    asked = {
        name: {one["targets"][0]: one["labels"]["host"] for one in job["static_configs"]} for name, job in jobs.items()
    }
    wanted = {"node": {"127.0.0.1:9100": "mon"}, "mexc": {"127.0.0.1:9464": "mon"}} if HERE in targets else {}
    if ELSEWHERE in targets:
        wanted["node-elsewhere"] = {"192.0.2.21:9100": "col1", "[2001:db8::2]:9100": "col2"}
        wanted["mexc-elsewhere"] = {"192.0.2.21:9465": "col1"}
    assert asked == wanted
    for name, job in jobs.items():
        assert ("basic_auth" in job, job.get("scheme")) == ((True, "https") if "elsewhere" in name else (False, None))
        assert {"target_label": "job", "replacement": name.partition("-")[0]} in job["relabel_configs"]


MAIL = {
    "monitoring_mail_to": ["ops@example.org", "on-call@example.org"],
    "monitoring_mail_from": "recorder@example.org",
    "monitoring_mail_smarthost": "mail.example.org:587",
    "monitoring_mail_user": "recorder",
    "monitoring_mail_password": "hidden-mail",
}
WEBHOOK = {"monitoring_webhook_url": "https://hooks.example.org/x", "monitoring_webhook_token": "hidden-token"}


@pytest.mark.parametrize("values", [MAIL, WEBHOOK, MAIL | WEBHOOK], ids=["mail", "webhook", "both"])
def test_alertmanager_takes_its_settings_and_they_hold_no_secret(tmp_path: Path, values: dict[str, Any]) -> None:
    needs.programs("amtool")
    path = tmp_path / "alertmanager.yml"
    path.write_text(rendered("alertmanager.yml.j2", **values))
    run("amtool", "check-config", path)
    assert "hidden" not in path.read_text()
    (receiver,) = yaml.safe_load(path.read_text())["receivers"]
    assert [one["to"] for one in receiver.get("email_configs", [])] == values.get("monitoring_mail_to", [])
    assert [one["url"] for one in receiver.get("webhook_configs", [])] == [
        url for key, url in values.items() if key == "monitoring_webhook_url"
    ]


@pytest.mark.parametrize("unit", ["node-exporter", "prometheus", "prometheus-alertmanager"])
def test_each_line_of_a_drop_in_is_one(unit: str) -> None:
    """What follows an included part must not be added to its last line: systemd would leave both out."""
    lines = rendered(f"{unit}.conf.j2").splitlines()
    assert "LimitCORE=0" in lines
    assert [line for line in lines if line and not re.match(r"[A-Z]\w+=|\[\w+\]$|# |  ", line)] == []


def test_nobody_is_answered_but_who_may_ask() -> None:
    for unit in ("node-exporter", "prometheus", "prometheus-alertmanager"):
        alone = rendered(f"{unit}.conf.j2")
        assert {listen.rpartition(":")[0] for listen in re.findall(r"listen-address=(\S*)", alone)} <= {"127.0.0.1", ""}
    asked = rendered(
        "node-exporter.conf.j2",
        monitoring_scrapers=["192.0.2.10"],
        monitoring_address="192.0.2.21",
        _monitoring_listen="192.0.2.21",
    )
    assert "\nIPAddressDeny=any\nIPAddressAllow=localhost 192.0.2.21 192.0.2.10\n" in asked
    assert "--web.config.file=/run/credentials/prometheus-node-exporter.service/web.yml" in asked
