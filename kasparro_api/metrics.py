"""What Prometheus scrapes: requests as they were answered, and what the database holds when it asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric

from kasparro_api import queries
from kasparro_api.database import Database, DatabaseUnavailableError, QueryTimeoutError

_BY_SOURCE = {
    "kasparro_source_coins": "Coins a source ever spoke of.",
    "kasparro_source_lag_seconds": "Age of a source's newest observation.",
    "kasparro_source_last_success_age_seconds": "Since a source's last successful run ended.",
    "kasparro_quarantine_records": "Records of a source in quarantine.",
}
_BY_TABLE = "kasparro_table_rows"


class Metrics:
    """The measurements of one service."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._latency = Histogram(
            "kasparro_http_request_seconds",
            "Time to the end of an answer.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._children: dict[tuple[str, str, int], Any] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request; `route` is the pattern, so that there are few."""
        key = (route, method, status)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._latency.labels(*map(str, key))
        child.observe(seconds)

    async def text(self, database: Database) -> bytes:
        """All of it in Prometheus' text format."""
        try:
            async with database.connection() as connection:
                sources = await (await connection.execute(queries.SOURCE_METRICS)).fetchall()
                tables = await (await connection.execute(queries.TABLE_ROWS)).fetchall()
            families = [*_families(sources, tables), _up(1)]
        except (DatabaseUnavailableError, QueryTimeoutError):
            families = [_up(0)]
        registry = CollectorRegistry()
        registry.register(_Collected(families))
        return generate_latest(self._registry) + generate_latest(registry)


class _Collected:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _families(sources: Iterable[tuple[Any, ...]], tables: Iterable[tuple[Any, ...]]) -> list[Metric]:
    by_source = [GaugeMetricFamily(name, told, labels=["source"]) for name, told in _BY_SOURCE.items()]
    for source, *values in sources:
        for family, value in zip(by_source, values, strict=True):
            if value is not None:
                family.add_metric([source], float(value))
    rows = GaugeMetricFamily(_BY_TABLE, "Rows, as PostgreSQL estimates them.", labels=["table"])
    for table, count in tables:
        rows.add_metric([table], float(count))
    return [*by_source, rows]


def _up(value: int) -> Metric:
    return GaugeMetricFamily("kasparro_database_up", "Whether the database answered this scrape.", value)
