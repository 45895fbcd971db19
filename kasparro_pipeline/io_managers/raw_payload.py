"""Payloads on their way into the database and back: bytes stored once, every delivery recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import psycopg
import sqlalchemy as sa
import zstandard
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.io_managers.retries import retried
from kasparro_pipeline.sources.records import Delivery, Payload
from kasparro_pipeline.warehouse.months import Months, month_of
from kasparro_pipeline.warehouse.tables import checkpoint, delivery, raw_payload, vendor_answer
from kasparro_pipeline.warehouse.tables import payload as payloads

SOURCE_METADATA = "kasparro/source"
"""Metadata key of a raw asset: the source whose payloads it holds; ``csv_*`` stands for every source so called."""

BYTES_AT_ONCE = 4 * 1024 * 1024
"""Payloads without a checkpoint that are held in memory until they commit together."""
ZSTD_LEVEL = 1  # a quarter of the size at a cost that cannot be measured; level 3 saves a tenth more at double time


_WHEN = f"SELECT first_fetched_at FROM {payloads.fullname} WHERE source = %s AND sha256 = %s"  # noqa: S608
_BODY = (
    f"SELECT body, size_bytes FROM {raw_payload.fullname} "  # noqa: S608
    "WHERE source = %s AND sha256 = %s AND first_fetched_at = %s"
)
"""Two queries: one over both tables would be planned for every month that there is."""

Rank = tuple[datetime, str, int]
"""Order of a source's deliveries: when, then partition and position."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A delivery in the database, its body not yet read."""

    source: str
    partition: str
    position: int
    fetched_at: datetime
    sha256: str
    request: str
    first_record: int
    is_last: bool
    """It completed its partition's sweep: the last page, or the last block of a file."""
    source_coin_id: str | None
    """The coin that a history answer is about; None: the payload names its coins."""
    parser_version: str | None
    """By which it was parsed; None: not yet."""
    problem: str | None
    """See `Payload.problem`."""
    is_ascii: bool | None = None
    """See `Payload.is_ascii`; None: nobody has looked."""
    first_observed_at: datetime | None = None
    """Of the observations that were parsed from it, as are the next three; None: there are none, or nobody knows."""
    last_observed_at: datetime | None = None
    first_coin_id: str | None = None
    last_coin_id: str | None = None

    @property
    def rank(self) -> Rank:
        """Of two deliveries that say different things of one key, the higher one counts."""
        return (self.fetched_at, self.partition, self.position)


class Deliveries:
    """What was delivered for some partitions, oldest first; bodies are read one at a time, when asked for."""

    def __init__(self, engine: sa.Engine, source: str, partitions: Iterable[str]) -> None:
        self.source = source
        self._engine = engine
        self._partitions = list(partitions)
        self._last: tuple[str, str, bytes] | None = None

    def __iter__(self) -> Iterator[Kept]:
        with self._engine.connect() as connection:
            return iter(self.those(connection))

    def those(self, connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Kept]:
        """Those of them that fulfil `conditions` on the table ``delivery``, oldest first."""
        ours = delivery.c.partition == sa.any_(sa.literal(self._partitions, sa.ARRAY(sa.Text)))
        return self.find(connection, self._is_ours(), ours, *conditions)

    def find(self, connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Kept]:
        """Deliveries of whatever partitions that fulfil `conditions` on the table ``delivery``, oldest first."""
        columns = [delivery.columns[name] for name in Kept.__dataclass_fields__]
        order = (delivery.c.fetched_at, delivery.c.source, delivery.c.partition, delivery.c.position)
        query = sa.select(*columns).where(*conditions).order_by(*order)
        return [Kept(*row) for row in connection.execute(query)]

    def of_file(self, kept: Kept) -> list[Kept]:
        """The blocks of the file as it was delivered with `kept`."""
        same = [delivery.columns[name] == getattr(kept, name) for name in ("source", "partition", "fetched_at")]
        with self._engine.connect() as connection:
            return self.find(connection, *same)

    def last_blocks(self) -> list[Kept]:
        """What completed each sweep over their partitions, oldest first."""
        with self._engine.connect() as connection:
            return self.those(connection, delivery.c.is_last)

    def body(self, kept: Kept) -> bytes:
        """The bytes as they came; those read last are at hand.

        Raises:
            LookupError: the payload is no longer kept.
        """
        last = self._last  # once, for deliveries are read by two threads
        if last is not None and last[:2] == (kept.source, kept.sha256):
            return last[2]
        body = stored_body(self._engine, kept.source, kept.sha256)
        if body is None:
            raise LookupError(f"payload {kept.sha256} of {kept.source} ({kept.request}) is no longer kept")
        self._last = (kept.source, kept.sha256, body)
        return body

    def read(self, kept: Kept) -> Delivery:
        """The delivery with its body."""
        return Delivery(
            kept.source,
            kept.partition,
            kept.position,
            kept.fetched_at,
            kept.sha256,
            kept.request,
            kept.first_record,
            self.body(kept),
            kept.source_coin_id,
        )

    def _is_ours(self) -> sa.ColumnElement[bool]:
        if self.source.endswith("*"):
            return delivery.c.source.startswith(self.source.removesuffix("*"), autoescape=True)
        return delivery.c.source == self.source


def stored_body(engine: sa.Engine, source: str, sha256: str) -> bytes | None:
    """The bytes of a payload as they came; None: they are not kept, or no longer."""
    with engine.connect() as connection:
        # Binary: as text the bytes are twice as many, and have to be made of it and back.
        driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        when = driver.execute(_WHEN, (source, sha256), binary=True).fetchone()
        row = when and driver.execute(_BODY, (source, sha256, *when), binary=True).fetchone()
    if row is None:
        return None
    body, size = row
    return zstandard.ZstdDecompressor().decompress(body, max_output_size=size)


