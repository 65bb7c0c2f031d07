"""Two minutes of the campaign, in every ``make test``."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import Any

import pytest

from faults.campaign import run_one
from faults.catalogue import SCENARIOS
from faults.scenarios import clock, crashes, disk, slow
from faults.shim import NoCompilerError, library
from support import needs

SEED = 101
SIZE = 0.4
SHORT: dict[str, Any] = {
    "kill": crashes.kills,
    "power": crashes.power,
    "disk": disk.disk,
    "clock": clock.clock,
    "slow": slow.slow,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHORT)
def test_a_sample_of_the_campaign(name: str) -> None:
    try:
        library()
    except NoCompilerError as error:
        needs.missing(str(error))
    whole = next(s for s in SCENARIOS if s.name == name)
    result = run_one(dataclasses.replace(whole, run=partial(SHORT[name], size=SIZE)), SEED)
    assert result["tries"] > 0, "nothing was broken: the run shows nothing"
    assert result["ok"], json.dumps(result, indent=1)
