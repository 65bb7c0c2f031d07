"""A recording of an hour or a day, its needs sampled and judged: ``python -m soak``."""
