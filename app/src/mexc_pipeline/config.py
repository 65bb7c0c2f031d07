"""Configuration: one TOML file, every key with a default, every mistake named in one line."""

from __future__ import annotations

import difflib
import ipaddress
import itertools
import json
import re
import tomllib
import types
import typing
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import reduce
from hashlib import sha256
from operator import getitem
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from mexc_pipeline import paths
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.exchange.options import Channels, Deal, Depth, Interval, is_name, short_name
from mexc_pipeline.periods import SECOND_NS, Period
from mexc_pipeline.text import LONG, clean

_Duration = typing.Annotated[str, msgspec.Meta(description="whole number and unit, such as 15s")]

_T = TypeVar("_T")
_S = TypeVar("_S", bound=msgspec.Struct)
_ID = re.compile(r"[a-z][a-z0-9]{0,19}")
_LONGEST = 20
LEAST_RESERVE_MIB = 4
"""The smallest reserve that may be configured."""
MOST_BYTES = 4 << 20
"""Of a configuration; one with every contract of the exchange, each with a table, has a tenth of it."""
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_BEGINS = re.compile(r"""\s*(?:(\[[^\]]*\]{1,2})|([\w.'"-][\w.'" -]*?)\s*=)""")
"""The heading of a table, or a key, at the beginning of a line of TOML."""
_RESERVED = frozenset({"store", "run", "export"})
"""Names of control sockets that are no symbol's."""
_UNITS_NS = {"ms": 10**6, "s": SECOND_NS, "m": 60 * SECOND_NS, "h": 3600 * SECOND_NS, "d": 86400 * SECOND_NS}


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of the configuration; an unknown key is refused."""


class ExchangeTable(_Table, frozen=True):
    """The table ``[exchange]``: where the exchange is."""

    websocket: str | tuple[str, ...] = "wss://contract.mexc.com/edge"
    """One address, or several in the order in which they are tried; see :attr:`websocket_urls`."""
    rest: str | tuple[str, ...] = "https://api.mexc.com"
    """One address, or several in the order in which they are tried; see :attr:`rest_urls`."""
    ca_file: str = ""
    """A file with a private authority's certificates (PEM); empty: the system's."""
    ping_interval: _Duration = "15s"
    """How long after one JSON ping the next is sent; see :attr:`ping_interval_s`."""

    @property
    def ping_interval_s(self) -> float:
        """Seconds between JSON pings."""
        return duration_ns(self.ping_interval) / SECOND_NS

    @property
    def websocket_urls(self) -> tuple[str, ...]:
        """Addresses of the WebSocket in order of preference, at least one."""
        return _several(self.websocket)

    @property
    def rest_urls(self) -> tuple[str, ...]:
        """Addresses of REST in order of preference, at least one."""
        return _several(self.rest)


class _EgressTable(_Table, frozen=True):
    """The table ``[egress]``: how connections leave this host."""

    mode: str = "direct"
    """``direct``, ``tor`` or ``socks5h://host:port``."""
    credentials_file: str = ""
    """For a proxy that asks for them: name and password, a line each."""
    echo_url: str = ""
    """Mode tor: a service that answers with the address it sees, asked before the exchange is; empty: none is."""
    min_exits: int = 3
    """Mode tor: with fewer exit addresses for a symbol nothing is recorded."""
    socks_socket: str = "/run/tor-instances/{id}/socks"
    """Mode tor: the unix socket of the symbol's own Tor; ``{id}`` is the symbol's id."""
    control_socket: str = "/run/tor-instances/{id}/control"
    """Mode tor: the unix socket of that Tor's control port; ``{id}`` as above."""
    deployment: tuple[str, ...] = ()
    """Ids of all symbols of the deployment, on all hosts, which share the exits out among them; empty: those of this
    file."""


class Egress(_EgressTable, frozen=True):
    """One symbol's way out. In mode ``tor`` ``symbol`` is its id, the sockets are its own and ``deployment`` is not
    empty; otherwise ``symbol`` is empty, so that equal ways compare equal."""

    symbol: str = ""


