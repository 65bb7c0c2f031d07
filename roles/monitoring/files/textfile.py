"""Writes for the node exporter what no other program tells: ``textfile.py SETTINGS FILE``.

When each certificate ends, when the newest backup was made, and how old that and the last verification may be. What
cannot be told is left out and said, with the status 1: the unit's failure is an alert of its own. Run as root, which
alone may look; Python's standard library and ``openssl`` only.
"""

from __future__ import annotations

import calendar
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

HOUR_S = 3600
_BACKUP = re.compile(r"\d{8}T\d{6}Z")
HELP = {
    "monitoring_certificate_expiry_timestamp_seconds": "When the certificate ends.",
    "monitoring_backup_timestamp_seconds": "When the newest whole backup was begun; none without one.",
    "monitoring_backup_age_limit_seconds": "So old it may be; none where none is expected.",
    "monitoring_verification_age_limit_seconds": "So old the last verification may be; none where none is expected.",
}
"""Every metric that there may be."""


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


def expiry(certificate: str) -> float:
    """When the first certificate of a PEM file ends, Unix seconds. UserError where it cannot be told."""
    command = ["/usr/bin/openssl", "x509", "-noout", "-enddate", "-in", certificate]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = (done.stderr.strip() or "no reason given").splitlines()[0]
        raise UserError(f"{certificate}: when it ends cannot be told: {why}; put a certificate (PEM) there")
    return ssl.cert_time_to_seconds(done.stdout.strip().removeprefix("notAfter="))


def newest_backup(folder: Path) -> float | None:
    """When the newest backup with a manifest, which is written last, was begun, Unix seconds; None without one."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except FileNotFoundError:
        return None
    whole = [name for name in names if _BACKUP.fullmatch(name) and (folder / name / "manifest.json").is_file()]
    return float(calendar.timegm(time.strptime(max(whole), "%Y%m%dT%H%M%SZ"))) if whole else None


def lines(settings: dict[str, Any], troubles: list[str]) -> Iterator[str]:
    """The text that Prometheus reads; what cannot be told is added to ``troubles``."""
    samples: dict[str, dict[str, float]] = {name: {} for name in HELP}
    for certificate in settings["certificates"]:
        try:
            samples["monitoring_certificate_expiry_timestamp_seconds"][_label(certificate)] = expiry(certificate)
        except UserError as error:
            troubles.append(str(error))
    if settings["backup_hours"]:
        samples["monitoring_backup_age_limit_seconds"][""] = settings["backup_hours"] * HOUR_S
        if (newest := newest_backup(Path(settings["backups"]))) is not None:
            samples["monitoring_backup_timestamp_seconds"][""] = newest
    if settings["verification_hours"]:
        samples["monitoring_verification_age_limit_seconds"][""] = settings["verification_hours"] * HOUR_S
    for name, values in samples.items():
        if values:
            yield f"# HELP {name} {HELP[name]}"
            yield f"# TYPE {name} gauge"
            yield from (f"{name}{labels} {value:.0f}" for labels, value in values.items())


def _label(path: str) -> str:
    escaped = path.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{{path="{escaped}"}}'


def main() -> int:
    """Write the file as a whole, so that it is never read half."""
    target = Path(sys.argv[2])
    try:
        settings = json.loads(Path(sys.argv[1]).read_bytes())
    except ValueError as error:
        raise UserError(f"{sys.argv[1]} is no JSON ({error}); run site.yml, which writes it") from error
    troubles: list[str] = []
    text = "".join(f"{line}\n" for line in lines(settings, troubles))
    new = target.with_suffix(".new")  # no .prom: not read
    new.write_text(text)
    new.replace(target)
    if troubles:
        raise UserError(" · ".join(troubles))
    return 0


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
