"""Kinds of sources: a new source is one defs.yaml that names one of these."""

from kasparro_pipeline.components.api_source import ApiSource
from kasparro_pipeline.components.csv_source import CsvSource

__all__ = ["ApiSource", "CsvSource"]
