"""Shapes of frames: what a step changes, what it leaves alone, and how it is written."""

from __future__ import annotations

import gzip
import json
import zlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.errors import ConfigError
from mexc_pipeline.simulator import Fault
from mexc_pipeline.simulator.samples import frames
from mexc_pipeline.simulator.shapes import STEPS, shaped

DEAL = (
    b'{"symbol":"BTC_USDT","data":[{"p":77526.00,"v":208,"i":"16005949690"},{"p":7.7E+4,"v":5,"i":"1"}],'
    b'"channel":"push.deal","ts":1788335243261}'
)
DEPTH = b'{"data":{"asks":[[0.080100,2868,1]],"bids":[[0.08003,8905,4]],"version":8752808003},"ts":1789498405534}'


@pytest.mark.parametrize(
    ("shape", "before", "after"),
    [
        ("ts=us", b'"ts":1788335243261', b'"ts":1788335243261417'),
        ("ts=ns", b'"ts":1788335243261', b'"ts":1788335243261417093'),
        ("ts=s", b'"ts":1788335243261', b'"ts":1788335243'),
        ("ts=float", b'"ts":1788335243261', b'"ts":1788335243261.5'),
        ("ts=text", b'"ts":1788335243261', b'"ts":"1788335243261"'),
        ("ts=zero", b'"ts":1788335243261', b'"ts":0'),
        ("ts=null", b'"ts":1788335243261', b'"ts":null'),
        ("ts=absent", b',"ts":1788335243261', b""),
        ("set=symbol:ETH_USDT", b'"BTC_USDT"', b'"ETH_USDT"'),
        ('set=symbol:{"a":[1.50]}', b'"BTC_USDT"', b'{"a":[1.50]}'),
        ("drop=data.v", b'"v":208,', b""),
        ("rename=data.p:price", b'"p":77526.00', b'"price":77526.00'),
        ("text=data.p", b'"p":7.7E+4', b'"p":"7.7E+4"'),
        ("number=data", b'"i":"16005949690"', b'"i":16005949690'),
        ("exponent=data.v", b'"v":208', b'"v":208E+0'),
        ("digits=data.p:12", b'"p":77526.00', b'"p":7752600000.00'),
        ("shift=ts:28800000", b'"ts":1788335243261', b'"ts":1788364043261'),
        ("shift=data.i:-9", b'"i":"16005949690"', b'"i":"16005949681"'),
        ("list=ts", b'"ts":1788335243261', b'"ts":[1788335243261]'),
    ],
)
def test_what_a_step_does(shape: str, before: bytes, after: bytes) -> None:
    opcode, payload = shaped(DEAL, shape)
    assert opcode == 1
    assert before in DEAL
    assert before not in payload or after.startswith(before)
    assert after in payload
    json.loads(payload)


def test_a_list_becomes_its_first_item() -> None:
    assert json.loads(shaped(DEAL, "object=data")[1])["data"]["v"] == 208


def test_a_missing_field_is_made() -> None:
    data = json.loads(shaped(DEAL, "set=data.fee:0.1; set=news:word")[1])
    assert [deal["fee"] for deal in data["data"]] == [0.1, 0.1]
    assert data["news"] == "word"


def test_a_side_is_null() -> None:
    assert b'"asks":null' in shaped(DEPTH, "set=data.asks:null")[1]


def test_packed_frames_hold_what_the_other_steps_made() -> None:
    opcode, payload = shaped(DEPTH, "drop=ts; gzip")
    assert opcode == 2
    assert gzip.decompress(payload) == DEPTH.replace(b',"ts":1789498405534', b"")
    assert shaped(DEPTH, "binary") == (2, DEPTH)
    opcode, payload = shaped(DEPTH, "rfc7692")
    assert opcode == 0x41, "text, and the first reserved bit"
    assert zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff") == DEPTH


def test_what_is_not_json_is_only_packed() -> None:
    assert shaped(b"{broken", "ts=us") == (1, b"{broken")
    assert gzip.decompress(shaped(b"\xff", "ts=us; gzip")[1]) == b"\xff"


@given(st.sampled_from([frame for frame in frames() if frame.startswith(b"{")]), st.sampled_from(sorted(STEPS)))
def test_what_a_step_does_not_touch_stays_byte_for_byte(frame: bytes, form: str) -> None:
    """The step concerns a field that is not there: the frame is the same, spelling, order and all."""
    name, equals, rest = form.partition("=")
    if not equals or name in ("ts", "set"):
        return
    shape = f"{name}=no.such.field" + (f":{7}" if ":" in rest else "")
    assert shaped(frame, shape) == (1, frame)


numbers = st.decimals(allow_nan=False, allow_infinity=False, places=4).map(lambda d: f"{abs(d):f}")


@given(numbers, st.integers(1, 150))
def test_digits_make_a_number_longer_and_valid(number: str, wanted: int) -> None:
    made = shaped(b'{"p":%b}' % number.encode(), f"digits=p:{wanted}")[1]
    spelled = made[5:-1].decode()
    assert len(spelled.replace(".", "")) == max(wanted, len(number.replace(".", "")))
    assert spelled.partition(".")[2] == number.partition(".")[2]
    assert json.loads(made, parse_int=Decimal, parse_float=Decimal)["p"] == Decimal(spelled)


@pytest.mark.parametrize(
    "wrong", ["", "nonsense", "ts=ps", "drop", "drop=", "gzip=1", "gzip; ts=us", "rename=data.p", "digits=data.p:x"]
)
def test_what_is_no_shape_is_refused_in_one_line(wrong: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Fault("shape", value=wrong)
    assert "\n" not in str(refused.value)
