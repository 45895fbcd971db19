"""The asset that forgets once a day what is older than the settings say."""

import dagster as dg

from kasparro_pipeline.retention import prune
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.database import current_engine

DAILY = "40 3 * * *"
"""Cron, UTC."""


@dg.asset(
    automation_condition=dg.AutomationCondition.on_cron(DAILY, "UTC"),
    group_name="operations",
    kinds={"postgres"},
    description="Forgets what is old, where a KASPARRO_…_DAYS setting says so, and brings the planner's statistics up "
    "to date. Each materialization tells how many rows of which table were removed.",
)
def retention(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """See `prune`."""
    return dg.MaterializeResult(metadata=prune(current_engine(), context.instance, settings()).as_dict())


@dg.definitions
def defs() -> dg.Definitions:
    """The asset, and the sensor that looks whether its time has come; a time that passed meanwhile counts."""
    daily = dg.AutomationConditionSensorDefinition(
        "retention_daily",
        target=[retention],
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Materializes `retention` once a day.",
    )
    return dg.Definitions(assets=[retention], sensors=[daily])
