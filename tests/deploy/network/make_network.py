"""Run on the network guest: write keys and torrc files of a private Tor network.

Usage: make_network.py FOLDER AUTHORITY NAMESERVER EXIT...
Prints the DirAuthority line that clients need. What is there already is left as it is.

Every relay has an address of its own, on the loopback device: Tor ignores bind addresses for destinations in
127.0.0.0/8, and all exits would look the same. Nothing but "accept *:*" makes an exit usable: a policy of private
ranges alone counts as none (seen with tor 0.4.9).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

COMMON = """\
TestingTorNetwork 1
PathsNeededToBuildCircuits 0.67
EnforceDistinctSubnets 0
AssumeReachable 1
ContactInfo nobody
SocksPort 0
Log notice stdout
DataDirectory {folder}
Nickname {name}
Address {address}
OutboundBindAddress {address}
ORPort {address}:9001
"""
AUTHORITY = """\
DirPort {address}:9030
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
V3AuthVotingInterval 30
V3AuthVoteDelay 2
V3AuthDistDelay 2
V3AuthNIntervalsValid 6
TestingV3AuthInitialVotingInterval 5
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
"""
EXIT = """\
ExitRelay 1
ExitPolicyRejectPrivate 0
ExitPolicy accept *:*
ServerDNSDetectHijacking 0
ServerDNSTestAddresses
ServerDNSResolvConfFile {resolver}
"""


def main() -> None:
    """Write everything and print the line."""
    root, authority, nameserver, *exits = Path(sys.argv[1]), *sys.argv[2:]
    line_file = root / "authority-line"
    if not line_file.exists():
        root.mkdir(parents=True, exist_ok=True)
        (root / "empty").touch()
        (root / "resolv.conf").write_text(f"nameserver {nameserver}\n")
        line = make_authority(root, authority)
        for number, address in enumerate(exits):
            write(root, f"exit{number}", address, EXIT.format(resolver=root / "resolv.conf") + line)
        for folder in root.iterdir():
            for path in (folder, *folder.rglob("*")) if folder.is_dir() else ():
                shutil.chown(path, "debian-tor", "debian-tor")
        line_file.write_text(line)
    print(line_file.read_text(), end="")  # noqa: T201


def write(root: Path, name: str, address: str, more: str) -> Path:
    """Write one relay's folder and torrc."""
    folder = root / name
    folder.mkdir(mode=0o700, exist_ok=True)
    torrc = folder / "torrc"
    torrc.write_text(COMMON.format(folder=folder, name=name, address=address) + more)
    return torrc


def make_authority(root: Path, address: str) -> str:
    """Make the authority's keys and torrc; returns its DirAuthority line."""
    keys = root / "authority/keys"
    keys.mkdir(mode=0o700, parents=True)
    keys.parent.chmod(0o700)
    read, put = os.pipe()
    os.write(put, b"no secret\n")
    os.close(put)
    subprocess.run(
        [
            "tor-gencert",
            "--create-identity-key",
            "--passphrase-fd",
            str(read),
            "-m",
            "3",
            "-a",
            f"{address}:9030",
            "-i",
            str(keys / "authority_identity_key"),
            "-s",
            str(keys / "authority_signing_key"),
            "-c",
            str(keys / "authority_certificate"),
        ],
        check=True,
        pass_fds=(read,),
        stdout=subprocess.DEVNULL,
    )
    words = (line.split() for line in (keys / "authority_certificate").read_text().splitlines())
    identity = next(found[1] for found in words if found[:1] == ["fingerprint"])
    settings = AUTHORITY.format(address=address)
    start = f"DirAuthority authority orport=9001 no-v2 v3ident={identity} {address}:9030"
    torrc = write(root, "authority", address, f"{settings}{start} {'A' * 40}\n")
    listed = subprocess.run(
        ["tor", "--list-fingerprint", "--quiet", "-f", str(torrc), "--defaults-torrc", str(root / "empty")],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    fingerprint = "".join(listed.stdout.splitlines()[-1].split()[1:])
    line = f"{start} {fingerprint}\n"
    write(root, "authority", address, settings + line)
    return line


main()
