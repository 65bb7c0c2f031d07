"""Two minutes of the campaign, in every ``make test``."""

from __future__ import annotations

import json

import pytest

from faults.campaign import run_one
from faults.catalogue import SCENARIOS
from faults.shim import NoCompilerError, library

SEED = 101
SHORT = ("kill", "power", "disk", "clock")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHORT)
def test_a_sample_of_the_campaign(name: str) -> None:
    try:
        library()
    except NoCompilerError as error:
        pytest.fail(str(error))
    result = run_one(next(s for s in SCENARIOS if s.name == name), SEED)
    assert result["tries"] > 0, "nothing was broken: the run shows nothing"
    assert result["ok"], json.dumps(result, indent=1)
