"""The account of a delivery: what became of its records, to the last one, and those of them that are in quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.io_managers.raw_payload import Kept
from kasparro_pipeline.sources.records import Quarantined
from kasparro_pipeline.warehouse.tables import delivery, quarantine

COUNTS = ("records", "inserted", "updated", "unchanged", "quarantined")


def is_delivery(kept: Kept) -> list[sa.ColumnElement[bool]]:
    """The delivery in its table, by its key."""
    return [delivery.columns[name] == getattr(kept, name) for name in ("source", "partition", "position", "fetched_at")]


def write_account(  # noqa: PLR0913, PLR0917
    connection: sa.Connection,
    kept: Kept,
    version: str,
    run_id: str,
    counts: Mapping[str, int],
    more: Mapping[str, Any],
) -> None:
    """Write by which parser a delivery was parsed, its `counts`, and `more` columns of ``delivery``."""
    if sum(counts.values()) != 2 * counts["records"]:
        raise AssertionError(f"{kept.request}: the account does not add up: {counts}")
    values = {
        "parser_version": version,
        "parsed_at": sa.func.clock_timestamp(),
        "parse_run_id": run_id,
        **more,
        **counts,
    }
    connection.execute(sa.update(delivery).where(*is_delivery(kept)).values(values))


def write_quarantine(
    connection: sa.Connection, kept: Kept, version: str, run_id: str, quarantined: Sequence[Quarantined]
) -> None:
    """Write the payload's quarantined records and no others: what parses now leaves the quarantine."""
    of_payload = (quarantine.c.source == kept.source, quarantine.c.payload_sha256 == kept.sha256)
    positions = [refused.position for refused in quarantined]
    connection.execute(sa.delete(quarantine).where(*of_payload, quarantine.c.position.not_in(positions)))
    if not positions:
        return
    statement = insert(quarantine)
    replaced = ("location", "reason_code", "reason", "record", "parser_version", "run_id")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["source", "payload_sha256", "position"],
            set_={name: statement.excluded[name] for name in replaced},
        ),
        [
            {
                "source": kept.source,
                "payload_sha256": kept.sha256,
                "position": refused.position,
                "location": refused.location,
                "reason_code": refused.reason_code,
                "reason": refused.reason,
                "record": refused.record,
                "parser_version": version,
                "run_id": run_id,
            }
            for refused in quarantined
        ],
    )
