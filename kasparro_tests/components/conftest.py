from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from kasparro_pipeline.warehouse.database import create_engine
from kasparro_tests.components.world import World
from kasparro_tests.conftest import _new_database


@pytest.fixture(scope="module")
def world_engine(server: sa.URL, template: sa.URL) -> Iterator[sa.Engine]:
    with _new_database(server, template.database) as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def world(world_engine: sa.Engine) -> World:
    """An empty warehouse."""
    world = World(world_engine)
    world.clear()
    return world
