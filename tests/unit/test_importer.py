"""Imported files lie apart from proven ones, and one that cannot be used stops none of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mexc_pipeline import importer, read
from mexc_pipeline.cli.app import invoke
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export.parquet import SCHEMA, metadata
from mexc_pipeline.importer import import_files

ROWS = [
    ("2025-08-01T14:00:01.005", "t", "122122.3|122122.3|122133.7|102648627|0.00010000"),
    ("2025-08-01T14:00:02", "d", "122115.1|12|2"),
    ("2025-08-01T14:00:02", "dp", "[122125.8,103673],[122125.7,100518]|[122125.9,110108]"),
    ("2025-08-01T14:59:59.999", "dl", "{'channel': 'push.what'}"),
]


def v4_file(folder: Path, name: str, types: list[Any] | None = None) -> Path:
    path = folder / name
    times, names, texts = zip(*ROWS, strict=True)
    frame = pd.DataFrame(
        {"ts": pd.to_datetime(list(times), format="ISO8601"), "mt": types or list(names), "m": list(texts)}
    )
    pq.write_table(pa.Table.from_pandas(frame), path, compression="snappy")
    return path


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("btc_20250801_1400.parquet", "btc2025080114.parquet"),
        ("btc20250801_14.parquet", "btc2025080114.parquet"),
        ("btc_20250801_1410_debug.parquet", "btc20250801141000.parquet"),
    ],
)
def test_files_are_taken_over_apart_and_marked(tmp_path: Path, name: str, target: str) -> None:
    exports = tmp_path / "exports"
    report = import_files(exports, [v4_file(tmp_path, name)])
    assert report.ok, report.lines()
    path = exports / "imported" / target
    assert [p.name for p in exports.rglob("*.parquet")] == [target]
    assert [p.name for p in path.parent.iterdir()] == [target], "something was left beside it"
    said = metadata(path)
    assert (said["imported"], said["id"], said["imported_from"]) == ("v4", "btc", name)
    assert [said[f"rows_{t}"] for t in ("t", "d", "dp", "dl")] == ["1"] * 4
    table = pq.read_table(path)
    assert table.schema.remove_metadata().equals(SCHEMA)
    assert table.column("rx").null_count == table.column("seq").null_count == 4
    df = read.frames("btc", export_dir=exports, imported=True)
    assert [(m, t) for m, t in zip(df.m, df.mt, strict=True)] == [(m, mt) for _, mt, m in ROWS]
    assert str(df.ts[0]) == "2025-08-01 14:00:01.005000+00:00"
    late = read.frames("btc", "2025-08-01T14:00:02", "2025-08-01T14:59:59", export_dir=exports, imported=True)
    assert list(late.mt) == ["d", "dp"]


def test_imported_files_are_refused_among_proven_ones(tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    import_files(exports, [v4_file(tmp_path, "btc_20250801_1400.parquet")])
    with pytest.raises(UserError, match="no exported files"):
        read.frames("btc", export_dir=exports)
    with pytest.raises(UserError, match="imported file among recorded ones"):
        read.frames("btc", export_dir=exports / "imported")
    with pytest.raises(ConfigError, match="never mixed"):
        import_files(exports, [], to=tmp_path / "exports" / ".." / "exports")


def test_numbers_and_missing_types(tmp_path: Path) -> None:
    numbers = import_files(tmp_path / "a", [v4_file(tmp_path, "btc_20250801_1400.parquet", [1, 2, 3, 4])])
    assert numbers.ok
    assert pq.read_table(tmp_path / "a/imported/btc2025080114.parquet")["mt"].to_pylist() == ["t", "d", "dp", "dl"]
    missing = import_files(tmp_path / "b", [v4_file(tmp_path, "btc_20250801_1400.parquet", [None] * 4)])
    assert [f.untyped for f in missing.files] == [4]
    assert "4 without a type" in missing.lines()[0]


def test_again_is_harmless_and_another_file_is_refused(tmp_path: Path) -> None:
    source = v4_file(tmp_path, "btc_20250801_1400.parquet")
    assert [f.state for f in import_files(tmp_path / "e", [source]).files] == ["written"]
    assert [f.state for f in import_files(tmp_path / "e", [source]).files] == ["present"]
    before = (tmp_path / "e/imported/btc2025080114.parquet").read_bytes()
    v4_file(tmp_path, source.name, ["dl"] * 4)
    report = import_files(tmp_path / "e", [source])
    assert "both are kept" in report.failures[0]
    assert (tmp_path / "e/imported/btc2025080114.parquet").read_bytes() == before


def test_symbol_and_hour_without_a_telling_name(tmp_path: Path) -> None:
    source = v4_file(tmp_path, "old.parquet")
    assert "give --symbol" in import_files(tmp_path / "e", [source]).failures[0]
    assert [f.file for f in import_files(tmp_path / "e", [source], symbol_id="btc").files] == ["btc2025080114.parquet"]


def test_other_files_are_refused_and_do_not_stop_the_rest(tmp_path: Path) -> None:
    junk = tmp_path / "btc_20250801_1300.parquet"
    junk.write_bytes(b"junk")
    other = tmp_path / "btc_20250801_1200.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    wrong = v4_file(tmp_path, "btc_20250801_1100.parquet", ["t", "d", "dp", "zz"])
    good = v4_file(tmp_path, "btc_20250801_1400.parquet")
    report = import_files(tmp_path / "e", [junk, other, wrong, tmp_path / "none.parquet", good])
    assert len(report.failures) == 4
    assert all("\n" not in line for line in report.failures)
    assert [f.source for f in report.files] == [good.name]
    assert report.exit_status == 1


def test_files_that_cannot_be_used_leave_no_folder_behind(tmp_path: Path) -> None:
    bad = tmp_path / "btc_20250801_1400.parquet"
    bad.write_bytes(b"no parquet")
    for to in (None, tmp_path / "to"):
        report = import_files(tmp_path / "exports", [bad, tmp_path / "missing.parquet"], to)
        assert len(report.failures) == 2
        assert [path.name for path in tmp_path.iterdir()] == [bad.name]


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "exports").write_text("")
    good = [v4_file(tmp_path, "btc_20250801_1400.parquet"), v4_file(tmp_path, "btc_20250801_1500.parquet")]
    with pytest.raises(UserError, match="exports is not a folder; move it away"):
        import_files(tmp_path / "exports", good)


def test_a_file_may_have_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    odd = v4_file(tmp_path, "x.parquet").rename(tmp_path / "b\udcff.parquet")
    report = import_files(tmp_path / "exports", [odd], symbol_id="btc")
    assert report.ok, report.lines()
    (made,) = (tmp_path / "exports" / "imported").iterdir()
    assert metadata(made)["imported_from"] == "b\\xff.parquet"


@pytest.mark.parametrize("ts", [10**17, -(10**17), 4 * 10**14, -(10**14)])
def test_a_time_that_names_no_hour_does_not_stop_the_rest(tmp_path: Path, ts: int) -> None:
    table = pa.table({"ts": pa.array([ts], pa.timestamp("ms")), "mt": ["t"], "m": ["1"]})
    pq.write_table(table, tmp_path / "odd.parquet")
    good = v4_file(tmp_path, "btc_20250801_1400.parquet")
    report = import_files(tmp_path / "exports", [tmp_path / "odd.parquet", good], symbol_id="btc")
    assert [f.source for f in report.files] == [good.name]
    (said,) = report.failures
    assert said.startswith(f"{tmp_path / 'odd.parquet'}: ")


def test_whatever_one_file_leads_to_the_next_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd, good = (v4_file(tmp_path, f"btc_20250801_1{n}00.parquet") for n in (3, 4))
    convert = importer._converted

    def fails(source: Path, most: int) -> Any:
        if source == odd:
            raise ZeroDivisionError("not foreseen")
        return convert(source, most)

    monkeypatch.setattr(importer, "_converted", fails)
    report = import_files(tmp_path / "exports", [odd, good])
    assert [f.source for f in report.files] == [good.name]
    assert report.failures == [f"{odd}: it cannot be taken over: ZeroDivisionError: not foreseen"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_a_text_that_is_not_utf8_is_refused_of_whatever_column(tmp_path: Path, kind: Any) -> None:
    path = v4_file(tmp_path, "btc_20250801_1400.parquet")
    table = pq.read_table(path)
    raw = pa.array([b"\xff\xfe", b"a", b"b", b"c"], pa.binary())
    text = raw if kind == pa.binary() else raw.cast(pa.string(), safe=False)
    pq.write_table(
        table.set_column(2, "m", text.dictionary_encode() if pa.types.is_dictionary(kind) else text.cast(kind)), path
    )
    report = import_files(tmp_path / "exports", [path])
    assert not report.files
    assert "does not fit our columns exactly" in report.failures[0]
    assert not (tmp_path / "exports").exists()


def test_a_folder_among_the_files_is_named_and_the_others_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    good = v4_file(tmp_path / "in", "btc_20250801_1400.parquet")
    (tmp_path / "in" / "old").mkdir()
    words = ["import", str(tmp_path / "in" / "old"), str(good), "--to", str(tmp_path / "out")]
    assert invoke(words) == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["btc2025080114.parquet"]
    assert f"{tmp_path}/in/old: not a plain file" in capsys.readouterr().err


def test_a_file_of_thousands_of_columns_is_one_short_line(tmp_path: Path) -> None:
    table = pa.table({f"column_{n}_of_many": pa.array([1]) for n in range(3000)})
    path = tmp_path / "btc2025080114.parquet"
    pq.write_table(table, path)
    (failure,) = import_files(tmp_path / "exports", [path]).failures
    with pytest.raises(UserError, match="not those of an export") as said:
        read.frames("btc", export_dir=tmp_path)
    assert max(len(failure), len(str(said.value))) < 800


def test_an_unknown_row_type_of_a_million_letters_is_one_short_line(tmp_path: Path) -> None:
    path = v4_file(tmp_path, "btc_20250801_1400.parquet", ["t", "d", "dp", "x" * 1_000_000])
    (failure,) = import_files(tmp_path / "exports", [path]).failures
    assert "unknown row type 'xxx" in failure
    assert len(failure) < 800
