"""The rest of what an operator does, run after ``test_effects.py``: look, check, upgrade the system, keep and forget.

Run in this order, on the test hosts only. After ``test_the_end`` nothing is compared with all that was ever sent:
what follows it deletes files and leaves holes on purpose.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from functools import partial
from pathlib import Path

import pytest
from testinfra.host import Host

from deploy import site
from deploy.hosts import certificates
from deploy.operating import inventories, on, play
from deploy.test_effects import (
    BACK_S,
    ONLY,
    SYMBOLS,
    host_of,
    installed,
    pid,
    put_together,
    settled,
    variables,
    whole,
)
from deploy.test_recording import live, strangers

pytestmark = [pytest.mark.disruptive, pytest.mark.test_network, pytest.mark.timeout(900)]

BACKUPS = "/var/backups/mexc-pipeline/recorder"
_OURS = (
    "mexc-store.service", "mexc-metrics.service", "mexc-export.timer", "mexc-verify.timer", "mexc-prune.timer",
    "mexc-restarts.timer", "mexc-collectors.target", "mexc.target",
)  # fmt: skip


def test_a_look(collectors: list[Host], network: Host) -> None:
    """What an operator types first says what is going on."""
    settled(collectors, network)
    host = host_of(collectors, "btc")
    site.until("systemd's line of its state", lambda: _says_live(host), 60)  # renewed every few seconds
    assert on(host, "journalctl -u mexc-collector@btc").stdout.strip()
    status = on(host, "mexc-pipeline status")
    assert status.rc == 0, status.stderr
    assert "ClickHouse (server) answers" in status.stdout
    assert "BTC_USDT" in status.stdout
    assert on(host, "mexc-pipeline verify").rc == 0
    everything = on(host, "journalctl -u mexc-collector@btc -o cat").stdout.splitlines()
    serious = on(
        host, 'journalctl -u mexc-collector@btc -o cat --grep \'"level": "(warning|error)"\''
    ).stdout.splitlines()
    wanted = [line for line in everything if line.startswith("{") and json.loads(line)["level"] in ("warning", "error")]
    assert [line for line in serious if line in wanted] == wanted
    assert [line for line in serious if line.startswith("{") and line not in wanted] == []


def _says_live(host: Host) -> bool:
    return 'Status: "live, seq ' in on(host, "systemctl status mexc-collector@btc").stdout


def test_a_change_shown_before_it_is_made(collectors: list[Host]) -> None:
    """On a machine that is as the inventory says, nothing would change."""
    host = host_of(collectors, "sol")
    version = host.check_output("readlink /opt/mexc-pipeline/current").rpartition("/")[2]
    more = ("--limit", site.name(host), "--extra-vars", f"mexc_pipeline_version={version}")
    printed = play("ansible-playbook site.yml --check --diff", *more)
    changed = [line for line in printed.splitlines() if "changed=" in line and "changed=0" not in line]
    assert changed == [], printed[-4000:]


def test_the_check_of_everything(collectors: list[Host]) -> None:
    """Green when all is well; one timer that stands still, on one of the hosts, and it is not."""
    printed = play("ansible-playbook playbooks/verify.yml")
    assert "everything checked is as it should be" in printed
    lines = [line.strip(" -'\"") for line in printed.splitlines()]  # a line of the page is a line of the terminal
    for host in collectors:
        assert "ok   mexc-store.service active" in lines
        assert "ok   mexc-metrics.service active" in lines
        for symbol_id in site.symbols(host):
            assert f"{symbol_id} leaves from 203.0.113." in printed
            assert f"{symbol_id}_current: " in printed
    host = host_of(collectors, "sol")
    host.check_output("systemctl stop mexc-prune.timer")
    try:
        assert "FAIL mexc-prune.timer inactive" in play("ansible-playbook playbooks/verify.yml", fails=True)
    finally:
        host.check_output("systemctl start mexc-prune.timer")


_OVER_TLS = """
import base64, ssl, sys, urllib.error, urllib.request
url, authority, password = sys.argv[1:]
said = base64.b64encode(f"prometheus:{password}".encode()).decode()
request = urllib.request.Request(url, headers={"Authorization": f"Basic {said}"})
try:
    print(urllib.request.urlopen(request, timeout=30, context=ssl.create_default_context(cadata=authority)).status)