class RawPayloadIOManager(dg.IOManager):
    """Keeps the payloads an asset yields, in one transaction with their deliveries and the checkpoint behind them.

    Bytes known by their SHA-256 are not stored again; the delivery is recorded all the same. A run that dies after a
    payload with a checkpoint has kept both, so the next run goes on after it. Those without one, as of a file's blocks
    all but the last, commit with those after them.

    The asset's value is an iterable of `Payload`; its metadata names the source under `SOURCE_METADATA`. A downstream
    asset gets `Deliveries` of its partitions.

    Args:
        engine: called once for each output or input.
    """

    def __init__(self, engine: Callable[[], sa.Engine]) -> None:
        self._engine = engine

    def handle_output(self, context: dg.OutputContext, obj: Iterable[Payload]) -> None:
        """Keep the payloads as they come."""
        engine = self._engine()
        deliveries = new = size = 0
        last: Payload | None = None
        with retried(context):
            for together in _together(obj):
                with engine.begin() as connection:
                    new += _keep(connection, together, context.run_id)
                deliveries += len(together)
                size += sum(len(one.body) for one in together)
                last = together[-1]
        context.add_output_metadata(
            {
                "payloads_new": new,
                "payloads_known": deliveries - new,
                "bytes": size,
                **({"last_request": last.request} if last else {}),
            }
        )

    def load_input(self, context: dg.InputContext) -> Deliveries:
        """The deliveries of the partitions that the downstream asset wants."""
        upstream = context.upstream_output
        source = (upstream.definition_metadata if upstream else {}).get(SOURCE_METADATA)
        if source is None:
            raise dg.DagsterInvariantViolationError(
                f"{context.asset_key.to_user_string()} has no metadata {SOURCE_METADATA!r}: name the source there"
            )
        return Deliveries(self._engine(), str(source), context.asset_partition_keys)


def _together(found: Iterable[Payload]) -> Iterator[list[Payload]]:
    """The payloads that commit at once: all up to a checkpoint, unless they are many."""
    together: list[Payload] = []
    for one in found:
        together.append(one)
        if one.checkpoint is not None or sum(len(each.body) for each in together) >= BYTES_AT_ONCE:
            yield together
            together = []
    if together:
        yield together


def _keep(connection: sa.Connection, together: Sequence[Payload], run_id: str) -> int:
    """Store the payloads, their deliveries and their checkpoints; how many of them are new."""
    hashed = [(hashlib.sha256(one.body).hexdigest(), one) for one in together]
    new = _store(connection, {(one.source, sha256): one for sha256, one in reversed(hashed)})
    connection.execute(
        insert(delivery).on_conflict_do_nothing(), [_delivery_row(sha256, one, run_id) for sha256, one in hashed]
    )
    for sha256, one in hashed:
        if one.version is not None:
            said = {
                "request": one.request,
                "sha256": sha256,
                "etag": one.version.etag,
                "last_modified": one.version.last_modified,
            }
            connection.execute(
                insert(vendor_answer)
                .values(source=one.source, position=one.position, **said)
                .on_conflict_do_update(index_elements=["source", "position"], set_=said)
            )
        if one.checkpoint is not None:
            values = {
                "cursor": dict(one.checkpoint.cursor),
                "complete": one.checkpoint.complete,
                "run_id": run_id,
                "updated_at": sa.func.clock_timestamp(),
            }
            connection.execute(
                insert(checkpoint)
                .values(source=one.source, partition=one.partition, **values)
                .on_conflict_do_update(index_elements=["source", "partition"], set_=values)
            )
    return new


def _delivery_row(sha256: str, one: Payload, run_id: str) -> dict[str, Any]:
    return {
        "source": one.source,
        "partition": one.partition,
        "position": one.position,
        "fetched_at": one.fetched_at,
        "sha256": sha256,
        "request": one.request,
        "first_record": one.first_record,
        "is_last": one.checkpoint is not None and one.checkpoint.complete,
        "source_coin_id": one.source_coin_id,
        "run_id": run_id,
        "problem": one.problem,
        "is_ascii": one.is_ascii,
    }


def _store(connection: sa.Connection, found: Mapping[tuple[str, str], Payload]) -> int:
    """Store the bytes that are not stored yet, by source and hash; how many were not."""
    # First: what is found to be stored now may not be pruned before we have said that it came again. And to make a
    # partition, nobody may be writing payloads, not even we.
    months = Months(connection, raw_payload)
    key = (payloads.c.source, payloads.c.sha256)
    stored = connection.execute(sa.select(*key).where(sa.tuple_(*key).in_(list(found))))
    known = {tuple(row) for row in stored}
    # In one order, so that of two who store the same payloads one waits for the other, and not both.
    rows: list[dict[str, Any]] = [
        {"source": source, "sha256": sha256, "first_fetched_at": found[source, sha256].fetched_at}
        for source, sha256 in sorted(found.keys() - known)
    ]
    if not rows:
        return 0
    months.make({month_of(row["first_fetched_at"].astimezone(UTC)) for row in rows})
    statement = insert(payloads).on_conflict_do_nothing().returning(*key)
    new = {tuple(row) for row in connection.execute(statement, rows)}
    bodies = [_body_row(row, found[row["source"], row["sha256"]].body) for row in rows if _key_of(row) in new]
    if bodies:
        connection.execute(sa.insert(raw_payload), bodies)
    return len(bodies)


def _key_of(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["source"], row["sha256"]


def _body_row(row: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    compressed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(body)
    return {**row, "body": compressed, "size_bytes": len(body)}
