"""The example of docs/postgres_io_manager.md, run as it stands there."""

from __future__ import annotations

import re
from decimal import Decimal
from types import ModuleType

import dagster as dg
import pytest
import sqlalchemy as sa

from kasparro_pipeline.settings import REPOSITORY

RANGE = {"dagster/asset_partition_range_start": "2026-01-01", "dagster/asset_partition_range_end": "2026-01-03"}


@pytest.fixture
def example(database: sa.URL) -> ModuleType:
    """Its code as a module, and its tables."""
    page = REPOSITORY / "docs" / "postgres_io_manager.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    module = ModuleType("example")
    exec(compile(code, page, "exec", dont_inherit=True), module.__dict__)
    with module.engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("shop"))
    module.shop.create_all(module.engine)
    return module


def test_the_example_loads_sums_and_changes_nothing_the_second_time(example: ModuleType) -> None:
    job = example.defs.resolve_implicit_global_asset_job_def()
    counts = []
    for _ in range(2):
        with dg.DagsterInstance.ephemeral() as instance:
            run = job.execute_in_process(tags=RANGE, instance=instance)
            events = run.get_asset_materialization_events()
        metadata = [event.materialization.metadata for event in events if event.partition == "2026-01-01"]
        counts.append([(each["inserted"].value, each["unchanged"].value) for each in metadata])
    assert counts == [[(6, 0), (3, 0)], [(0, 6), (0, 3)]]
    with example.engine.connect() as connection:
        assert set(connection.scalars(sa.select(example.sales_table.c.amount))) == {Decimal("39.83")}
    example.engine.dispose()