class ClickHouse(_Table, frozen=True):
    """The table ``[clickhouse]``: what the store loads into."""

    mode: Literal["embedded", "server"] = "embedded"
    """``embedded``: chDB in the store's process; ``server``: by the keys below."""
    host: str = "127.0.0.1"
    """Name or address of the server."""
    port: int = 9000
    """Port of the server's native protocol; with ``secure`` usually 9440."""
    user: str = "default"
    """Whom the store logs in as."""
    password_file: str = ""
    """A file whose first line is the password, for nobody else to read; empty: there is none."""
    database: str = "ch_mexc"
    """The database that the store makes its tables in."""
    secure: bool = False
    """Whether TLS is spoken."""
    ca_file: str = ""
    """A file with a private authority's certificates (PEM); empty: the system's."""

    def check_files(self) -> None:
        """Raise ConfigError where a file is missing or of no use that a server is reached with."""
        if self.mode == "server":
            if self.password_file:
                paths.read("clickhouse.password_file", self.password_file, private=True)
            if self.ca_file:
                paths.check_certificates("clickhouse.ca_file", self.ca_file)


class SpoolTable(_Table, frozen=True):
    """The table ``[spool]``: what is done as its disk fills up."""

    warn_percent: int = 80
    """Percent used of the spool's file system from which a warning is given."""
    alert_percent: int = 90
    """Percent used from which that is a fault."""
    reserve_mib: int = 64
    """MiB that each symbol holds for its last words on a full disk."""


class _Health(_Table, frozen=True):
    """The table ``[health]``: what is a fault."""

    silent: _Duration = ""
    """A symbol without a market frame for so long is silent; empty: by each channel's own pace."""


class _Checks(_Table, frozen=True):
    """The table ``[checks]``: what is fetched to check the recording by."""

    candles: str = "1h"
    """How often the exchange's candles of one minute are fetched, which recorded trades are held against; ``off``:
    never."""


class _ChannelsOverride(_Table, frozen=True):
    """The table ``[symbol.NAME.channels]``: what differs from ``[channels]``."""

    ticker: bool | msgspec.UnsetType = msgspec.UNSET
    deal: Deal | msgspec.UnsetType = msgspec.UNSET
    depth: Depth | tuple[Depth, ...] | msgspec.UnsetType = msgspec.UNSET
    funding: bool | msgspec.UnsetType = msgspec.UNSET
    index_price: bool | msgspec.UnsetType = msgspec.UNSET
    fair_price: bool | msgspec.UnsetType = msgspec.UNSET
    kline: Interval | msgspec.UnsetType = msgspec.UNSET
    contract: bool | msgspec.UnsetType = msgspec.UNSET
    extra: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class _EgressOverride(_Table, frozen=True):
    """The table ``[symbol.NAME.egress]``: what differs from ``[egress]``."""

    mode: str | msgspec.UnsetType = msgspec.UNSET
    credentials_file: str | msgspec.UnsetType = msgspec.UNSET
    echo_url: str | msgspec.UnsetType = msgspec.UNSET
    min_exits: int | msgspec.UnsetType = msgspec.UNSET
    socks_socket: str | msgspec.UnsetType = msgspec.UNSET
    control_socket: str | msgspec.UnsetType = msgspec.UNSET


class _SymbolTable(_Table, frozen=True):
    """The table ``[symbol.NAME]``: what differs for one symbol."""

    id: str = ""
    """The id that names folder, tables and files; empty: made from the name."""
    channels: _ChannelsOverride = _ChannelsOverride()
    """What differs from ``[channels]``."""
    egress: _EgressOverride = _EgressOverride()
    """What differs from ``[egress]``."""
    health: _Health = _Health()
    """What differs from ``[health]``."""


