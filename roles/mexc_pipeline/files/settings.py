#!/usr/bin/python3
"""Judges what an inventory says of the recorder, before any machine is touched: JSON on standard input, a JSON list of
faults on standard output, each one line that names the setting and what is allowed. Run on the control machine, where
the recorder itself is not installed; Python's standard library only.

Input: ``settings``, the role's variables by their names without ``mexc_pipeline_``, and ``hosts``, the collector hosts.

The recorder reads its configuration itself before it is used, and systemd its units; both on the hosts, when others
may have been changed already. ``tests/unit/deployment/test_settings.py`` holds these rules against the recorder's and
systemd's.
"""

# ruff: noqa: T201 - what it prints is its answer
from __future__ import annotations

import hashlib
import ipaddress
import json
import os.path
import re
import sys
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

TAKEN = ("default", "store", "run", "export", "egress", "collector", "refused", "schema")
"""Ids that would name a part of the recorder, of its tables or of Tor's package."""
OF_THE_PROGRAM = ("store", "run", "export")
OWN_FOLDERS = ("spool", "control", "clickhouse", "export", "store")
DEALS = ("merged", "each", "off")
DEPTHS = ("full5", "full10", "full20", "full50", "merged", "each", "off")
KLINES = ("Min1", "Min5", "Min15", "Min30", "Min60", "Hour4", "Hour8", "Day1", "Week1", "Month1", "off")
CHANNELS: dict[str, tuple[Any, ...]] = {
    "ticker": (True, False),
    "deal": DEALS,
    "depth": DEPTHS,
    "funding": (True, False),
    "index_price": (True, False),
    "fair_price": (True, False),
    "kline": KLINES,
    "contract": (True, False),
    "extra": (),
}
"""What each key takes; `extra` takes a list of methods, `depth` also a list."""
METHOD = re.compile(r"sub((?:\.[a-z][a-z0-9]{0,30}){1,4})")
TOPICS = (
    "ticker", "deal", "depth", "depth.full", "funding.rate", "index.price", "fair.price", "kline", "contract"
)  # fmt: skip
"""Those with a key of their own."""
UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
NAME = re.compile(r"([^_]+)_([A-Z0-9]{1,20})")
ID = re.compile(r"[a-z][a-z0-9]{0,19}")
ADDRESS = re.compile(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?")
SIZE = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})? *[KMGTPE]?")
SPAN = re.compile(
    r"([0-9]{1,9}(\.[0-9]{1,6})? *"
    r"(usec|us|msec|ms|seconds?|sec|s|minutes?|min|m|hours?|hr|h|days?|d|weeks?|w)?(?![a-z]) *)+"
)
MARKS = "%\\\"'"
"""What systemd takes for a specifier, an escape or a quote where it reads a path; a symbol's id has none."""
OFF_UNITS = ("archive_dir", "wheelhouse")
"""Folders that stand in no file of systemd's."""
UNIT = re.compile(r"[A-Za-z0-9:_.@%\\-]+\.(service|target|path|timer)")
EVERY = ("minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly", "annually")
DAY = r"(?:mon(?:day)?|tue(?:sday)?|wed(?:nesday)?|thu(?:rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
DAYS = re.compile(rf"{DAY}(?:\.\.{DAY})?(?:,{DAY}(?:\.\.{DAY})?)*")


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


