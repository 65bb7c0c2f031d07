"""The embedded engine opens wherever the configuration lets it, also where the path looks like something else."""

from __future__ import annotations

import json
from pathlib import Path

from mexc_pipeline import doctor
from mexc_pipeline.config import parse

ODD = "a&config-file=b #%3F'\"`;:,=+@!$*()[]{}<>|~^ üß日本"


def test_every_mark_that_is_allowed_works(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    config = parse(f'data_dir = {json.dumps(str(folder / "data"))}\nexport_dir = "{tmp_path}/exports"', None)
    check = doctor.clickhouse(config)
    assert check.ok, check.line()
    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder], "nothing was made elsewhere"