class _File(_Table, frozen=True):
    """The configuration file: its keys outside of tables, and its tables."""

    symbols: list[str] = msgspec.field(default_factory=lambda: ["BTC_USDT", "ETH_USDT", "SOL_USDT"])
    """Symbols to record, as the exchange names them."""
    data_dir: str = "./data"
    """The folder of spool, embedded ClickHouse and control sockets."""
    export_dir: str = "./exports"
    """The folder that files go to."""
    period: _Duration = "1h"
    """The stretch of time of one segment and one file; divides a day."""
    spool_keep: _Duration = "24h"
    """How long a segment stays after its file was proven."""
    require_mount: bool | tuple[str, ...] = False
    """Mount points without which nothing is written; True: those of ``data_dir`` and ``export_dir``."""
    spool: SpoolTable = SpoolTable()
    exchange: ExchangeTable = ExchangeTable()
    channels: Channels = Channels()
    egress: _EgressTable = _EgressTable()
    clickhouse: ClickHouse = ClickHouse()
    health: _Health = _Health()
    checks: _Checks = _Checks()
    symbol: dict[str, dict[str, Any]] = {}
    """``[symbol.NAME]`` by the exchange's name, each checked as a :class:`_SymbolTable`."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol as configured: the exchange's name (``BTC_USDT``), our id (``btc``), its channels and egress, and the
    seconds without a market frame from which it is silent (None: by its own pace)."""

    name: str
    id: str
    channels: Channels
    egress: Egress
    silent_s: float | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, checked. Durations are nanoseconds, paths absolute."""

    symbols: tuple[Symbol, ...]
    data_dir: Path
    export_dir: Path
    period: Period
    spool_keep_ns: int
    spool: SpoolTable
    exchange: ExchangeTable
    clickhouse: ClickHouse
    require_mount: bool | tuple[str, ...] = False
    """Mount points without which nothing is written; True: those of ``data_dir`` and ``export_dir``."""
    candles_s: float | None = None
    """Seconds after which the exchange's candles are fetched again; None: never."""
    path: Path | None = None

    @property
    def spool_dir(self) -> Path:
        """The folder with a spool folder for each symbol."""
        return self.data_dir / "spool"

    @property
    def control_dir(self) -> Path:
        """The folder with the control sockets."""
        return self.data_dir / "control"

    def symbol(self, key: str) -> Symbol:
        """The symbol of that id or exchange name; ConfigError naming the choices otherwise."""
        for symbol in self.symbols:
            if key in (symbol.id, symbol.name):
                return symbol
        known = ", ".join(s.id for s in self.symbols)
        raise ConfigError(f"{key!r} is not a configured symbol; choose one of: {known}")


def check_mounted(config: Config) -> None:
    """Raise UserError where something is not mounted that must be (``require_mount``): nothing may be written then."""
    folders = (config.data_dir, config.export_dir)
    try:
        missing = paths.not_mounted(config.require_mount, folders, paths.device)
    except OSError as error:
        raise UserError(f"require_mount: {error.filename}: {error.strerror}") from error
    if missing:
        raise UserError(f"require_mount: nothing is mounted at {missing}; mount it, or take it out of require_mount")


def proposed_id(name: str) -> str:
    """The id that is proposed where the plain one (``btc``, ``btcusdc``) does not fit, always the same for a name. An
    ``x`` stands where a digit may not; what is too long, or of another script, ends in eight letters of a digest of the
    name."""
    plain = short_name(name)
    text = "".join(c for c in plain if c.isascii())
    if text != plain or len(text) > _LONGEST - 2:
        digest = sha256(name.encode()).hexdigest()[:8]
        text = text[: _LONGEST - 10] + "".join(chr(ord("a") + int(digit, 16)) for digit in digest)
    if not text[0].isalpha():
        text = "x" + text
    return text + "x" if text[-1].isdigit() or text in _RESERVED else text


def free_id(name: str, taken: Collection[str]) -> str:
    """An id for a symbol that is none of those ``taken``, and always fits."""
    plain = proposed_id(name)
    more = (f"{plain[: _LONGEST - len(end)]}{end}" for end in ("x" * n for n in range(1, _LONGEST)))
    return next(one for one in itertools.chain([plain], more) if one not in taken)


