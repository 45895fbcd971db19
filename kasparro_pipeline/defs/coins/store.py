"""What identity reads from the tables, and what commits with it: history, the review queue, touched days."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert

from kasparro_pipeline.components.coin_list import list_name
from kasparro_pipeline.identity.coins import Identity, Key, OpenPair, Quote, Ruling, SourceCoin
from kasparro_pipeline.identity.contracts import Claim, evidence_of
from kasparro_pipeline.warehouse.decisions import decisions
from kasparro_pipeline.warehouse.tables import (
    coin,
    coin_contract,
    coin_identity,
    coin_identity_history,
    coin_listing,
    delivery,
    identity_review,
    observation,
    reused_id,
    source_coin,
    unified_assets,
)
from kasparro_pipeline.warehouse.touched import first_open_day, touch_coin

UNLISTED_AFTER_DAYS = 7
"""A vendor without a list that has not spoken of a coin for so long, while it spoke of others, does not list it any
more."""

_IDENTITY = [coin_identity.c[name] for name in Identity.__dataclass_fields__]
_PAIR = ("source", "source_coin_id", "other_source", "other_source_coin_id")


def read_coins(connection: sa.Connection) -> list[SourceCoin]:
    """What the sources call their coins, each with its last quote and its contracts.

    A coin that a vendor lists and has never said anything of is none of them; its contracts are looked at, though: an
    address that it has in common with another coin of the vendor is no evidence of either.
    """
    # Looked up by its key for each coin: joined otherwise, all months would be read.
    quote = sa.select(observation.c.price_usd, observation.c.market_cap_usd)
    quote = quote.where(_of_coin(observation), observation.c.observed_at == source_coin.c.last_seen).offset(0)
    last, was = quote.lateral("last"), _when_joined().subquery()
    contracts = evidence_of(_claims(connection))
    query = (
        sa.select(source_coin, was.c.valid_from, was.c.symbol.label("was_symbol"), was.c.name.label("was_name"))
        .add_columns(last.c.price_usd, last.c.market_cap_usd)
        .outerjoin_from(source_coin, was, _of_coin(was))
        .outerjoin(last, sa.true())
    )
    return [
        SourceCoin(
            row.source,
            row.source_coin_id,
            row.symbol,
            row.name,
            contracts=contracts.get((row.source, row.source_coin_id), {}),
            quote=None if row.price_usd is None else _quote(row),
            first_seen=row.first_seen,
            last_seen=row.last_seen,
            was=(row.was_symbol, row.was_name) if row.valid_from else None,
        )
        for row in connection.execute(query)
    ]


def _claims(connection: sa.Connection) -> list[Claim]:
    """The addresses that the vendors list now."""
    columns = [coin_contract.c[name] for name in Claim._fields]
    return [Claim(*row) for row in connection.execute(sa.select(*columns).where(coin_contract.c.listed))]


def _when_joined() -> sa.Select[Any]:
    """The first row of history in which each source's coin is the coin that it is now."""
    first = coin_identity_history
    return (
        sa.select(first)
        .join(
            coin_identity,
            (coin_identity.c.source == first.c.source)
            & (coin_identity.c.source_coin_id == first.c.source_coin_id)
            & (coin_identity.c.coin_id == first.c.coin_id),
        )
        .ext(distinct_on(first.c.source, first.c.source_coin_id))
        .order_by(first.c.source, first.c.source_coin_id, first.c.valid_from)
    )


def _quote(row: sa.Row[Any]) -> Quote:
    return Quote(row.last_seen.astimezone(UTC).date(), row.price_usd, row.market_cap_usd)


def _of_coin(table: sa.FromClause) -> sa.ColumnElement[bool]:
    return (source_coin.c.source == table.c.source) & (source_coin.c.source_coin_id == table.c.source_coin_id)


def read_identities(connection: sa.Connection) -> dict[Key, Identity]:
    """Which coin each source's coin is so far."""
    found = (Identity(*row) for row in connection.execute(sa.select(*_IDENTITY)))
    return {(identity.source, identity.source_coin_id): identity for identity in found}


def read_rulings(connection: sa.Connection) -> list[Ruling]:
    """The decisions that hold, the latest first."""
    return [
        Ruling(*(getattr(row, name) for name in Ruling.__dataclass_fields__))
        for row in decisions(connection, that_hold=True)
    ]


def after_identity(
    connection: sa.Connection,
    before: Mapping[Key, Identity],
    now: Iterable[Identity],
    reused: Iterable[tuple[Key, Key]] = (),
) -> None:
    """Touch the days of coins that became another one, and drop coins that are none any more.

    An id became another coin from its first observation under the new name on where it was `reused` (see `Matching`),
    and else for all the past: then it was taken for the wrong one.
    """
    since = {key: _reuse(connection, key, stays) for key, stays in reused}
    connection.execute(_VOID)
    past: dict[Key, list[Key]] = {}
    for row in connection.execute(sa.select(reused_id)):
        past.setdefault((row.was_source, row.was_source_coin_id), []).append((row.source, row.source_coin_id))
    for identity in now:
        key = (identity.source, identity.source_coin_id)
        old = before.get(key)
        if old is not None and old.coin_id != identity.coin_id:
            touch_coin(connection, old.coin_id, *key, since.get(key))
            for was_of_it in past.get(key, ()):
                touch_coin(connection, old.coin_id, *was_of_it)
    unused = ~sa.exists().where(coin_identity.c.coin_id == coin.c.coin_id)
    stays = unified_assets.c.day < first_open_day(connection)  # rows that are never made again
    connection.execute(
        sa.delete(coin).where(unused, ~sa.exists().where(unified_assets.c.coin_id == coin.c.coin_id, stays))
    )


