"""The operator's page: what every part of this host says, as tables in a browser that keep themselves up to date."""

from mexc_pipeline.dashboard.server import serve

__all__ = ["serve"]
