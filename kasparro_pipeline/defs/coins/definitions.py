"""The coins there are, and which coin each source's coin is."""

from collections.abc import Mapping
from dataclasses import fields

import dagster as dg
import pandas as pd
import sqlalchemy as sa

from kasparro_pipeline.components.all_sources import (
    declared_priorities,
    lists_of_all,
    observations_of_all,
    source_priorities,
)
from kasparro_pipeline.defs.coins import store
from kasparro_pipeline.identity.coins import Identity, Key, SourceCoin, curated_rulings
from kasparro_pipeline.identity.match import identify
from kasparro_pipeline.io_managers.postgres import TABLE, Load, column_schema
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.merge import Merged
from kasparro_pipeline.warehouse.tables import coin, coin_identity


@dg.definitions
def defs(context: dg.ComponentLoadContext) -> dg.Definitions:
    """The assets stand on the observations of every source there is, and on the vendors' lists."""
    deps = [*observations_of_all(context), *lists_of_all(context)]
    return dg.Definitions(assets=[_coins(declared_priorities(context), deps)])


def _coins(declared: dict[str, int], deps: list[dg.AssetDep]) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name="coins",
        outs={
            "coins": _out("coins", coin, "One crypto asset, whatever the sources call it."),
            "coin_identity": _out(
                "coin_identity",
                coin_identity,
                "Which coin each source's coin is, by which method, with what confidence and evidence.",
            ),
        },
        deps=deps,
        group_name="unified",
    )
    def coins() -> tuple[pd.DataFrame, Load]:
        with current_engine().connect() as connection:
            named = store.read_coins(connection)
            before = store.read_identities(connection)
            # what a person says here counts more than what comes with Kasparro
            rulings = [*store.read_rulings(connection), *curated_rulings()]
        matching = identify(named, rulings, source_priorities(declared), before)

        def before_commit(connection: sa.Connection, _: Merged) -> None:
            store.after_identity(connection, before, matching.identities, matching.reused)
            store.write_history(connection)
            store.write_review(connection, matching.open)

        by_key = {source_coin.key: source_coin for source_coin in named}
        rows = Load([_identity_rows(matching.identities)], before_commit=before_commit)
        return _coin_rows(matching.identities, by_key), rows

    return coins


def _out(key: str, table: sa.Table, description: str) -> dg.AssetOut:
    return dg.AssetOut(
        key=key,
        description=description,
        io_manager_key="postgres",
        metadata={TABLE: table.fullname, "dagster/column_schema": column_schema(table)},
        kinds={"postgres"},
        code_version="3",
    )


def _coin_rows(identities: list[Identity], named: Mapping[Key, SourceCoin]) -> pd.DataFrame:
    """One row a coin, named as its first member is."""
    rows: dict[str, tuple[str, str | None, str | None]] = {}
    for identity in identities:
        member = named[identity.source, identity.source_coin_id]
        if identity.coin_id not in rows or rows[identity.coin_id][1] is None:
            rows[identity.coin_id] = (identity.coin_id, member.symbol, member.name)
    return pd.DataFrame(rows.values(), columns=["coin_id", "symbol", "name"], dtype=object)


def _identity_rows(identities: list[Identity]) -> pd.DataFrame:
    columns = [field.name for field in fields(Identity)]
    rows = [tuple(getattr(identity, name) for name in columns) for identity in identities]
    return pd.DataFrame(rows, columns=columns, dtype=object)
