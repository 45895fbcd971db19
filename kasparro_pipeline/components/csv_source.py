"""A folder of CSV drops as two assets: the files' blocks, and the observations in them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
import sqlalchemy as sa

from kasparro_pipeline.components.api_parser import parser_version
from kasparro_pipeline.components.drift import KEY_COLUMNS, Shaped, report_drift
from kasparro_pipeline.components.observations import ObservationLoad
from kasparro_pipeline.components.partitions import ONLY_WAITING, drops
from kasparro_pipeline.components.scaffold import CsvSourceScaffolder
from kasparro_pipeline.components.source_assets import drift_check, observations_asset, raw_asset, source_job
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.components.yaml_types import names_of, read_as
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.io_managers.postgres import Load
from kasparro_pipeline.io_managers.raw_payload import Deliveries, Kept
from kasparro_pipeline.ranges import key_ranges, range_tags
from kasparro_pipeline.settings import settings
from kasparro_pipeline.sources.csv.blocks import file_digest, read_blocks
from kasparro_pipeline.sources.csv.dialect import CsvDialect
from kasparro_pipeline.sources.csv.explain import Explanation, explain
from kasparro_pipeline.sources.csv.formats import read_formats
from kasparro_pipeline.sources.csv.header import CSV_COLUMNS
from kasparro_pipeline.sources.csv.parse import parse_csv
from kasparro_pipeline.sources.csv.reading import CsvReading
from kasparro_pipeline.sources.csv.text import DELIMITERS, records_of, split
from kasparro_pipeline.sources.drops import DROPS, Drop, find_drops, source_of
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.records import ParsedPayload, Payload
from kasparro_pipeline.sources.shape import table_shape
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import checkpoint, delivery

PARSER = "csv-7"
"""Raised by one whenever the code would make other observations of the same bytes."""

SHAPE_RECORDS = 50
"""Of a file, so many records tell the types of its fields."""

SETTLED_NS = 2 * 10**9
"""A file changed more recently may still be written to; the sensor leaves it for its next look."""
HOUR_NS = 3600 * 10**9


_MADE_OF = {
    "pair": ("source_coin_id", "symbol"),
    "symbol": ("symbol", "source_coin_id"),
    "name": ("name", "source_coin_id"),
    "time_of_day": ("observed_at",),
}
"""What is read from a mapped column, where that is not the column of the same name alone."""


@dg.scaffold_with(CsvSourceScaffolder)
class CsvSource(dg.Component, dg.Model, dg.Resolvable):
    """CSV files below ``KASPARRO_DROP_DIR``, one partition a file; each first-level folder is a source of its own.

    ``<name>/raw`` keeps the files in blocks of whole records, ``<name>/observations`` what they say.
    """

    name: str
    priority: int
    """The lower, the sooner the drops' word is taken when sources disagree."""
    columns: Annotated[dict[str, list[str]], names_of(CSV_COLUMNS, dict[str, list[str]])]
    """Column of an observation, ``pair``, ``quote`` or ``time_of_day`` to the header names it may have, best first."""
    formats: Annotated[list[dict[str, Any]], read_as(list[dict[str, Any]], read_formats)] = []
    """How some files are to be read, by their path: see `kasparro_pipeline.sources.csv.formats.CsvFormat`."""

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
        raw = raw_asset(self.name, DROPS, drops(), "CSV files of the drop folder.", self._fetch, fields=fields)
        observations = observations_asset(self.name, drops(), self.parser_version, self._parse, fields=fields)
        return dg.Definitions(
            assets=[raw, observations], asset_checks=[drift_check(self.name, DROPS)], jobs=[job], sensors=[folder]
        )

    def _look(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = time.time_ns()
        due = [drop for drop in due_drops() if drop.changed_ns <= now - SETTLED_NS]
        if not due:
            return dg.SensorResult(skip_reason="no file is new or has changed")
        ranges, added = drop_ranges(context.instance, due)
        changed = max(drop.changed_ns for drop in due)
        attempt = f"{changed}:{attempts_until(now - changed)}"
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=f"{start}:{end}:{attempt}", tags=range_tags(start, end)) for start, end in ranges
            ],
            dynamic_partitions_requests=[drops().build_add_request(added)] if added else [],
        )

    @property
    def reading(self) -> CsvReading:
        """How files are read.

        Raises:
            KasparroError: `columns` or `formats` name something that there is not.
        """
        return CsvReading.of(self.columns, self.formats)

    @property
    def parser_version(self) -> str:
        """By which deliveries are parsed now."""
        return parser_version(PARSER, settings().first_day, self.reading.decides)

    def _fetch(self, context: dg.AssetExecutionContext) -> Iterator[Payload]:
        """The blocks of every file that differs from what was kept; a file that cannot be read does not stop others."""
        found = {drop.partition: drop for drop in find_drops(settings().drop_dir)}
        run = SourceRun.begin(current_engine, context, map(source_of, context.partition_keys))
        failed: dict[str, KasparroError] = {}
        cursors = read_cursors(context.partition_keys)
        for partition in context.partition_keys:
            if partition not in found:
                context.log.warning(f"{partition} is no longer in the drop folder; what was kept of it stays")
                continue
            try:
                yield from changed_blocks(found[partition], cursors.get(partition))
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
        parser = CsvParser(self.parser_version, self.reading, settings().first_day, raw)
        for partition, dialect in parser.dialects().items():
            context.add_asset_metadata({"dialect": dg.JsonMetadataValue(dialect.described())}, partition_key=partition)
        on_drift = partial(report_drift, context, DROPS)
        return ObservationLoad(raw, parser, run, on_drift, only_waiting=ONLY_WAITING in context.run.tags).load()


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
    restates = True

    def __init__(self, version: str, reading: CsvReading, first_day: date, deliveries: Deliveries) -> None:
        self.version = version
        self._reading = reading
        self._first_day = first_day
        self._deliveries = deliveries
        self._dialects: dict[tuple[str, str, datetime], CsvDialect] = {}

    def version_of(self, kept: Kept) -> str:
        """Equal bytes under another header are other records."""
        return f"{self.version}:{self._dialect_of(kept).fingerprint}"

    def shaped(self, kept: Kept) -> Shaped | None:
        """The header of the file that begins with this block, with types and examples of its first records."""
        if kept.position != 0:
            return None
        dialect = self._dialect_of(kept)
        found = _first_rows(self._deliveries.body(kept), dialect)
        if found is None:
            return None
        header, rows = found
        errors = KEY_COLUMNS if dialect.problem else frozenset[str]()
        shape = table_shape(header, rows)
        return Shaped(kept.partition, shape, len(rows), self._column_of, {}, errors, is_file=True)

    def _column_of(self, name: str) -> str | None:
        return next(iter(self._reading.mapping.indexes([name])), None)

    def dialects(self) -> dict[str, CsvDialect]:
        """Partition to the dialect of its newest file, where that is to be parsed."""
        newest = {kept.partition: kept for kept in self._deliveries.last_blocks()}
        return {
            partition: self._dialect_of(kept)
            for partition, kept in newest.items()
            if not (kept.parser_version or "").startswith(self.version)
        }

    def parse(self, kept: Kept) -> ParsedPayload:
        """The block's records."""
        return parse_csv(self._deliveries.read(kept), self._dialect_of(kept), self._first_day)

    def _dialect_of(self, kept: Kept) -> CsvDialect:
        file = (kept.source, kept.partition, kept.fetched_at)
        if file not in self._dialects:
            blocks = self._deliveries.of_file(kept)
            self._dialects[file] = self._reading.dialect(
                *(lambda: map(self._deliveries.body, blocks), kept.request, kept.fetched_at.year, blocks[0].problem),
                beyond_ascii=lambda: map(self._deliveries.body, (block for block in blocks if not block.is_ascii)),
            )
        return self._dialects[file]


