"""What a changed exchange might make of its frames: fields renamed, dropped, retyped, whole frames compressed.

A shape is a chain of steps, written `ts=us; drop=data.cts; gzip`. Pure: one payload in, one opcode and payload out.
Key order and number spelling of everything a step does not touch stay as they were.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from mexc_pipeline.errors import ConfigError

TEXT, BINARY = 1, 2
MARKED = 0x40
"""Added to an opcode: the reserved bit by which RFC 7692 marks what is compressed."""

STEPS: dict[str, str] = {
    "ts=KIND": "the frame's ts as us, ns, s, float, text, zero, null or absent",
    "set=PATH:JSON": "the field gets this value; made where it is missing (a word that is no JSON is text)",
    "shift=PATH:N": "every number there, or text that is one, is N more, at any depth: a clock that is wrong",
    "drop=PATH": "the field is missing",
    "rename=PATH:NAME": "the field has another name",
    "text=PATH": "every number there becomes text, at any depth",
    "number=PATH": "every text there that is a number becomes one, at any depth",
    "exponent=PATH": "every number there is spelled with an exponent, at any depth",
    "digits=PATH:N": "every number there gets zeros before its point until it has N digits in all",
    "object=PATH": "a list there becomes its first item",
    "list=PATH": "a value there becomes a list of one",
    "gzip": "the whole frame is a binary one, compressed; the last step",
    "zlib": "the same, as a zlib stream",
    "deflate": "the same, as a raw deflate stream",
    "rfc7692": "a text one, compressed and marked as the extension does that nobody agreed on (RFC 7692)",
    "binary": "the whole frame is a binary one, not compressed; the last step",
}
"""PATH: names joined by points from the frame's top, such as data.asks; lists are gone into. No PATH means
the whole frame."""

PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda payload: gzip.compress(payload, mtime=0),
    "zlib": zlib.compress,
    "deflate": lambda payload: zlib.compress(payload, wbits=-15),
    "rfc7692": lambda payload: _flushed(payload),
    "binary": lambda payload: payload,
}

TS = ("us", "ns", "s", "float", "text", "zero", "null", "absent")


_WHOLE = re.compile(r"-?[0-9]{1,18}")
_SPELLED = re.compile(r"(-?)(\d+)(\.\d+)?([eE][+-]?\d+)?")


class _Number(str):
    """A JSON number as it is spelled."""

    __slots__ = ()


class _Step(NamedTuple):
    name: str
    path: tuple[str, ...]
    argument: str


@lru_cache(maxsize=256)
def parse_shape(text: str) -> tuple[_Step, ...]:
    """Parse steps separated by semicolons. Raises ConfigError naming the step and what is allowed."""
    steps: list[_Step] = []
    for word in filter(None, (part.strip() for part in text.split(";"))):
        name, _, rest = word.partition("=")
        path, _, argument = rest.partition(":")
        known = next((form for form in STEPS if form.partition("=")[0] == name), None)
        if known is None:
            raise ConfigError(f"shape {text!r}: {name!r} is no step; known are {', '.join(STEPS)}")
        if ("=" in known) != ("=" in word) or (":" in known) != (":" in word):
            raise ConfigError(f"shape {text!r}: write {known}, not {word!r}")
        if name == "ts":
            if path not in TS:
                raise ConfigError(f"shape {text!r}: ts takes {', '.join(TS)}, not {path!r}")
            path, argument = "ts", path
        if name == "digits" and not argument.isdigit():
            raise ConfigError(f"shape {text!r}: digits takes a whole number, not {argument!r}")
        if name == "shift" and _WHOLE.fullmatch(argument) is None:
            raise ConfigError(f"shape {text!r}: shift takes a whole number, not {argument!r}")
        if name in ("drop", "rename", "set") and not path:
            raise ConfigError(f"shape {text!r}: {name} needs a field")
        steps.append(_Step(name, tuple(filter(None, path.split("."))), argument))
    if not steps:
        raise ConfigError(f"a shape needs a step; known are {', '.join(STEPS)}")
    if any(step.name in PACKINGS for step in steps[:-1]):
        raise ConfigError(f"shape {text!r}: {' or '.join(PACKINGS)} is the last step")
    return tuple(steps)


def shaped(payload: bytes, shape: str) -> tuple[int, bytes]:
    """Opcode (and :data:`MARKED`) and payload of a text frame after the steps of `shape`; what is not JSON is only
    packed."""
    steps = parse_shape(shape)
    changes = [step for step in steps if step.name not in PACKINGS]
    if changes:
        try:
            frame = json.loads(payload, parse_int=_Number, parse_float=_Number)
        except ValueError:
            frame = None
        if frame is not None:
            holder: dict[str, Any] = {"": frame}
            for step in changes:
                _apply(holder, step)
            payload = _dump(holder[""]).encode(errors="surrogatepass")
    pack = PACKINGS.get(steps[-1].name)
    if pack is None:
        return TEXT, payload
    return TEXT | MARKED if steps[-1].name == "rfc7692" else BINARY, pack(payload)


def _flushed(payload: bytes) -> bytes:
    """A raw deflate stream that ends as RFC 7692 (section 7.2.1) has it: flushed, without the last four bytes of it."""
    stream = zlib.compressobj(wbits=-15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def _apply(holder: dict[str, Any], step: _Step) -> None:
    path = ("", *step.path)
    for owner in list(_owners(holder, path[:-1])):
        key = path[-1]
        if step.name == "set":
            owner[key] = _value(step.argument)
        elif key in owner:
            _change(owner, key, step)


def _owners(value: Any, path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The objects that `path` leads to, through lists."""
    if isinstance(value, list):
        for item in value:
            yield from _owners(item, path)
    elif isinstance(value, dict):
        if not path:
            yield value
        elif path[0] in value:
            yield from _owners(value[path[0]], path[1:])


