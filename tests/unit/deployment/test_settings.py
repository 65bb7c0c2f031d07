"""What an inventory says is judged on the control machine, where the recorder is not installed: by rules of the role's
own, which are held here against what judges it in the end, the recorder's configuration and systemd."""

from __future__ import annotations

import io
import json
import re
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mexc_pipeline import config, paths
from mexc_pipeline.errors import UserError
from mexc_pipeline.exchange import options
from mexc_pipeline.exchange.channels import ROW_TYPES
from mexc_pipeline.exchange.options import Channels
from mexc_pipeline.export import retention
from mexc_pipeline.serving import Access
from support.repository import ROOT
from support.scripts import ended, script

judge = script("roles/mexc_pipeline/files/settings.py")
ROLE = ROOT / "roles" / "mexc_pipeline"


def _defaults() -> dict[str, Any]:
    """The role's settings where the inventory says nothing, as the script gets them."""
    found: dict[str, Any] = {}
    for line in (ROLE / "defaults" / "main.yml").read_text().splitlines()[1:]:
        key, _, value = line.partition(": ")
        try:
            found[key.removeprefix("mexc_pipeline_")] = json.loads(value)
        except ValueError:
            found[key.removeprefix("mexc_pipeline_")] = value
    return found


DEFAULTS = _defaults()
HOSTS = ["col1", "col2"]
BTC: dict[str, Any] = {"name": "BTC_USDT", "id": "btc", "host": "col1"}


def faults(**changed: Any) -> list[str]:
    given = deepcopy(DEFAULTS) | {"symbols": [BTC]} | changed
    return list(judge.faults(given, HOSTS))


def test_what_is_judged_is_what_the_role_has() -> None:
    """A setting that nobody judges would be found out when others have been changed already."""
    text = (ROLE / "vars" / "main.yml").read_text().partition("_mexc_pipeline_judged:")[2]
    judged = re.findall(r"^  (\w+):", text, re.MULTILINE)
    assert DEFAULTS.keys() - set(judged) == {
        "clickhouse_user",  # any text
        "clickhouse_password",
        "clickhouse_secure",  # its type alone
        "metrics",  # its type alone
        "proxy_password",
        "python",  # on the hosts
        "source",  # read by the fingerprint of it
    }
    assert faults() == []


