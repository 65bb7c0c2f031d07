"""What the tests need of the machine, in one list: ``make deps`` installs it, ``make test`` says what is missing.

A script of its own too, for any Python 3: it imports nothing of the project. ``--install`` installs with apt, as root
or with sudo.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from typing import NamedTuple


class Need(NamedTuple):
    """Programs that are looked for, Debian's packages that bring them, and what cannot be done without them."""

    programs: tuple[str, ...]
    packages: tuple[str, ...]
    purpose: str
    units: tuple[str, ...] = ()
    """What the packages would start and nobody needs."""


NEEDS = (
    Need(("clickhouse-server",), ("clickhouse-server",), "tests on a real ClickHouse server"),
    Need(("tor", "tor-gencert"), ("tor",), "tests in a private Tor network"),
    Need(("ip",), ("iproute2",), "tests in a private Tor network"),
    Need(("gcc",), ("gcc", "libc6-dev"), "the fault campaign"),
    Need(("setpriv", "unshare", "nsenter"), ("util-linux",), "tests with fewer rights and in a private network"),
    Need(("chromium",), ("chromium",), "tests of the dashboard in a browser"),
    Need(("mount", "umount"), ("mount",), "tests on a file system that is full"),
    Need(
        ("prometheus", "promtool", "prometheus-alertmanager", "amtool"),
        ("prometheus", "prometheus-alertmanager"),
        "tests of the alerts",
        units=("prometheus.service", "prometheus-alertmanager.service"),
    ),
)
VENV = Need((), ("python3-venv",), "every environment of this Makefile")
ROOT = "root"


def program(name: str) -> str | None:
    """Its path; what Debian keeps for root is found by others too."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")


def lacking() -> list[Need]:
    """What is not on this machine."""
    found = [need for need in NEEDS if any(program(name) is None for name in need.programs)]
    return found if find_spec("ensurepip") and find_spec("venv") else [VENV, *found]


def packages(needs: list[Need]) -> list[str]:
    """Debian's packages that bring them."""
    return [package for need in needs for package in need.packages]


def tell(needs: list[Need]) -> None:
    """One line for each, on standard error."""
    for need in needs:
        what = " and ".join(need.packages)
        sys.stderr.write(f"missing on this machine: {what}; without it: no {need.purpose}\n")
    if os.geteuid() != 0:
        sys.stderr.write("not root: tests that become other users or mount file systems are skipped\n")
    if needs:
        sys.stderr.write("`make deps` installs what is missing (Debian, Ubuntu)\n")


def install(names: list[str], units: list[str]) -> None:
    """With apt, and without ever running those units: masked before their packages come. CalledProcessError where it
    fails; it has said why."""
    if shutil.which("apt-get") is None:
        sys.exit(f"this is no Debian or Ubuntu; install what stands for their packages: {' '.join(names)}")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    if as_root and shutil.which("sudo") is None:
        sys.exit(f"install as root: apt-get install {' '.join(names)}")
    if units and shutil.which("systemctl"):
        subprocess.run([*as_root, "systemctl", "mask", *units], check=True)
    subprocess.run([*as_root, "apt-get", "-q", "update"], check=True)
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    command = ["apt-get", "-q", "install", "--yes", "--no-install-recommends", *names]
    subprocess.run([*as_root, *quiet, *command], check=True)


def main() -> int:
    """Tell or install."""
    needs = lacking()
    if "--install" not in sys.argv[1:]:
        tell(needs)
        return 0
    if not needs:
        sys.stdout.write("nothing is missing\n")
        return 0
    try:
        install(packages(needs), [unit for need in needs for unit in need.units])
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
