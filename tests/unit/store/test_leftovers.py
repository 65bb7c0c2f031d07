"""When a database is attached anew because of a file that its server left behind."""

from __future__ import annotations

import pytest

from mexc_pipeline.store.engine import UNKNOWN_TABLE, RefusedError
from mexc_pipeline.store.leftovers import EVERY_S, FORGET_S, STAYS_S, Leftovers, name_of

REFUSED = (
    "DB::ErrnoException. DB::ErrnoException: Cannot open file /var/lib/clickhouse/metadata/ch_mexc/{}.sql.tmp, "
    "errno: {}, strerror: {}. "
)


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def left(now: list[float]) -> Leftovers:
    return Leftovers(lambda: now[0])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (REFUSED.format("btc_next", 17, "File exists"), "btc_next"),
        ("DB::Exception: File not found: /var/lib/clickhouse/metadata/ch_mexc/btc_next.sql.", "btc_next"),
        ("File not found: /srv/c h/metadata/ch_mexc/btc_next.sql, e.what() = File not found", ""),
        ("DB::Exception: File not found: /var/lib/clickhouse/metadata/ch_mexc/btc_next.sql.tmp.", ""),
        ("DB::Exception: File not found: /var/lib/clickhouse/data/ch_mexc/btc_next/data.bin.", ""),
        (REFUSED.format("btc_next", 5, "Input/output error"), ""),
        (REFUSED.format("btc_next", 171, "?"), ""),
        ("Cannot open file /var/lib/clickhouse/data/ch_mexc/btc_next/data.bin, errno: 17, strerror: File exists", ""),
    ],
)
def test_the_name_that_is_refused(text: str, name: str) -> None:
    assert name_of(RefusedError(text, 76)) == name


@pytest.mark.parametrize(
    ("sql", "code", "name"),
    [
        ("DROP TABLE IF EXISTS btc_current", UNKNOWN_TABLE, "btc_current"),
        ("DROP TABLE IF EXISTS btc_current", 57, ""),
        ("DROP TABLE btc_current", UNKNOWN_TABLE, ""),
        ("RENAME TABLE btc_next TO btc_current", UNKNOWN_TABLE, ""),
    ],
)
def test_a_table_that_another_name_is_missed_of(sql: str, code: int, name: str) -> None:
    error = RefusedError("DB::Exception: Table ch_mexc.btc_2026112619 doesn't exist.", code)
    assert name_of(error, sql) == name


def test_a_file_that_goes_by_itself_is_somebodys_work(left: Leftovers, now: list[float]) -> None:
    assert not left.is_due("export_log")
    now[0] += STAYS_S / 2
    assert not left.is_due("export_log")
    now[0] += FORGET_S + 1
    assert not left.is_due("export_log")


def test_a_file_that_stays_is_dealt_with_once_and_not_too_often(left: Leftovers, now: list[float]) -> None:
    assert not left.is_due("btc_next")
    assert not left.is_due("eth_next")
    now[0] += STAYS_S
    assert left.is_due("btc_next")
    assert not left.is_due("eth_next")  # gone with the other
    now[0] += EVERY_S / 2
    assert not left.is_due("btc_next")
    now[0] += EVERY_S / 2
    assert left.is_due("btc_next")
