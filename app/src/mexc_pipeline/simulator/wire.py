"""WebSocket framing as a server does it (RFC 6455: unmasked), and the frames faults are made of."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

from mexc_pipeline.simulator.faults import Fault

OP_CONT, OP_TEXT, OP_BINARY, OP_CLOSE, OP_PING = 0, 1, 2, 8, 9

BREACHES = {"rules": b"\xff\x00", "size": struct.pack(">BBQ", 0x82, 127, 1 << 30)}
"""What no client can read on from: a frame with all reserved bits set, and the beginning of one of a gigabyte."""

HEARTBEAT_NOTICE = "more than 60 seconds no response, close the channel"

_VERSION = re.compile(rb'"version":(\d+)')
_BEGIN_END = re.compile(rb'"end":\d+,"begin":\d+,')


def encode(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    """Return one frame as a server puts it on the wire."""
    first = opcode | (0x80 if fin else 0)
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return struct.pack(">BBH", first, 126, size) + payload
    return struct.pack(">BBQ", first, 127, size) + payload


def close(code: int | None, reason: str) -> bytes:
    """Return a close frame of any code, also of those that RFC 6455 forbids; what does not fit of the reason is cut."""
    if code is None:
        return encode(OP_CLOSE, b"")
    return encode(OP_CLOSE, struct.pack(">H", code) + reason.encode()[:123].decode(errors="ignore").encode())


def parsed(text: str | bytes) -> Any:
    """Return what JSON says, None where it is none that can be read, nested however deep."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def fragments(opcode: int, payload: bytes) -> bytes:
    """Return one message as three frames."""
    third = max(1, len(payload) // 3)
    return (
        encode(opcode, payload[:third], fin=False)
        + encode(OP_CONT, payload[third : 2 * third], fin=False)
        + encode(OP_CONT, payload[2 * third :])
    )


def control(channel: str, data: str, now_ms: int) -> bytes:
    """Return a control frame; `data` is JSON text (order channel, data, ts: wire, 2026-09)."""
    return f'{{"channel":"{channel}","data":{data},"ts":{now_ms}}}'.encode()


def pong(now_ms: int) -> bytes:
    """Return the exchange's answer to a JSON ping."""
    return control("pong", str(now_ms), now_ms)


def error(text: str, now_ms: int) -> bytes:
    """Return an `rs.error` frame."""
    return control("rs.error", f'"{text}"', now_ms)


def fault_frame(fault: Fault, symbol: str, now_ms: int) -> tuple[int, bytes]:
    """Return (opcode, payload) of a fault that sends a frame of its own."""

    def ticker(name: str, ts: str, pad: str = "") -> bytes:
        tail = f',"ts":{ts}' if ts else ""
        return (
            f'{{"symbol":"{name}","data":{{"symbol":"{name}","lastPrice":1{pad}}},"channel":"push.ticker"{tail}}}'
        ).encode()

    match fault.kind:
        case "bad_json":
            return OP_TEXT, f'{{"symbol":"{symbol}","data":{{"cts":{now_ms},"asks":[[1.5,'.encode()
        case "not_object":
            return OP_TEXT, f'["{symbol}",{now_ms}]'.encode()
        case "unknown_channel":
            return (
                OP_TEXT,
                f'{{"symbol":"{symbol}","data":{{}},"channel":"push.surprise","ts":{now_ms}}}'.encode(),
            )
        case "foreign_symbol":
            return OP_TEXT, ticker("FOREIGN_USDT", str(now_ms))
        case "invalid_utf8":
            return OP_TEXT, ticker(symbol, str(now_ms)).replace(b'"lastPrice":1', b'"zone":"\xff\xfe"')
        case "huge":
            bare = len(ticker(symbol, str(now_ms), ',"pad":""'))
            return OP_TEXT, ticker(symbol, str(now_ms), f',"pad":"{"x" * max(0, fault.size - bare)}"')
        case "ts_null":
            return OP_TEXT, ticker(symbol, "null")
        case "ts_missing":
            return OP_TEXT, ticker(symbol, "")
        case "ts_type":
            spelled = {
                "string": f'"{now_ms}"',
                "float": f"{now_ms}.5",
                "short": str(now_ms // 1000),
                "bool": "true",
            }
            return OP_TEXT, ticker(symbol, spelled[fault.value or "string"])
        case "empty":
            return OP_TEXT, b""
        case "rs_error":
            return OP_TEXT, error(fault.value or f"Contract [{symbol}] not exists", now_ms)
        case "binary":
            return OP_BINARY, b"\x1f\x8b\x08\x00" + bytes(range(256)) + symbol.encode()
        case "client_id":
            return OP_TEXT, control("clientId", '"0a1b2c3d4e5f"', now_ms)
        case "extra_pong":
            return OP_TEXT, pong(now_ms)
        case "frame":
            return fault.opcode, fault.payload or fault.value.encode()
        case _:
            raise AssertionError(f"{fault.kind} sends no frame of its own")


def version_back(payload: bytes) -> bytes:
    """Return a depth frame whose version goes back by 1000."""
    return _VERSION.sub(lambda found: b'"version":%d' % (int(found[1]) - 1000), payload)


def begin_end(payload: bytes, value: str) -> bytes:
    """Return a merged depth frame with `begin` and `end` missing, null or zero (all seen by others)."""
    new = {"missing": b"", "null": b'"end":null,"begin":null,', "zero": b'"end":0,"begin":0,'}
    return _BEGIN_END.sub(new[value or "missing"], payload)