except urllib.error.HTTPError as error:
    print(error.status)
"""


def _recording(host: Host) -> dict[str, int]:
    return {i: pid(host, f"mexc-collector@{i}.service") for i in site.symbols(host)}


def test_the_metrics_for_another_host(collectors: list[Host], tmp_path: Path) -> None:
    """Over TLS and with a password. What systemd has handed over is not what is on the disk once that is changed, and
    the check says so. Nobody who records is restarted for it."""
    host, other = host_of(collectors, "sol"), host_of(collectors, "btc")
    own, asking = (one.ansible.get_variables()["ansible_host"] for one in (host, other))
    here = ("--limit", site.name(host), *installed(host))
    certificates.make(tmp_path / "tls", {"metrics": own})
    files = {name: f"/root/metrics/{name}" for name in ("certificate", "key", "password_file")}
    host.check_output("install -d -m 0700 /root/metrics")
    texts = {"certificate": tmp_path / "tls/metrics.pem", "key": tmp_path / "tls/metrics.key"}
    for name, path in texts.items():
        host.check_output("umask 077 && echo %s > %s", path.read_text(), files[name])
    host.check_output("umask 077 && echo first > %s", files["password_file"])
    given: dict[str, object] = {f"mexc_pipeline_metrics_{name}": path for name, path in files.items()}
    given |= {"mexc_pipeline_metrics_listen": own}
    before = _recording(host)

    def answer(password: str) -> str:
        authority = (tmp_path / "tls/ca.pem").read_text()
        url = f"https://{own}:9464/metrics"
        return str(other.check_output(f"{site.PYTHON} -c %s %s %s %s", _OVER_TLS, url, authority, password))

    try:
        refused = play("ansible-playbook site.yml", *here, *variables(**given), fails=True)
        assert "name Prometheus' address in mexc_pipeline_metrics_allow" in " ".join(refused.split())
        given |= {"mexc_pipeline_metrics_allow": [asking]}
        play("ansible-playbook site.yml", *here, *variables(**given))
        assert (answer("first"), answer("second")) == ("200", "401")
        host.check_output("umask 077 && echo second > %s", files["password_file"])
        printed = " ".join(play("ansible-playbook playbooks/verify.yml", fails=True).split())
        assert "FAIL mexc-metrics.service does not run what is on the disk: it was given an older password" in printed
        assert on(host, "systemctl restart mexc-metrics").rc == 0
        assert (answer("first"), answer("second")) == ("401", "200")
        host.check_output("rm %s", files["key"])
        refused = play("ansible-playbook site.yml", *here, *variables(**given), fails=True)
        assert "nothing that runs was changed" in " ".join(refused.split())
        assert answer("second") == "200"
    finally:
        play("ansible-playbook site.yml", *here)
        host.check_output("rm -r /root/metrics")
    assert _recording(host) == before


def test_the_metrics_switched_off_and_on(collectors: list[Host]) -> None:
    """Unit and user go, and come back; nobody who records is restarted for it."""
    host = host_of(collectors, "sol")
    here = ("--limit", site.name(host), *installed(host))
    before = _recording(host)
    try:
        play("ansible-playbook site.yml", *here, *variables(mexc_pipeline_metrics=False))
        assert not host.file("/etc/systemd/system/mexc-metrics.service").exists
        assert not host.file("/etc/systemd/system/mexc.target.wants/mexc-metrics.service").exists
        assert not host.user("mexc-metrics").exists
        assert not host.group("mexc-metrics").exists
        assert ":9464" not in host.check_output("ss -H -l -n -t")
        again = play("ansible-playbook site.yml", *here, *variables(mexc_pipeline_metrics=False))
        assert [line for line in again.splitlines() if "changed=" in line and "changed=0" not in line] == []
    finally:
        play("ansible-playbook site.yml", *here)
    assert host.service("mexc-metrics.service").is_running
    assert host.service("mexc-metrics.service").is_enabled
    assert _recording(host) == before


def test_a_port_of_the_metrics_that_is_taken(collectors: list[Host], network: Host) -> None:
    """The run says so and fails, once all that records is as the inventory says."""
    host = host_of(collectors, "sol")
    here = ("--limit", site.name(host), *installed(host))
    taken = "systemd-run --unit test-taken --collect python3 -m http.server --bind 127.0.0.1 9464"
    host.check_output(f"systemctl stop mexc-metrics.service && {taken}")
    try:
        site.until("the port is taken", lambda: ":9464" in host.check_output("ss -H -l -n -t"), 30)
        slower = variables(mexc_pipeline_exchange=_exchange(host) | {"ping_interval": "14s"})
        printed = " ".join(play("ansible-playbook site.yml", *here, *slower, fails=True).split())
        assert "all that records runs, but mexc-metrics.service does not start" in printed
        assert "cannot listen on 127.0.0.1 port 9464" in on(host, "journalctl -u mexc-metrics").stdout
        assert site.configuration(host)["exchange"]["ping_interval"] == "14s"
        settled(collectors, network)
        assert "another configuration" not in on(host, "mexc-pipeline status").stdout
    finally:
        host.check_output("systemctl stop test-taken")
        play("ansible-playbook site.yml", *here)
    settled(collectors, network)
    assert host.service("mexc-metrics.service").is_running


def _exchange(host: Host) -> dict[str, object]:
    """The role's setting, as the configuration has it."""
    return {key: value for key, value in site.configuration(host)["exchange"].items() if key != "ca_file"}


