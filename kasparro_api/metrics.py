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
_QUERIES = (
    *(queries.SOURCE_METRICS, queries.OBSERVATIONS_ESTIMATED, queries.TABLE_ROWS),
    *(queries.VENDOR_CALLS, queries.WAITING),
)

Rows = Iterable[tuple[Any, ...]]


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
                found = [await (await connection.execute(query)).fetchall() for query in _QUERIES]
            families = [*_families(*found), _up(1)]
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


def _families(sources: Rows, observations: Rows, tables: Rows, calls: Rows, waiting: Rows) -> list[Metric]:
    by_source = [GaugeMetricFamily(name, told, labels=["source"]) for name, told in _BY_SOURCE.items()]
    for source, *values in sources:
        for family, value in zip(by_source, values, strict=True):
            if value is not None:
                family.add_metric([source], float(value))
    of_source = GaugeMetricFamily(
        "kasparro_source_observations", "Observations of a source, as PostgreSQL estimates them.", labels=["source"]
    )
    for source, count in observations:
        of_source.add_metric([source], float(count))
    rows = GaugeMetricFamily("kasparro_table_rows", "Rows, as PostgreSQL estimates them.", labels=["table"])
    for table, count in tables:
        rows.add_metric([table], float(count))
    return [*by_source, of_source, rows, *_calls(calls), *_waiting(*waiting)]


def _calls(calls: Rows) -> list[Metric]:
    labels = ["source", "period"]
    spent = GaugeMetricFamily("kasparro_vendor_calls", "Calls of this day and month (UTC), tries too.", labels=labels)
    limit = GaugeMetricFamily("kasparro_vendor_calls_limit", "The budget; none where there is none.", labels=labels)
    left = GaugeMetricFamily("kasparro_vendor_calls_left", "Calls that the budget still allows.", labels=labels)
    for source, today, month, per_day, per_month in calls:
        for period, made, allowed in (("day", today, per_day), ("month", month, per_month)):
            spent.add_metric([source, period], float(made))
            if allowed is not None:
                limit.add_metric([source, period], float(allowed))
                left.add_metric([source, period], float(max(allowed - made, 0)))
    return [spent, limit, left]


def _waiting(row: tuple[Any, ...]) -> list[Metric]:
    days, errors, warnings = row
    failed = GaugeMetricFamily("kasparro_failed_checks", "What checks found wrong.", labels=["severity"])
    failed.add_metric(["error"], float(errors))
    failed.add_metric(["warning"], float(warnings))
    return [GaugeMetricFamily("kasparro_days_waiting", "Days touched and not unified yet.", float(days)), failed]


def _up(value: int) -> Metric:
    return GaugeMetricFamily("kasparro_database_up", "Whether the database answered this scrape.", value)