FILES = {f"metrics_{name}": f"/etc/tls/{name}" for name in ("certificate", "key", "password_file")}
SLIPS: list[tuple[dict[str, Any], str]] = [
    (
        {"symbols": [{"name": "BTC_USDT", "id": "btc"}]},
        "symbols: BTC_USDT has no host, and each of col1, col2 would record it",
    ),
    ({"symbols": [BTC | {"host": "col3"}]}, "symbols: BTC_USDT: host col3 is not one of collector_hosts: col1, col2"),
    (
        {"symbols": [BTC | {"id": "sol1"}]},
        "symbols: BTC_USDT / sol1: an id is at most 20 lower-case letters and digits",
    ),
    ({"symbols": [BTC | {"id": "run"}]}, "symbols: BTC_USDT / run: an id names no part of the recorder"),
    ({"symbols": [BTC | {"name": "BTCUSDT"}]}, "symbols: BTCUSDT / btc: a name is BASE_QUOTE in capitals"),
    ({"symbols": [BTC, BTC | {"name": "ETH_USDT"}]}, "symbols: id btc is there twice"),
    ({"symbols": [BTC, BTC | {"id": "other"}]}, "symbols: name BTC_USDT is there twice"),
    (
        {"symbols": [BTC | {"channels": {"depth": "full7"}}]},
        "symbols: BTC_USDT: channels.depth: 'full7'; allowed are full5",
    ),
    (
        {"symbols": [BTC | {"egress": {"mode": "socks5://h:1"}}]},
        "symbols: BTC_USDT: egress.mode: 'socks5://h:1'; allowed are direct",
    ),
    ({"channels": {"deal": False}}, "channels.deal: False; allowed are merged, each, off (in quotes"),
    ({"channels": {"depht": "each"}}, "channels.depht: unknown; allowed are ticker, deal, depth"),
    (
        {"channels": {"depth": ["full20", "full7"]}},
        "channels.depth: 'full7'; allowed are full5, full10, full20, full50",
    ),
    (
        {"symbols": [BTC | {"channels": {"depth": ["full20", "merged", "each"]}}]},
        "symbols: BTC_USDT: channels.depth: full20, merged, each; allowed is one of fullN, and beside it one of merged",
    ),
    (
        {"channels": {"kline": False}},
        "channels.kline: False; allowed are Min1, Min5, Min15, Min30, Min60, Hour4, Hour8,",
    ),
    ({"channels": {"funding": "yes"}}, "channels.funding: 'yes'; allowed are true, false"),
    ({"channels": {"extra": "sub.x"}}, "channels.extra: 'sub.x'; allowed is a list of methods"),
    ({"channels": {"extra": ["depth.step"]}}, "symbols: BTC_USDT: channels.extra: 'depth.step' is no method; such as"),
    ({"channels": {"extra": ["sub.deal"]}}, "symbols: BTC_USDT: channels.extra: sub.deal has a key of its own"),
    (
        {"channels": {"ticker": False, "deal": "off", "depth": "off", "contract": True}},
        "symbols: BTC_USDT: channels: only contract is on, which says nothing of a market, nothing would be recorded",
    ),
    ({"channels": {"ticker": False, "deal": "off", "depth": "off"}}, "symbols: BTC_USDT: channels: all are off"),
    ({"egress_mode": "Tor"}, "symbols: BTC_USDT: egress.mode: 'Tor'; allowed are direct, tor and socks5h"),
    ({"min_exits": 0}, "min_exits: 0; allowed is a whole number, at least 1"),
    ({"echo_url": "echo"}, "echo_url: 'echo'; allowed is an address"),
    ({"exchange": {"ping_interval": "40s"}}, "exchange.ping_interval: '40s'; allowed are 2s to 30s"),
    ({"spool": {"warn_percent": 95}}, "spool.warn_percent, spool.alert_percent: allowed are 1 to 99"),
    ({"period": "7m"}, "period: '7m'; allowed is a whole number of seconds, at least 2 s, that divides a day"),
    ({"spool_keep": "24"}, "spool_keep: '24'; allowed is a whole number with ms, s, m, h or d"),
    ({"data_dir": "data"}, "data_dir: 'data'; allowed is an absolute path"),
    ({"data_dir": "/srv/%h"}, "data_dir: '/srv/%h'; allowed is a path without %, which systemd"),
    ({"export_dir": "/srv/50%"}, "export_dir: '/srv/50%'; allowed is a path without %, which systemd"),
    ({"data_dir": "/srv/a\\x20b"}, "data_dir: '/srv/a\\\\x20b'; allowed is a path without \\, which systemd"),
    ({"mounts": ["/srv", "/srv/%i"]}, "mounts: 1: '/srv/%i'; allowed is a path without %, which systemd"),
    ({"export_dir": "/var/lib/mexc-pipeline/spool"}, "export_dir: it lies in spool, which the recorder keeps"),
    ({"export_schedule": "25:00"}, "export_schedule: '25:00'; allowed is systemd's calendar"),
    ({"verify_schedule": "every hour"}, "verify_schedule: 'every hour'; allowed is systemd's calendar"),
    ({"prune_schedule": ""}, "prune_schedule: ''; allowed is systemd's calendar"),
    ({"timer_jitter": "soon"}, "timer_jitter: 'soon'; allowed is a span of time"),
    ({"watchdog": "60 parsecs"}, "watchdog: '60 parsecs'; allowed is a span of time"),
    ({"export_keep": "90 days"}, "export_keep: '90 days'; allowed is a whole number with ms, s, m, h or d"),
    ({"export_min_free": "20 GB"}, "export_min_free: '20 GB'; allowed is a whole number, with K, M, G or T"),
    (
        {"archive_check": ["rclone", "check"]},
        "archive_check: ['rclone', 'check']; allowed is the words of a command, {file}",
    ),
    ({"collector_memory_max": "384MB"}, "collector_memory_max: '384MB'; allowed is a size, such as 384M"),
    ({"store_memory_max": None}, "store_memory_max: None; allowed is a size"),
    ({"job_memory_max": "0"}, "job_memory_max: '0'; allowed is a size"),
    ({"collector_cpu_weight": 0}, "collector_cpu_weight: 0; allowed is 1 to 10000"),
    ({"journal_max": "half"}, "journal_max: 'half'; allowed is a size, such as 500M"),
    ({"on_failure": "tell me"}, "on_failure: 'tell me'; allowed is a unit, such as alert@%n.service"),
    ({"clickhouse_port": 0}, "clickhouse_port: 0; allowed is 1 to 65535"),
    ({"clickhouse_host": "db.example"}, "clickhouse_host is a name: set mexc_pipeline_clickhouse_allow"),
    ({"clickhouse_allow": ["db.example"]}, "clickhouse_allow: ['db.example']; allowed is addresses"),
    ({"exchange_ca": "/nowhere/ca.pem"}, "exchange_ca: '/nowhere/ca.pem'; allowed is a file on this machine"),
    ({"metrics_listen": "localhost"}, "metrics_listen: 'localhost'; allowed is an address of the host"),
    ({"metrics_listen": "fe80::1%eth0"}, "metrics_listen: 'fe80::1%eth0'; allowed is an address of the host"),
    ({"metrics_listen": "192.0.2.7"}, "metrics_listen: 192.0.2.7: beyond loopback metrics_certificate, metrics_key, "),
    (FILES | {"metrics_listen": "::"}, "metrics_listen: ::: nobody else may ask; name Prometheus' address"),
    ({"metrics_key": "/etc/tls/key.pem"}, "metrics_certificate, metrics_key: they belong together"),
    ({"metrics_password_file": "password"}, "metrics_password_file: 'password'; allowed is the absolute path"),
    ({"metrics_password_file": "/etc/50%"}, "metrics_password_file: '/etc/50%'; allowed is the absolute path"),
    ({"metrics_port": 0}, "metrics_port: 0; allowed is 1 to 65535"),
    ({"metrics_allow": ["prometheus"]}, "metrics_allow: ['prometheus']; allowed is addresses"),
    ({"metrics_memory_max": "0"}, "metrics_memory_max: '0'; allowed is a size"),
    ({"keep_versions": 0}, "keep_versions: 0; allowed is 1 or more"),
    ({"version": "../x"}, "version: '../x'; allowed is a version"),
]