def _change(owner: dict[str, Any], key: str, step: _Step) -> None:
    value = owner[key]
    match step.name:
        case "drop":
            del owner[key]
        case "rename":
            renamed = {step.argument if name == key else name: kept for name, kept in owner.items()}
            owner.clear()
            owner.update(renamed)
        case "object" if isinstance(value, list) and value:
            owner[key] = value[0]
        case "list" if not isinstance(value, list):
            owner[key] = [value]
        case "ts" if isinstance(value, _Number):
            _change_ts(owner, value, step.argument)
        case "text":
            owner[key] = _each(value, _Number, str)
        case "number":
            owner[key] = _each(value, str, _to_number)
        case "exponent":
            owner[key] = _each(value, _Number, _exponent)
        case "shift":
            owner[key] = _each(value, str, lambda text: _shifted(text, int(step.argument)))
            owner[key] = _each(owner[key], _Number, lambda number: _Number(_shifted(number, int(step.argument))))
        case "digits":
            owner[key] = _each(value, _Number, lambda number: _digits(number, int(step.argument)))


def _change_ts(frame: dict[str, Any], ts: _Number, kind: str) -> None:
    if kind == "absent":
        del frame["ts"]
        return
    made: dict[str, Any] = {
        "us": _Number(f"{ts}417"),
        "ns": _Number(f"{ts}417093"),
        "s": _Number(ts[:-3]),
        "float": _Number(f"{ts}.5"),
        "text": str(ts),
        "zero": _Number("0"),
        "null": None,
    }
    frame["ts"] = made[kind]


def _each(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, list):
        return [_each(item, kind, change) for item in value]
    if isinstance(value, dict):
        return {name: _each(item, kind, change) for name, item in value.items()}
    return change(value) if type(value) is kind else value


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_Number, parse_float=_Number)
    except ValueError:
        return text


def _to_number(text: str) -> Any:
    value = _value(text)
    return value if isinstance(value, _Number) else text


def _exponent(number: _Number) -> _Number:
    return number if "e" in number.lower() else _Number(f"{number}E+0")


def _shifted(text: str, by: int) -> str:
    return str(int(text) + by) if _WHOLE.fullmatch(text) else text


def _digits(number: _Number, wanted: int) -> _Number:
    found = _SPELLED.fullmatch(number)
    assert found is not None, number
    sign, whole, rest, power = found.groups()
    missing = wanted - len(whole) - len(rest or ".") + 1
    if missing <= 0:
        return number
    return _Number(f"{sign}{'9' if whole == '0' else whole}{'0' * missing}{rest or ''}{power or ''}")


def _dump(value: Any) -> str:
    if isinstance(value, _Number):
        return str.__str__(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{_dump(v)}" for name, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dump, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
