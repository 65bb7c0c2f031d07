"""Every argument of every public function of ``read``: what is none is refused in one line of our own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mexc_pipeline import read
from mexc_pipeline.errors import UserError
from mexc_pipeline.export import main
from mexc_pipeline.read.files import instant_ns
from support.spools import T0, configure, fill

FUNCTIONS = [
    read.frames,
    read.trades,
    read.tickers,
    read.book,
    read.funding,
    read.index_price,
    read.fair_price,
    read.klines,
    read.contracts,
    read.completeness,
]

NEVER = [
    1.5,
    b"dp",
    object(),
    {"a": 1},
    pd.NA,
    float("nan"),
    np.array([1, 2]),
    [None],
    [["dp"]],
    Exception,
    "\x1b[31m\n",
]
"""No argument takes any of these."""
FLAG = ["no", 0, 1, None, []]
WRONG: dict[str, list[Any]] = {
    "symbol": [None, 5, "", "doge", "x" * 10_000, Path("btc")],
    "start": [True, "yesterday", 5],
    "end": [True, "yesterday", 5],
    "at": [True, "yesterday", 5],
    "export_dir": [None, 5, True, "", "~nobody-of-this-name/x", "a\0b", "/" + "x" * 300, "x/" * 5_000, "nowhere", []],
    "types": ["dp", "", 5, True, ["dp", "no"], [5], [b"dp"], {"dp": 1, "no": 2}],
    "levels": [0, -1, "1", True, [], np.float64(2), 1 - 10**5000],
    "floats": FLAG,
    "across_gaps": FLAG,
    "imported": FLAG,
}
OPEN = {"start", "end", "at", "types", "levels"}
"""None is everything."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = configure(tmp_path_factory.mktemp("read"))
    fill(config)
    assert main(config).ok
    return config.export_dir


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.filterwarnings("ignore:.*dead letters")
def test_what_is_no_argument_is_refused_in_one_line(function: Callable[..., Any], folder: Path) -> None:
    right = {"symbol": "btc", "export_dir": folder}
    for name in inspect.signature(function).parameters:
        for wrong in [*WRONG[name], *NEVER, *([] if name in OPEN else [None])]:
            with pytest.raises(UserError) as refused:
                function(**{**right, name: wrong})
            said = str(refused.value)
            assert said.isprintable(), (name, wrong)
            assert len(said) < 800, (name, wrong)
            assert "unexpected" not in said


def test_every_public_function_is_tried() -> None:
    named = [getattr(read, name) for name in read.__all__ if inspect.isfunction(getattr(read, name))]
    assert sorted(f.__name__ for f in named) == sorted(f.__name__ for f in FUNCTIONS)


def test_text_is_not_read_letter_by_letter(folder: Path) -> None:
    with pytest.raises(
        read.ArgumentError, match=r"^types 'dp' is no list of row types, such as \['dp'\]; choose from t,"
    ):
        read.frames("btc", export_dir=folder, types="dp")
    with pytest.raises(ValueError, match=r"^levels 1\.5 is no whole number of at least 1$"):
        read.book("btc", export_dir=folder, levels=1.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^export_dir None is no path of a folder$"):
        read.trades("btc", export_dir=None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^floats 'no' is neither True nor False$"):
        read.tickers("btc", export_dir=folder, floats="no")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*dead letters", "ignore:this book is")
def test_what_means_the_same_is_taken(folder: Path) -> None:
    plain = read.frames("btc", export_dir=folder, types=["dp", "d"])
    for types in (("d", "dp"), {"d", "dp"}, np.array(["d", "dp"]), pd.Series(["d", "dp"]), (t for t in ("d", "dp"))):
        assert read.frames("btc", export_dir=str(folder), types=types).equals(plain)  # type: ignore[arg-type]
    assert not len(read.frames("btc", export_dir=folder, types=[]))
    one = read.book("btc", at=T0 + 10**9, export_dir=folder, levels=1)
    assert read.book("btc", at=T0 + 10**9, export_dir=folder, levels=np.int64(1), floats=np.bool_(False)).equals(one)  # type: ignore[arg-type]
    assert len(one) == 2


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"])
@pytest.mark.parametrize("value", [0, 1, -1, 2**31, 2**62, -(2**62), 2**63 - 1])
def test_a_numpy_time_of_any_unit_is_one_or_is_refused_in_words(unit: Any, value: int) -> None:
    try:
        ns = instant_ns(np.datetime64(value, unit))
    except UserError:
        assert value < 0 or unit in ("Y", "M", "W")
    else:
        assert ns >= 0
        if unit in ("ps", "fs", "as"):
            assert ns == value // {"ps": 10**3, "fs": 10**6, "as": 10**9}[unit]
