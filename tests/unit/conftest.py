"""For the unit tests: how many examples of a property are tried."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("quick", max_examples=15)
