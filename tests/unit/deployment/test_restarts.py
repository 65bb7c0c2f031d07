"""Whether a part is restarted again and again: counted by systemd, judged once a minute, told whatever happens."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from support.repository import ROOT
from support.scripts import Ended, ended, program, script

restarts = script("roles/mexc_pipeline/files/restarts.py")
UP = "LoadState=loaded\nActiveState=active"
UNITS = ("mexc-collector@*.service", "mexc-store.service")


class Host:
    """systemd as it answers there, and the state of the turn before."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.state = folder / "bin", folder / "run" / "seen.json"
        self.state.parent.mkdir()

    def counts(self, **counts: int) -> None:
        self.shows(*(f"Id=mexc-collector@{name}.service\n{UP}\nNRestarts={count}" for name, count in counts.items()))

    def shows(self, *blocks: str) -> None:
        self.systemctl("cat <<'END'\n" + "\n\n".join(blocks) + "\nEND")

    def systemctl(self, does: str) -> None:
        program(self.programs, "systemctl", does)

    def turn(self) -> Ended:
        return ended(restarts, self.state, *UNITS)

    def kept(self) -> dict[str, list[tuple[float, int]]]:
        """The samples, by unit."""
        said: dict[str, tuple[float, list[tuple[float, int]]]] = json.loads(self.state.read_text())
        return {unit: samples for unit, (_, samples) in said.items()}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{found.programs}:/usr/bin:/bin")
    return found


def test_a_unit_that_is_restarted_too_often_is_named_once(host: Host) -> None:
    host.counts(btc=3, eth=0)
    assert host.turn() == (0, "", "")
    host.counts(btc=3 + restarts.MOST, eth=1)
    assert host.turn() == (0, "", "")
    host.counts(btc=4 + restarts.MOST, eth=1)
    told = host.turn()
    assert told.status == 1
    assert "mexc-collector@btc.service was restarted 6 times" in told.said
    assert len(told.said.splitlines()) == 1
    assert host.turn() == (0, "", "")


def test_a_unit_started_by_hand_counts_from_zero(host: Host) -> None:
    host.counts(btc=100)
    host.turn()
    host.counts(btc=2)
    assert host.turn() == (0, "", "")
    assert [n for _, n in host.kept()["mexc-collector@btc.service"]] == [2]


def test_samples_that_are_too_old_do_not_count() -> None:
    kept, risen = restarts.too_often([(0.0, 0), (500.0, 3)], restarts.WITHIN_S + 1, 7)
    assert (kept, risen) == ([(500.0, 3), (restarts.WITHIN_S + 1, 7)], 4)
    assert restarts.too_often([(9e9, 0)], 5.0, 7) == ([(5.0, 7)], 0), "of a boot before"


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("echo 'Failed to connect to bus' >&2; exit 1", "ended with 1: Failed to connect to bus"),
        ("exit 1", "ended with 1: it said nothing"),
        ("kill -9 $$", "ended with -9"),
        ("printf 'a\\033[31mb\\n\\nc' >&2; exit 3", r"ended with 3: a\x1b[31mb c"),
        ("echo nonsense", "says what is no unit: nonsense"),
        ("printf '\\377\\376'", "says what is no unit"),
        ("printf 'Id=x\\nNRestarts=1\\n'", "says what is no unit"),
        ("printf 'Id=x\\nLoadState=loaded\\nActiveState=active\\nNRestarts=many\\n'", "says what is no unit"),
        ("exec sleep 60", "did not end within 0.3 s"),
    ],
)
def test_where_systemd_cannot_be_asked_that_is_said(
    host: Host, monkeypatch: pytest.MonkeyPatch, does: str, said: str
) -> None:
    if "sleep" in does:  # only there: on a busy machine the others may take a while
        monkeypatch.setattr(restarts, "WAIT_S", 0.3)
    host.systemctl(does)
    told = host.turn()
    assert told.status == 1
    assert said in told.said
    assert told.said.startswith(
        "systemctl show --property Id,LoadState,ActiveState,NRestarts -- mexc-collector@*.service"
    )
    assert len(told.said.splitlines()) == 1
    assert not host.state.exists()


def test_without_systemctl_that_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(host.programs))
    told = host.turn()
    assert (told.status, told.said) == (
        1,
        f"systemctl cannot be run: No such file or directory; PATH is {host.programs}\n",
    )


@pytest.mark.parametrize(
    "left",
    [
        b"[]",
        b"3",
        b"null",
        b'{"mexc-collector@btc.service": 5}',
        b'{"mexc-collector@btc.service": [5]}',
        b'{"mexc-collector@btc.service": [[1, 1]]}',  # an earlier version's
        b'{"mexc-collector@btc.service": [1, [["x", 1]]]}',
        b'{"mexc-collector@btc.service": [1, [[1, 1e999]]]}',
        b'{"mexc-collector@btc.service": ["x", [[1, 1]]]}',
        b'{"mexc-collector@btc.service": [1, [[1',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"",
    ],
)
def test_a_damaged_state_is_said_and_replaced(host: Host, left: bytes) -> None:
    host.state.write_bytes(left)
    host.counts(btc=3)
    told = host.turn()
    assert (told.status, told.said) == (
        0,
        f"{host.state} is none of ours and is written anew: restarts before now are not counted\n",
    )
    assert [n for _, n in host.kept()["mexc-collector@btc.service"]] == [3]
    assert host.turn() == (0, "", "")