@pytest.mark.parametrize(("changed", "said"), SLIPS, ids=[said[:40] for _, said in SLIPS])
def test_a_slip_is_one_line_that_names_it_and_what_is_allowed(changed: dict[str, Any], said: str) -> None:
    found = faults(**changed)
    assert [line for line in found if line.startswith(f"mexc_pipeline_{said}")], found
    assert all("\n" not in line for line in found)


def test_a_symbol_without_a_host_is_the_only_collectors() -> None:
    given = deepcopy(DEFAULTS) | {"symbols": [{"name": "BTC_USDT", "id": "btc"}]}
    assert list(judge.faults(given, ["col1"])) == []
    assert faults(symbols=[{"name": "BTC_USDT", "id": "btc", "state": "absent"}]) == []


def test_it_reads_json_and_prints_all_faults_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"settings": DEFAULTS | {"symbols": [BTC], "period": "7m", "spool_keep": "x"}, "hosts": HOSTS}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(given)))
    told = ended(judge)
    assert (told.status, told.said) == (0, "")
    assert len(json.loads(told.printed)) == 2


# -- against the recorder's own


def _accepts(**changed: Any) -> bool:
    """Whether the recorder takes the configuration that the role would write, see its template."""
    said = DEFAULTS | {"symbols": [BTC]} | changed
    egress = {"mode": said["egress_mode"], "echo_url": said["echo_url"], "min_exits": said["min_exits"]}
    lines = [f"symbols = {json.dumps([symbol['name'] for symbol in said['symbols']], ensure_ascii=False)}"]
    lines += [f"{key} = {json.dumps(said[key])}" for key in ("data_dir", "export_dir", "period", "spool_keep")]
    clickhouse = {key: said[f"clickhouse_{key}"] for key in ("host", "port", "database")} | {"mode": "server"}
    tables = {"spool": said["spool"], "exchange": said["exchange"], "channels": said["channels"], "egress": egress}
    for symbol in said["symbols"]:
        name = json.dumps(symbol["name"], ensure_ascii=False)
        tables[f"symbol.{name}"] = {"id": symbol["id"]}
        tables |= {f"symbol.{name}.{key}": symbol[key] for key in ("channels", "egress") if symbol.get(key)}
    for table, values in (tables | {"clickhouse": clickhouse}).items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    try:
        config.parse("\n".join(lines), None)
    except UserError:
        return False
    return True


