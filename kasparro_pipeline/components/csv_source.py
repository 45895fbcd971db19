"""A folder of CSV drops as two assets: the files' blocks, and the observations in them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import sqlalchemy as sa

from kasparro_pipeline.components.api_source import parser_version
from kasparro_pipeline.components.observations import ObservationLoad
from kasparro_pipeline.components.partitions import drops, key_ranges, range_tags
from kasparro_pipeline.components.source_assets import observations_asset, raw_asset, source_job
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.io_managers.postgres import Load
from kasparro_pipeline.io_managers.raw_payload import Deliveries, Kept
from kasparro_pipeline.settings import settings
from kasparro_pipeline.sources.csv_blocks import file_digest, read_blocks
from kasparro_pipeline.sources.csv_dialect import CsvDialect, CsvMapping, read_dialect
from kasparro_pipeline.sources.csv_records import parse_csv
from kasparro_pipeline.sources.drops import Drop, find_drops, source_of
from kasparro_pipeline.sources.records import ParsedPayload, Payload
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import checkpoint, delivery

PARSER = "csv-1"
"""Raised by one whenever the code would make other observations of the same bytes."""

SETTLED_SECONDS = 2.0
"""A file changed more recently may still be written to; the sensor leaves it for its next look."""


_MADE_OF = {
    "pair": ("source_coin_id", "symbol"),
    "symbol": ("symbol", "source_coin_id"),
    "name": ("name", "source_coin_id"),
    "time_of_day": ("observed_at",),
}
"""What is read from a mapped column, where that is not the column of the same name alone."""


class CsvSource(dg.Component, dg.Model, dg.Resolvable):
    """CSV files below ``KASPARRO_DROP_DIR``, one partition a file; each first-level folder is a source of its own.

    ``<name>/raw`` keeps the files in blocks of whole records, ``<name>/observations`` what they say.
    """

    name: str
    priority: int
    """The lower, the sooner the drops' word is taken when sources disagree."""
    columns: dict[str, list[str]]
    """Column of an observation to the header names it may have, best first; also ``pair`` and ``time_of_day``."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002 - Dagster's signature
        """The two assets, a job over both, and the sensor that watches the folder."""
        job = source_job(self.name)

        @dg.sensor(
            name=f"{self.name}_folder",
            job=job,
            minimum_interval_seconds=15,
            default_status=dg.DefaultSensorStatus.RUNNING,
            description="Loads files that are new in the drop folder or have changed.",
        )
        def folder(context: dg.SensorEvaluationContext) -> dg.SensorResult:
            return self._look(context)

        fields = vendor_fields(self.columns)
        raw = raw_asset(self.name, "csv_*", drops(), "CSV files of the drop folder.", self._fetch, fields=fields)
        observations = observations_asset(self.name, drops(), self.parser_version, self._parse, fields=fields)
        return dg.Definitions(assets=[raw, observations], jobs=[job], sensors=[folder])

    def _look(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        newest = time.time_ns() - int(SETTLED_SECONDS * 1e9)
        due = [drop for drop in due_drops() if drop.mtime_ns <= newest]
        if not due:
            return dg.SensorResult(skip_reason="no file is new or has changed")
        ranges, added = drop_ranges(context.instance, due)
        fingerprint = max(drop.mtime_ns for drop in due)
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=f"{start}:{end}:{fingerprint}", tags=range_tags(start, end))
                for start, end in ranges
            ],
            dynamic_partitions_requests=[drops().build_add_request(added)] if added else [],
        )

    @property
    def parser_version(self) -> str:
        """By which deliveries are parsed now."""
        return self._parser().version

    def _fetch(self, context: dg.AssetExecutionContext) -> Iterator[Payload]:
        """The blocks of every file that differs from what was kept; a file that cannot be read does not stop others."""
        found = {drop.partition: drop for drop in find_drops(settings().drop_dir)}
        run = SourceRun.begin(current_engine, context, map(source_of, context.partition_keys))
        failed: dict[str, KasparroError] = {}
        for partition in context.partition_keys:
            if partition not in found:
                context.log.warning(f"{partition} is no longer in the drop folder; what was kept of it stays")
                continue
            try:
                yield from _changed_blocks(found[partition])
            except KasparroError as error:
                failed[partition] = error
        for partition, reason in failed.items():
            run.failed(reason, [source_of(partition)])
        with current_engine().begin() as connection:
            run.without(map(source_of, failed)).succeeded(connection)
        if failed:
            raise KasparroError("; ".join(map(str, failed.values())))

    def _parse(self, context: dg.AssetExecutionContext, raw: Deliveries) -> Load:
        run = SourceRun.begin(current_engine, context, map(source_of, context.partition_keys))
        return ObservationLoad(current_engine, raw, self._parser(raw), run).load()

    def _parser(self, deliveries: Deliveries | None = None) -> CsvParser:
        mapping = CsvMapping({column: tuple(names) for column, names in self.columns.items()})
        return CsvParser(mapping, settings().first_day, deliveries)


def vendor_fields(columns: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The header names that each column of an observation may be read from."""
    fields: dict[str, list[str]] = {}
    for column, names in columns.items():
        for made in _MADE_OF.get(column, (column,)):
            fields[made] = list(dict.fromkeys([*fields.get(made, []), *names]))
    return fields


