"""The commands of the test hosts."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from deploy.hosts import debian, upstream
from deploy.hosts.errors import HostsError, run
from deploy.hosts.layout import DEBIAN_12, DEBIAN_13, GUESTS
from deploy.hosts.scenario import Scenario, parts

_NEEDED = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "apt-ftparchive": "apt-utils",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "openssl": "openssl",
    "gpg": "gnupg",
}


def main() -> int:
    """Run one command; 0 done, 1 it did not work."""
    parser = argparse.ArgumentParser(prog="python -m deploy.hosts", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prerequisites", help="install what this machine needs to boot guests, saying so first")
    commands.add_parser("cache", help="make trees, apt repositories and wheelhouses, and print where they are")
    for name, text in (
        ("create", "boot guests"),
        ("destroy", "end the guests of this state folder and leave nothing behind"),
        ("reboot", "shut one guest down and boot it again"),
        ("cut", "end one guest as a power failure does and boot it again"),
        ("upstream", "make an apt repository in the shape of ClickHouse's, signed with a key of its own"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--state", type=Path, required=True, help="folder that remembers what was started")
        if name == "create":
            command.add_argument("guests", nargs="+", choices=GUESTS)
        elif name in ("reboot", "cut"):
            command.add_argument("guest", choices=GUESTS)
    arguments = parser.parse_args()
    try:
        _do(arguments)
    except HostsError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _do(arguments: argparse.Namespace) -> None:
    if os.geteuid() != 0:
        raise HostsError("test hosts are booted by root; run this as root")
    match arguments.command:
        case "prerequisites":
            _prerequisites()
        case "cache":
            for release in (DEBIAN_12, DEBIAN_13):
                for folder in (debian.tree(release), *(here for here, _ in parts(release))):
                    print(folder)  # noqa: T201
        case "create":
            Scenario(arguments.state).create(arguments.guests)
        case "destroy":
            Scenario(arguments.state).destroy()
        case "upstream":
            upstream.make(arguments.state / "upstream")
        case "reboot" | "cut":
            Scenario(arguments.state).machine(arguments.guest).reboot(hard=arguments.command == "cut")


def _prerequisites() -> None:
    missing = sorted({package for command, package in _NEEDED.items() if shutil.which(command) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise HostsError(f"install {', '.join(missing)}: guests are booted with them (this is no Debian or Ubuntu)")
    print(f"installing with apt: {' '.join(missing)}", flush=True)  # noqa: T201
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-q", "update"], env=environment)
    run(["apt-get", "-q", "--yes", "install", "--no-install-recommends", *missing], env=environment)


if __name__ == "__main__":
    sys.exit(main())