def _first_rows(block: bytes, dialect: CsvDialect) -> tuple[Sequence[str], list[list[str]]] | None:
    """The header and some of the first records; None where a file has no header that could be told."""
    if dialect.problem is not None and dialect.problem[0] != "no_known_column":
        return None
    layout = dialect.layout
    text = block.decode(dialect.encoding, "replace").removeprefix("\ufeff")
    header: Sequence[str] = layout.header
    rows = []
    for line, record in islice(records_of(text), layout.header_line + SHAPE_RECORDS):
        try:
            row = split(record, layout.delimiter)
        except RefusedError:
            continue
        if not header:
            header = [name.strip() for name in max((record.rstrip("\r\n").split(d) for d in DELIMITERS), key=len)]
        elif line > layout.header_line and len(row) == len(header):
            rows.append(row)
    return header, rows


def explain_drop(path: Path, now: datetime) -> Explanation:
    """What a file would be read as by the first `CsvSource` there is; one outside the drop folder as one in it.

    Raises:
        KasparroError: the file cannot be read, or there is no `CsvSource`.
    """
    from kasparro_pipeline.definitions import defs  # noqa: PLC0415 - it imports this module

    definitions: dg.Definitions = defs()
    tree = definitions.component_tree
    sources = tree.get_all_components(CsvSource) if tree else []
    if not sources:
        raise KasparroError("no CsvSource in kasparro_pipeline/defs; add one to read CSV drops")
    folder = settings().drop_dir
    request = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
    return explain(path, request, sources[0].reading, settings().first_day, now)


