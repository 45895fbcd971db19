"""What is in quarantine, and what has to be parsed again to bring it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from kasparro_pipeline.warehouse.tables import delivery, quarantine


@dataclass(frozen=True, slots=True)
class Held:
    """A record in quarantine."""

    id: int
    source: str
    payload_sha256: str
    position: int
    """The record's place in the payload, from 1; 0: the payload as a whole."""
    location: str
    reason_code: str
    reason: str
    record: str
    """At most 16 KiB of it; bytes that are no text are written as escapes."""
    created_at: datetime
    """UTC."""


def held(connection: sa.Connection, source: str | None, reason_code: str | None, limit: int) -> list[Held]:
    """The newest records in quarantine, newest first."""
    columns = [quarantine.columns[name] for name in Held.__dataclass_fields__]
    query = (
        sa.select(*columns)
        .where(*_chosen(source, reason_code))
        .order_by(quarantine.c.created_at.desc(), quarantine.c.id.desc())
        .limit(limit)
    )
    return [Held(*row) for row in connection.execute(query)]


def held_ids(connection: sa.Connection, source: str | None, reason_code: str | None) -> Sequence[int]:
    """The ids of all of them."""
    return connection.scalars(sa.select(quarantine.c.id).where(*_chosen(source, reason_code))).all()


def still_held(connection: sa.Connection, ids: Sequence[int]) -> int:
    """How many of these are still in quarantine."""
    wanted = sa.literal(list(ids), sa.ARRAY(sa.BigInteger))
    return connection.scalar(sa.select(sa.func.count()).where(quarantine.c.id == sa.any_(wanted))) or 0


def parse_again(connection: sa.Connection, source: str | None, reason_code: str | None) -> None:
    """Let every delivery of the payloads that these records are from wait for a parse.

    Of a payload that was refused as a whole, so do the other blocks of its file, which count for nothing until then.
    """
    refused = delivery.alias()
    from_payload = sa.exists().where(
        quarantine.c.source == delivery.c.source,
        quarantine.c.payload_sha256 == delivery.c.sha256,
        *_chosen(source, reason_code),
    )
    from_file = sa.exists().where(
        refused.c.source == delivery.c.source,
        refused.c.partition == delivery.c.partition,
        refused.c.fetched_at == delivery.c.fetched_at,
        quarantine.c.source == refused.c.source,
        quarantine.c.payload_sha256 == refused.c.sha256,
        quarantine.c.position == 0,
        *_chosen(source, reason_code),
    )
    connection.execute(sa.update(delivery).where(from_payload | from_file).values(parser_version=None))


def _chosen(source: str | None, reason_code: str | None) -> list[sa.ColumnElement[bool]]:
    wanted = ((quarantine.c.source, source), (quarantine.c.reason_code, reason_code))
    return [column == value for column, value in wanted if value is not None]
