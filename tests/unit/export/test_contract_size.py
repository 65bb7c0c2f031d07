"""From any answer about contracts to the size in a file's metadata, and back."""

from __future__ import annotations

import json
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.exchange.contracts import read_contracts
from mexc_pipeline.exchange.rest import RestRefusedError
from mexc_pipeline.export import main
from mexc_pipeline.export.packed import Packed
from mexc_pipeline.export.parquet import FileWriter, metadata, metadata_in_schema, metadata_of, read_content
from mexc_pipeline.rows import Columns, Frame, Mt
from mexc_pipeline.verify import exports
from support.examples import examples
from support.spools import SECOND, T0, configure, open_spool, some_frames, written

A, B = b'{"symbol":"BTC_USDT","contractSize":0.0001}', b'{"symbol":"BTC_USDT","contractSize":1E-2}'
NONE = b'{"symbol":"BTC_USDT","contractSize":null}'
PUSHED = b'{"channel":"push.contract","data":{"symbol":"BTC_USDT","contractSize":10},"ts":1789498336785}'

SIZES = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal("1e-9"), max_value=10**12, places=10).map(str),
    st.sampled_from(["0", "-1", "null", '"1"', "[]", "1e400", "1e-400", "0.00010", "0.10000000000000000555"]),
)
OBJECTS = st.builds(
    lambda symbol, size, more, space: (
        f'{{"symbol":{space}{json.dumps(symbol)},"x":{json.dumps(more, ensure_ascii=False)},"contractSize":{size}}}'
    ),
    st.sampled_from(["BTC_USDT", "ETH_USDT", "", "Größe"]),
    SIZES,
    st.text(max_size=5),
    st.sampled_from(["", " ", "\n\t"]),
)
JUNK = st.one_of(st.binary(max_size=40), st.sampled_from([b"null", b"1", b'{"symbol":"BTC_USDT"}', b'{"symbol":1}']))
ANSWERS = st.one_of(
    st.lists(st.one_of(OBJECTS.map(str.encode), JUNK), max_size=4).map(
        lambda pieces: b'{"success":true,"code":0,"data":[%s]}' % b",".join(pieces)
    ),
    OBJECTS.map(lambda text: b'{"success":true,"data":%s}' % text.encode()),
    st.binary(max_size=60),
)


def size_of(m: bytes) -> str | None:
    """What JSON reads of a size, told with the json module alone."""
    value: Any = json.loads(m, parse_float=Decimal, parse_int=Decimal).get("contractSize")
    if not isinstance(value, Decimal) or not value or value < 0 or abs(value.adjusted()) > 300:
        return None
    return f"{value:f}"


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(ANSWERS, max_size=4))
def test_the_file_has_the_size_of_the_newest_specification(answers: list[bytes]) -> None:
    """As a recording does: what of each answer is known of the symbol becomes a row, and nothing else does."""
    with tempfile.TemporaryDirectory() as made:
        config = configure(Path(made))
        spool = open_spool(config)
        told: list[bytes] = []
        for n, answer in enumerate(answers):
            try:
                spool.contract = read_contracts(200, answer).specifications.get("BTC_USDT")
            except RestRefusedError:
                spool.contract = None
            if spool.contract is not None and told[-1:] != [spool.contract]:
                told.append(spool.contract)
                assert told[-1] in answer
            spool.append(some_frames(3, T0 + n * SECOND))
        spool.tick(T0 + 10 * SECOND)
        spool.close()
        assert main(config).ok
        report = exports(config)
        assert report.ok, report.lines()
        for path in config.export_dir.glob("*.parquet"):
            held = [m for mt, m in rows_of(path) if mt == "c"]
            assert [m.encode() for m in held] == told
            said = metadata(path)
            assert said.get("contract_size") == (size_of(told[-1]) if told else None)
            assert said.get("rows_c") == (str(len(told)) if told else None)
            assert metadata_in_schema(path) == said


