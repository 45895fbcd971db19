"""What every source has in common: two assets, ``raw`` and ``observations``, and a job over both."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kasparro_pipeline.components.column_lineage import (
    Origins,
    VendorFields,
    lineage_metadata,
    raw_fields,
    vendor_origins,
)
from kasparro_pipeline.components.drift import CHECK, open_drift
from kasparro_pipeline.components.freshness import Freshness
from kasparro_pipeline.io_managers.postgres import TABLE, Load
from kasparro_pipeline.io_managers.raw_payload import SOURCE_METADATA, Deliveries
from kasparro_pipeline.ranges import SOURCE_TAG
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
    raw = dg.AssetKey([name, "raw"])
    return _parsed_asset(
        *(dg.AssetKey([name, "observations"]), raw, partitions, parser_version, parse),
        table=observation,
        origins=vendor_origins(raw, fields),
        group="observations",
        description="What the source said of each coin at each moment; what is no observation is in quarantine.",
    )


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
    raw = dg.AssetKey([name, "raw"])
    return _parsed_asset(
        *(key, raw, partitions, parser_version, parse),
        table=coin_listing,
        origins=vendor_origins(raw, {column: paths for column, paths in fields.items() if column in coin_listing.c}),
        group="lists",
        description="Every coin that the vendor lists, those without a price too; its contracts are in coin_contract.",
    )


def _parsed_asset(  # noqa: PLR0913
    key: dg.AssetKey,
    raw_key: dg.AssetKey,
    partitions: dg.PartitionsDefinition[str],
    parser_version: str,
    parse: Parse,
    *,
    table: sa.Table,
    origins: Origins,
    group: str,
    description: str,
) -> dg.AssetsDefinition:
    """What `parse` makes of the payloads of `raw_key`, in `table`."""

    @dg.asset(
        key=key,
        ins={"raw": dg.AssetIn(key=raw_key)},
        description=description,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="postgres",
        group_name=group,
        kinds={"postgres"},
        code_version=parser_version,
        metadata={TABLE: table.fullname, **lineage_metadata(table, origins)},
    )
    def parsed(context: dg.AssetExecutionContext, raw: Deliveries) -> dg.Output[Load]:
        return dg.Output(parse(context, raw))

    return parsed


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


def source_job(name: str, parsed: dg.AssetKey | None = None) -> UnresolvedAssetJobDefinition:
    """The job over a source's two assets, ``raw`` and `parsed` (its observations), named like the source."""
    selection = dg.AssetSelection.assets([name, "raw"], parsed or dg.AssetKey([name, "observations"]))
    return dg.define_asset_job(name, selection=selection, tags={SOURCE_TAG: name})
