"""Specifications of contracts: the list that REST has of them, and what of one is needed to read its volumes. Pure.

Shapes as documented (official futures pages, 2026-04) and observed (2026-09): about 1,180 contracts in 2.3 MB, which
REST gives whole where no symbol is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.exchange.rest import BASE, Listing, RestRefusedError, answered, too_many_values
from mexc_pipeline.exchange.shapes import FITS, extent
from mexc_pipeline.rows import is_utf8

DETAILS_PATH = f"{BASE}detail"
"""The path of the list of all contracts."""
MOST_BYTES = 64 << 10
"""Of one contract's object; those observed have about 2,000."""
_POSITIVE = re.compile(r"((?:0|[1-9]\d*)(?:\.\d+)?)(?:[eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ContractList:
    """What an answer has of contracts: the ``names`` in it, and by name each ``specification``, byte for byte. One that
    is larger than any, is no text, or stands there twice and not alike, is not known."""

    names: frozenset[str]
    specifications: Mapping[str, bytes]

    def listing(self, symbol: str) -> Listing:
        """Whether the symbol is listed, where this is the whole list."""
        if symbol in self.names:
            return Listing("listed", "listed")
        return Listing("unlisted", f"not among its {len(self.names)} contracts")


class _Named(msgspec.Struct):
    symbol: str


_named = msgspec.json.Decoder(_Named).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_contracts(status: int, body: bytes) -> ContractList:
    """The answer to :data:`DETAILS_PATH`, or to a question for one contract's. RestRefusedError for any other answer,
    and for one without contracts."""
    return contracts_in(bytes(answered(status, body)))


def contracts_in(data: bytes) -> ContractList:
    """The contracts in the ``data`` of an answer: a list of them, or one. Raises as :func:`read_contracts`."""
    if (said := too_many_values(data)) is not None:
        raise RestRefusedError(said)
    try:
        pieces = [msgspec.Raw(data)] if data.lstrip().startswith(b"{") else _list(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RestRefusedError("an answer without contracts") from error
    names: set[str] = set()
    found: dict[str, bytes] = {}
    doubtful: set[str] = set()
    for piece in pieces:
        try:
            name = _named(piece).symbol
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
        names.add(name)
        m = bytes(piece)
        if _is_whole(m) and found.get(name, m) == m:
            found[name] = m
        else:
            doubtful.add(name)
    if not names:
        raise RestRefusedError("an answer without contracts")
    return ContractList(frozenset(names), {name: m for name, m in found.items() if name not in doubtful})


def _is_whole(m: bytes) -> bool:
    return len(m) <= MOST_BYTES and is_utf8(m)


class _Pushed(msgspec.Struct):
    data: msgspec.Raw


_pushed = msgspec.json.Decoder(_Pushed).decode


def pushed_specification(name: str, m: bytes) -> bytes | None:
    """The contract's object in a ``push.contract``, byte for byte; None where it is not known. It may be a part of one,
    see :func:`is_part`."""
    try:
        return contracts_in(bytes(_pushed(content(m)).data)).specifications.get(name)
    except (msgspec.MsgspecError, ValueError, RecursionError, RestRefusedError):
        return None


class _Sized(msgspec.Struct):
    contractSize: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the exchange's name
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_sized = msgspec.json.Decoder(_Sized).decode


def is_part(specification: bytes) -> bool:
    """Whether it is of a contract's fields those that changed: a whole one has its size."""
    try:
        return _sized(specification).contractSize is msgspec.UNSET
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def contract_size(m: bytes) -> Decimal | None:
    """How much one contract is (of the base currency, where it is a linear one), exactly as the exchange spells it in a
    specification as REST gives it, or in a ``push.contract``; None where that is no positive number of at most 38
    digits on either side of the point."""
    try:
        said = _sized(m)
        if said.contractSize is msgspec.UNSET and said.data is not msgspec.UNSET:
            said = _sized(said.data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if said.contractSize is msgspec.UNSET:
        return None
    text = bytes(said.contractSize).decode("ascii", "replace")
    number = _POSITIVE.fullmatch(text) if len(text) <= MOST_BYTES else None
    if number is None or not number[1].strip("0.") or extent(text) > FITS:
        return None
    return Decimal(text)