def test_an_upgrade_of_the_system(collectors: list[Host], clickhouse: Host, network: Host) -> None:
    """Security updates are taken one symbol at a time, and what runs afterwards is what was installed."""
    tor = host_of(collectors, "sol")
    before, server = pid(tor, "tor@sol.service"), pid(clickhouse, "clickhouse-server.service")
    for host in (*collectors, clickhouse):
        host.check_output("echo 'deb [trusted=yes] file:/srv/apt-newer ./' > /etc/apt/sources.list.d/newer.list")
    play("ansible-playbook playbooks/upgrade.yml -e upgrade_what=system")
    for host in collectors:
        assert host.package("tor").version.endswith("+newer")
    assert clickhouse.package("clickhouse-server").version.endswith("+newer")
    assert pid(tor, "tor@sol.service") not in (0, before)
    assert pid(clickhouse, "clickhouse-server.service") not in (0, server)
    settled(collectors, network)


def test_segments_go_without_a_collector(collectors: list[Host]) -> None:
    """Where a symbol is recorded no longer its exported segments go as any others; the newest tells the next seq."""
    left = [(host, name) for host in collectors for name in _spools(host) if name not in site.symbols(host)]
    assert left, "the tests before have moved a symbol away"
    for host, symbol_id in left:
        site.until(f"the newest of {symbol_id} alone", partial(_is_pruned, host, symbol_id), BACK_S)


def _spools(host: Host) -> list[str]:
    return str(host.check_output("ls %s/spool", site.configuration(host)["data_dir"])).split()


def _is_pruned(host: Host, symbol_id: str) -> bool:
    folder = f"{site.configuration(host)['data_dir']}/spool/{symbol_id}"
    return len(host.check_output("find %s -name '*.sqlite'", folder).split()) == 1


def test_the_end(collectors: list[Host], network: Host) -> None:
    """After all of it: every host healthy, every file what was sent, and nothing but exits seen by the exchange."""
    began = time.time()
    for host in collectors:
        assert live(host)
        site.until("files of this time, by the timer", partial(_exported_since, host, began), BACK_S)
        whole(host, network)
    assert strangers(network, set(network.ansible.get_variables()["test_exits"])) == []


def _exported_since(host: Host, began: float) -> bool:
    """Whether every symbol has a file of a period that began after that."""
    now = time.time()
    ages = [symbol["last_export"]["age_s"] for symbol in site.status(host).values() if symbol["last_export"]]
    return len(ages) == len(site.symbols(host)) and now - max(ages) > began + site.period_s(host)


