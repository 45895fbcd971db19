"""The incidents that are open, and what each channel is still to be told: the diff against what was found before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.alerts.incidents import Incident
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.warehouse.tables import incident, incident_notice

AT_ONCE = 100
"""News that one message tells; the rest goes into the next."""
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=1)
"""Between two tries to deliver; each wait is twice the one before."""


@dataclass(frozen=True, slots=True)
class News:
    """That an incident has opened, or that it is over."""

    id: int
    """The incident's. News may come twice; then it is the same id and `news`."""
    news: str
    """``opened`` or ``recovered``."""
    kind: str
    subject: str
    summary: str
    run_id: str | None
    opened_at: datetime
    """UTC, as is the next."""
    resolved_at: datetime | None


def take_note(connection: sa.Connection, standing: Iterable[Incident], channels: Collection[str]) -> None:
    """Open what is new, resolve what is over, and note what each of `channels` is to be told.

    An incident that goes on changes nothing. A channel is told that an incident is over if it was told that it opened.
    """
    found = {(one.kind, one.subject): one for one in standing}
    is_open = incident.c.resolved_at.is_(None)
    known = {(row.kind, row.subject): row.id for row in connection.execute(sa.select(incident).where(is_open))}
    over = [number for key, number in known.items() if key not in found]
    if over:
        connection.execute(
            sa.update(incident).where(incident.c.id.in_(over)).values(resolved_at=sa.func.clock_timestamp())
        )
        told = incident_notice.c  # what is still to be told of the opening comes in the same message, not after the end
        opened = sa.select(told.incident_id, sa.literal("recovered"), told.channel, told.next_try_at).where(
            told.incident_id.in_(over), told.news == "opened"
        )
        _note(connection, opened)
    for key in found.keys() - known.keys():
        one = found[key]
        values = {"kind": one.kind, "subject": one.subject, "summary": one.summary, "run_id": one.run_id}
        connection.execute(insert(incident).values(values).on_conflict_do_nothing())
    for channel in channels:
        news = (sa.literal("opened"), sa.literal(channel), sa.func.clock_timestamp())
        _note(connection, sa.select(incident.c.id, *news).where(is_open))


def tell(connection: sa.Connection, channel: str, send: Callable[[list[News]], None]) -> str | None:
    """Send what `channel` is to be told and is due; why that failed, in one line, where it did.

    `send` gets all of it at once, in the order in which it happened. Its `KasparroError` means that nothing arrived; it
    is tried again later. What was sent is known once the transaction of `connection` has committed, so a crash in
    between sends it again. Two that tell at the same time do not tell the same.
    """
    due = (
        sa.select(incident, incident_notice.c.news, incident_notice.c.tries)
        .join(incident_notice, incident_notice.c.incident_id == incident.c.id)
        .where(
            incident_notice.c.channel == channel,
            incident_notice.c.sent_at.is_(None),
            incident_notice.c.next_try_at <= sa.func.clock_timestamp(),
        )
        .order_by(incident.c.id, incident_notice.c.news)
        .limit(AT_ONCE)
        .with_for_update(of=incident_notice, skip_locked=True)
    )
    rows = connection.execute(due).mappings().all()
    if not rows:
        return None
    news = [News(**{name: row[name] for name in News.__dataclass_fields__}) for row in rows]
    try:
        send(news)
    except KasparroError as error:
        tries = min(row["tries"] for row in rows)
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(tries, 10))
        failed = {"tries": incident_notice.c.tries + 1, "next_try_at": sa.func.clock_timestamp() + wait}
        _set(connection, channel, news, failed)
        return f"{channel}: {error}; trying again in {wait}"
    _set(connection, channel, news, {"sent_at": sa.func.clock_timestamp()})
    return None


def open_incidents(connection: sa.Connection) -> list[sa.Row[tuple[str, str, str, datetime]]]:
    """Kind, subject, summary and time of opening (UTC) of the open ones, oldest first."""
    columns = (incident.c.kind, incident.c.subject, incident.c.summary, incident.c.opened_at)
    query = sa.select(*columns).where(incident.c.resolved_at.is_(None)).order_by(incident.c.id)
    return list(connection.execute(query))


def _note(connection: sa.Connection, rows: sa.Select[Any]) -> None:
    noted = insert(incident_notice).from_select(["incident_id", "news", "channel", "next_try_at"], rows)
    connection.execute(noted.on_conflict_do_nothing())


def _set(connection: sa.Connection, channel: str, news: list[News], values: dict[str, object]) -> None:
    keys = sa.tuple_(incident_notice.c.incident_id, incident_notice.c.news).in_([(one.id, one.news) for one in news])
    connection.execute(sa.update(incident_notice).where(incident_notice.c.channel == channel, keys).values(**values))
