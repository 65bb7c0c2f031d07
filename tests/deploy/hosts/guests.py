"""Guests: boot, stop, cut off and boot again, each on an overlay of its own so that every run begins clean.

A guest's folder in the state folder holds ``upper`` and ``work`` (its changes), ``root`` (the mounted overlay),
``nspawn`` and ``leader`` (process ids), ``network`` (its network namespace) and ``console``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy.hosts.errors import HostsError, run
from deploy.hosts.layout import BRIDGE, GUESTS, Guest
from deploy.hosts.processes import Process, until

_BOOT_S = 60.0
_STOP_S = 30.0
_POWER_OFF = signal.SIGRTMIN + 4  # systemd(1): start poweroff.target
_REBOOT = signal.SIGRTMIN + 5


@dataclass(frozen=True, slots=True)
class Machine:
    """One guest and where its state is kept; ``binds`` are (folder here, folder in the guest), read-only."""

    guest: Guest
    folder: Path
    binds: tuple[tuple[Path, str], ...] = ()

    @property
    def leader_file(self) -> Path:
        return self.folder / "leader"

    @property
    def _network_file(self) -> Path:
        return self.folder / "network"

    @property
    def _root(self) -> Path:
        return self.folder / "root"

    @property
    def _cable(self) -> Path:
        """This machine's end of the guest's network."""
        return Path(f"/sys/class/net/vb-{self.guest.name}")

    def prepare(self, base: Path, authorized_key: str) -> None:
        """Lay the overlay over the tree and write what makes this guest itself."""
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True)
        run([
            "mount", "-t", "overlay", "-o",
            f"lowerdir={base},upperdir={self.folder}/upper,workdir={self.folder}/work", "overlay", self._root,
        ])  # fmt: skip
        etc = self._root / "etc"
        (etc / "hostname").write_text(f"{self.guest.name}\n")
        names = "".join(f"{g.address} {g.name}\n" for g in GUESTS.values())
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{names}")
        routes = "".join(f"\n[Route]\nDestination={to}\nGateway={via}\n" for to, via in self.guest.routes)
        network = f"[Match]\nName=host0\n\n[Network]\nAddress={self.guest.address}/24\nLinkLocalAddressing=no\n{routes}"
        (etc / "systemd/network/10-host0.network").write_text(network)
        os.utime(self._root / "var/lib/apt/lists", (0, 0))  # as old as a fresh machine's: roles must read them anew
        ssh = self._root / "root/.ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        (ssh / "authorized_keys").write_text(authorized_key)

    def boot(self) -> None:
        """Start the guest and wait until its systemd is through. Raises HostsError with the console's end."""
        until(lambda: not self._cable.exists(), _STOP_S, f"guest {self.guest.name}: end of its former network")
        command = [
            "systemd-nspawn", "--quiet", "--keep-unit", "--register=no", f"--directory={self._root}",
            f"--network-bridge={BRIDGE}", f"--machine={self.guest.name}", f"--hostname={self.guest.name}",
            "--boot", "--console=pipe", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
            "--system-call-filter=bpf",  # with unified cgroups: without both, IPAddressDeny does nothing
            *(f"--bind-ro={here}:{there}" for here, there in self.binds),
        ]  # fmt: skip
        enter = [*(f"echo $$ > {group}/cgroup.procs" for group in _make_groups(self.guest.name)), 'exec "$@"']
        with (self.folder / "console").open("ab") as console:
            started = subprocess.Popen(
                ["/bin/sh", "-ec", "\n".join(enter), "sh", *command],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )  # fmt: skip
        nspawn = Process.of(started.pid)
        nspawn.write(self.folder / "nspawn")
        try:
            until(lambda: self._is_up(nspawn), _BOOT_S, f"guest {self.guest.name}: boot")
        except HostsError as error:
            console_end = (self.folder / "console").read_text(errors="replace")[-2000:]
            raise HostsError(f"{error}\n{console_end}") from error

    def _is_up(self, nspawn: Process) -> bool:
        if not nspawn.alive():
            raise HostsError(f"guest {self.guest.name}: systemd-nspawn ended")
        leader = nspawn.first_child()
        if leader is None:
            return False
        asked = subprocess.run(
            [*entering(leader), "systemctl", "is-system-running"], capture_output=True, text=True, check=False
        )
        if asked.stdout.strip() not in ("running", "degraded"):
            return False
        self.leader_file.write_text(f"{leader}\n")
        self._network_file.write_text(str(Path(f"/proc/{leader}/ns/net").readlink()))
        return True

    def stop(self) -> None:
        """Shut the guest down in order; cut it off if that takes too long."""
        nspawn = Process.read(self.folder / "nspawn")
        if nspawn is None or not nspawn.alive():
            return
        self._end_visitors()
        leader = nspawn.first_child()
        if leader is not None:
            Process.of(leader).signal(_POWER_OFF)
        try:
            until(lambda: not nspawn.alive(), _STOP_S, f"guest {self.guest.name}: shutdown")
        except HostsError:
            self.cut()

    def cut(self) -> None:
        """End every process of the guest at once, as a power failure does."""
        nspawn = Process.read(self.folder / "nspawn")
        if nspawn is None or not nspawn.alive():
            return
        leader = nspawn.first_child()
        if leader is not None:
            Process.of(leader).signal(signal.SIGKILL)
        try:  # nspawn then clears up after its guest; without that, its end of the network stays behind for a while
            until(lambda: not nspawn.alive(), _STOP_S, f"guest {self.guest.name}: end")
        except HostsError:
            nspawn.signal(signal.SIGKILL)
            until(lambda: not nspawn.alive(), _STOP_S, f"guest {self.guest.name}: end")
        self._end_visitors()

    def _end_visitors(self) -> None:
        """End what entered the guest from outside: it would hold up its shutdown and outlive it.

        A guest that shuts down stops (SIGSTOP) all its processes before it ends them. An ``nsenter`` whose child is
        stopped stops itself, for good: it never collects that child, for which the guest waits, and keeps the network
        namespace and this machine's end of it.
        """
        if not self._network_file.exists():
            return  # it never came up: nobody has been in there
        network, ours = self._network_file.read_text(), Path("/proc/self/ns/pid").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str((process / "ns/net").readlink()) == network and (process / "ns/pid").readlink() == ours:
                    os.kill(int(process.name), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # ended meanwhile, or nobody's whom we started

    def reboot(self, *, hard: bool) -> None:
        """Shut down and boot again; ``hard`` without shutting down."""
        if hard:
            self.cut()
        else:
            self.stop()
        self.boot()

    def remove(self) -> None:
        """End the guest, at once because nothing of it is needed any more, and leave nothing of it behind."""
        self.cut()
        self._end_visitors()  # also of a guest that ended without being asked
        if self._cable.exists():  # it goes by itself, but not at once: perhaps between this line and the next
            subprocess.run(["ip", "link", "delete", self._cable.name], capture_output=True, check=False)
            until(lambda: not self._cable.exists(), _STOP_S, f"guest {self.guest.name}: end of its network")
        if os.path.ismount(self._root):
            run(["umount", self._root])
        shutil.rmtree(self.folder, ignore_errors=False)
        for group in _groups(self.guest.name):
            _remove_group(group)


def entering(leader: int) -> list[str]:
    """The command words that run what follows inside the guest of this leader."""
    return ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]


def create_bridge() -> None:
    """A bridge without an address of its own: guests reach each other and nothing else."""
    run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    Path(f"/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6").write_text("1")
    run(["ip", "link", "set", BRIDGE, "up"])


def remove_bridge() -> None:
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        run(["ip", "link", "delete", BRIDGE])


def _groups(name: str) -> Iterable[Path]:
    """A control group per guest in every hierarchy systemd uses: guests that shared one would manage each other."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options = line.split()[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            yield Path(where) / f"mexc-test-{name}"


def _make_groups(name: str) -> list[Path]:
    groups = list(_groups(name))
    for group in groups:
        group.mkdir(exist_ok=True)
    return groups


def _remove_group(group: Path) -> None:
    if group.is_dir():
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
