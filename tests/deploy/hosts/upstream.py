"""An apt repository in the shape of ClickHouse's own, signed with a key made for it; its packages are empty."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from deploy.hosts.errors import run

VERSIONS = ("26.8.2.1", "26.8.4.21", "26.9.1.7")
_PACKAGES = ("clickhouse-client", "clickhouse-common-static", "clickhouse-server")
_SUITE = "dists/stable"


def make(folder: Path) -> None:
    """Write the repository and ``key.asc``, anew. Raises HostsError."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pool").mkdir(parents=True)
    for version in VERSIONS:
        for name in _PACKAGES:
            _build(folder / "pool", name, version)
    index = folder / _SUITE / "main" / "binary-amd64" / "Packages"
    index.parent.mkdir(parents=True)
    index.write_text(run(["apt-ftparchive", "packages", "pool"], cwd=folder))
    options = [
        word
        for name, value in (("Suite", "stable"), ("Components", "main"), ("Architectures", "amd64"))
        for word in ("-o", f"APT::FTPArchive::Release::{name}={value}")
    ]
    release = folder / _SUITE / "Release"
    release.write_text(run(["apt-ftparchive", *options, "release", _SUITE], cwd=folder))
    _sign(release, folder / "key.asc")


def _build(pool: Path, name: str, version: str) -> None:
    with tempfile.TemporaryDirectory() as work:
        control = Path(work) / "DEBIAN" / "control"
        control.parent.mkdir()
        control.write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n"
            + ("" if name.endswith("static") else f"Depends: clickhouse-common-static (= {version})\n")
            + "Description: an empty package\n"
        )
        run(["dpkg-deb", "--build", work, pool])


def _sign(release: Path, key: Path) -> None:
    with tempfile.TemporaryDirectory() as home:
        gpg = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        environment = {**os.environ, "GNUPGHOME": home}
        run([*gpg, "--quick-generate-key", "test repository <nobody@example.org>", "rsa2048", "sign"], env=environment)
        run([*gpg, "--armor", "--output", key, "--export"], env=environment)
        run([*gpg, "--output", release.with_name("InRelease"), "--clearsign", release], env=environment)
        run(["gpgconf", "--kill", "all"], env=environment)
