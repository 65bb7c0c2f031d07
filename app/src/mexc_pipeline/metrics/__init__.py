"""What Prometheus may ask of this host: the state of every part as numbers, gathered when it asks."""

from mexc_pipeline.metrics.server import serve

__all__ = ["serve"]
