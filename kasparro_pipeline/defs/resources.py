"""The IO managers that every asset uses, and how runs are executed."""

import dagster as dg

from kasparro_pipeline.io_managers.postgres import PostgresIOManager
from kasparro_pipeline.io_managers.raw_payload import RawPayloadIOManager
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import merge_receipt, metadata


@dg.definitions
def defs() -> dg.Definitions:
    """In-process is the default: a run's steps are short, and a process a step costs three times the time."""
    return dg.Definitions(
        resources={
            "raw_payloads": RawPayloadIOManager(current_engine),
            "postgres": PostgresIOManager(current_engine, metadata, merge_receipt),
        },
        executor=dg.in_process_executor,
    )
