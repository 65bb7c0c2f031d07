"""An engine whose machine has no file handle or thread to give says nothing of a table, or of rows."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mexc_pipeline.store import records
from mexc_pipeline.store.engine import CIRCUMSTANCES, Engine, RefusedError, is_damage

PART = "/data/clickhouse/store/4c2/4c260445-6e0c-4c44-9d36-315d9e399476/data.bin"
WANT = [
    (298, "DB::ErrnoException: Cannot create pipe: , errno: 24, strerror: Too many open files. (CANNOT_PIPE)"),
    (460, "DB::ErrnoException: Cannot create timer_fd descriptor: , errno: 24, strerror: Too many open files."),
    (573, "DB::ErrnoException: Cannot open epoll descriptor: , errno: 23, strerror: Too many open files in system."),
    (76, f"DB::Exception: Cannot open file {PART}: , errno: 24, strerror: Too many open files: While executing Log."),
    (76, f"DB::ErrnoException: Cannot open file {PART * 9}: , errno: 24, strerror: Too many open files."),
    (1001, "std::exception: std::__1::system_error, e.what() = thread constructor failed: Resource temporarily unav"),
]
DAMAGE = [
    (76, f"DB::ErrnoException: Cannot open file {PART}: , errno: 2, strerror: No such file or directory."),
    (40, "DB::Exception: Checksum doesn't match: corrupted data"),
]


@pytest.mark.parametrize(("code", "said"), WANT)
def test_what_the_machine_cannot_give_is_no_damage(code: int, said: str) -> None:
    assert not is_damage(RefusedError(f"Code: {code}. {said}", code))


@pytest.mark.parametrize(("code", "said"), DAMAGE)
def test_what_is_damaged_is_damage(code: int, said: str) -> None:
    assert is_damage(RefusedError(f"Code: {code}. {said}", code))


@pytest.mark.parametrize("code", [298, 460, 573, 439])
def test_what_only_the_machine_is_to_blame_for_blames_no_row(code: int) -> None:
    assert code in CIRCUMSTANCES


def test_a_table_of_records_that_finds_no_handle_is_not_set_apart() -> None:
    executed: list[str] = []

    class Wanting:
        def select(self, _: str) -> Any:
            raise RefusedError(WANT[0][1], WANT[0][0])

        def execute(self, sql: str) -> None:
            executed.append(sql)

    with pytest.raises(RefusedError):
        records.read(cast(Engine, Wanting()), "export_log", "SELECT 1")
    assert executed == []
