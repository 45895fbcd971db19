"""What Dagster loads: everything below ``defs/``."""

from pathlib import Path

from dagster import Definitions, definitions, load_from_defs_folder

from kasparro_pipeline.dagster_logs import log_alike


@definitions
def defs() -> Definitions:
    """Assets, jobs, schedules, sensors and resources."""
    log_alike()  # also where the storage is not ours: under Dagster's Helm chart
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
