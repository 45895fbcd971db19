"""The account of each delivery: records in = inserted + updated + unchanged + quarantined.

It is written with the quarantined records in the transaction that writes the observations, and it tells later whether
the same bytes have to be parsed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.io_managers.raw_payload import Kept
from kasparro_pipeline.sources.records import Quarantined
from kasparro_pipeline.warehouse.tables import delivery, quarantine

COUNTS = ("records", "inserted", "updated", "unchanged", "quarantined")
_EXTENT = ("first_observed_at", "last_observed_at", "first_coin_id", "last_coin_id")
_KEY = ("source", "partition", "position", "fetched_at")
_LEAVES_QUARANTINE = sa.text(
    """
    DELETE FROM kasparro.quarantine AS q
    USING unnest(CAST(:sources AS text[]), CAST(:payloads AS text[]), CAST(:least AS bigint[]))
      AS told (source, payload_sha256, least)
    WHERE q.source = told.source AND q.payload_sha256 = told.payload_sha256 AND q.position >= told.least
      AND (q.source, q.payload_sha256, q.position) NOT IN (
          SELECT * FROM unnest(CAST(:of_sources AS text[]), CAST(:of_payloads AS text[]), CAST(:positions AS bigint[]))
      )
    """
)


@dataclass(slots=True)
class Account:
    """What became of one delivery."""

    kept: Kept
    version: str
    """Of the parser."""
    counts: dict[str, int]
    """By the names of `COUNTS`."""
    extent: dict[str, Any] = field(default_factory=dict)
    """See `extent_of`."""


def is_delivery(kept: Kept) -> list[sa.ColumnElement[bool]]:
    """The delivery in its table, by its key."""
    return [delivery.columns[name] == getattr(kept, name) for name in _KEY]


def write_accounts(connection: sa.Connection, accounts: Iterable[Account], run_id: str) -> None:
    """Write them in their order.

    Raises:
        AssertionError: one does not add up.
    """
    rows = [_row(account) for account in accounts]
    if not rows:
        return
    names = [name for name in rows[0] if not name.startswith("key_")]
    statement = (
        sa.update(delivery)
        .where(*(delivery.columns[name] == sa.bindparam(f"key_{name}") for name in _KEY))
        .values({name: sa.bindparam(name) for name in names})
        .values(parsed_at=sa.func.clock_timestamp(), parse_run_id=run_id)
    )
    connection.execute(statement, rows)


def _row(account: Account) -> dict[str, Any]:
    if sum(account.counts.values()) != 2 * account.counts["records"]:
        raise AssertionError(f"{account.kept.request}: the account does not add up: {account.counts}")
    return {
        **{f"key_{name}": getattr(account.kept, name) for name in _KEY},
        "parser_version": account.version,
        **dict.fromkeys(_EXTENT),
        **account.extent,
        **account.counts,
    }


def write_quarantine(
    connection: sa.Connection,
    found: Iterable[tuple[Account, list[Quarantined]]],
    run_id: str,
    *,
    are_files: bool = False,
) -> None:
    """These payloads' quarantined records and no others: what parses now leaves the quarantine.

    Of files (`are_files`), only the first block says whether the file as a whole is refused: its record 0. A later
    block may be the same bytes.
    """
    found = list(found)
    if not found:
        return
    refused = [
        {
            "source": account.kept.source,
            "payload_sha256": account.kept.sha256,
            "position": record.position,
            "location": record.location,
            "reason_code": record.reason_code,
            "reason": record.reason,
            "record": record.record,
            "parser_version": account.version,
            "run_id": run_id,
        }
        for account, records in found
        for record in records
    ]
    connection.execute(
        _LEAVES_QUARANTINE,
        {
            "sources": [account.kept.source for account, _ in found],
            "payloads": [account.kept.sha256 for account, _ in found],
            "least": [int(are_files and account.kept.position > 0) for account, _ in found],
            "of_sources": [row["source"] for row in refused],
            "of_payloads": [row["payload_sha256"] for row in refused],
            "positions": [row["position"] for row in refused],
        },
    )
    if not refused:
        return
    statement = insert(quarantine)
    replaced = ("location", "reason_code", "reason", "record", "parser_version", "run_id")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["source", "payload_sha256", "position"],
            set_={name: statement.excluded[name] for name in replaced},
        ),
        refused,
    )


def extent_of(observations: pa.Table) -> dict[str, Any]:
    """From when to when, and from which coin to which, the observations are; empty where there are none."""
    if not observations.num_rows:
        return {}
    ends = [pc.min_max(observations.column(name)).as_py() for name in ("observed_at", "source_coin_id")]
    return dict(zip(_EXTENT, [end[side] for end in ends for side in ("min", "max")], strict=True))


def parsed_before(connection: sa.Connection, kept: Kept, version: str) -> Account | None:
    """The account of the same bytes, where parsing them again would say the same and could change nothing.

    It would say something else of quarantined records that now stand elsewhere, or whose day has come. It could change
    something where rows among its own were updated since, or where the bytes were parsed after later ones.
    """
    other = delivery.alias()
    unsettled = sa.exists().where(
        other.c.source == kept.source,
        _may_meet(other.c),
        ((other.c.parsed_at > delivery.c.parsed_at) & (other.c.updated > 0))
        | ((other.c.fetched_at > delivery.c.fetched_at) & (other.c.parsed_at < delivery.c.parsed_at)),
    )
    waits = sa.exists().where(
        quarantine.c.source == kept.source,
        quarantine.c.payload_sha256 == kept.sha256,
        quarantine.c.reason_code == "future_day",
    )
    elsewhere = (delivery.c.request != kept.request) | (delivery.c.first_record != kept.first_record)
    query = (
        sa.select(delivery)
        .where(
            delivery.c.source == kept.source,
            delivery.c.sha256 == kept.sha256,
            delivery.c.parser_version.is_not(None),
        )
        .where(sa.tuple_(*_place(delivery.c)) < sa.tuple_(*map(sa.literal, kept.rank)))
        .order_by(*(column.desc() for column in _place(delivery.c)))
        .limit(1)
        .add_columns(unsettled.label("unsettled"), waits.label("waits"), elsewhere.label("elsewhere"))
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None or row["parser_version"] != version or row["unsettled"]:
        return None
    if row["quarantined"] and (row["waits"] or row["elsewhere"]):
        return None
    unchanged = row["records"] - row["quarantined"]
    counts = dict(zip(COUNTS, (row["records"], 0, 0, unchanged, row["quarantined"]), strict=True))
    return Account(kept, version, counts, {name: row[name] for name in _EXTENT})


def _may_meet(other: Any) -> sa.ColumnElement[bool]:  # noqa: ANN401 - columns of an alias
    """Whether the observations of two deliveries may have a key in common, as far as their extents tell."""
    ours = delivery.c
    apart = sa.or_(
        other.first_observed_at > ours.last_observed_at,
        other.last_observed_at < ours.first_observed_at,
        other.first_coin_id > ours.last_coin_id,
        other.last_coin_id < ours.first_coin_id,
    )
    return apart.is_not(True)


def came_again(connection: sa.Connection, kept: Kept) -> bool:
    """Whether the same bytes were delivered later, in a whole file or answer, and parsed."""
    last = delivery.alias()
    whole = sa.exists().where(
        last.c.source == delivery.c.source,
        last.c.partition == delivery.c.partition,
        last.c.fetched_at == delivery.c.fetched_at,
        last.c.is_last,
    )
    again = sa.exists().where(
        delivery.c.source == kept.source,
        delivery.c.sha256 == kept.sha256,
        delivery.c.parser_version.is_not(None),
        ranked_above(kept),
        whole,
    )
    return bool(connection.scalar(sa.select(again)))


def _place(columns: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - columns of the table or of an alias
    """The columns of a `Rank`."""
    return columns.fetched_at, columns.partition, columns.position


def ranked_above(kept: Kept) -> sa.ColumnElement[bool]:
    """Whether a delivery's rank is higher."""
    return sa.tuple_(*_place(delivery.c)) > sa.tuple_(*map(sa.literal, kept.rank))