class CsvParser:
    """Parses blocks of CSV files, each by the dialect of the file it belongs to."""

    uses_fetched_at = False

    def __init__(self, mapping: CsvMapping, first_day: date, deliveries: Deliveries | None) -> None:
        self.version = parser_version(PARSER, first_day, sorted(mapping.columns.items()))
        self._mapping = mapping
        self._first_day = first_day
        self._deliveries = deliveries
        self._file: tuple[str, str, datetime] | None = None
        self._dialect = CsvDialect()
        self._all = list(deliveries or ())

    def version_of(self, kept: Kept) -> str:
        """Equal bytes under another header are other records."""
        return f"{self.version}:{self._dialect_of(kept).fingerprint}"

    def is_whole(self, kept: Kept) -> bool:
        """False for the blocks of a file that changed, or could not be read on, before its last one."""
        file = (kept.source, kept.partition, kept.fetched_at)
        return any(other.is_last and (other.source, other.partition, other.fetched_at) == file for other in self._all)

    def parse(self, kept: Kept) -> ParsedPayload:
        """The block's records."""
        assert self._deliveries is not None  # noqa: S101 - made without deliveries only to ask for its version
        return parse_csv(self._deliveries.read(kept), self._dialect_of(kept), self._first_day)

    def _dialect_of(self, kept: Kept) -> CsvDialect:
        file = (kept.source, kept.partition, kept.fetched_at)
        if self._file != file:
            self._dialect = read_dialect(self._blocks(file), self._mapping, kept.request)
            self._file = file
        return self._dialect

    def _blocks(self, file: tuple[str, str, datetime]) -> Iterator[bytes]:
        assert self._deliveries is not None  # noqa: S101 - see parse
        for kept in self._all:
            if (kept.source, kept.partition, kept.fetched_at) == file:
                yield self._deliveries.body(kept)


def due_drops() -> list[Drop]:
    """The files that are new, have changed, or were kept but not parsed.

    Raises:
        KasparroError: the drop folder cannot be read.
    """
    found = find_drops(settings().drop_dir)
    partitions = sa.literal([drop.partition for drop in found], sa.ARRAY(sa.Text))
    finished = sa.select(checkpoint.c.partition, checkpoint.c.cursor).where(
        checkpoint.c.source.startswith("csv_", autoescape=True), checkpoint.c.partition == sa.any_(partitions)
    )
    unparsed = sa.select(delivery.c.partition).where(
        delivery.c.source.startswith("csv_", autoescape=True), delivery.c.parser_version.is_(None)
    )
    with current_engine().connect() as connection:
        cursors: dict[str, Any] = {row.partition: row.cursor for row in connection.execute(finished)}
        waiting = set(connection.scalars(unparsed))
    return [drop for drop in found if drop.partition in waiting or not drop.is_known(cursors.get(drop.partition))]


def drop_ranges(instance: dg.DagsterInstance, due: Iterable[Drop]) -> tuple[list[tuple[str, str]], list[str]]:
    """The ranges of partitions to run for these files, and the partitions that have to be added first."""
    order = list(instance.get_dynamic_partitions(drops().name or ""))
    wanted = [drop.partition for drop in due]
    added = [partition for partition in wanted if partition not in set(order)]
    return key_ranges(wanted, order + added), added


def _changed_blocks(drop: Drop) -> Iterator[Payload]:
    query = sa.select(checkpoint.c.cursor).where(
        checkpoint.c.source == drop.source, checkpoint.c.partition == drop.partition
    )
    with current_engine().connect() as connection:
        cursor = connection.scalar(query)
    if cursor and drop.is_known(cursor) and cursor.get("sha256") == file_digest(drop.path):
        return
    yield from read_blocks(
        drop.path,
        source=drop.source,
        partition=drop.partition,
        request=drop.partition,
        fetched_at=datetime.now(UTC),
    )
