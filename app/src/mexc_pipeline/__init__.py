"""Recorder for MEXC futures market data: every frame spooled, loaded and exported with proof."""

__version__ = "0.1.0"
