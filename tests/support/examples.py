"""How many examples of a property are tried: fewer by ``make unit``, whatever a test asks for."""

from __future__ import annotations

from hypothesis import settings

QUICK = "quick"
settings.register_profile(QUICK, max_examples=15)


def examples(most: int) -> int:
    """For ``max_examples``: so many, or those of the profile ``quick`` where that is in force and has fewer."""
    if settings.get_current_profile_name() != QUICK:
        return most
    return min(most, settings.get_profile(QUICK).max_examples)