def duration_ns(text: str) -> int:
    """Nanoseconds of a duration such as ``15s``, ``500ms``, ``1h``; ValueError otherwise."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: a whole number with ms, s, m, h or d, such as 15s or 1h")
    return int(match[1]) * _UNITS_NS[match[2]]


def load(path: Path | None) -> Config:
    """Read and check the file; without one, the defaults. ConfigError for anything that does not fit."""
    if path is None:
        return parse("", None)
    try:
        with open(path, "rb", opener=paths.regular) as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ConfigError(f"{path}: larger than {MOST_BYTES >> 20} MiB, which no configuration is")
        text = data.decode("utf-8-sig")  # editors put a mark at the head
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    return parse(text, path)


def parse(text: str, path: Path | None) -> Config:
    """Check a configuration text; ``path`` only names it in messages."""
    where = str(path) if path else "configuration"
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # tomllib names line and column, but for what is missing at the very end
        at_end = f"at line {text.count(chr(10)) + 1}, the end"
        said = _given_twice(text, str(error)) or str(error).replace("at end of document", at_end)
        raise ConfigError(clean(f"{where}: {said}", LONG)) from error
    except (ValueError, RecursionError) as error:  # of a number or a list as no configuration has them
        raise ConfigError(clean(f"{where}: {str(error).partition(';')[0]}", LONG)) from error
    return _read(raw, path)


def _given_twice(text: str, error: str) -> str | None:
    """What to say of a key or a table that a TOML text has twice, by tomllib's ``error``; None for any other."""
    lines = text.splitlines()
    at = re.search(r"\(at line (\d+)", error)
    number = int(at[1]) if at else len(lines)
    if inline := re.match(r"Duplicate inline table key '?(.*?)'? \(at ", error):
        what = f"key {inline[1]}"
    elif re.match(r"Cannot declare .* twice|Cannot overwrite a value|Cannot mutate immutable", error):
        while number > 1 and not _BEGINS.match(lines[number - 1]):  # a value may go on over lines
            number -= 1
        begins = _BEGINS.match(lines[number - 1])
        if begins is None:
            return None
        tables = (found[1] for line in lines[:number] if (found := _BEGINS.match(line)) and found[1])
        table = (["", *tables][-1]).strip("[] \t")
        what = f"table [{table}]" if begins[1] else f"key {'.'.join(filter(None, (table, begins[2])))}"
    else:
        return None
    return f"{what} is there a second time, at line {number}; leave one of the two"


def _read(raw: dict[str, Any], path: Path | None) -> Config:
    try:
        return _check(_convert(raw, _File, ""), path)
    except ConfigError as error:
        raise ConfigError(clean(f"{path or 'configuration'}: {error}", LONG)) from error


def _convert(raw: Any, kind: type[_T], prefix: str) -> _T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), raw, kind, prefix)) from error


def _check(file: _File, path: Path | None) -> Config:
    symbols = _symbols(file)
    try:
        period = Period(_duration("period", file.period))
    except ValueError as error:
        raise ConfigError(f"period: {file.period!r} does not fit: {error}") from error
    keep = _duration("spool_keep", file.spool_keep)
    if not 2 <= _duration("exchange.ping_interval", file.exchange.ping_interval) / SECOND_NS <= 30:
        raise ConfigError("exchange.ping_interval: allowed are 2s to 30s (the exchange closes after 60 s without one)")
    if not 1 <= file.spool.warn_percent <= file.spool.alert_percent <= 99:
        raise ConfigError(
            "spool.warn_percent, spool.alert_percent: allowed are 1 to 99, the second not below the first"
        )
    if not LEAST_RESERVE_MIB <= file.spool.reserve_mib <= 65536:
        raise ConfigError(f"spool.reserve_mib: allowed are {LEAST_RESERVE_MIB} to 65536")
    _urls("exchange.websocket", file.exchange.websocket_urls, ("ws", "wss"))
    _urls("exchange.rest", file.exchange.rest_urls, ("http", "https"))
    if not 1 <= file.clickhouse.port <= 65535:
        raise ConfigError(f"clickhouse.port: {file.clickhouse.port} is outside 1 to 65535")
    if file.clickhouse.mode == "server" and not is_host(file.clickhouse.host):
        raise ConfigError(
            f"clickhouse.host: {file.clickhouse.host!r} is not a name or an address alone; the port is clickhouse.port"
        )
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", file.clickhouse.database):
        raise ConfigError("clickhouse.database: allowed are letters, digits and _, not starting with a digit")
    data_dir, export_dir = _folder("data_dir", file.data_dir), _folder("export_dir", file.export_dir)
    paths.check_apart(data_dir, export_dir)
    if file.clickhouse.mode == "embedded":
        for mark in "?\\":
            if mark in str(data_dir):
                raise ConfigError(f"data_dir: {str(data_dir)!r}: the embedded ClickHouse takes no path with a {mark}")
    if isinstance(file.require_mount, tuple) and not file.require_mount:
        raise ConfigError("require_mount: allowed are true, false, or a list of mount points")
    return Config(
        symbols=symbols,
        data_dir=data_dir,
        export_dir=export_dir,
        period=period,
        spool_keep_ns=keep,
        spool=file.spool,
        exchange=_expanded("exchange", file.exchange, "ca_file"),
        clickhouse=_expanded("clickhouse", file.clickhouse, "password_file", "ca_file"),
        candles_s=_candles_s(file.checks.candles),
        require_mount=file.require_mount
        if isinstance(file.require_mount, bool)
        else tuple(str(_folder("require_mount", point)) for point in file.require_mount),
        path=path,
    )


