"""Where this repository lies: for what is held against its documents, roles and sources."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