def test_old_files_go(collectors: list[Host]) -> None:
    """A file goes when it is old, proven and archived; one that is not archived stays, and so does one that changed."""
    host = host_of(collectors, "btc")
    folder = site.configuration(host)["export_dir"]
    files = sorted({file for file, _, _, _ in site.exported(host, "btc")})
    archived, altered, missing = (f"{folder}/{file}" for file in files[:3])
    host.check_output("install -d /srv/archive && cp %s %s /srv/archive", archived, altered)
    host.check_output("printf x | dd of=%s bs=1 seek=200 conv=notrunc status=none", altered)
    host.check_output("chown -R mexc: /srv/archive")
    done = on(host, "mexc-pipeline prune --keep {age} --archive {folder}", age="1s", folder="/srv/archive")
    assert done.rc == 1, done.stdout  # because of the file that changed
    assert not host.file(archived).exists
    assert host.file(altered).exists
    assert f"{files[2]} stays: not yet in the archive" in done.stdout
    assert host.file(missing).exists
    host.check_output("cp /srv/archive/%s %s", files[1], altered)


def test_a_wrong_clock(collectors: list[Host], network: Host) -> None:
    """Five minutes off the exchange's, every check says so, and none does when it is right again."""
    # The hosts share this machine's clock: the exchange's is the one that is moved. It begins a new log each time.
    unit, more = "/etc/systemd/system/test-exchange.service", "/run/systemd/system/test-exchange.service.d"
    ahead = "s:--log-dir [^ ]*:& --clock-ahead 300:p"
    put = f"(echo '[Service]'; echo ExecStart=; sed -n '/^ExecStart=/{ahead}' {unit}) > {more}/ahead.conf"
    again = "systemctl daemon-reload; systemctl stop {0}; mv /srv/sent /srv/sent-{1}; systemctl start {0}"
    network.check_output(f"install -d {more} && {put}")
    try:
        network.check_output(again.format("test-exchange", "before"))
        for host in collectors:
            site.until("the clock is compared", partial(_clock_is_wrong, host), BACK_S)
        printed = play("ansible-playbook playbooks/verify.yml", fails=True)
        for symbol_id in (i for host in collectors for i in site.symbols(host)):
            assert re.search(rf"FAIL {symbol_id} clock: -(299|300)\.\d+ s against the exchange's", printed)
    finally:
        network.check_output(f"rm -r {more}; {again.format('test-exchange', 'ahead')}")
    settled(collectors, network)
    for host in collectors:
        site.until("nothing is wrong", partial(_nothing_wrong_but_files, host), BACK_S)


def _clock_is_wrong(host: Host) -> bool:
    said = on(host, "mexc-pipeline status").stdout
    return len(re.findall(r"clock is (?:299|300)\.\d s behind the exchange's", " ".join(said.split()))) == len(
        site.symbols(host)
    )


def _nothing_wrong_but_files(host: Host) -> bool:
    wrong = [line for line in on(host, "mexc-pipeline verify").stdout.splitlines() if line.startswith("FAIL")]
    assert [line for line in wrong if ".parquet" not in line] == []
    return True


def test_a_damaged_file_written_again(collectors: list[Host]) -> None:
    """What the page says of it, while the spool has the rows: the same file, to the byte."""
    host = host_of(collectors, "sol")
    assert on(host, "mexc-pipeline export --once").rc == 0
    name = site.exported(host, "sol")[-1][0]
    file = f"{site.configuration(host)['export_dir']}/{name}"
    before = host.file(file).sha256sum
    host.check_output("printf x | dd of=%s bs=1 seek=100 conv=notrunc status=none", file)
    assert "mexc-pipeline export --missing makes it again from the spool, which has its rows" in _said_of(host, name)
    host.check_output("mv %s /tmp/damaged.parquet", file)
    assert on(host, "mexc-pipeline export --missing").rc == 0
    assert host.file(file).sha256sum == before
    assert _said_of(host, name) == ""


def _said_of(host: Host, name: str) -> str:
    lines = on(host, "mexc-pipeline verify exports").stdout.splitlines()
    return "".join(line for line in lines if line.startswith("FAIL") and name in line)


def test_a_reset_asks_for_the_hosts_name(collectors: list[Host]) -> None:
    """The one command that forgets is not to be had by a slip."""
    host = host_of(collectors, "sol")
    before = site.status(host)["sol"]["collector"]["last_seq"]
    printed = play("ansible-playbook playbooks/reset.yml", "--extra-vars", "reset_host=sol", fails=True)
    assert "nothing was changed" in " ".join(printed.split())
    assert site.status(host)["sol"]["collector"]["last_seq"] >= before