def _candles_s(text: str) -> float | None:
    if text == "off":
        return None
    seconds = _duration("checks.candles", text) / SECOND_NS
    if not 1 <= seconds <= 12 * 3600:
        raise ConfigError("checks.candles: allowed are 1s to 12h (the exchange gives 2,000 minutes at most), or off")
    return seconds


def _folder(key: str, text: str) -> Path:
    if not text:
        raise ConfigError(f"{key}: a folder is needed")
    return Path(paths.expand(key, text))


def _expanded(table: str, values: _S, *keys: str) -> _S:
    found = {key: paths.expand(f"{table}.{key}", getattr(values, key)) for key in keys}
    return msgspec.structs.replace(values, **found)


def _symbols(file: _File) -> tuple[Symbol, ...]:
    if not file.symbols:
        raise ConfigError("symbols: at least one is needed, such as BTC_USDT")
    for name in file.symbols:
        if file.symbols.count(name) > 1:
            raise ConfigError(f"symbols: {name!r} stands there twice; name it once")
    _egress("egress", file.egress)
    tables = {name: _convert(raw, _SymbolTable, f"symbol.{name}.") for name, raw in file.symbol.items()}
    for name in tables:
        if name not in file.symbols:
            raise ConfigError(f"symbol.{name}: not in symbols; allowed are {', '.join(file.symbols)}")
    result: list[Symbol] = []
    for name in file.symbols:
        if not is_name(name):
            raise ConfigError(f"symbols: {name!r} is not BASE_QUOTE in capitals and digits, such as BTC_USDT")
        table = tables.get(name, _SymbolTable())
        result.append(
            Symbol(
                name=name,
                id=_symbol_id(name, table.id),
                channels=_override(file.channels, table.channels),
                egress=_egress(f"symbol.{name}.egress", _override(file.egress, table.egress)),
                silent_s=_silent_s(name, file.health, table.health),
            )
        )
        if (fault := result[-1].channels.fault) is not None:
            key, why = fault
            raise ConfigError(
                f"channels.{key}: {why}" if key else f"channels: {why} for {name}; nothing would be recorded"
            )
    by_id: dict[str, str] = {}
    for symbol in result:
        if (other := by_id.setdefault(symbol.id, symbol.name)) != symbol.name:
            # Of a symbol that was given the id of another its own table is wrong; the plain one fits the other.
            name = other if tables.get(other, _SymbolTable()).id else symbol.name
            raise ConfigError(
                f"symbols: id {symbol.id!r} is there twice, for {other} and {symbol.name}; set {table_of(name)} "
                f'id = "{free_id(name, {one.id for one in result})}"'
            )
    return _share_exits(result, file.egress.deployment)


def _silent_s(name: str, of_all: _Health, own: _Health) -> float | None:
    key, text = (f"symbol.{name}.health.silent", own.silent) if own.silent else ("health.silent", of_all.silent)
    if not text:
        return None
    seconds = _duration(key, text) / SECOND_NS
    if seconds < 1:
        raise ConfigError(f"{key}: allowed is 1s or more, or nothing at all: then each channel's own pace counts")
    return seconds


