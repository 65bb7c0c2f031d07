"""Export: closed segments become Parquet files, each read back and proven against its segment."""

from mexc_pipeline.export.job import main
from mexc_pipeline.export.report import Exported, ExportReport, Failed

__all__ = ["ExportReport", "Exported", "Failed", "main"]
