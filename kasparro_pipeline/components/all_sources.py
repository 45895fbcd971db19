"""The sources there are, as the assets see them that stand on all of them."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg
import sqlalchemy as sa

from kasparro_pipeline.alerts.incidents import Watched
from kasparro_pipeline.components.api_source import ApiSource
from kasparro_pipeline.components.csv_source import CsvSource
from kasparro_pipeline.components.freshness import Freshness
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.drops import DROPS
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import source_coin


def declared_priorities(context: dg.ComponentLoadContext) -> dict[str, int]:
    """See `priorities_of`."""
    return priorities_of(*_components(context))


def priorities_of(api: Iterable[ApiSource], files: Iterable[CsvSource]) -> dict[str, int]:
    """What the components say of whose word is taken sooner, by source; of drops by `DROPS`."""
    declared = {source.source: source.priority for source in api}
    for source in files:
        declared[DROPS] = source.priority
    return declared


def observations_of_all(context: dg.ComponentLoadContext) -> list[dg.AssetDep]:
    """The dependency on the observations of every source."""
    api, files = _components(context)
    deps = [dg.AssetDep([source.source, "observations"]) for source in api]
    every_file = dg.AllPartitionMapping()
    return deps + [dg.AssetDep([source.name, "observations"], partition_mapping=every_file) for source in files]


def lists_of_all(context: dg.ComponentLoadContext) -> list[dg.AssetDep]:
    """The dependency on the list of every vendor that has one."""
    api, _ = _components(context)
    return [dg.AssetDep(source.listing.asset_key) for source in api if source.listing]


def observations_and_sources(context: dg.ComponentLoadContext) -> list[tuple[list[str], str]]:
    """The observations of every component, and the SQL pattern of the sources that are in them."""
    api, files = _components(context)
    found = [([source.source, "observations"], source.source) for source in api]
    return found + [([source.name, "observations"], r"csv\_%") for source in files]


def watched_sources(context: dg.ComponentLoadContext) -> list[Watched]:
    """What is expected of every source that has a schedule; drops come when they come."""
    api, _ = _components(context)
    return [watched for source in api for watched in source.watched()]


def soonest_freshness(context: dg.ComponentLoadContext) -> Freshness | None:
    """That of the source that is fetched most often: as fresh must be what stands on all of them."""
    api, _ = _components(context)
    return min((source.expected for source in api), key=lambda expected: expected.fail_minutes, default=None)


def source_priorities(declared: dict[str, int]) -> dict[str, int]:
    """Priority of every source with observations."""
    with current_engine().connect() as connection:
        sources = connection.scalars(sa.select(source_coin.c.source).distinct()).all()
    return {source: declared.get(DROPS if source.startswith("csv_") else source, 1000) for source in sources}


def _components(context: dg.ComponentLoadContext) -> tuple[list[ApiSource], list[CsvSource]]:
    tree = context.component_tree
    files = list(tree.get_all_components(CsvSource))
    if len(files) > 1:
        raise KasparroError(
            f"{', '.join(sorted(source.name for source in files))} are all of type CsvSource, each of which would load "
            "every file of the drop folder; keep one, and say in its `formats` what is different in some folders"
        )
    return list(tree.get_all_components(ApiSource)), files