def _symbol_id(name: str, given: str) -> str:
    candidate = given or short_name(name)
    advice = f'set {table_of(name)} id = "{proposed_id(name)}"'
    if not _ID.fullmatch(candidate) or candidate[-1].isdigit():
        raise ConfigError(
            f"symbol.{name}.id: {candidate!r} does not fit (lower-case letters and digits, at most {_LONGEST}, "
            f"starting with a letter, not ending in a digit); {advice}"
        )
    if candidate in _RESERVED:
        raise ConfigError(f"symbol.{name}.id: {candidate!r} names a part of this program; {advice}")
    return candidate


def table_of(name: str) -> str:
    """The heading of a symbol's own table; TOML wants quotes around what is not plain."""
    return f"[symbol.{name}]" if name.isascii() else f'[symbol."{name}"]'


def _override(base: Any, over: Any) -> Any:
    given = {f: v for f in over.__struct_fields__ if (v := getattr(over, f)) is not msgspec.UNSET}
    return msgspec.structs.replace(base, **given)


def _egress(key: str, egress: _EgressTable) -> Egress:
    if egress.mode not in ("direct", "tor"):
        parts = _split(f"{key}.mode", egress.mode, "socks5h")
        if parts is None or parts.scheme != "socks5h" or not parts.hostname or not parts.port or parts.path:
            raise ConfigError(f"{key}.mode: {egress.mode!r} is not allowed; use direct, tor or socks5h://host:port")
        if parts.username or parts.password:
            raise ConfigError(
                f"{key}.mode: no user or password may stand in the address; credentials_file names a file with both"
            )
    if egress.echo_url:
        _url(f"{key}.echo_url", egress.echo_url, ("http", "https"))
    if egress.min_exits < 1:
        raise ConfigError(f"{key}.min_exits: at least 1")
    files = {
        name: paths.expand(f"{key}.{name}", getattr(egress, name))
        for name in ("socks_socket", "control_socket", "credentials_file")
    }
    for name in ("socks_socket", "control_socket"):
        if getattr(egress, name)[:1] not in ("/", "~"):
            raise ConfigError(f"{key}.{name}: the absolute path of a unix socket is needed; {{id}} is the symbol's id")
    if egress.mode in ("direct", "tor"):
        files["credentials_file"] = ""  # no proxy asks for it
    return Egress(**{**msgspec.structs.asdict(egress), **files})


def _share_exits(symbols: list[Symbol], deployment: tuple[str, ...]) -> tuple[Symbol, ...]:
    """Give each symbol in mode tor its own sockets and the list of those with whom it shares the exits."""
    for given in deployment:
        if not _ID.fullmatch(given):
            raise ConfigError(f"egress.deployment: {given!r} is not a symbol's id, such as btc")
    everyone = tuple(sorted(set(deployment) or {s.id for s in symbols}))
    shared: list[Symbol] = []
    for symbol in symbols:
        egress = symbol.egress
        if symbol.id not in everyone:
            raise ConfigError(f"egress.deployment: {symbol.id} is recorded here and missing there")
        if egress.mode == "tor":
            egress = msgspec.structs.replace(
                egress,
                symbol=symbol.id,
                socks_socket=egress.socks_socket.replace("{id}", symbol.id),
                control_socket=egress.control_socket.replace("{id}", symbol.id),
                deployment=everyone,
            )
            for other in shared:
                if other.egress.symbol and other.egress.control_socket == egress.control_socket:
                    raise ConfigError(
                        f"egress.control_socket: {other.id} and {symbol.id} share one Tor ({egress.control_socket}); "
                        "each symbol needs its own: let {id} stand in the path"
                    )
        shared.append(replace(symbol, egress=egress))
    return tuple(shared)


def _split(key: str, url: str, *schemes: str) -> Any:
    """The parts of an address, None where it is none. ConfigError where nothing but its port is wrong."""
    try:
        parts = urlsplit(url)
        host = parts.hostname  # raises ValueError where it is none
    except ValueError:
        return None
    try:
        wrong = parts.port == 0
    except ValueError:
        wrong = True
    if wrong and parts.scheme in schemes and host:
        given = parts.netloc.rpartition("@")[2].rpartition(":")[2]
        shown = repr(given) if given.isdigit() else "what follows the host"
        raise ConfigError(f"{key}: {shown} is no port; allowed are 1 to 65535")
    return None if wrong else parts


