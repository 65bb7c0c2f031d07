"""Everything on one machine: the supervisor of collectors, store and export, and the account it gives at the end."""

from mexc_pipeline.run.main import run

__all__ = ["run"]