def rows_of(path: Path) -> list[tuple[str, str]]:
    table = pq.read_table(path)
    return list(zip(table["mt"].to_pylist(), table["m"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("rows", "size"),
    [
        ([], None),
        ([A], "0.0001"),
        ([A, B], "0.01"),
        ([A, PUSHED], "10"),
        ([PUSHED, A], "0.0001"),
        ([A, NONE], None),
    ],
)
@pytest.mark.parametrize("read", [1, 2, 4096])
def test_the_newest_row_counts_in_whatever_pieces_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[bytes], size: str | None, read: int
) -> None:
    monkeypatch.setattr("mexc_pipeline.export.parquet.READ_ROWS", read)
    path = tmp_path / "any.parquet"
    texts = [
        (Mt.TICKER, b"Gr\xc3\xb6\xc3\x9fe"),
        *((Mt.CONTRACT, m) for m in rows),
        (Mt.TICKER, b"x"),
        (Mt.EVENT, b"{}"),
    ]
    block = Columns.of((n + 1, n, n, mt, m) for n, (mt, m) in enumerate(texts))
    with path.open("wb") as file:
        writer = FileWriter(file)
        for n in range(0, len(block), 2):
            writer.add(Packed.of(block.slice(n, n + 2)))
        writer.finish(metadata_of(writer))
    assert writer.contract_size == read_content(path).contract_size == metadata(path).get("contract_size") == size


def recorded(folder: Path, *contracts: bytes) -> Any:
    config = configure(folder)
    spool = open_spool(config)
    for n, contract in enumerate(contracts):
        spool.contract = contract
        spool.append(some_frames(3, T0 + n * SECOND))
    spool.tick(T0 + 10 * SECOND)
    spool.close()
    return config


def segment(config: Any) -> Path:
    (path,) = config.spool_dir.glob("btc/*.sqlite")
    assert isinstance(path, Path)
    return path


@pytest.mark.parametrize("says", ["another", "none"])
def test_a_segment_that_does_not_say_where_it_is_has_it_all_the_same(tmp_path: Path, says: str) -> None:
    """Of one that says so wrongly nothing is made."""
    config = recorded(tmp_path, A, B)
    if says == "none":
        written(segment(config), "DELETE FROM meta WHERE key = 'contract_seq'")
    else:
        written(segment(config), "UPDATE meta SET value = '1' WHERE key = 'contract_seq'")
    assert main(config).ok == (says == "none")
    assert [metadata(path)["contract_size"] for path in config.export_dir.glob("*.parquet")] == (
        ["0.01"] if says == "none" else []
    )


@pytest.mark.parametrize(
    ("said", "wrong"),
    [(b"0.01", None), (None, None), (b"0.1", "contract_size 0.1, its rows 0.01"), (b"", "its rows 0.01")],
)
def test_verify_holds_it_against_the_rows(tmp_path: Path, said: bytes | None, wrong: str | None) -> None:
    """A file of before it was said is none the worse."""
    config = recorded(tmp_path, A, B)
    assert main(config).ok
    (path,) = config.export_dir.glob("*.parquet")
    table = pq.read_table(path)
    kept = {key: value for key, value in table.schema.metadata.items() if key != b"mexc.contract_size"}
    changed = {**kept, **({b"mexc.contract_size": said} if said is not None else {})}
    pq.write_table(table.replace_schema_metadata(changed), path, compression="zstd")
    texts = [finding.text for finding in exports(config).findings if "contract_size" in finding.text]
    assert (wrong is None and not texts) or (wrong is not None and len(texts) == 1 and wrong in texts[0])


def test_a_copy_of_the_open_period_has_it_too(tmp_path: Path) -> None:
    config = configure(tmp_path)
    spool = open_spool(config)
    spool.contract = A
    spool.append([Frame(T0, None, Mt.TICKER, b"x")])
    spool.close()
    (tmp_path / "copies").mkdir()
    assert main(config, copy_to=tmp_path / "copies").ok
    (path,) = (tmp_path / "copies").glob("*.parquet")
    assert metadata(path)["contract_size"] == "0.0001"
