"""The Debian trees that guests boot from, and the apt repositories they install from without a network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from deploy.hosts.cache import made
from deploy.hosts.errors import run
from deploy.hosts.layout import DEBIAN_12, DEBIAN_13, Release

_RECIPE = "2"  # raise it when the code below makes something else of the same inputs
_TREE_PACKAGES = (
    "ca-certificates", "dbus", "iproute2", "openssh-server", "python3", "python3-apt", "systemd", "systemd-sysv",
)  # fmt: skip
_REPOSITORY = "/srv/apt"
_UPGRADED = ("clickhouse-client", "clickhouse-common", "clickhouse-server", "tor")
_LACKING = ("clickhouse-client", "clickhouse-server")
_DEFAULT_MIRROR = "http://deb.debian.org/debian"


def tree(release: Release) -> Path:
    """The folder guests boot from; they see it through an overlay and never write to it."""
    return made("tree", (_RECIPE, release.suite, *_TREE_PACKAGES), lambda work: _build_tree(work, release.suite))


def repository(release: Release) -> Path:
    """The folder that guests see as ``/srv/apt``: the release's listed packages with their dependencies, indexed."""
    base, names = tree(release), packages(release)
    return made("apt", (_RECIPE, base.name, *names), lambda work: _build_repository(work, base, [release.suite], names))


def newer() -> Path:
    """The folder that guests see as ``/srv/apt-newer``: what an upgrade of the system finds when a test names it."""
    base = repository(DEBIAN_12)
    return made("newer", (_RECIPE, base.name, *_UPGRADED), lambda work: _build_newer(work, base))


def older() -> Path:
    """The folder that guests of Debian 13 see as ``/srv/apt-bookworm``: Debian 12's ClickHouse, which theirs lacks."""
    base, suites = tree(DEBIAN_13), [DEBIAN_13.suite, DEBIAN_12.suite]
    return made("older", (_RECIPE, base.name, *_LACKING), lambda work: _build_repository(work, base, suites, _LACKING))


def packages(release: Release) -> list[str]:
    """The packages that roles and tests install there."""
    lines = (Path(__file__).parent / release.packages).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def mirror() -> str:
    """The Debian mirror of this machine's own apt, if it names one: it is the one that can be reached."""
    for file in [*Path("/etc/apt").glob("sources.list*/*"), Path("/etc/apt/sources.list")]:
        if not file.is_file():
            continue
        for line in file.read_text(errors="replace").splitlines():
            found = re.match(r"(?:URIs:|deb\s+(?:\[.*?\]\s+)?)\s*(https?://\S+/debian)/?(?:\s|$)", line)
            if found:
                return found[1]
    return _DEFAULT_MIRROR


def _build_tree(work: Path, suite: str) -> None:
    run(["debootstrap", "--variant=minbase", f"--include={','.join(_TREE_PACKAGES)}", suite, work, mirror()])
    shutil.rmtree(work / "var/cache/apt/archives")
    (work / "var/cache/apt/archives/partial").mkdir(parents=True)
    (work / "etc/machine-id").write_text("uninitialized\n")
    units = work / "etc/systemd/system"
    # Tests come in through the guest's namespaces, not over its network, so nothing of theirs listens there.
    for unit in ("systemd-firstboot.service", "ssh.service", "ssh.socket"):
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (work / "etc/tmpfiles.d/sshd.conf").write_text("d /run/sshd 0755 root root -\n")
    (work / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{_REPOSITORY} ./\n")
    (work / "etc/resolv.conf").unlink(missing_ok=True)
    (work / "etc/resolv.conf").write_text("# no resolver: names of the test network stand in /etc/hosts\n")


def _build_repository(work: Path, base: Path, suites: Sequence[str], names: Sequence[str]) -> None:
    """Of the suites' packages; the first has what there is of both. It calls itself by the name of the last."""
    state = work / ".apt"
    for part in ("lists/partial", "archives/partial"):
        (state / part).mkdir(parents=True)
    sources, preferences, where = state / "sources.list", state / "preferences", mirror()
    sources.write_text(
        "".join(
            f"deb {where} {suite} main\ndeb {where} {suite}-updates main\ndeb {where}-security {suite}-security main\n"
            for suite in suites
        )
    )
    preferences.write_text("".join(f"Package: *\nPin: release n={s}*\nPin-Priority: 100\n\n" for s in suites[1:]))
    options = [
        f"Dir::State::status={base}/var/lib/dpkg/status",
        f"Dir::State::lists={state}/lists",
        f"Dir::Cache={state}",
        f"Dir::Etc::sourcelist={sources}",
        "Dir::Etc::sourceparts=-",
        f"Dir::Etc::preferences={preferences}",
        "Dir::Etc::preferencesparts=-",
        f"Dir::Etc::trustedparts={base}/etc/apt/trusted.gpg.d",
        "APT::Sandbox::User=root",
        "APT::Get::List-Cleanup=false",
    ]
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    run([*apt, "update"])
    run([*apt, "--yes", "--download-only", "--no-install-recommends", "install", *names])
    for package in (state / "archives").glob("*.deb"):
        package.rename(work / package.name)
    shutil.rmtree(state)
    _write_index(work, suites[-1])


def _build_newer(work: Path, base: Path) -> None:
    """The same packages under a higher version."""
    unpacked = work / ".unpacked"
    for name in _UPGRADED:
        (package,) = base.glob(f"{name}_*.deb")
        run(["dpkg-deb", "--raw-extract", package, unpacked])
        control = unpacked / "DEBIAN" / "control"
        version = run(["dpkg-deb", "--field", package, "Version"]).strip()
        control.write_text(control.read_text().replace(version, f"{version}+newer"))
        run(["dpkg-deb", "-Zgzip", "-z1", "--build", unpacked, work])
        shutil.rmtree(unpacked)
    _write_index(work, DEBIAN_12.suite)


def _write_index(work: Path, suite: str) -> None:
    index = run(["apt-ftparchive", "packages", "."], cwd=work)
    (work / "Packages").write_text(index)
    named = ["-o", f"APT::FTPArchive::Release::Codename={suite}"]
    (work / "Release").write_text(run(["apt-ftparchive", *named, "release", "."], cwd=work))
