"""What the assets that stand on all sources make of the components there are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from kasparro_pipeline.components import ApiSource, CsvSource
from kasparro_pipeline.components.all_sources import declared_priorities, source_priorities
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.warehouse.tables import source_coin
from kasparro_tests.warehouse.market import at


def priorities(sandbox: DefsFolderSandbox) -> dict[str, int]:
    with sandbox.build_component_tree() as tree:
        context: Any = SimpleNamespace(component_tree=tree)
        return declared_priorities(context)


def test_every_folder_of_drops_has_their_priority_whatever_they_are_called(engine: sa.Engine) -> None:
    with create_defs_folder_sandbox() as sandbox:
        for component, name in ((ApiSource, "vendor"), (CsvSource, "our_files")):
            sandbox.scaffold_component(component, name)
        declared = priorities(sandbox)
    seen = {"source_coin_id": "a", "symbol": "A", "first_seen": at(), "last_seen": at()}
    with engine.begin() as connection:
        named = [{"source": source, **seen} for source in ("vendor", "csv_desk", "csv_drops", "gone")]
        connection.execute(sa.insert(source_coin), named)
    assert source_priorities(declared) == {"vendor": 50, "csv_desk": 90, "csv_drops": 90, "gone": 1000}


def test_two_that_would_load_the_same_files_are_refused() -> None:
    with create_defs_folder_sandbox() as sandbox:
        for name in ("ours", "theirs"):
            sandbox.scaffold_component(CsvSource, name)
        with pytest.raises(KasparroError, match="ours, theirs are all of type CsvSource"):
            priorities(sandbox)
