"""Egress: makes the connected socket by the configured way and no other; every step has a deadline."""