def main() -> int:
    try:
        given = json.loads(sys.stdin.read())
        found = list(faults(given["settings"], given["hosts"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"what is to be judged is no inventory's settings: {error!r}") from error
    print(json.dumps(found))
    return 0


def faults(settings: dict[str, Any], hosts: list[str]) -> Iterator[str]:
    """What does not fit, as ``mexc_pipeline_KEY: what is wrong; what is allowed``."""
    yield from (f"mexc_pipeline_{fault}" for fault in _symbols(settings["symbols"], hosts))
    for symbol in settings["symbols"]:
        if symbol.get("state", "present") == "present":
            where = f"symbols: {symbol['name']}"
            channels = {**settings["channels"], **(symbol.get("channels") or {})}
            egress = {"mode": settings["egress_mode"], **(symbol.get("egress") or {})}
            yield from (f"mexc_pipeline_{fault}" for fault in _channels(f"{where}: channels", channels, is_used=True))
            yield from (f"mexc_pipeline_{fault}" for fault in _egress(f"{where}: egress", egress))
    of_all = {"mode": settings["egress_mode"], "echo_url": settings["echo_url"], "min_exits": settings["min_exits"]}
    parts: list[Iterator[str]] = [
        _channels("channels", settings["channels"], is_used=False),
        (fault.replace("egress.", "", 1).replace("mode:", "egress_mode:", 1) for fault in _egress("egress", of_all)),
        _exchange(settings["exchange"]),
        _spool(settings["spool"]),
        _folders(settings),
        _metrics(settings),
        _singles(settings),
    ]
    for part in parts:
        yield from (f"mexc_pipeline_{fault}" for fault in part)


def _symbols(symbols: list[dict[str, Any]], hosts: list[str]) -> Iterator[str]:
    for symbol in symbols:
        name, given = symbol["name"], symbol["id"]
        said = f"symbols: {name} / {given}"
        if not is_name(name):
            yield f"{said}: a name is BASE_QUOTE in capitals and digits, such as BTC_USDT"
            continue
        if not ID.fullmatch(given) or given[-1].isdigit():
            yield (
                f"{said}: an id is at most 20 lower-case letters and digits, starting with a letter and not ending in "
                f"a digit; such as {proposed_id(name)}"
            )
        elif given in TAKEN:
            yield f"{said}: an id names no part of the recorder ({', '.join(TAKEN)}); such as {proposed_id(name)}"
        host = symbol.get("host")
        if host is not None and host not in hosts:
            yield f"symbols: {name}: host {host} is not one of collector_hosts: {', '.join(hosts)}"
        if host is None and len(hosts) > 1 and symbol.get("state", "present") == "present":
            yield f"symbols: {name} has no host, and each of {', '.join(hosts)} would record it; name one of them"
    for key in ("name", "id"):
        every = [symbol[key] for symbol in symbols]
        for twice in sorted({one for one in every if every.count(one) > 1}):
            yield f"symbols: {key} {twice} is there twice; name it once"


def is_name(text: str) -> bool:
    match = NAME.fullmatch(text)
    return match is not None and len(match[1]) <= 32 and match[1].isalnum() and match[1] == match[1].upper()


def proposed_id(name: str) -> str:
    """The id that the recorder itself would propose for a name."""
    base, _, quote = name.partition("_")
    plain = (base if quote == "USDT" else base + quote).lower()
    text = "".join(c for c in plain if c.isascii())
    if text != plain or len(text) > 18:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        text = text[:10] + "".join(chr(ord("a") + int(digit, 16)) for digit in digest)
    if not text[0].isalpha():
        text = "x" + text
    return text + "x" if text[-1].isdigit() or text in TAKEN else text


def _channels(where: str, given: dict[str, Any], *, is_used: bool) -> Iterator[str]:
    is_readable = True
    for fault in _channel_values(where, given):
        is_readable = False
        yield fault
    if is_used and is_readable:
        yield from _channels_together(where, given)


def _channel_values(where: str, given: dict[str, Any]) -> Iterator[str]:
    for key, value in given.items():
        if key not in CHANNELS:
            yield f"{where}.{key}: unknown; allowed are {', '.join(CHANNELS)}"
        elif key == "extra":
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                yield f"{where}.extra: {value!r}; allowed is a list of methods, such as ['sub.depth.step']"
        else:
            for one in value if key == "depth" and isinstance(value, list) else [value]:
                if not any(one is known or (isinstance(one, str) and one == known) for known in CHANNELS[key]):
                    quotes = " (in quotes: YAML reads a bare off as false)" if isinstance(one, bool) else ""
                    allowed = ", ".join(
                        str(known) if isinstance(known, str) else str(known).lower() for known in CHANNELS[key]
                    )
                    yield f"{where}.{key}: {one!r}; allowed are {allowed}{quotes}"


def _channels_together(where: str, given: dict[str, Any]) -> Iterator[str]:
    """What does not go together of values that are good by themselves."""
    depth, extra = given.get("depth", "full20"), given.get("extra", [])
    depths = [one for one in (depth if isinstance(depth, list) else [depth]) if one != "off"]
    full = [one for one in depths if one.startswith("full")]
    if len(full) > 1 or len(depths) - len(full) > 1:
        yield f"{where}.depth: {', '.join(depths)}; allowed is one of fullN, and beside it one of merged and each"
    for n, method in enumerate(extra):
        match = METHOD.fullmatch(method)
        if match is None:
            yield f"{where}.extra: {method!r} is no method; such as 'sub.depth.step'"
        elif match[1][1:] in TOPICS:
            yield f"{where}.extra: {method} has a key of its own"
        elif method in extra[:n]:
            yield f"{where}.extra: {method} is there twice; name it once"
    of_market = (
        given.get("ticker", True),
        *(given.get(key, False) for key in ("funding", "index_price", "fair_price")),
    )
    is_on = given.get("deal", "merged") != "off" or depths or given.get("kline", "off") != "off" or extra
    if not any(of_market) and not is_on:
        only = "only contract is on, which says nothing of a market" if given.get("contract") else "all are off"
        yield f"{where}: {only}, nothing would be recorded"


def _egress(where: str, given: dict[str, Any]) -> Iterator[str]:
    allowed = ("mode", "credentials_file", "echo_url", "min_exits", "socks_socket", "control_socket")
    for key in given.keys() - set(allowed):
        yield f"{where}.{key}: unknown; allowed are {', '.join(allowed)}"
    mode = given.get("mode", "direct")
    if mode not in ("direct", "tor"):
        parts = _split(mode)
        if (
            parts is None
            or (parts.scheme, parts.path) != ("socks5h", "")
            or not parts.hostname
            or not parts.port
            or parts.username
            or parts.password
        ):
            yield f"{where}.mode: {mode!r}; allowed are direct, tor and socks5h://host:port"
    if given.get("echo_url"):
        yield from _url(f"{where}.echo_url", given["echo_url"], ("http", "https"))
    least = given.get("min_exits", 3)
    if type(least) is not int or least < 1:
        yield f"{where}.min_exits: {least!r}; allowed is a whole number, at least 1"
    for key in ("socks_socket", "control_socket"):
        if key in given and not _is_path(given[key]):
            yield f"{where}.{key}: {given[key]!r}; allowed is the absolute path of a unix socket"


def _exchange(given: dict[str, Any]) -> Iterator[str]:
    allowed = ("websocket", "rest", "ping_interval", "ca_file")
    for key in given.keys() - set(allowed):
        yield f"exchange.{key}: unknown; allowed are {', '.join(allowed)}"
    for key, schemes in (("websocket", ("ws", "wss")), ("rest", ("http", "https"))):
        if key not in given:
            continue
        urls = [given[key]] if isinstance(given[key], str) else given[key]
        if not isinstance(urls, list) or not urls or len(set(map(str, urls))) < len(urls):
            yield f"exchange.{key}: allowed is one address or a list of different ones"
            continue
        for url in urls:
            yield from _url(f"exchange.{key}", url, schemes, is_plain=True)
    if "ping_interval" in given:
        seconds = _seconds(given["ping_interval"])
        if seconds is None or not 2 <= seconds <= 30:
            yield f"exchange.ping_interval: {given['ping_interval']!r}; allowed are 2s to 30s"


def _spool(given: dict[str, Any]) -> Iterator[str]:
    spool = {"warn_percent": 80, "alert_percent": 90, "reserve_mib": 64}
    for key in given.keys() - spool.keys():
        yield f"spool.{key}: unknown; allowed are {', '.join(spool)}"
    spool |= {key: given[key] for key in given.keys() & spool.keys()}
    for key, value in spool.items():
        if type(value) is not int:
            yield f"spool.{key}: {value!r}; allowed is a whole number"
            return
    if not 1 <= spool["warn_percent"] <= spool["alert_percent"] <= 99:
        yield "spool.warn_percent, spool.alert_percent: allowed are 1 to 99, the second not below the first"
    if not 4 <= spool["reserve_mib"] <= 65536:
        yield f"spool.reserve_mib: {spool['reserve_mib']}; allowed are 4 to 65536"


def _folders(settings: dict[str, Any]) -> Iterator[str]:
    folders = {key: settings[key] for key in ("data_dir", "export_dir")}
    folders |= {f"mounts: {at}": mount for at, mount in enumerate(settings["mounts"])}
    folders |= {key: settings[key] for key in ("archive_dir", "wheelhouse") if settings[key]}
    for key, path in folders.items():
        if not _is_path(path):
            yield f"{key}: {path!r}; allowed is an absolute path without blanks and control characters"
            return
        if not key.startswith(OFF_UNITS) and (odd := next((c for c in path if c in MARKS), None)):
            yield f"{key}: {path!r}; allowed is a path without {odd}, which systemd's files read otherwise"
            return
    data, exports = (os.path.normpath(settings[key]).split("/") for key in ("data_dir", "export_dir"))
    if data == exports:
        yield "export_dir: it is data_dir itself; choose another folder, such as one inside it"
    elif data[: len(exports)] == exports:
        yield "data_dir: it lies in export_dir, which is for exported files only; choose another"
    elif exports[: len(data)] == data and exports[len(data)].partition(".")[0] in OWN_FOLDERS:
        yield f"export_dir: it lies in {exports[len(data)]}, which the recorder keeps for itself; choose another"


def _metrics(settings: dict[str, Any]) -> Iterator[str]:
    """Where they are answered, and who may ask."""
    keys = ("metrics_certificate", "metrics_key", "metrics_password_file")
    for key in keys:
        path = settings[key]
        if path and (not _is_path(path) or any(c in path for c in MARKS)):
            yield f"{key}: {path!r}; allowed is the absolute path of a file on the host without blanks and {MARKS}"
    has_certificate, has_key, has_password = (bool(settings[key]) for key in keys)
    if has_certificate != has_key:
        yield "metrics_certificate, metrics_key: they belong together; name both, or neither"
    listen = settings["metrics_listen"]
    try:
        is_loopback = ipaddress.ip_address(listen).is_loopback
    except ValueError:
        is_loopback = None
    if is_loopback is None or "%" in listen:
        yield f"metrics_listen: {listen!r}; allowed is an address of the host, such as 127.0.0.1 or ::1"
    elif not is_loopback and not (has_certificate and has_key and has_password):
        yield f"metrics_listen: {listen}: beyond loopback {', '.join(keys)} are needed; name these files"
    elif not is_loopback and not settings["metrics_allow"]:
        yield f"metrics_listen: {listen}: nobody else may ask; name Prometheus' address in mexc_pipeline_metrics_allow"


def _singles(settings: dict[str, Any]) -> Iterator[str]:
    duration = "a whole number with ms, s, m, h or d, such as 15s or 1h"
    period = "a whole number of seconds, at least 2 s, that divides a day, such as 1h"
    size = "a size, such as 384M, and infinity"
    span = "a span of time of systemd's, such as 60s or 1min 30s"
    calendar = "systemd's calendar (man 7 systemd.time), such as *-*-* *:00:20 or hourly"
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "version": (lambda v: re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+!_-]*", v) is not None, "a version, such as 1.2.3"),
        "keep_versions": (lambda v: v >= 1, "1 or more"),
        "period": (lambda v: is_period(_seconds(v)), period),
        "spool_keep": (lambda v: _seconds(v) is not None, duration),
        "candles": (
            lambda v: v == "off" or ((seconds := _seconds(v)) is not None and 1 <= seconds <= 43_200),
            "1s to 12h, or off",
        ),
        "clickhouse_host": (lambda v: re.fullmatch(r"[A-Za-z0-9:._-]+", v) is not None, "an address or a name"),
        "clickhouse_port": (lambda v: 1 <= v <= 65535, "1 to 65535"),
        "clickhouse_database": (
            lambda v: re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", v) is not None,
            "letters, digits and _, not starting with a digit",
        ),
        "clickhouse_allow": (_are_addresses, "addresses, any and localhost"),
        "metrics_port": (lambda v: 1 <= v <= 65535, "1 to 65535"),
        "metrics_allow": (_are_addresses, "addresses, any and localhost"),
        "egress_allow": (_are_addresses, "addresses, any and localhost"),
        "collector_memory_max": (is_memory, size),
        "store_memory_max": (is_memory, size),
        "job_memory_max": (is_memory, size),
        "metrics_memory_max": (is_memory, size),
        "collector_cpu_weight": (lambda v: 1 <= v <= 10000, "1 to 10000"),
        "watchdog": (is_span, span),
        "timer_jitter": (is_span, span),
        "export_schedule": (is_calendar, calendar),
        "verify_schedule": (is_calendar, calendar),
        "prune_schedule": (is_calendar, calendar),
        "export_keep": (lambda v: not v or _seconds(v) is not None, f"{duration}, and nothing"),
        "export_min_free": (
            lambda v: not v or re.fullmatch(r"[0-9]{1,12}[KMGT]?", v) is not None,
            "a whole number, with K, M, G or T, such as 20G, and nothing",
        ),
        "archive_check": (
            lambda v: not v or any("{file}" in word for word in v),
            "the words of a command, {file} in one of them, and nothing",
        ),
        "on_failure": (
            lambda v: not v or UNIT.fullmatch(v) is not None,
            "a unit, such as alert@%n.service, and nothing",
        ),
        "journal_max": (lambda v: is_size(v), "a size, such as 500M"),
        "proxy_user": (lambda v: "\n" not in v, "one line"),
        "exchange_ca": (_is_there, "a file on this machine, and nothing"),
        "clickhouse_ca": (_is_there, "a file on this machine, and nothing"),
    }
    for key, (is_good, allowed) in rules.items():
        try:
            is_fitting = is_good(settings[key])
        except TypeError:  # of another type, such as a null
            is_fitting = False
        if not is_fitting:
            yield f"{key}: {settings[key]!r}; allowed is {allowed}"
    allow = settings["clickhouse_allow"] or [settings["clickhouse_host"]]
    if not settings["clickhouse_allow"] and settings["clickhouse_host"] != "localhost" and not _are_addresses(allow):
        yield (
            "clickhouse_host is a name: set mexc_pipeline_clickhouse_allow to the server's and the resolver's "
            "addresses, or to ['any']"
        )


def is_period(seconds: float | None) -> bool:
    return seconds is not None and seconds >= 2 and seconds == int(seconds) and 86400 % seconds == 0


def is_memory(text: str) -> bool:
    """Whether systemd's ``MemoryMax=`` takes it; a share of the machine's memory is one too."""
    return text == "infinity" or re.fullmatch(r"[1-9][0-9]?%|100%", text) is not None or is_size(text)


def is_size(text: str) -> bool:
    return SIZE.fullmatch(text) is not None and float(text.rstrip("KMGTPE")) > 0 and _bytes(text) < 1 << 63


def _bytes(text: str) -> float:
    return float(text.rstrip("KMGTPE")) * 1024.0 ** (" KMGTPE".index(text[-1]) if text[-1].isalpha() else 0)


def is_span(text: str) -> bool:
    """Whether systemd reads it as a span of time."""
    return text == "infinity" or SPAN.fullmatch(text) is not None


def is_calendar(text: str) -> bool:
    """Whether systemd takes it for ``OnCalendar=``; some rare forms that it takes as well are refused, such as seconds
    since 1970 (``@``) and ``*`` with a repetition."""
    words = text.split()
    if words and (words[-1] == "UTC" or words[-1] in zoneinfo.available_timezones()):
        words.pop()
    if not words:
        return False
    if len(words) == 1 and words[0].lower() in EVERY:
        return True
    if DAYS.fullmatch(words[0].lower()):
        words = words[1:]
        if not words:
            return True
    if "-" in words[0] or "~" in words[0]:
        if not _is_date(words.pop(0)):
            return False
        if not words:
            return True
    return len(words) == 1 and _is_time(words[0])


def _is_date(text: str) -> bool:
    match = re.fullmatch(r"(?:([^-~]+)-)?([^-~]+)([-~])([^-~]+)", text)
    if match is None:
        return False
    year, month, sep, day = match.groups()
    days = 28 if sep == "~" else 31  # from a month's end only as many as every month has
    return (year is None or _is_part(year, 1970, 2199)) and _is_part(month, 1, 12) and _is_part(day, 1, days)


def _is_time(text: str) -> bool:
    parts = text.split(":")
    most = (23, 59, 59)
    return len(parts) in (2, 3) and all(
        _is_part(part, 0, last, is_split=last == 59 and at == 2)
        for at, (part, last) in enumerate(zip(parts, most, strict=False))
    )


def _is_part(text: str, least: int, most: int, *, is_split: bool = False) -> bool:
    """One field: ``*`` or a list of numbers, ranges and repetitions. ``is_split``: fractions too."""
    if text == "*":
        return True
    number = r"[0-9]{1,4}(?:\.[0-9]{1,6})?" if is_split else r"[0-9]{1,4}"
    for one in text.split(","):
        match = re.fullmatch(rf"({number})(?:\.\.({number}))?(?:/({number}))?", one)
        if match is None:
            return False
        first, last = float(match[1]), float(match[2] or match[1])
        if not least <= first <= last < most + 1 or (match[3] is not None and float(match[3]) == 0):
            return False
    return True


def _seconds(text: Any) -> float | None:
    match = DURATION.fullmatch(text) if isinstance(text, str) else None
    return int(match[1]) * UNITS_S[match[2]] if match else None


def _are_addresses(given: list[str]) -> bool:
    return all(one in ("any", "localhost") or ADDRESS.fullmatch(one) for one in given)


def _is_path(text: Any) -> bool:
    return isinstance(text, str) and text.startswith("/") and text.isprintable() and " " not in text


def _is_there(path: str) -> bool:
    """A name that is not absolute is looked for where Ansible does."""
    return not path.startswith("/") or Path(path).is_file()


def _url(where: str, value: Any, schemes: tuple[str, ...], *, is_plain: bool = False) -> Iterator[str]:
    parts = _split(value)
    is_good = parts is not None and parts.scheme in schemes and parts.hostname
    if parts is None or not is_good or parts.username is not None or parts.password is not None:
        yield f"{where}: {value!r}; allowed is an address starting with {' or '.join(s + '://' for s in schemes)}"
    elif is_plain and ("?" in value or "#" in value):
        yield f"{where}: {value!r}; no query and no fragment may stand in the address"


def _split(url: Any) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError where it is no port
    except (ValueError, AttributeError, TypeError):
        return None
    return parts


def end(main: Callable[[], int]) -> NoReturn:
    """End the process with ``main``'s status; what failed outside of this program is one line, and the status 1."""
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        is_of_file = isinstance(error, OSError) and error.filename is not None
        said = f"{error.filename}: {error.strerror}" if is_of_file else str(error)
        line = " ".join(said.split())
        sys.exit("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


if __name__ == "__main__":
    end(main)
