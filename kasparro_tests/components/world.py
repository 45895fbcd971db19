"""A warehouse that payloads are put into by hand, and loaded without Dagster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from kasparro_pipeline.components.api_parser import ApiParser, parser_version
from kasparro_pipeline.components.csv_source import CsvParser
from kasparro_pipeline.components.observations import COIN, WRITTEN_BY, ObservationLoad, Parser
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.io_managers.postgres import _merge_all
from kasparro_pipeline.io_managers.raw_payload import Deliveries, _keep, _together
from kasparro_pipeline.sources.csv.reading import CsvReading
from kasparro_pipeline.sources.json_records import JsonMapping
from kasparro_pipeline.sources.records import Checkpoint, Payload
from kasparro_pipeline.warehouse.merge import Merge
from kasparro_pipeline.warehouse.tables import (
    delivery,
    metadata,
    observation,
    quarantine,
    source_coin,
)
from kasparro_tests.sources.samples import CSV

FIRST_DAY = date(2009, 1, 3)
START = datetime(2026, 11, 1, 23, 30, tzinfo=UTC)
MAPPING = JsonMapping(
    {
        "source_coin_id": ("id",),
        "observed_at": ("at",),
        "symbol": ("symbol",),
        "price_usd": ("price",),
        "rank": ("rank",),
    }
)
READING = CsvReading(CSV.with_columns({"observed_at": ("at", *CSV.columns["observed_at"])}))
HEADER = "id,symbol,at,price\n"


def minute(number: int) -> datetime:
    return START + timedelta(minutes=10 * number)


def json_payload(records: Sequence[dict[str, Any]], number: int, source: str = "vendor") -> Payload:
    at = minute(number)
    body = json.dumps(list(records)).encode()
    return Payload(source, at.date().isoformat(), 0, at, body, "https://vendor.test/coins", 1, Checkpoint({}, True))


def csv_payloads(blocks: Sequence[str], number: int, partition: str = "drop/a.csv") -> list[Payload]:
    """A file in these blocks."""
    found, line = [], 1
    for position, block in enumerate(blocks):
        last = Checkpoint({}, True) if position == len(blocks) - 1 else None
        found.append(Payload("csv_drop", partition, position, minute(number), block.encode(), partition, line, last))
        line += block.count("\n")
    return found


class World:
    """One database; `load` keeps payloads and parses what waits in their partitions, as one run."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.mapping = MAPPING
        self.reading = READING
        self._runs = 0

    def load(self, payloads: Iterable[Payload]) -> None:
        payloads = list(payloads)
        self.keep(payloads)
        self.parse({payload.source for payload in payloads}, {payload.partition for payload in payloads})

    def keep(self, payloads: Iterable[Payload]) -> None:
        for together in _together(payloads):
            with self.engine.begin() as connection:
                _keep(connection, together, f"run-{self._runs}")

    def parse(self, sources: Iterable[str], partitions: Iterable[str]) -> None:
        partitions = list(partitions)
        for source in sorted(sources):
            self._runs += 1
            deliveries = Deliveries(self.engine, source, partitions)
            run = SourceRun(lambda: self.engine, f"run-{self._runs}", "a/observations", "p", frozenset([source]))
            load = ObservationLoad(deliveries, self.parser(source, deliveries), run).load()
            try:
                with self.engine.begin() as connection:
                    merge = Merge(connection, observation, group_by=WRITTEN_BY, list_by=COIN)
                    _merge_all(connection, merge, load)
            except KasparroError as error:
                assert load.on_error is not None
                load.on_error(error)
                raise
            assert load.after_commit is not None
            load.after_commit()

    def parser(self, source: str, deliveries: Deliveries) -> Parser:
        if source.startswith("csv_"):
            version = parser_version("csv-test", self.reading.decides)
            return CsvParser(version, self.reading, FIRST_DAY, deliveries)
        return ApiParser(self.mapping, None, FIRST_DAY, deliveries)

    def rows(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        with self.engine.connect() as connection:
            return list(connection.execute(query))

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that has to be the same whatever the order of runs was; digits as they stand there."""
        told = ("source", "payload_sha256", "position", "location", "reason_code", "reason", "record")
        kept = {
            observation: list(observation.c),
            quarantine: [quarantine.columns[name] for name in told],
            source_coin: list(source_coin.c),
        }
        return {
            table.name: sorted(tuple(str(value) for value in row) for row in self.rows(sa.select(*columns)))
            for table, columns in kept.items()
        }

    def clear(self) -> None:
        with self.engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(sa.delete(table))
        self._runs = 0

    def assert_accounts_add_up(self) -> None:
        for row in self.rows(sa.select(delivery)):
            assert row.parser_version is not None
            assert row.records == row.inserted + row.updated + row.unchanged + row.quarantined, row
        inserted = self.rows(sa.select(sa.func.coalesce(sa.func.sum(delivery.c.inserted), 0)))[0][0]
        stored = self.rows(sa.select(sa.func.count()).select_from(observation))[0][0]
        assert stored >= inserted  # a delivery that is parsed again forgets what it inserted the first time