def attempts_until(age_ns: int) -> int:
    """How often a file is tried until it is so old: at once, then after 1, 3, 7, 15 … hours.

    What a run failed by for good, a full disk or a database that was away for long, may have passed.
    """
    return (max(age_ns, 0) // HOUR_NS + 1).bit_length()


def due_drops() -> list[Drop]:
    """The files that are new, have changed, or were kept but not parsed.

    Raises:
        KasparroError: the drop folder cannot be read.
    """
    found = find_drops(settings().drop_dir)
    cursors = read_cursors(drop.partition for drop in found)
    unparsed = sa.select(delivery.c.partition).where(
        delivery.c.source.startswith("csv_", autoescape=True), delivery.c.parser_version.is_(None)
    )
    with current_engine().connect() as connection:
        waiting = set(connection.scalars(unparsed))
    return [drop for drop in found if drop.partition in waiting or not drop.is_known(cursors.get(drop.partition))]


def read_cursors(partitions: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """How far files were read: by partition what their checkpoints say."""
    names = sa.literal(list(partitions), sa.ARRAY(sa.Text))
    query = sa.select(checkpoint.c.partition, checkpoint.c.cursor).where(
        checkpoint.c.source.startswith("csv_", autoescape=True), checkpoint.c.partition == sa.any_(names)
    )
    with current_engine().connect() as connection:
        return {row.partition: row.cursor for row in connection.execute(query)}


def drop_ranges(instance: dg.DagsterInstance, due: Iterable[Drop]) -> tuple[list[tuple[str, str]], list[str]]:
    """The ranges of partitions to run for these files, and the partitions that have to be added first."""
    order = list(instance.get_dynamic_partitions(drops().name or ""))
    wanted = [drop.partition for drop in due]
    added = [partition for partition in wanted if partition not in set(order)]
    return key_ranges(wanted, order + added), added


def changed_blocks(drop: Drop, cursor: Mapping[str, Any] | None) -> Iterator[Payload]:
    """The file's blocks, unless it is what was kept of it: what its checkpoint's `cursor` tells.

    Raises:
        KasparroError: the file cannot be read.
    """
    if cursor and drop.is_known(cursor) and cursor.get("sha256") == file_digest(drop.path):
        return
    yield from read_blocks(
        drop.path,
        source=drop.source,
        partition=drop.partition,
        request=drop.partition,
        fetched_at=datetime.now(UTC),
    )