def test_a_backup_put_back(collectors: list[Host], clickhouse: Host, network: Host) -> None:
    """A machine is lost and set up anew. All that was backed up is there again, and no seq is ever given twice."""
    host = host_of(collectors, "sol")
    files = {file for file, _, _, _ in site.exported(host, "sol")}
    play("ansible-playbook playbooks/backup.yml")
    name = host.check_output("ls %s", BACKUPS).split()[0]
    saved = json.loads(host.file(f"{BACKUPS}/{name}/manifest.json").content_string)
    assert host.file(f"{BACKUPS}/{name}/manifest.json").user == "mexc"
    assert saved["exports"].keys() >= files

    given = site.until("a row after the backup", lambda: _beyond(host, saved["last_seq"]["sol"]), 60)
    here = f"reset_host={site.name(host)} reset_exports=true"
    # Started by hand after a stop: its target does not say that it runs. An export by hand is no unit at all, and is
    # in the middle of a file until the reset waits for it (or, where it does not, has ended).
    host.check_output("systemctl stop mexc.target && systemctl start mexc-collector@sol.service")
    host.check_output("rm -f /run/reset-has-ended")
    export = held_export(host, "mexc-pipeline export --once sol")
    goes_on = f"until pgrep -x flock || [ -e /run/reset-has-ended ]; do sleep 0.1; done; kill -CONT {export}"
    host.check_output("setsid sh -c %s > /dev/null 2>&1 < /dev/null &", goes_on)
    play("ansible-playbook playbooks/reset.yml -e reset_start=false", "--extra-vars", here)
    host.check_output("touch /run/reset-has-ended")
    site.until("the end of the export by hand", lambda: host.run("kill -0 %s", str(export)).rc != 0, 60)
    assert not host.service("mexc-collector@sol.service").is_running
    assert host.check_output("find %s -type f", site.configuration(host)["export_dir"]) == ""
    assert "sol_current" not in clickhouse.check_output("clickhouse-client --query 'SHOW TABLES FROM ch_mexc'")

    limit = ("--limit", f"{site.name(clickhouse)},{site.name(host)}")
    # The machine set up anew may number its users otherwise; a restore that fails leaves nothing that records.
    manifest = f"{BACKUPS}/{name}/manifest.json"
    host.check_output("chown -R 12345:12345 %s && mv %s %s.kept", BACKUPS, manifest, manifest)
    printed = play("ansible-playbook playbooks/restore.yml -e restore_name={name}", *limit, name=name, fails=True)
    assert "is not a whole backup: it has no manifest.json; nothing was started" in " ".join(printed.split())
    assert not host.service("mexc-collector@sol.service").is_running
    host.check_output("mv %s.kept %s", manifest, manifest)
    play("ansible-playbook playbooks/restore.yml -e restore_name={name}", *limit, name=name)
    settled(collectors, network)
    assert site.status(host)["sol"]["collector"]["last_seq"] > given
    rows = site.until("a file of the time since", lambda: _rows_beyond(host, given), BACK_S)
    assert {file for file, _, _, _ in rows} >= {file for file in saved["exports"] if file.startswith("sol")}
    seqs = [seq for _, seq, _, _ in rows]
    assert len(set(seqs)) == len(seqs)
    assert not [seq for seq in seqs if saved["last_seq"]["sol"] < seq <= given]
    wrong = [line for line in on(host, "mexc-pipeline verify").stdout.splitlines() if line.startswith("FAIL")]
    assert len(wrong) == 1, wrong  # the hole, which is true
    assert "are in no file between" in wrong[0]
    hole = re.search(r"seq (\d+) to (\d+) ", wrong[0])
    assert hole
    words = {"first": hole[1], "last": hole[2]}
    done = on(host, "mexc-pipeline acknowledge sol {first} {last} --reason restored", **words)
    assert done.rc == 0, done.stderr
    assert on(host, "mexc-pipeline verify exports").rc == 0


def _beyond(host: Host, seq: int) -> int | None:
    last = int(site.status(host)["sol"]["collector"]["last_seq"])
    return last if last > seq else None


def _rows_beyond(host: Host, seq: int) -> list[tuple[str, int, str, str]] | None:
    rows = site.exported(host, "sol")
    return rows if rows[-1][1] > seq else None


