"""For the unit tests: how many examples of a property are tried."""

from __future__ import annotations

from support import examples

__all__ = ["examples"]  # which registers the profile that make unit names, before it is looked for