def _a_folder(host: Host) -> None:
    host.state.mkdir()


def _no_folder(host: Host) -> None:
    host.state.parent.rmdir()


def _a_folder_in_the_way(host: Host) -> None:
    host.state.with_name("seen.json.new").mkdir()


@pytest.mark.parametrize("spoil", [_a_folder, _no_folder, _a_folder_in_the_way])
def test_a_state_that_cannot_be_kept_is_said(host: Host, spoil: object) -> None:
    assert callable(spoil)
    spoil(host)
    host.counts(btc=3)
    told = host.turn()
    assert told.status == 1
    assert told.said.startswith(str(host.state))
    assert len(told.said.splitlines()) == 1


def test_an_alarm_is_told_where_the_state_cannot_be_kept(host: Host) -> None:
    host.counts(btc=0)
    host.turn()
    _a_folder_in_the_way(host)
    host.counts(btc=50)
    told = host.turn()
    assert told.status == 1
    alarm, trouble = told.said.splitlines()
    assert "was restarted 50 times" in alarm
    assert "cannot be written: Is a directory" in trouble


# -- units that do not get ready


def _turns(*states: tuple[str, int]) -> list[tuple[int, str]]:
    """Minute and alarm of a unit that is in these states, one a minute."""
    seen, found = None, []
    for minute, (state, count) in enumerate(states):
        seen, alarms = restarts.judged("x.service", restarts.Unit(state, count), seen, 60.0 * minute)
        found += [(minute, alarm) for alarm in alarms]
    return found


def test_a_start_that_never_gets_ready_is_told() -> None:
    """It fails after two minutes: five restarts in ten, which are not too many."""
    trying = [("activating", minute // 2) for minute in range(25)]
    assert _turns(("active", 0), *trying) == [
        (10, "x.service has not been ready for 600 s (activating)"),
        (20, "x.service has not been ready for 600 s (activating)"),
    ]


def test_one_that_is_up_for_a_moment_at_each_turn_is_not_ready() -> None:
    flapping = [("active", minute // 2) if minute % 2 == 0 else ("activating", minute // 2) for minute in range(12)]
    assert [minute for minute, _ in _turns(*flapping)] == [10]


def test_one_that_gave_up_is_told() -> None:
    """What systemd no longer tries, such as a unit of the distribution's with a limit, or a wrong configuration."""
    assert [minute for minute, _ in _turns(("active", 0), *[("failed", 5)] * 12)] == [10]


@pytest.mark.parametrize("state", ["active", "inactive", "reloading"])
def test_one_that_runs_or_was_stopped_is_not_told(state: str) -> None:
    assert _turns(*[(state, 0)] * 30) == []


def test_one_restart_is_not_told() -> None:
    assert _turns(*[("active", 0)] * 3, *[("active", 1)] * 30) == []
    assert _turns(("activating", 0), *[("active", 0)] * 30) == [], "a first start"


def test_what_is_not_installed_here_is_not_counted(host: Host) -> None:
    host.shows(
        "Id=clickhouse-server.service\nLoadState=not-found\nActiveState=inactive\nNRestarts=0",
        "Id=tor@default.service\nLoadState=masked\nActiveState=inactive\nNRestarts=0",
        f"Id=mexc-prune.timer\n{UP}",
    )
    assert host.turn() == (0, "", "")
    assert list(host.kept()) == ["mexc-prune.timer"]


def test_every_unit_of_the_roles_is_watched_or_tells_of_itself() -> None:
    role = ROOT / "roles" / "mexc_pipeline"
    text = (role / "vars" / "main.yml").read_text()

    def listed(name: str) -> list[str]:
        return re.findall(r"(?<=\n  - )\S+", re.split(r"\n(?=[_#])", text.partition(f"\n{name}:")[2])[0])

    watched = listed("_mexc_pipeline_watched")
    ours = [unit.replace("@.", "@btc.") for unit in listed("_mexc_pipeline_units")]
    configured = [
        path.removeprefix("/etc/systemd/system/").removesuffix(".d").replace("@.", "@btc.")
        for name in ("tor", "clickhouse")
        for tasks in (ROOT / "roles" / name / "tasks").glob("*.yml")
        for path in re.findall(r"/etc/systemd/system/\S+\.service\.d(?=\n)", tasks.read_text())
    ]
    assert len(configured) == 2
    unwatched = [unit for unit in ours + configured if not any(fnmatch(unit, pattern) for pattern in watched)]
    for unit in unwatched:
        template = (role / "templates" / f"{unit}.j2").read_text()
        assert "Type=oneshot" in template, unit
        assert "OnFailure=" in template, unit
    assert len(unwatched) == 4
