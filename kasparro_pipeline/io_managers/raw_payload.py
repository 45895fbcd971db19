"""Payloads on their way into the database and back: bytes stored once, every delivery recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
import sqlalchemy as sa
import zstandard
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.sources.records import Delivery, Payload
from kasparro_pipeline.warehouse.tables import checkpoint, delivery, raw_payload, vendor_answer

SOURCE_METADATA = "kasparro/source"
"""Metadata key of a raw asset: the source whose payloads it holds; ``csv_*`` stands for every source so called."""

ZSTD_LEVEL = 1  # a quarter of the size at a cost that cannot be measured; level 3 saves a tenth more at double time


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


class Deliveries:
    """What was delivered for some partitions, oldest first; bodies are read one at a time, when asked for."""

    def __init__(self, engine: sa.Engine, source: str, partitions: Iterable[str]) -> None:
        self.source = source
        self._engine = engine
        self._partitions = list(partitions)

    def __iter__(self) -> Iterator[Kept]:
        columns = [delivery.columns[name] for name in Kept.__dataclass_fields__]
        query = (
            sa.select(*columns)
            .where(self._is_ours(), delivery.c.partition == sa.any_(sa.literal(self._partitions, sa.ARRAY(sa.Text))))
            .order_by(delivery.c.fetched_at, delivery.c.source, delivery.c.partition, delivery.c.position)
        )
        with self._engine.connect() as connection:
            return iter([Kept(*row) for row in connection.execute(query)])

    def body(self, kept: Kept) -> bytes:
        """The bytes as they came.

        Raises:
            LookupError: the payload is no longer kept.
        """
        body = stored_body(self._engine, kept.source, kept.sha256)
        if body is None:
            raise LookupError(f"payload {kept.sha256} of {kept.source} ({kept.request}) is no longer kept")
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
    query = sa.select(raw_payload.c.body, raw_payload.c.size_bytes).where(
        raw_payload.c.source == source, raw_payload.c.sha256 == sha256
    )
    with engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return zstandard.ZstdDecompressor().decompress(row.body, max_output_size=row.size_bytes)


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
    known = sa.select(raw_payload.c.sha256).where(
        raw_payload.c.source == payload.source, raw_payload.c.sha256 == sha256
    )
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
    stored = connection.execute(
        insert(raw_payload)
        .values(
            source=payload.source,
            sha256=sha256,
            body=zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(payload.body),
            size_bytes=len(payload.body),
            first_fetched_at=payload.fetched_at,
        )
        .on_conflict_do_nothing()
    )
    return stored.rowcount == 1
