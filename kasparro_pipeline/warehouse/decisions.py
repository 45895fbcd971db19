"""What waits for a person, and what persons have decided about two coins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.warehouse.tables import (
    coin_identity,
    identity_decision,
    identity_review,
)
from kasparro_pipeline.warehouse.touched import touch_coin

SAME, DIFFERENT = "same", "different"


@dataclass(frozen=True, slots=True)
class Coins:
    """Two coins as their sources call them."""

    source: str
    source_coin_id: str
    other_source: str
    other_source_coin_id: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A word on two coins: ``same``, ``different`` or ``renamed``."""

    ruling: str
    coins: Coins
    who: str
    why: str


def open_pairs(connection: sa.Connection, limit: int | None = None) -> Sequence[sa.Row[Any]]:
    """The rows of `identity_review`, the likeliest first."""
    query = sa.select(identity_review).order_by(identity_review.c.confidence.desc(), identity_review.c.id)
    return connection.execute(query.limit(limit)).all()


def open_pair(connection: sa.Connection, number: int) -> Coins:
    """The pair that waits under this number.

    Raises:
        KasparroError: none does.
    """
    columns = (identity_review.c[name] for name in Coins.__dataclass_fields__)
    row = connection.execute(sa.select(*columns).where(identity_review.c.id == number)).one_or_none()
    if row is None:
        raise KasparroError(f"nothing waits under number {number}; `kasparro identity review` lists what does")
    return Coins(*row)


def others_of(connection: sa.Connection, source: str, source_coin_id: str) -> list[Coins]:
    """The coin with each of the others that are taken for the same.

    Raises:
        KasparroError: there is no such coin, or it stands alone.
    """
    own = coin_identity.alias()
    same = sa.select(coin_identity.c.source, coin_identity.c.source_coin_id).join(
        own, coin_identity.c.coin_id == own.c.coin_id
    )
    same = same.where(own.c.source == source, own.c.source_coin_id == source_coin_id)
    found = sorted((row.source, row.source_coin_id) for row in connection.execute(same))
    if len(found) < 2:
        told = "stands alone already" if found else "is no coin of any source; write SOURCE:ID"
        raise KasparroError(f"{source}:{source_coin_id} {told}")
    return [Coins(*other, source, source_coin_id) for other in found if other != (source, source_coin_id)]


def decide(connection: sa.Connection, decision: Decision) -> int:
    """Keep a decision and touch the days of both coins; its number."""
    coins = decision.coins
    values = {name: getattr(coins, name) for name in Coins.__dataclass_fields__}
    statement = sa.insert(identity_decision).values(
        ruling=decision.ruling, who=decision.who, why=decision.why, decided_at=sa.func.clock_timestamp(), **values
    )
    number: int = connection.execute(statement.returning(identity_decision.c.id)).scalar_one()
    either_way = sa.or_(
        *(
            sa.and_(*(identity_review.c[name] == value for name, value in told.items()))
            for told in (values, _turned(values))
        )
    )
    connection.execute(sa.delete(identity_review).where(either_way))
    _touch(connection, coins)
    return number


def undo(connection: sa.Connection, number: int, who: str, why: str) -> None:
    """Take a decision back and touch the days of its coins; it stays on record.

    Raises:
        KasparroError: there is none of this number, or it is undone already.
    """
    row = connection.execute(sa.select(identity_decision).where(identity_decision.c.id == number)).one_or_none()
    if row is None or row.undone_at is not None:
        told = "is no decision" if row is None else f"was undone at {row.undone_at:%Y-%m-%d %H:%M} by {row.undone_by}"
        raise KasparroError(f"{number} {told}; `kasparro identity decisions` lists them")
    connection.execute(
        sa.update(identity_decision)
        .where(identity_decision.c.id == number)
        .values(undone_at=sa.func.clock_timestamp(), undone_by=who, undone_why=why)
    )
    _touch(connection, Coins(row.source, row.source_coin_id, row.other_source, row.other_source_coin_id))


def decisions(connection: sa.Connection, *, that_hold: bool) -> Sequence[sa.Row[Any]]:
    """The rows of `identity_decision`, the latest first; `that_hold`: without those undone."""
    query = sa.select(identity_decision).order_by(identity_decision.c.id.desc())
    if that_hold:
        query = query.where(identity_decision.c.undone_at.is_(None))
    return connection.execute(query).all()


def _turned(values: dict[str, Any]) -> dict[str, Any]:
    names = list(Coins.__dataclass_fields__)
    return {name: values[other] for name, other in zip(names, names[2:] + names[:2], strict=True)}


def _touch(connection: sa.Connection, coins: Coins) -> None:
    """Say that `unified_assets` has to be made again for the days of these coins; a source may hold ``*``."""
    for source, source_coin_id in (
        (coins.source, coins.source_coin_id),
        (coins.other_source, coins.other_source_coin_id),
    ):
        pattern = source.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")
        of_coin = coin_identity.c.source.like(pattern) & (coin_identity.c.source_coin_id == source_coin_id)
        query = sa.select(coin_identity.c.coin_id, coin_identity.c.source).where(of_coin)
        for coin_id, of_source in connection.execute(query).all():
            touch_coin(connection, coin_id, of_source, source_coin_id)