_DURATIONS = st.sampled_from(["1h", "15s", "7m", "1d", "2d", "1500ms", "0s", "90s", "24", "1 h", "1w", "", "-1h", "١h"])
_URLS = st.sampled_from(
    [
        "wss://h/x",
        "https://h",
        "http://h:80",
        "wss://h:x",
        "h",
        "",
        "wss://u:p@h",
        "wss://h?a=1",
        "wss://h#a",
        "http://[::1]:8/",
    ]
)
_MODES = st.sampled_from(
    [
        "direct", "tor", "Tor", "", "socks5h://h:1080", "socks5://h:1", "socks5h://h", "socks5h://h:1/x",
        "socks5h://u:p@h:1", "socks5h://[::1]:9", "socks5h://h:0", "socks5h://h:99999",
    ]
)  # fmt: skip
_ANY = st.sampled_from([True, False, "merged", "each", "off", "full5", "full20", "full50", "full7", "Min1", "", 3])
_SWITCHES = ("ticker", "funding", "index_price", "fair_price", "contract")
_METHODS = st.sampled_from(
    ["sub.depth.step", "sub.x", "sub.deal", "sub.funding.rate", "depth.step", "sub.", "sub.X", 5]
)
_CHANNELS = st.one_of(
    st.dictionaries(st.sampled_from([*judge.CHANNELS, "depht"]), _ANY | st.lists(_ANY, max_size=2), max_size=3),
    st.fixed_dictionaries(
        {"ticker": st.booleans(), "deal": st.sampled_from(["off", "merged"])},
        optional={
            **dict.fromkeys(_SWITCHES[1:], st.booleans()),
            "depth": st.lists(st.sampled_from([*judge.DEPTHS]), max_size=3) | st.just("off"),
            "kline": st.sampled_from(["off", "Min1", "Day1", "min1"]),
            "extra": st.lists(_METHODS, max_size=3),
        },
    ),
)
_EXITS = st.sampled_from([-1, 0, 1, 3, "3", True])
_EGRESS = st.fixed_dictionaries(
    {},
    optional={
        "mode": _MODES,
        "echo_url": _URLS,
        "min_exits": _EXITS,
        "socks_socket": st.sampled_from(["/run/{id}/s", "run/s", ""]),
        "way": st.just("x"),
    },
)
_NAMES = st.one_of(
    st.sampled_from(
        [
            "BTC_USDT",
            "BTC_USD",
            "1000PEPE_USDT",
            "币安人生_USDT",
            "btc_USDT",
            "BTC",
            "BTC_",
            "_USDT",
            "A_B_C",
            "STORE_USDT",
        ]
    ),
    st.from_regex(r"[A-Z0-9]{1,34}_[A-Z0-9]{1,21}", fullmatch=True),
)
_IDS = st.one_of(
    st.sampled_from(["btc", "btc1", "1btc", "store", "run", "BTC", "b" * 20, "b" * 21, "bтc"]),
    st.from_regex(r"[a-z0-9]{1,22}", fullmatch=True),
)
_SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "period": _DURATIONS,
    "spool_keep": _DURATIONS,
    "channels": _CHANNELS,
    "egress_mode": _MODES,
    "echo_url": _URLS,
    "min_exits": _EXITS,
    "spool": st.dictionaries(
        st.sampled_from(["warn_percent", "alert_percent", "reserve_mib", "x"]),
        st.sampled_from([0, 1, 4, 64, 85, 99, 100, 65536, 65537, "80", True]),
    ),
    "exchange": st.fixed_dictionaries(
        {},
        optional={
            "websocket": _URLS | st.lists(_URLS, max_size=2),
            "rest": _URLS,
            "ping_interval": _DURATIONS,
            "x": st.just(1),
        },
    ),
    "clickhouse_port": st.sampled_from([-1, 0, 1, 9000, 65535, 65536]),
    "clickhouse_database": st.sampled_from(["ch_mexc", "1x", "", "a b", "x" * 64, "x" * 65]),
    "data_dir": st.sampled_from(["/srv/data", "/srv", "/srv/data/../data", "/srv/exports/x"]),
    "export_dir": st.sampled_from(
        ["/srv/data/exports", "/srv/exports", "/srv/data", "/srv/data/spool/x", "/srv/data/store.d"]
    ),
    "symbols": st.lists(
        st.fixed_dictionaries(
            {"name": _NAMES, "id": _IDS, "host": st.just("col1")}, optional={"channels": _CHANNELS, "egress": _EGRESS}
        ),
        min_size=1,
        max_size=2,
    ),
}


