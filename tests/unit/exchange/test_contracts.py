"""Specifications of contracts, read from answers of any kind."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.exchange.contracts import (
    DETAILS_PATH,
    MOST_BYTES,
    ContractList,
    contract_size,
    contracts_in,
    is_part,
    pushed_specification,
    read_contracts,
)
from mexc_pipeline.exchange.rest import RestRefusedError, read_listing
from mexc_pipeline.rows import wrap

JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False))
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)

BTC = b'{"symbol":"BTC_USDT" , "contractSize":0.00010,"displayName":"BTC \xe6\xb0\xb8\xe7\xbb\xad"}'
ETH = b'{ "contractSize":1E-2,"symbol":"ETH_USDT"}'


def answer(*objects: bytes) -> bytes:
    return b'{"success":true,"code":0,"data": [' + b" ,\n".join(objects) + b"]}"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (BTC, BTC),
        (b"[ %s,%s ]" % (ETH, BTC), BTC),
        (ETH, None),
        (b"[%s,%s]" % (BTC, BTC.replace(b"0.0001", b"0.001")), None),
        (b"[]", None),
        (b"7", None),
        (b'{"symbol":7}', None),
    ],
)
def test_what_is_pushed_of_a_contract_is_its_object(data: bytes, found: bytes | None) -> None:
    m = b'{"channel":"push.contract","data":%s,"ts":1789498336785}' % data
    assert pushed_specification("BTC_USDT", m) == found
    assert pushed_specification("BTC_USDT", wrap(2, gzip.compress(m))) == found
    assert pushed_specification("BTC_USDT", m[:-9]) is None
    assert pushed_specification("BTC_USDT", b'{"channel":"push.contract"}') is None


@pytest.mark.parametrize(
    ("m", "part"),
    [
        (BTC, False),
        (b'{"symbol":"BTC_USDT","takerFeeRate":0.0002}', True),
        (b'{"symbol":"BTC_USDT","contractSize":null}', False),
        (b'{"symbol":"BTC_USDT","data":{"contractSize":1}}', True),
        (b"[]", False),
    ],
)
def test_what_does_not_name_the_size_is_a_part_of_a_contract(m: bytes, part: bool) -> None:
    assert is_part(m) == part


def test_each_specification_is_what_was_sent_byte_for_byte() -> None:
    found = read_contracts(200, answer(BTC, ETH, b"1", b"null", b'{"symbol":7}'))
    assert found == ContractList(frozenset({"BTC_USDT", "ETH_USDT"}), {"BTC_USDT": BTC, "ETH_USDT": ETH})
    assert contracts_in(BTC).specifications == {"BTC_USDT": BTC}, "the answer about one"
    assert DETAILS_PATH == "/api/v1/contract/detail"


@pytest.mark.parametrize(
    ("objects", "known"),
    [
        ([BTC, BTC], True),
        ([BTC, BTC.replace(b"0.0", b"0.1")], False),
        ([BTC, BTC.replace(b"0.0", b"0.1"), BTC], False),
        ([BTC.replace(b"displayName", b"\xff")], False),
        ([BTC.replace(b"BTC \xe6", b"x" * MOST_BYTES + b"\xe6")], False),
    ],
    ids=["twice alike", "twice not alike", "three times", "no text", "too large"],
)
def test_what_is_not_certain_is_not_known(objects: list[bytes], known: bool) -> None:
    found = read_contracts(200, answer(*objects, ETH))
    assert found.specifications == ({"BTC_USDT": BTC} if known else {}) | {"ETH_USDT": ETH}
    assert found.listing("BTC_USDT").verdict == "listed"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (403, answer(BTC), "HTTP 403"),
        (200, b"<html>", "not JSON"),
        (200, b'{"success":false,"code":510,"message":"Requests are too frequent"}', "code 510"),
        (200, answer(), "without contracts"),
        (200, answer(b"1"), "without contracts"),
        (200, b'{"success":true,"data":null}', "without contracts"),
        (200, b'{"success":true,"data":{}}', "without contracts"),
        (200, b'{"success":true,"data":"BTC_USDT"}', "without contracts"),
        (200, answer(*[b"1"] * 500_001), "more than 500,000 values"),
        (200, b'{"success":true,"data":[' + b"[" * 100_000, "not JSON"),
    ],
)
def test_any_other_answer_says_why_it_is_none(status: int, body: bytes, said: str) -> None:
    with pytest.raises(RestRefusedError, match=said):
        read_contracts(status, body)


CONTRACTS = st.lists(
    st.one_of(
        JSON_VALUES,
        st.fixed_dictionaries(
            {"symbol": st.sampled_from(["BTC_USDT", "ETH_USDT"])}, optional={"contractSize": JSON_VALUES}
        ),
    )
)


@given(CONTRACTS, st.sampled_from([None, 1]))
def test_listing_and_specification_agree_with_what_json_reads(contracts: list[Any], indent: int | None) -> None:
    body = json.dumps({"success": True, "code": 0, "data": contracts}, indent=indent, ensure_ascii=False)
    names = {c["symbol"] for c in contracts if isinstance(c, dict) and isinstance(c.get("symbol"), str)}
    try:
        found = read_contracts(200, body.encode())
    except RestRefusedError:
        assert not names
        return
    assert found.listing("BTC_USDT").verdict == read_listing("BTC_USDT", 200, body.encode()).verdict
    for name, m in found.specifications.items():
        assert m.decode() in body
        assert next(c for c in contracts if isinstance(c, dict) and c.get("symbol") == name) == json.loads(m)


@given(st.binary(max_size=200), st.sampled_from([200, 500]))
def test_no_answer_raises_anything_else(body: bytes, status: int) -> None:
    for whole in (body, b'{"success":true,"data":' + body + b"}"):
        try:
            found = read_contracts(status, whole)
        except RestRefusedError:
            continue
        assert all(m in whole for m in found.specifications.values())


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0.0001", "0.0001"),
        ("0.00010", "0.00010"),
        ("1E-4", "0.0001"),
        ("1e+2", "100"),
        ("10", "10"),
        ("9" * 38, "9" * 38),
        ("9" * 39, None),
        ("1e-38", f"0.{'0' * 37}1"),
        ("1e-39", None),
        ("1e999999999999999999999", None),
        ("0e999999999999999999999", None),
        ("0", None),
        ("0.000", None),
        ("-1", None),
        ("-0.0", None),
        ("null", None),
        ("true", None),
        ('"0.0001"', None),
        ("[1]", None),
        ("{}", None),
    ],
)
def test_a_size_is_a_positive_number_exactly_as_it_is_spelled(text: str, size: str | None) -> None:
    for m in (
        f'{{"symbol":"X_USDT","contractSize": {text} }}',
        f'{{"channel":"push.contract","data":{{"symbol":"X_USDT","contractSize":{text}}},"ts":1}}',
    ):
        found = contract_size(m.encode())
        assert (None if found is None else f"{found:f}") == size


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal("1e-15"), max_value=10**15))
def test_no_digit_is_lost(size: Decimal) -> None:
    found = contract_size(b'{"contractSize":%s}' % str(size).encode())
    assert found is None or found == size
    assert found is not None or len(size.as_tuple().digits) > 20


@given(st.one_of(st.binary(max_size=100), JSON_VALUES.map(lambda value: json.dumps(value).encode())))
def test_what_has_no_size_is_unknown_whatever_it_is(m: bytes) -> None:
    assert contract_size(m) is None
    for outer in (b'{"data":%s}', b'{"contractSize":[%s]}'):
        assert contract_size(outer % m) is None
