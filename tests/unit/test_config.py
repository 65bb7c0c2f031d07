"""Configuration: the defaults of the contract, overrides, and one line for every mistake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.config import (
    ClickHouse,
    Config,
    Egress,
    ExchangeTable,
    SpoolTable,
    _EgressTable,
    _File,
    _read,
    _SymbolTable,
    duration_ns,
    load,
    parse,
    proposed_id,
)
from mexc_pipeline.errors import ConfigError
from mexc_pipeline.exchange.options import Channels, is_name
from mexc_pipeline.periods import HOUR_NS, SECOND_NS
from mexc_pipeline.text import clean

CONTRACT = """
symbols    = ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
data_dir   = "./data"
export_dir = "./exports"
period     = "1h"
spool_keep = "24h"
[exchange]
websocket = "wss://contract.mexc.com/edge"
rest      = "https://api.mexc.com"
ca_file   = ""
ping_interval = "15s"
[channels]
ticker = true
deal   = "merged"
depth  = "full20"
[egress]
mode = "direct"
echo_url = ""
min_exits = 3
[clickhouse]
mode = "embedded"
host = "127.0.0.1"
port = 9000
user = "default"
password_file = ""
database = "ch_mexc"
"""


def test_every_key_has_the_contracts_default() -> None:
    assert parse("", None) == parse(CONTRACT, None) == load(None)
    config = parse("", None)
    assert [s.id for s in config.symbols] == ["btc", "eth", "sol"]
    assert config.period.length_ns == HOUR_NS
    assert config.spool_keep_ns == 24 * HOUR_NS
    assert config.exchange.ping_interval_s == 15
    given = tomllib.loads(CONTRACT)
    for table, kind in (
        ("exchange", ExchangeTable),
        ("channels", Channels),
        ("egress", Egress),
        ("clickhouse", ClickHouse),
    ):
        defaults = {f: getattr(kind(), f) for f in kind.__struct_fields__}
        assert given[table].items() <= defaults.items(), "keys may be added, never changed"


def test_a_symbols_own_table_overrides_only_what_it_names() -> None:
    config = parse(
        """
        symbols = ["BTC_USDT", "1000PEPE_USDT", "BTC_USDC"]
        [channels]
        deal = "each"
        [symbol.1000PEPE_USDT]
        id = "pepe"
        [symbol.1000PEPE_USDT.channels]
        ticker = false
        depth = "merged"
        [symbol.BTC_USDC.egress]
        mode = "socks5h://127.0.0.1:9050"
        """,
        None,
    )
    btc, pepe, usdc = config.symbols
    assert (btc.id, pepe.id, usdc.id) == ("btc", "pepe", "btcusdc")
    assert btc.channels == Channels(deal="each")
    assert pepe.channels == Channels(ticker=False, deal="each", depth="merged")
    assert (usdc.egress.mode, btc.egress.mode) == ("socks5h://127.0.0.1:9050", "direct")
    assert config.symbol("pepe") is config.symbol("1000PEPE_USDT") is pepe
    with pytest.raises(ConfigError, match="'eth' is not a configured symbol; choose one of: btc, pepe, btcusdc"):
        config.symbol("eth")


def test_candles_are_fetched_once_an_hour_unless_told_otherwise() -> None:
    assert parse("", None).candles_s == 3600
    assert parse('[checks]\ncandles = "90s"', None).candles_s == 90
    assert parse('[checks]\ncandles = "off"', None).candles_s is None


def test_all_channels_can_be_had_by_a_symbol_of_its_own() -> None:
    config = parse(
        """
        symbols = ["BTC_USDT", "BTC_USD"]
        [channels]
        funding = true
        [symbol.BTC_USD.channels]
        depth = ["full50", "merged"]
        index_price = true
        fair_price = true
        kline = "Min1"
        contract = true
        extra = ["sub.depth.step"]
        """,
        None,
    )
    btc, inverse = config.symbols
    assert btc.channels == Channels(funding=True)
    assert inverse.channels == Channels(
        depth=("full50", "merged"),
        funding=True,
        index_price=True,
        fair_price=True,
        kline="Min1",
        contract=True,
        extra=("sub.depth.step",),
    )
    assert inverse.channels.depths == ("full50", "merged")
    for alone in ("funding = true", "index_price = true", "fair_price = true", 'kline = "Day1"', 'extra = ["sub.x"]'):
        parse(f'[channels]\nticker = false\ndeal = "off"\ndepth = "off"\n{alone}', None)


@pytest.mark.parametrize(
    ("text", "named", "allowed"),
    [
        ('symbols = ["BTC_USDT", 5]', "symbols[1]:", "str"),
        ("symbols = []", "symbols:", "BTC_USDT"),
        ('symbols = ["btc_usdt"]', "'btc_usdt'", "BASE_QUOTE"),
        ('symbols = ["BTCUSDT"]', "'BTCUSDT'", "BASE_QUOTE"),
        ('symbols = ["BTC_USDT", "BTC_USDT"]', "'BTC_USDT'", "twice"),
        ('symbols = ["BTC_USDT", "XBT_USDT"]\n[symbol.XBT_USDT]\nid = "btc"', "'btc'", "twice"),
        ('symbols = ["1000PEPE_USDT"]', "symbol.1000PEPE_USDT.id", "[symbol.1000PEPE_USDT] id"),
        ('symbols = ["STORE_USDT"]', "symbol.STORE_USDT.id", "[symbol.STORE_USDT] id"),
        ('[symbol.BTC_USDT]\nid = "Btc"', "symbol.BTC_USDT.id", "lower-case"),
        ('[symbol.BTC_USDT]\nid = "btc2"', "symbol.BTC_USDT.id", "not ending in a digit"),
        ("[symbol.DOGE_USDT]", "symbol.DOGE_USDT", "BTC_USDT, ETH_USDT, SOL_USDT"),
        ("symbol = 5", "symbol:", "a table"),
        ("symbol = {BTC_USDT = 5}", "symbol", "object"),
        ("[symbol.BTC_USDT]\ncolour = 1", "symbol.BTC_USDT.colour", "id, channels, egress"),
        ('[symbol.BTC_USDT.channels]\ndeal = "some"', "symbol.BTC_USDT.channels.deal", "merged, each, off"),
        ("[symbol.BTC_USDT.channels]\nspeed = 1", "symbol.BTC_USDT.channels.speed", "ticker, deal, depth"),
        ('[symbol.BTC_USDT.egress]\nmin_exits = "3"', "symbol.BTC_USDT.egress.min_exits", "int"),
        ("colour = 1", "colour", "symbols, data_dir, export_dir, period"),
        ("[exchange]\ncolour = 1", "exchange.colour", "websocket, rest, ca_file, ping_interval"),
        ("channels = 1", "channels:", "a table"),
        ('[channels]\ndepth = "full7"', "channels.depth", "full5, full10, full20, full50, merged, each, off"),
        ('[channels]\ndepth = ["full7"]', "channels.depth", "full5, full10, full20, full50, merged, each, off"),
        ('[channels]\ndepth = ["full5", "full20"]', "channels.depth", "of fullN only one"),
        ('[channels]\ndepth = ["merged", "full20", "each"]', "channels.depth", "only one of merged and each"),
        ('[channels]\nkline = "1m"', "channels.kline", "Min1, Min5, Min15, Min30, Min60, Hour4"),
        ('[channels]\nfunding = "on"', "channels.funding", "bool"),
        ('[channels]\nextra = ["depth.step"]', "channels.extra", "'depth.step' is no method such as 'sub.depth.step'"),
        ('[channels]\nextra = ["sub.deal"]', "channels.extra", "sub.deal has a key of its own"),
        ('[channels]\nextra = ["sub.x", "sub.x"]', "channels.extra", "sub.x is there twice"),
        ('[channels]\nticker = "yes"', "channels.ticker", "bool"),
        ('[channels]\nticker = false\ndeal = "off"\ndepth = "off"', "channels", "nothing would be recorded"),
        ('[channels]\nticker = false\ndeal = "off"\ndepth = []', "channels", "all are off for BTC_USDT"),
        (
            '[channels]\nticker = false\ndeal = "off"\ndepth = "off"\ncontract = true',
            "channels",
            "only contract is on, which says nothing of a market for BTC_USDT; nothing would be recorded",
        ),
        ('[checks]\ncandles = "soon"', "checks.candles", "15s or 1h"),
        ('[checks]\ncandles = "13h"', "checks.candles", "1s to 12h"),
        ("[checks]\ncandles = false", "checks.candles", "str"),
        ("[checks]\nminutes = 1", "checks.minutes", "candles"),
        ('period = "7s"', "period", "divides a day"),
        ('period = "1s"', "period", "at least 2 s"),
        ('period = "soon"', "period", "15s or 1h"),
        ("spool_keep = 5", "spool_keep", '"5s"'),
        ("period = 60", "period", '"60s"'),
        ("period = 1.5", "period", '"15s"'),
        ("[exchange]\nping_interval = 15", "exchange.ping_interval", '"15s"'),
        ("[health]\nsilent = 30", "health.silent", '"30s"'),
        ("[symbol.BTC_USDT.health]\nsilent = 30", "symbol.BTC_USDT.health.silent", '"30s"'),
        ('spool_keep = "-1h"', "spool_keep", "15s or 1h"),
        ("[spool]\nwarn_percent = 0", "spool.warn_percent", "1 to 99"),
        ("[spool]\nwarn_percent = 95", "spool.alert_percent", "not below the first"),
        ("[spool]\nreserve_mib = 3", "spool.reserve_mib", "4 to 65536"),
        ("[spool]\nkeep = 1", "spool.keep", "warn_percent, alert_percent, reserve_mib"),
        ('[exchange]\nping_interval = "61s"', "exchange.ping_interval", "2s to 30s"),
        ('[exchange]\nwebsocket = "http://x"', "exchange.websocket", "ws:// or wss://"),
        ("[exchange]\nwebsocket = []", "exchange.websocket", "at least one address"),
        ('[exchange]\nrest = ["https://a", "ftp://b"]', "exchange.rest", "http:// or https://"),
        ('[exchange]\nrest = ["https://a", "https://a"]', "exchange.rest", "name it once"),
        ("[exchange]\nrest = [5]", "exchange.rest", "expected `str`"),
        ('symbols = "ETH_USDT"', "symbols: a list is needed", 'such as symbols = ["ETH_USDT"]'),
        ("symbols = 5", "symbols: a list is needed", 'such as symbols = ["BTC_USDT"]'),
        ("[symbols]\nA_B = 1", "symbols: a list is needed", 'such as symbols = ["BTC_USDT"]'),
        ('[channels]\nextra = "sub.x"', "channels.extra: a list is needed", 'such as extra = ["sub.x"]'),
        ('[symbol.BTC_USDT.channels]\nextra = "sub.x"', "symbol.BTC_USDT.channels.extra: a list", 'extra = ["sub.x"]'),
        ('require_mount = "/srv"', "require_mount: a list is needed", 'such as require_mount = ["/srv"]'),
        ("[exchange]\nrest = 5", "exchange.rest", "str"),
        ('[exchange]\nrest = "https://me:secret@a"', "exchange.rest", "no user or password"),
        ('[exchange]\nrest = "https://a/x?key=secret"', "exchange.rest", "no query"),
        ('[exchange]\nrest = "https://a:99999"', "exchange.rest: '99999' is no port", "1 to 65535"),
        ('[exchange]\nwebsocket = "wss://h:0/edge"', "exchange.websocket: '0' is no port", "1 to 65535"),
        ('[exchange]\nwebsocket = ["wss://[::1]:70000"]', "exchange.websocket: '70000' is no port", "1 to 65535"),
        ('[exchange]\nrest = "https://me:secret/x@h"', "exchange.rest: what follows the host is no port", "65535"),
        ('[egress]\nmode = "socks5h://me:secret@h:99999"', "egress.mode: '99999' is no port", "1 to 65535"),
        ('[egress]\necho_url = "http://h:99999"', "egress.echo_url: '99999' is no port", "1 to 65535"),
        ('[clickhouse]\nmode = "server"\nhost = "h:9440"', "clickhouse.host: 'h:9440'", "the port is clickhouse.port"),
        ('[clickhouse]\nmode = "server"\nhost = ""', "clickhouse.host", "a name or an address"),
        ("period = '1h'\nperiod = '1m'", "key period", "a second time, at line 2; leave one"),
        ("[spool]\nwarn_percent = 1\nwarn_percent = 2\n", "key spool.warn_percent", "at line 3; leave one"),
        ("symbols = ['A_B']\n\nsymbols = [\n  'A_B',\n]\n", "key symbols", "at line 3; leave one"),
        ("[spool]\n[egress]\n[spool]\n", "table [spool]", "at line 3; leave one"),
        ("[symbol]\nBTC_USDT = { id = 'btc', id = 'b' }", "key id", "at line 2; leave one"),
        ('[egress]\nmode = "x"', "my.toml: egress.mode", "direct, tor"),
        ('[egress]\necho_url = "x"\n[symbol.BTC_USDT.egress]\nmin_exits = 4', "my.toml: egress.echo_url", "http://"),
        ('[symbol.BTC_USDT.egress]\nmode = "x"', "my.toml: symbol.BTC_USDT.egress.mode", "direct, tor"),
        ('symbols = ["BTC_USDT", "BTC_USDT"]', "symbols: 'BTC_USDT' stands there twice", "name it once"),
        ("require_mount = []", "require_mount", "true, false, or a list"),
        ("require_mount = 5", "require_mount", "bool"),
        ("require_mount = [5]", "require_mount", "str"),
        ('[egress]\nmode = "socks5://h:1"', ".mode", "direct, tor or socks5h://host:port"),
        ('[egress]\nmode = "socks5h://h"', ".mode", "direct, tor or socks5h://host:port"),
        ('[egress]\nmode = "socks5h://me:secret@h:1"', ".mode", "no user or password"),
        ('[egress]\necho_url = "ftp://x"', "echo_url", "http:// or https://"),
        ("[egress]\nmin_exits = 0", "min_exits", "at least 1"),
        ("[clickhouse]\nport = 0", "clickhouse.port", "1 to 65535"),
        ('[clickhouse]\nmode = "cloud"', "clickhouse.mode", "embedded, server"),
        ('[clickhouse]\ndatabase = "1; DROP"', "clickhouse.database", "letters, digits"),
        ('data_dir = ""', "data_dir", "folder"),
    ],
)
def test_a_mistake_is_named_in_one_line_with_what_is_allowed(text: str, named: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("my.toml"))
    message = str(caught.value)
    assert message.startswith("my.toml: ")
    assert named in message
    assert allowed in message
    assert "\n" not in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("symbols", "tables", "id_of"),
    [
        (["BTC_USDT", "ETH_USDT"], {"ETH_USDT": "btc"}, "ETH_USDT"),
        (["BTC_USDT", "ETH_USDT"], {"BTC_USDT": "eth"}, "BTC_USDT"),
        (["BTC_USDT", "BTC_USDC"], {"BTC_USDC": "btc"}, "BTC_USDC"),
        (["BTC_USDT", "BTC_USDC"], {"BTC_USDT": "btcusdc"}, "BTC_USDT"),
        (["BTCUSDC_USDT", "BTC_USDC"], {}, "BTC_USDC"),
        (["BTC_USDT", "币_USDT"], {"币_USDT": "btc"}, "币_USDT"),
    ],
)
def test_of_two_symbols_with_one_id_another_is_proposed_that_does(
    symbols: list[str], tables: dict[str, str], id_of: str
) -> None:
    def text() -> str:
        return f"symbols = {symbols}\n" + "".join(f'[symbol."{n}"]\nid = "{i}"\n' for n, i in tables.items())

    with pytest.raises(ConfigError) as caught:
        parse(text(), None)
    advice = re.search(r'for (\w+) and (\w+); set \[symbol\."?(\w+)"?\] id = "(\w+)"$', str(caught.value))
    assert advice is not None
    assert [*advice.groups()[:2], advice[3]] == [*symbols, id_of]
    tables[advice[3]] = advice[4]
    assert len({symbol.id for symbol in parse(text(), None).symbols}) == 2


def test_the_exchange_may_have_several_addresses() -> None:
    exchange = parse('[exchange]\nwebsocket = ["wss://a/edge", "wss://b/edge"]\nrest = "https://a"', None).exchange
    assert exchange.websocket_urls == ("wss://a/edge", "wss://b/edge")
    assert exchange.rest_urls == ("https://a",)


def test_a_syntax_error_at_the_very_end_names_its_line() -> None:
    with pytest.raises(ConfigError, match="at line 2, the end"):
        parse('period = "1h"\nsymbols =', None)


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('period = "1h"\nspool_keep = \n')
    with pytest.raises(ConfigError, match=r"my\.toml: .*line 2"):
        load(path)


@pytest.mark.parametrize(
    ("name", "proposed"),
    [
        ("1000PEPE_USDT", "x1000pepe"),
        ("US30_USDT", "us30x"),
        ("SP500_USDC", "sp500usdc"),
        ("1INCH2_USDT", "x1inch2x"),
        ("STORE_USDT", "storex"),
        ("币安人生_USDT", "hpameomh"),
        ("ABCDEFGHIJKLMNOPQRSTU_USDT", "abcdefghijeoblbool"),
        ("Ä1_USDT", "x1cieddpce"),
    ],
)
def test_a_name_that_makes_no_id_is_refused_with_one_that_will_do(name: str, proposed: str) -> None:
    symbols = f'symbols = ["{name}"]\n'
    if proposed == "sp500usdc":
        assert parse(symbols, None).symbols[0].id == proposed
        return
    with pytest.raises(ConfigError, match=f'id = "{proposed}"$') as caught:
        parse(symbols, None)
    heading = re.search(r"set (\[symbol\..*\]) id", str(caught.value))
    assert heading is not None
    found = parse(f'{symbols}{heading[1]}\nid = "{proposed}"\n', None).symbols[0]
    assert (found.name, found.id) == (name, proposed)


@given(st.from_regex(r"[0-9A-ZÄÖ币安人生٣]{1,32}_[A-Z0-9]{1,20}", fullmatch=True))
def test_any_name_has_an_id_that_is_taken(name: str) -> None:
    assert is_name(name)
    identity = proposed_id(name)
    symbols = f'symbols = ["{name}"]\n[symbol."{name}"]\nid = "{identity}"'
    assert parse(symbols, None).symbols[0].id == identity


@pytest.mark.parametrize(
    "name",
    [
        "btc_USDT",
        "BTC",
        "BTC_",
        "_USDT",
        "BTC_usdt",
        "BTC_USDT_X",
        "B TC_USDT",
        "B\u200bTC_USDT",
        "BT/C_USDT",
        "X" * 33,
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    assert not is_name(name)


def test_a_mark_at_the_head_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "notepad.toml"
    path.write_bytes(b'\xef\xbb\xbfsymbols = ["BTC_USDT"]\r\n')
    assert [s.id for s in load(path).symbols] == ["btc"]


SCALARS = st.one_of(
    st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=12), st.dates(), st.datetimes(),
    st.sampled_from(["~x", "?", "../..", "socks5h://[", "ws://[::1", "http://a:b", "BTC_USDT", "Ä_USDT", "1h"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
TOP = list(_File.__struct_fields__)
TABLES: dict[str, list[str]] = {
    name: list(kind.__struct_fields__)
    for name, kind in (("exchange", ExchangeTable), ("channels", Channels), ("egress", _EgressTable),
                       ("spool", SpoolTable), ("clickhouse", ClickHouse), ("symbol", _SymbolTable))
}  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Configurations of known keys and strange ones, with values of any type anywhere."""
    found: dict[str, Any] = {key: draw(VALUES) for key in draw(st.sets(st.sampled_from([*TOP, "x"]), max_size=2))}
    for table in draw(st.sets(st.sampled_from(list(TABLES)), max_size=2)):
        inner = {key: draw(VALUES) for key in draw(st.sets(st.sampled_from([*TABLES[table], "x y"]), max_size=2))}
        found[table] = {draw(st.sampled_from(["BTC_USDT", "X"])): inner} if table == "symbol" else inner
    return found


