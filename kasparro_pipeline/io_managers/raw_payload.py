"""Payloads on their way into the database and back: bytes stored once, every delivery recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
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
    """Keeps the payloads an asset yields, each in one transaction with its delivery and the checkpoint behind it.

    Bytes known by their SHA-256 are not stored again; the delivery is recorded all the same. A run that dies between
    two payloads has kept the first with its checkpoint, so the next run goes on after it.

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
            for payload in obj:
                with engine.begin() as connection:
                    new += _keep(connection, payload, context.run_id)
                deliveries += 1
                size += len(payload.body)
                last = payload
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


def _keep(connection: sa.Connection, payload: Payload, run_id: str) -> bool:
    """Store the payload, its delivery and its checkpoint; True when its bytes are new."""
    sha256 = hashlib.sha256(payload.body).hexdigest()
    known = sa.select(payloads.c.sha256).where(payloads.c.source == payload.source, payloads.c.sha256 == sha256)
    new = connection.scalar(known) is None and _store(connection, payload, sha256)
    connection.execute(
        insert(delivery)
        .values(
            source=payload.source,
            partition=payload.partition,
            position=payload.position,
            fetched_at=payload.fetched_at,
            sha256=sha256,
            request=payload.request,
            first_record=payload.first_record,
            is_last=payload.checkpoint is not None and payload.checkpoint.complete,
            source_coin_id=payload.source_coin_id,
            run_id=run_id,
            problem=payload.problem,
            is_ascii=payload.is_ascii,
        )
        .on_conflict_do_nothing()
    )
    if payload.version is not None:
        said = {
            "request": payload.request,
            "sha256": sha256,
            "etag": payload.version.etag,
            "last_modified": payload.version.last_modified,
        }
        connection.execute(
            insert(vendor_answer)
            .values(source=payload.source, position=payload.position, **said)
            .on_conflict_do_update(index_elements=["source", "position"], set_=said)
        )
    if payload.checkpoint is not None:
        values = {
            "cursor": dict(payload.checkpoint.cursor),
            "complete": payload.checkpoint.complete,
            "run_id": run_id,
            "updated_at": sa.func.clock_timestamp(),
        }
        connection.execute(
            insert(checkpoint)
            .values(source=payload.source, partition=payload.partition, **values)
            .on_conflict_do_update(index_elements=["source", "partition"], set_=values)
        )
    return new


def _store(connection: sa.Connection, payload: Payload, sha256: str) -> bool:
    # Before anything is written: to make a partition, nobody may be writing payloads, not even we.
    Months(connection, raw_payload).make([month_of(payload.fetched_at.astimezone(UTC))])
    key = {"source": payload.source, "sha256": sha256, "first_fetched_at": payload.fetched_at}
    if connection.execute(insert(payloads).values(key).on_conflict_do_nothing()).rowcount == 0:
        return False
    body = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(payload.body)
    connection.execute(sa.insert(raw_payload).values(**key, body=body, size_bytes=len(payload.body)))
    return True
