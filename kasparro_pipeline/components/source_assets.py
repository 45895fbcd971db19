"""What every source has in common: two assets, ``raw`` and ``observations``, and a job over both."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kasparro_pipeline.components.column_lineage import (
    VendorFields,
    lineage_metadata,
    observation_origins,
    raw_fields,
)
from kasparro_pipeline.components.drift import CHECK, open_drift
from kasparro_pipeline.components.freshness import Freshness
from kasparro_pipeline.io_managers.postgres import TABLE, Load
from kasparro_pipeline.io_managers.raw_payload import SOURCE_METADATA, Deliveries
from kasparro_pipeline.sources.records import Payload
from kasparro_pipeline.warehouse.tables import coin_listing, observation, raw_payload

Fetch = Callable[[dg.AssetExecutionContext], Iterator[Payload]]
Parse = Callable[[dg.AssetExecutionContext, Deliveries], Load]


def raw_asset(  # noqa: PLR0913
    name: str,
    source: str,
    partitions: dg.PartitionsDefinition[str],
    description: str,
    fetch: Fetch,
    *,
    fields: VendorFields,
    freshness: Freshness | None = None,
) -> dg.AssetsDefinition:
    """``<name>/raw``: the payloads that `fetch` yields, kept as they come; `source` may be a pattern like ``csv_*``."""

    @dg.asset(
        key=[name, "raw"],
        description=f"{description} Kept byte for byte, stored once.",
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="raw_payloads",
        freshness_policy=freshness.policy() if freshness else None,
        group_name="raw",
        kinds={"postgres"},
        code_version="1",
        metadata={
            SOURCE_METADATA: source,
            TABLE: raw_payload.fullname,
            "dagster/column_schema": raw_fields(fields),
        },
    )
    def raw(context: dg.AssetExecutionContext) -> dg.Output[Any]:  # Dagster takes no generic type here
        return dg.Output(fetch(context))

    return raw


def observations_asset(
    name: str,
    partitions: dg.PartitionsDefinition[str],
    parser_version: str,
    parse: Parse,
    *,
    fields: VendorFields,
) -> dg.AssetsDefinition:
    """``<name>/observations``: what the payloads say, typed and exact."""
    origins = observation_origins(dg.AssetKey([name, "raw"]), fields)

    @dg.asset(
        key=[name, "observations"],
        ins={"raw": dg.AssetIn(key=[name, "raw"])},
        description="What the source said of each coin at each moment; what is no observation is in quarantine.",
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="postgres",
        group_name="observations",
        kinds={"postgres"},
        code_version=parser_version,
        metadata={TABLE: observation.fullname, **lineage_metadata(observation, origins)},
    )
    def observations(context: dg.AssetExecutionContext, raw: Deliveries) -> dg.Output[Load]:
        return dg.Output(parse(context, raw))

    return observations


def listing_asset(  # noqa: PLR0913
    name: str,
    key: dg.AssetKey,
    partitions: dg.PartitionsDefinition[str],
    parser_version: str,
    parse: Parse,
    *,
    fields: VendorFields,
) -> dg.AssetsDefinition:
    """What the lists kept in ``<name>/raw`` say; `key` is the asset's."""
    raw_key = dg.AssetKey([name, "raw"])
    origins = {
        column: [(raw_key, path) for path in found] for column, found in fields.items() if column in coin_listing.c
    }

    @dg.asset(
        key=key,
        ins={"raw": dg.AssetIn(key=raw_key)},
        description="Every coin that the vendor lists, those without a price too; its contracts are in coin_contract.",
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="postgres",
        group_name="lists",
        kinds={"postgres"},
        code_version=parser_version,
        metadata={TABLE: coin_listing.fullname, **lineage_metadata(coin_listing, origins)},
    )
    def coins(context: dg.AssetExecutionContext, raw: Deliveries) -> dg.Output[Load]:
        return dg.Output(parse(context, raw))

    return coins


def drift_check(name: str, source: str) -> dg.AssetChecksDefinition:
    """Whether the records' fields are as they were learned; `source` may be ``csv_*``."""

    @dg.asset_check(
        asset=[name, "observations"],
        name=CHECK,
        description="The fields of the source's records are as they were learned: none is missing, renamed or retyped.",
    )
    def check() -> dg.AssetCheckResult:
        return open_drift(source)

    return check


def source_job(name: str) -> UnresolvedAssetJobDefinition:
    """The job over a source's two assets, named like the source."""
    return dg.define_asset_job(
        name, selection=dg.AssetSelection.assets([name, "raw"], [name, "observations"]), tags={"kasparro/source": name}
    )