@given(documents())
def test_any_configuration_is_taken_or_refused_in_one_line_that_names_a_key(document: dict[str, Any]) -> None:
    try:
        _read(document, Path("my.toml"))
    except ConfigError as error:
        said = str(error)
        assert said.startswith("my.toml: ")
        assert "\n" not in said
        keys = {*document, *(k for v in document.values() if isinstance(v, dict) for k in v)}
        assert any(clean(key) in said for key in keys), (said, document)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_file_are_taken_or_refused_in_one_line(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "my.toml"
        path.write_bytes(content)
        try:
            load(path)
        except ConfigError as error:
            said = str(error)
        else:
            said = "my.toml"
        assert "my.toml" in said
        assert "\n" not in said


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# \xe4")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 2"):
        load(latin)


def test_durations() -> None:
    assert [duration_ns(t) for t in ("500ms", "2s", "3m", "4h", "5d")] == [
        SECOND_NS // 2, 2 * SECOND_NS, 180 * SECOND_NS, 4 * HOUR_NS, 120 * HOUR_NS,
    ]  # fmt: skip
    for wrong in ("", "1", "s", "1.5s", "1 s", "-1s", "1S", "１s"):
        with pytest.raises(ValueError, match="not a duration"):
            duration_ns(wrong)


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config: Config = parse("", None)
    assert config.data_dir == tmp_path / "data"
    assert config.spool_dir == tmp_path / "data" / "spool"
    assert config.control_dir == tmp_path / "data" / "control"


def test_a_path_that_the_locale_cannot_write_is_said_as_that(tmp_path: Path) -> None:
    """It is not the path that is wrong: the line names the locale's encoding and what to set."""
    path = tmp_path / "c.toml"
    path.write_text('data_dir = "./G\u00e4rten/data"\n')
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "mexc_pipeline", "--config", str(path), "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot be written in this locale's encoding (ascii); set PYTHONUTF8=1" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('symbol = ["BTC_USDT"]', "symbol: this key is a table ([symbol]) and takes no value; did you mean symbols?"),
        ("exchange = 1", "exchange: this key is a table ([exchange]) and takes no value"),
    ],
)
def test_a_value_in_a_tables_place_is_said_in_the_files_own_words(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text, None)
    assert str(raised.value) == f"configuration: {said}"


def test_a_configuration_of_gigabytes_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.touch()
    os.truncate(path, 6 << 30)
    with pytest.raises(ConfigError, match=f"^{path}: larger than 4 MiB, which no configuration is$"):
        load(path)