def test_a_host_retired(
    collectors: list[Host], clickhouse: Host, network: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its symbols go on elsewhere, where its files go too; nothing of ours runs there or comes back by a reboot, and
    ClickHouse lets it in no more. Back in the inventory it goes on where the other one was."""
    host, other = host_of(collectors, "sol"), host_of(collectors, "btc")
    symbols = [*SYMBOLS[:2], {**SYMBOLS[2], "host": site.name(other)}]
    more = (*installed(host), *variables(mexc_pipeline_symbols=symbols))
    printed = play("ansible-playbook site.yml", *ONLY, *more)
    (last,) = {int(seq) for seq in re.findall(rf"sol: up to seq (\d+) on {site.name(host)}, goes on here", printed)}
    site.until("nothing of ours at work", lambda: not _at_work(host), 30)
    assert host.run("systemctl list-unit-files --no-legend --state=enabled 'mexc*' 'tor@*'").stdout == ""
    assert host.run("ls -A /etc/tor/instances").stdout == ""
    assert max(seq for _, seq, _, _ in site.exported(host, "sol")) == last
    settled([other], network)
    put_together(host, other, "sol")
    _answered_for(host, other)
    assert on(other, "mexc-pipeline export --once").rc == 0
    assert on(other, "mexc-pipeline verify exports").rc == 0

    everybody = json.loads(Path(inventories()[0]).read_text())
    for hosts in (everybody["all"], everybody["all"]["children"]["collector_hosts"]):
        del hosts["hosts"][site.name(host)]
    without = tmp_path / "hosts.json"
    without.write_text(json.dumps(everybody))
    assert _let_in(host)
    with monkeypatch.context() as context:
        context.setenv("MEXC_TEST_INVENTORIES", " ".join([str(without), *inventories()[1:]]))
        play("ansible-playbook site.yml", *more)
        assert "everything checked is as it should be" in play("ansible-playbook playbooks/verify.yml", *more)
    assert _let_in(other)
    assert not _let_in(host)

    play("ansible-playbook site.yml", *installed(host))
    assert [name for name in _OURS if not host.service(name).is_running] == []
    assert _let_in(host)
    settled(collectors, network)
    assert site.status(host)["sol"]["collector"]["last_seq"] > last


def _answered_for(source: Host, target: Host) -> None:
    """Add one host's acknowledged holes to another's, where there are any."""
    file = "/var/lib/mexc-pipeline/acknowledged.jsonl"
    if source.file(file).exists:
        lines = source.check_output("cat %s", file)
        target.check_output("echo %s >> %s && chown mexc: %s", lines, file, file)


_LOG_IN = """
import sys
from clickhouse_driver import Client, errors
host, port, user = sys.argv[1], int(sys.argv[2]), sys.argv[3]
password = open("/etc/mexc-pipeline/clickhouse-password").read().strip()
client = Client(host, port=port, user=user, password=password, secure=True, verify=False, connect_timeout=5)
try:
    print(client.execute("SELECT 1"))
except errors.Error as error:  # the server's answer, or silence: its unit's filter of addresses
    print("refused", error.code)
"""


def _let_in(host: Host) -> bool:
    """Whether ClickHouse answers this host with the store's password."""
    server = site.configuration(host)["clickhouse"]
    words = [str(server[key]) for key in ("host", "port", "user")]
    said = host.check_output(f"{site.PYTHON} -c %s %s %s %s", _LOG_IN, *words)
    assert said.startswith(("[", "refused"))
    return bool(said.startswith("["))


def _at_work(host: Host) -> str:
    states = "--state=active,activating,reloading,deactivating"
    return str(host.check_output(f"systemctl list-units --plain --no-legend {states} 'mexc*' 'tor@*'"))


def held_export(host: Host, command: str) -> int:
    """Start an export and hold it in the middle of a file; the id of its process."""
    program = (Path(__file__).parent / "remote" / "held_export.py").read_text()
    config = site.configuration(host)
    words = [program, config["data_dir"], config["export_dir"], *shlex.split(command)]
    return int(host.check_output("/usr/bin/python3 -c " + " ".join(["%s"] * len(words)), *words))
