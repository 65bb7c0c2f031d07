"""``doctor`` asks a ClickHouse server as the store would, and changes nothing there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mexc_pipeline import doctor
from mexc_pipeline.config import Config, parse
from support.clickhouse_server import ClickHouseServer


@pytest.mark.server
def test_a_server_counts_only_with_the_stores_own_name_and_password(tmp_path: Path) -> None:
    guarded = ClickHouseServer(tmp_path / "server", password="s3cret")
    guarded.start()
    secret = tmp_path / "password"
    secret.touch(0o600)

    def config(more: str = "") -> Config:
        return parse(f'[clickhouse]\nmode = "server"\nport = {guarded.port}\npassword_file = "{secret}"\n{more}', None)

    try:
        secret.write_text("s3cret\n")
        check = doctor.clickhouse(config())
        assert check.ok, check.line()
        assert "version 18.16" in check.text
        databases = guarded.client().execute("SHOW DATABASES")
        assert ("ch_mexc",) not in databases, "an examination makes nothing"
        secret.write_text("wr0ng\n")
        said = [doctor.clickhouse(config()), doctor.clickhouse(config('user = "nobody"'))]
        secret.unlink()
        said += [doctor.clickhouse(config())]
        assert [check.ok for check in said] == [False] * 3
        assert "Wrong password" in said[0].text
        assert "Unknown user nobody" in said[1].text
        assert "password_file" in said[2].text
        for check in said:
            assert "\n" not in check.line()
            assert "wr0ng" not in check.line()
    finally:
        guarded.stop()
