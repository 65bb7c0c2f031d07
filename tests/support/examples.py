"""How many examples of a property are tried: fewer by ``make unit``, whatever a test asks for. None has a time limit of
its own: how long one takes says how busy the machine is."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

QUICK = "quick"
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("patient", _PATIENT)
settings.register_profile(QUICK, _PATIENT, max_examples=15)
settings.load_profile("patient")  # until --hypothesis-profile asks for another


def examples(most: int) -> int:
    """For ``max_examples``: so many, or those of the profile ``quick`` where that is in force and has fewer."""
    if settings.get_current_profile_name() != QUICK:
        return most
    return min(most, settings.get_profile(QUICK).max_examples)