def is_host(text: str) -> bool:
    """Whether that is a host's name or address, with nothing before or behind it."""
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return re.fullmatch(r"[^\s:/?#@\[\]]+", text) is not None


def _several(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


def _urls(key: str, values: tuple[str, ...], schemes: tuple[str, ...]) -> None:
    if not values:
        raise ConfigError(f"{key}: at least one address is needed")
    for value in values:
        _url(key, value, schemes)
        if "?" in value or "#" in value:
            raise ConfigError(f"{key}: no query and no fragment may stand in the address")
        if values.count(value) > 1:
            raise ConfigError(f"{key}: {value!r} stands there twice; name it once")


def _url(key: str, value: str, schemes: tuple[str, ...]) -> None:
    parts = _split(key, value, *schemes)
    if parts is None or parts.scheme not in schemes or not parts.hostname:
        raise ConfigError(f"{key}: {value!r} is not an address starting with {' or '.join(s + '://' for s in schemes)}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{key}: no user or password may stand in the address")


def _duration(key: str, text: str) -> int:
    try:
        return duration_ns(text)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


_LISTED = {"symbols": "BTC_USDT"}
"""What an example of a list holds, where the value that was given is none."""


def _explain(message: str, raw: Any, kind: type, prefix: str) -> str:
    """Turn msgspec's message into ``key: what is wrong; what is allowed``."""
    match = re.fullmatch(r"(.*?)(?: - at `(key in )?\$\.?([^`]*)`)?", message, re.DOTALL)
    if match is None:
        return message
    what, path = match[1], match[3] or ""
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL)
    found = _type_at(kind, path)
    if found == _Duration:
        value = reduce(getitem, path.split("."), raw)
        plain = value if type(value) is int and value > 0 else 15
        return f'{prefix}{path}: a duration has a unit and stands in quotes (ms, s, m, h or d), such as "{plain}s"'
    path = f"{prefix}{path}".rstrip(".")
    if unknown:
        key = f"{path}.{unknown[1]}" if path else unknown[1]
        return f"{key}: unknown key; allowed are {', '.join(found.__struct_fields__)}"
    if "[" not in path and re.fullmatch(r"Expected `object.*`, got `.*`", what):
        near = difflib.get_close_matches(path, getattr(kind, "__struct_fields__", ()), 2, 0.8)
        meant = next((f"; did you mean {name}?" for name in near if name != path), "")
        return f"{path}: this key is a table ([{path}]) and takes no value{meant}"
    if "[" not in path and re.fullmatch(r"Expected `array`, got .*|Expected `[^`]*array`, got `str`", what):
        key, value = path.rpartition(".")[2], reduce(getitem, match[3].split("."), raw)
        example = value if isinstance(value, str) and value else _LISTED.get(key, "…")
        return f"{path}: a list is needed, in square brackets, such as {key} = [{json.dumps(example)}]"
    choices = [str(c) for c in typing.get_args(found)] if typing.get_origin(found) is Literal else []
    if choices:
        return f"{path}: {what[0].lower()}{what[1:]}; allowed are {', '.join(choices)}"
    return f"{path}: {what[0].lower()}{what[1:]}"


def _type_at(kind: type, path: str) -> Any:
    """The type of the value at msgspec's path; of a union the member that the path goes through, else its first."""
    found: Any = kind
    for step in filter(None, re.sub(r"\[[^\]]*\]", ".[]", path).split(".")):
        members = _members(found)
        if step == "[]":
            args = next(args for m in members if typing.get_origin(m) is not Literal and (args := typing.get_args(m)))
            found = args[0] if args[-1] is Ellipsis else args[-1]
            continue
        found = typing.get_type_hints(next(m for m in members if hasattr(m, "__struct_fields__")), include_extras=True)[
            step
        ]
    return _members(found)[0]


def _members(kind: Any) -> tuple[Any, ...]:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return tuple(member for member in typing.get_args(kind) if member is not msgspec.UnsetType)
    return (kind,)