@given(
    st.lists(st.sampled_from(sorted(_SETTINGS)), min_size=1, max_size=2, unique=True).flatmap(
        lambda keys: st.fixed_dictionaries({key: _SETTINGS[key] for key in keys})
    )
)
@example({"symbols": [BTC | {"id": "egress"}]})
def test_what_the_recorder_would_refuse_is_refused_and_nothing_else(changed: dict[str, Any]) -> None:
    found = faults(**changed)
    if [line for line in found if "names no part of the recorder" in line]:
        return  # the role's tables and Tor's package have names of their own
    assert (not found) == _accepts(**changed), found


_FILES = st.sampled_from(["", "/etc/tls/file"])


@given(
    st.sampled_from(["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "192.0.2.7", "2001:db8::1"]),
    *[_FILES] * 3,
)
def test_where_the_metrics_would_not_answer_is_refused_and_nothing_else(
    listen: str, certificate: str, key: str, password_file: str
) -> None:
    given = {"certificate": certificate, "key": key, "password_file": password_file}
    found = faults(
        metrics_listen=listen,
        metrics_allow=["198.51.100.4"],
        **{f"metrics_{name}": path for name, path in given.items()},
    )
    files: Any = {name: Path(path) if path else None for name, path in given.items()}
    access = Access(listen, 9464, **files)
    with pytest.MonkeyPatch.context() as patch:  # what is in the files is looked at on the host
        patch.setattr(Access, "password", lambda _: "")
        patch.setattr(Access, "tls", lambda _: None)
        try:
            access.check()
        except UserError:
            assert found != []
        else:
            assert found == []


def test_an_empty_id_is_refused() -> None:
    """The recorder makes one of the name; here units, accounts and folders are called by it."""
    assert _accepts(symbols=[BTC | {"id": ""}])
    assert faults(symbols=[BTC | {"id": ""}]) != []


@given(_NAMES)
def test_the_id_that_is_proposed_is_the_recorders_own(name: str) -> None:
    if not judge.is_name(name):
        return
    ours, its = judge.proposed_id(name), config.proposed_id(name)
    assert ours == its or (its in judge.TAKEN and ours == f"{its}x")
    assert faults(symbols=[{"name": name, "id": ours, "host": "col1"}]) == []


def test_the_ids_of_the_operators_page_are_those_that_are_proposed() -> None:
    page = (ROOT / "docs" / "operators.md").read_text().partition("### Names and ids\n")[2].partition("\n## ")[0]
    lines = re.findall(r"\{name: (\w+), id: (\w+), ", page)
    assert len(lines) >= 4
    assert lines == [(name, config.proposed_id(name)) for name, _ in lines]
    spec = (ROLE / "meta" / "argument_specs.yml").read_text()
    for text in (page, spec):
        assert [word for word in judge.TAKEN if word not in re.findall(r"[`(](\w+)[`)]", text)] == []


def test_constants_are_the_recorders_own() -> None:
    assert tuple(judge.CHANNELS) == Channels.__struct_fields__
    for ours, its in ((judge.DEALS, options.Deal), (judge.DEPTHS, options.Depth), (judge.KLINES, options.Interval)):
        assert ours == get_args(its)
    assert [f"push.{topic}" for topic in judge.TOPICS] == list(ROW_TYPES)
    assert judge.METHOD.pattern == options._METHOD.pattern
    assert set(judge.OF_THE_PROGRAM) == config._RESERVED
    assert set(judge.OWN_FOLDERS) == set(paths.OWN_FOLDERS)


@pytest.mark.parametrize("keep", ["", "90d", "90 days", "1w", "36h", "x"])
@pytest.mark.parametrize("free", ["", "20G", "20 G", "20GB", "1.5G", "500", "g"])
@pytest.mark.parametrize("check", [[], ["x", "{file}"], ["x"]])
def test_a_retention_is_judged_as_prune_does(keep: str, free: str, check: list[str]) -> None:
    try:
        retention.rules(keep, free, None, json.dumps(check) if check else None)
        is_taken = True
    except UserError:
        is_taken = False
    assert (faults(export_keep=keep, export_min_free=free, archive_check=check) == []) == is_taken


# -- against systemd


def _systemd(*command: str) -> bool:
    return subprocess.run(["systemd-analyze", *command], capture_output=True, check=False).returncode == 0


_FIELD = st.sampled_from(
    [
        "*",
        "0",
        "00",
        "1",
        "7",
        "12",
        "23",
        "24",
        "31",
        "59",
        "60",
        "1..5",
        "5..1",
        "0/15",
        "3/0",
        "1,2",
        "1..9/2",
        "*/5",
        "x",
        "",
    ]
)
_TIME = st.lists(_FIELD, min_size=1, max_size=4).map(":".join)
_DATE = st.builds(
    lambda y, m, sep, d: f"{y}{m}{sep}{d}",
    st.sampled_from(["", "*-", "2026-", "1969-", "2026..2028-", "2027/2-"]),
    _FIELD,
    st.sampled_from("-~"),
    _FIELD,
)
_DAYS = st.sampled_from(["Mon", "mon..Fri", "Sat,Sun", "Sunday", "Foo", "Mon-Fri", "Mon,"])
_ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Nowhere/Else"])
_CALENDARS = st.one_of(
    st.sampled_from(
        ["hourly", "Daily", "daily UTC", "annually", "often", "", "  ", "10", "*-*-* *:*:03/15", "*-*-* 03:40:00"]
    ),
    st.tuples(st.just("") | _DAYS, st.just("") | _DATE, st.just("") | _TIME, st.just("") | _ZONES).map(
        lambda parts: " ".join(filter(None, parts))
    ),
)


@given(_CALENDARS)
@example("*:*:00.5")
@example("7~31")
@example("Mon")
@example("UTC")
def test_a_schedule_that_is_taken_is_one_of_systemds(text: str) -> None:
    """The other way round the common ones suffice; they are below."""
    if judge.is_calendar(text):
        assert _systemd("calendar", "--", text), text


@pytest.mark.parametrize(
    "text",
    [
        "hourly", "daily UTC", "Mon..Fri *-*-* 10:00", "Mon,Tue 10:00", "10:00 Europe/Berlin", "*:0/15", "*-*~1 03:00",
        "Sat *-*-1..7 18:00", "*-*-* 03:40:00", "2026-12-24", "*:*:00.5", "*-*-* *:*:03/15", "Mon", "*-01,07-01 04:00",
    ],
)  # fmt: skip
def test_common_schedules_are_taken(text: str) -> None:
    assert judge.is_calendar(text)
    assert _systemd("calendar", "--", text)


@pytest.mark.parametrize(
    "text", ["60s", "1min 30s", "90", "1.5h", "infinity", "2 weeks", "5 parsecs", "", "s", "-1s", "1h30min", "10 M s"]
)
def test_a_span_of_time_is_judged_as_systemd_does(text: str) -> None:
    assert judge.is_span(text) == (bool(text) and _systemd("timespan", "--", text))


@pytest.mark.parametrize(
    "text", ["384M", "1.5G", "512", "50%", "infinity", "0", "384MB", "1Z", "-1", "101%", "0%", "", "9999999999T", "1 G"]
)
def test_a_size_is_judged_as_systemd_does(tmp_path: Path, text: str) -> None:
    unit = tmp_path / "x.service"
    unit.write_text(f"[Service]\nExecStart=/bin/true\nMemoryMax={text}\n")
    said = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False).stderr
    # An empty one is none said, and so no limit.
    assert judge.is_memory(text) == (bool(text) and "memory limit" not in said.lower()), said
