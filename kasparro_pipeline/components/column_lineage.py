"""Which column comes from which, for Dagster: derived from the sources' mappings and from what the tables declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg
import sqlalchemy as sa

from kasparro_pipeline.io_managers.postgres import column_schema
from kasparro_pipeline.warehouse.tables import coin_identity, observation, unified_assets

Origins = Mapping[str, Sequence[tuple[dg.AssetKey, str]]]
"""Column to the asset and column, or the vendor's field, that it comes from."""
VendorFields = Mapping[str, Sequence[str]]
"""Column of an observation to the fields of a vendor's record that it is read from."""


def raw_fields(fields: VendorFields) -> dg.TableSchema:
    """What a vendor's records hold that anything is read from."""
    names = dict.fromkeys(name for names in fields.values() for name in names)
    return dg.TableSchema([dg.TableColumn(name, "field of a record") for name in names])


def vendor_origins(raw: dg.AssetKey, fields: VendorFields) -> Origins:
    """Which of the vendor's fields each column is read from."""
    return {column: [(raw, name) for name in names] for column, names in fields.items()}


def unified_origins(observations: Iterable[dg.AssetKey]) -> Origins:
    """Which columns of the sources' observations each column of a unified row is chosen from or made of."""
    keys = list(observations)
    origins: dict[str, list[tuple[dg.AssetKey, str]]] = {}
    for column in unified_assets.columns:
        names = [name for name in column.info.get("from", (column.name,)) if name in observation.columns]
        origins[column.name] = [(key, name) for key in keys for name in names]
        if column.name in coin_identity.columns and column.info.get("compare", True):
            origins[column.name].insert(0, (dg.AssetKey(coin_identity.name), column.name))
    return {name: found for name, found in origins.items() if found}


def lineage_metadata(table: sa.Table, origins: Origins) -> dict[str, dg.TableSchema | dg.TableColumnLineage]:
    """Metadata of an asset's definition: its columns, and where each of them comes from."""
    deps = {column: [dg.TableColumnDep(key, name) for key, name in found] for column, found in origins.items()}
    told = {
        column: ", ".join(f"{key.to_user_string()} {name}" for key, name in found) for column, found in origins.items()
    }
    return {"dagster/column_schema": column_schema(table, told), "dagster/column_lineage": dg.TableColumnLineage(deps)}
