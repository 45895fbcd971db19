"""Two databases, row by row, and the accounts of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from kasparro_pipeline.warehouse.tables import (
    checkpoint,
    coin,
    coin_identity,
    delivery,
    observation,
    quarantine,
    raw_payload,
    source_coin,
    touched_day,
    unified_assets,
)

OURS = {"id", "run_id", "created_at", "updated_at", "fetched_at", "first_fetched_at"}
"""Columns that tell of the run and its time, and not of the data."""
TABLES = (raw_payload, observation, quarantine, source_coin, coin, coin_identity, unified_assets)


def differences(calm: sa.Engine, chaotic: sa.Engine, source: str | None = None) -> Iterator[str]:
    """A line for each row that is in one of them alone; of one source's rows, where it is given."""
    for table in TABLES:
        ours, theirs = rows(calm, table, source), rows(chaotic, table, source)
        for row in (ours - theirs).elements():
            yield f"{table.name}: only undisturbed: {row}"
        for row in (theirs - ours).elements():
            yield f"{table.name}: only after kills: {row}"


def rows(engine: sa.Engine, table: sa.Table, source: str | None = None) -> Counter[tuple[object, ...]]:
    """All rows without what is `OURS`, numbers with every digit; of a time of withdrawal, whether there is one."""
    query = sa.select(*[_compared(column) for column in table.columns if column.name not in OURS])
    if source is not None:
        query = query.where(_is_of(table, source))
    with engine.connect() as connection:
        return Counter(map(tuple, connection.execute(query)))


def _is_of(table: sa.Table, source: str) -> sa.ColumnElement[bool]:
    if "source" in table.columns:
        return table.c.source == source
    return table.c.coin_id.in_(sa.select(coin_identity.c.coin_id).where(coin_identity.c.source == source))


def _compared(column: sa.Column[object]) -> sa.ColumnElement[object]:
    if column.name == "withdrawn_at":
        return column.is_not(None).label("withdrawn")
    return sa.func.md5(column) if column.name == "body" else sa.cast(column, sa.Text)


def unaccounted(engine: sa.Engine) -> Iterator[str]:
    """A line for each account that does not add up, and for what was left undone.

    Blocks of a file whose reading was broken off have none for an hour, and need none once it was read to its end.
    """
    counts = ("inserted", "updated", "unchanged", "quarantined")
    adds_up = sum(delivery.c[name] for name in counts) == delivery.c.records
    with engine.connect() as connection:
        for row in connection.execute(sa.select(delivery).where(adds_up.is_not(True), ~_broken_off())):
            yield f"delivery: the account does not add up: {row}"
        observed = ~delivery.c.source.endswith("_list", autoescape=True)  # else it is listings that are counted
        inserted = connection.scalar(sa.select(sa.func.sum(delivery.c.inserted)).where(observed)) or 0
        there = connection.scalar(sa.select(sa.func.count()).select_from(observation))
        if inserted != there:
            yield f"observation: {there} rows, but {inserted} were inserted"
        waiting = connection.scalar(sa.select(sa.func.count()).select_from(touched_day))
        if waiting:
            yield f"touched_day: {waiting} rows left"


def _broken_off() -> sa.ColumnElement[bool]:
    """Whether a delivery is an unparsed block of a reading that never ended, and the file was read whole later."""
    other = delivery.alias()
    whole = sa.exists().where(
        other.c.source == delivery.c.source, other.c.partition == delivery.c.partition, other.c.is_last
    )
    is_file = delivery.c.source.startswith("csv_", autoescape=True)
    same, later = other.c.fetched_at == delivery.c.fetched_at, other.c.fetched_at > delivery.c.fetched_at
    return is_file & delivery.c.parser_version.is_(None) & ~whole.where(same) & whole.where(later)


def over_asked(
    engine: sa.Engine, answered: Mapping[str, int], pages: Mapping[str, int], disturbed: int
) -> Iterator[str]:
    """A line where a vendor was asked more often than pages and interruptions account for.

    Every answer is a delivery, but at most one for each interruption; and a sweep asks for no page twice.
    """
    unkept = 0
    for source, count in answered.items():
        ours = delivery.c.source == source
        with engine.connect() as connection:
            kept = connection.scalar(sa.select(sa.func.count()).where(ours)) or 0
            sweeps = connection.scalar(sa.select(sa.func.count()).where(ours, delivery.c.is_last)) or 0
            unfinished = sa.select(sa.func.count()).where(checkpoint.c.source == source, ~checkpoint.c.complete)
            begun = sweeps + (connection.scalar(unfinished) or 0)
        if not pages[source] * sweeps <= kept <= pages[source] * begun:
            yield f"{source}: {kept} deliveries of {sweeps} sweeps over {pages[source]} pages"
        if count < kept:
            yield f"{source}: {kept} deliveries of {count} answers"
        unkept += count - kept
    if unkept > disturbed:
        yield f"{unkept} answers were asked for again, with {disturbed} interruptions"
