"""All the guests of one scenario, and what the rest needs to reach them: a key and an inventory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from deploy.hosts import certificates, debian, wheels
from deploy.hosts.errors import HostsError, run
from deploy.hosts.guests import Machine, create_bridge, entering, remove_bridge
from deploy.hosts.layout import (
    AUTHORITY,
    BRIDGE,
    DEBIAN_12,
    DEBIAN_13,
    ECHO,
    ECHO_NAME,
    EXCHANGE,
    EXCHANGE_NAME,
    EXCHANGE_PORT,
    EXITS,
    GUESTS,
    NAMESERVER,
    Release,
)


def parts(release: Release) -> list[tuple[Path, str]]:
    """(folder here, folder there) of what guests of a release install from; makes those that are not there yet."""
    more = [(debian.newer(), "/srv/apt-newer")] if release == DEBIAN_12 else []
    if release == DEBIAN_13:
        more = [(debian.older(), "/srv/apt-bookworm"), (wheels.development(release), "/srv/wheelhouse-dev")]
    return [(debian.repository(release), "/srv/apt"), (wheels.wheelhouse(release), "/srv/wheelhouse"), *more]


class Scenario:
    """The guests whose state is kept in one folder."""

    def __init__(self, state: Path) -> None:
        self._state = state.absolute()
        self._key = self._state / "ssh_key"
        self._binds = self._state / "binds.json"  # as they were at creation: the checkout may have changed since
        self.inventory = self._state / "hosts.json"

    def create(self, names: Sequence[str]) -> None:
        """Boot these guests. Raises HostsError where there are guests already."""
        if Path(f"/sys/class/net/{BRIDGE}").exists():
            raise HostsError(f"there is a bridge {BRIDGE} already: another run is on, or one was not cleaned up")
        releases = {GUESTS[name].release for name in names}
        binds = {release.suite: {str(here): there for here, there in parts(release)} for release in releases}
        self._state.mkdir(parents=True, exist_ok=True)
        self._binds.write_text(json.dumps(binds))
        self._key.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test hosts", "-f", self._key])
        authorized = self._key.with_suffix(".pub").read_text()
        certificates.make(self._state / "certificates", {"exchange": EXCHANGE_NAME, "ch1": GUESTS["ch1"].address})
        create_bridge()
        for name in names:
            machine = self._machine(name)
            machine.prepare(debian.tree(GUESTS[name].release), authorized)
            machine.boot()
        self.inventory.write_text(json.dumps(self._inventory(names), indent=1))

    def machine(self, name: str) -> Machine:
        """A guest that runs. Raises HostsError."""
        if not self._folder(name).is_dir():
            raise HostsError(f"there is no guest {name} in {self._state}")
        return self._machine(name)

    def destroy(self) -> None:
        """End what was started from this folder and remove it; also what an interrupted run left."""
        folders = sorted((self._state / "guests").glob("*"))
        for folder in folders:
            Machine(GUESTS[folder.name], folder).remove()
        if folders or self._key.exists():
            remove_bridge()
        shutil.rmtree(self._state, ignore_errors=True)

    def _machine(self, name: str) -> Machine:
        guest = GUESTS[name]
        binds = json.loads(self._binds.read_text())[guest.release.suite]
        return Machine(guest, self._folder(name), tuple((Path(here), there) for here, there in binds.items()))

    def _folder(self, name: str) -> Path:
        return self._state / "guests" / name

    def _inventory(self, names: Sequence[str]) -> dict[str, object]:
        hosts = {name: self._connection(name) for name in names}
        groups = sorted({group for name in names for group in GUESTS[name].groups})
        members = {g: {"hosts": {n: None for n in names if g in GUESTS[n].groups}} for g in groups}
        known = {
            "test_authority": AUTHORITY,
            "test_nameserver": NAMESERVER,
            "test_echo": ECHO,
            "test_echo_name": ECHO_NAME,
            "test_exchange": EXCHANGE,
            "test_exchange_name": EXCHANGE_NAME,
            "test_exchange_port": EXCHANGE_PORT,
            "test_exits": list(EXITS),
            "test_version": wheels.version(),
        }
        return {"all": {"hosts": hosts, "vars": known, "children": members}}

    def _connection(self, name: str) -> dict[str, object]:
        leader = self._folder(name) / "leader"
        inside = " ".join(entering(0)).replace("-t 0", f"-t $(cat {leader})")
        options = [
            f"ProxyCommand='{inside} /usr/sbin/sshd -i'",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            # Shared, which halves the time of a play; in the state folder, because a connection that outlived its guest
            # under a name of its own would hang the next run. It ends with the guest.
            f"ControlPath={self._state}/ssh-{name}",
            "ControlMaster=auto",
            "ControlPersist=60",
        ]
        return {
            "ansible_host": GUESTS[name].address,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self._key),
            "ansible_ssh_args": "-o Compression=no",  # instead of Ansible's own, which share in the user's home
            "ansible_ssh_common_args": " ".join(f"-o {option}" for option in options),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