_VOID = sa.text(
    """
    DELETE FROM kasparro.reused_id AS r
    USING kasparro.coin_identity AS i, kasparro.coin_identity AS w
    WHERE i.source = r.source AND i.source_coin_id = r.source_coin_id
      AND w.source = r.was_source AND w.source_coin_id = r.was_source_coin_id
      AND i.coin_id = w.coin_id
      AND r.until = (SELECT max(l.until) FROM kasparro.reused_id AS l
                     WHERE l.source = r.source AND l.source_coin_id = r.source_coin_id)
    """
)
"""An id that is again what it was before it was given away was never given away."""


def _reuse(connection: sa.Connection, key: Key, stays: Key) -> datetime | None:
    """Note that this id is another coin's now, and was what `stays` is until then; since when.

    None: no observation with another name is kept, so there is no past that could stay.
    """
    ours = (observation.c.source == key[0], observation.c.source_coin_id == key[1])
    name = sa.select(source_coin.c.name).where(source_coin.c.source == key[0], source_coin.c.source_coin_id == key[1])
    last = sa.select(observation.c.observed_at).where(*ours, observation.c.name != name.scalar_subquery())
    last = last.order_by(observation.c.observed_at.desc()).limit(1)
    until: datetime | None = connection.scalar(
        sa.select(sa.func.min(observation.c.observed_at)).where(
            *ours, observation.c.observed_at > last.scalar_subquery()
        )
    )
    if until is None:
        return None
    was = dict(zip(("was_source", "was_source_coin_id"), stays, strict=True))
    on_us = (reused_id.c.was_source == key[0], reused_id.c.was_source_coin_id == key[1])
    connection.execute(sa.update(reused_id).where(*on_us).values(was))
    before = (reused_id.c.source == key[0], reused_id.c.source_coin_id == key[1])
    since = connection.scalar(sa.select(sa.func.max(reused_id.c.until)).where(*before))
    row = {"source": key[0], "source_coin_id": key[1], "until": until, **was}
    connection.execute(sa.insert(reused_id).values(**row, since=since))
    return until


def write_history(connection: sa.Connection) -> None:
    """Close what does not hold any more and open what does, by what `coin_identity` and `source_coin` say now."""
    history, state = coin_identity_history, _state().subquery()
    told = ("coin_id", "symbol", "name", "listed", "method")
    of_coin = (history.c.source == state.c.source) & (history.c.source_coin_id == state.c.source_coin_id)
    differs = sa.or_(*(history.c[name].is_distinct_from(state.c[name]) for name in told))
    connection.execute(
        sa.update(history).where(history.c.valid_to.is_(None), of_coin, differs).values(valid_to=sa.func.now())
    )
    is_told = sa.exists().where(history.c.valid_to.is_(None), of_coin)
    names = [column.name for column in state.c]
    new = sa.select(state, sa.func.now()).where(~is_told)
    connection.execute(sa.insert(history).from_select([*names, "valid_from"], new))


def _state() -> sa.Select[Any]:
    """Each source's coin as it is now, in columns of `coin_identity_history`; a list knows best of `listed`."""
    newest = (
        sa.select(source_coin.c.source, sa.func.max(source_coin.c.last_seen).label("at"))
        .group_by(source_coin.c.source)
        .subquery()
    )
    in_list, lists = coin_listing, _lists().subquery()
    week = sa.func.make_interval(0, 0, 0, UNLISTED_AFTER_DAYS)
    gone = source_coin.c.last_seen < newest.c.at - week
    is_vendor = ~source_coin.c.source.startswith("csv_", autoescape=True)  # a file of the past is not a delisting
    silent = gone & is_vendor
    # A coin that no list has may be newer than the newest list. A list that is no longer fetched says nothing any more.
    has_list = sa.func.coalesce(lists.c.at >= newest.c.at - week, sa.false())
    by_list = sa.func.coalesce(in_list.c.listed, source_coin.c.last_seen > lists.c.at)
    listed = sa.case((has_list, by_list), else_=~silent)
    return (
        sa.select(*_IDENTITY, source_coin.c.symbol, source_coin.c.name, listed.label("listed"))
        .join(source_coin, _of_coin(coin_identity))
        .join(newest, newest.c.source == source_coin.c.source)
        .outerjoin(in_list, _of_coin(in_list))
        .outerjoin(lists, lists.c.source == source_coin.c.source + list_name(""))
    )


def _lists() -> sa.Select[Any]:
    """When each list was fetched that was read last, by the name it has as a source."""
    return (
        sa.select(delivery.c.source, sa.func.max(delivery.c.fetched_at).label("at"))
        .where(delivery.c.source.endswith(list_name(""), autoescape=True), delivery.c.inserted.is_not(None))
        .group_by(delivery.c.source)
    )


def write_review(connection: sa.Connection, pairs: Iterable[OpenPair]) -> None:
    """Make `identity_review` hold exactly these pairs; one that waits already keeps its number."""
    rows = [asdict(pair) for pair in pairs]
    keys = [tuple(row[name] for name in _PAIR) for row in rows]
    key = sa.tuple_(*(identity_review.c[name] for name in _PAIR))
    waiting = dict.fromkeys(tuple(row) for row in connection.execute(sa.select(*(identity_review.c[n] for n in _PAIR))))
    for gone in waiting.keys() - set(keys):
        connection.execute(sa.delete(identity_review).where(key == sa.tuple_(*gone)))
    if rows:
        statement = insert(identity_review)
        told = ("reason", "confidence", "evidence")
        differs = sa.or_(*(identity_review.c[n].is_distinct_from(statement.excluded[n]) for n in told))
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=list(_PAIR), set_={n: statement.excluded[n] for n in told}, where=differs
            ),
            rows,
        )
