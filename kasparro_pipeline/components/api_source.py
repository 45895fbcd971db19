"""A vendor's API as two assets: its payloads, and the observations in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from kasparro_pipeline.components.observations import ObservationLoad
from kasparro_pipeline.components.partitions import daily, today
from kasparro_pipeline.components.source_assets import observations_asset, raw_asset, source_job
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.io_managers.postgres import Load
from kasparro_pipeline.io_managers.raw_payload import Deliveries, Kept
from kasparro_pipeline.settings import Settings, settings
from kasparro_pipeline.sources.api import ApiSpec, PageNumbers, Sweep, fetch_pages
from kasparro_pipeline.sources.http import RequestPolicy, VendorClient
from kasparro_pipeline.sources.json_records import JsonMapping, parse_json
from kasparro_pipeline.sources.records import ParsedPayload, Payload
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import checkpoint

PARSER = "json-1"
"""Raised by one whenever the code would make other observations of the same bytes."""

RESUME_WITHIN = timedelta(hours=1)
"""An unfinished sweep older than this is begun anew: ranks have moved, so its pages no longer fit together."""


class Paging(dg.Model, dg.Resolvable):
    """Paging by number, from 1; a page with fewer than `size` records is the last."""

    size: int = Field(gt=0)
    page_param: str = "page"
    size_param: str = "per_page"


class ApiSource(dg.Component, dg.Model, dg.Resolvable):
    """A vendor's snapshot of all its coins, fetched many times a day.

    ``<source>/raw`` keeps the answers, ``<source>/observations`` what they say. The base URL is
    ``KASPARRO_<SOURCE>_URL``, else the simulator or the vendor by ``KASPARRO_VENDORS``; the key is
    ``KASPARRO_<SOURCE>_API_KEY`` and goes into `auth_header` only.
    """

    source: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    priority: int
    """The lower, the sooner this source's word is taken when sources disagree."""
    base_url: str
    """The vendor's own, up to its version: ``https://api.coingecko.com/api/v3``."""
    simulator_path: str | None = None
    """Where the simulator answers for this vendor; None: it does not."""
    endpoint: str
    params: dict[str, str | int] = {}
    paging: Paging | None = None
    record_path: str = ""
    """Dotted path to the array of records; empty: the answer itself."""
    columns: dict[str, str]
    """Column of an observation to the dotted path of its value in a record."""
    zero_is_null: list[str] = []
    """Columns in which the vendor writes 0 for "not known"."""
    auth_header: str | None = None
    per_minute: int = Field(gt=0)
    """Requests a minute that the vendor allows."""
    refresh: str
    """Cron line, in UTC."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002 - Dagster's signature
        """The two assets, a job over both, and its schedule."""
        job = source_job(self.source)

        @dg.schedule(
            name=f"{self.source}_refresh",
            job=job,
            cron_schedule=self.refresh,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Fetches what {self.source} says now.",
        )
        def refresh() -> dg.RunRequest:
            return dg.RunRequest(partition_key=today())

        fields = self.vendor_fields
        description = f"Answers of {self.base_url}{self.endpoint}."
        raw = raw_asset(self.source, self.source, daily(), description, self._fetch, fields=fields)
        observations = observations_asset(self.source, daily(), self.parser_version, self._parse, fields=fields)
        return dg.Definitions(assets=[raw, observations], jobs=[job], schedules=[refresh])

    @property
    def vendor_fields(self) -> dict[str, list[str]]:
        """Where in an answer each column comes from, such as ``data[].quotes.USD.price``."""
        records = f"{self.record_path}[]." if self.record_path else ""
        return {column: [f"{records}{path}"] for column, path in self.columns.items()}

    @property
    def parser_version(self) -> str:
        """By which deliveries are parsed now."""
        return self._parser().version

    def _fetch(self, context: dg.AssetExecutionContext) -> Iterator[Payload]:
        """The vendor's answer of now, kept in today's partition; a past day is never given today's numbers."""
        if today() not in context.partition_keys:
            context.log.info("a snapshot knows only now: nothing to fetch for past days, what was kept is parsed again")
            return
        run = SourceRun.begin(current_engine, context, [self.source])
        try:
            with self._client(settings()) as client:
                yield from fetch_pages(client, self._spec(), today(), self._sweep())
        except BaseException as error:
            run.failed(error)
            raise
        with current_engine().begin() as connection:
            run.succeeded(connection)

    def _parse(self, context: dg.AssetExecutionContext, raw: Deliveries) -> Load:
        run = SourceRun.begin(current_engine, context, [self.source])
        return ObservationLoad(current_engine, raw, self._parser(raw), run).load()

    def _spec(self) -> ApiSpec:
        paging = PageNumbers(self.paging.size, self.paging.page_param, self.paging.size_param) if self.paging else None
        return ApiSpec(self.endpoint, self.params, paging, _path(self.record_path))

    def _sweep(self) -> Sweep | None:
        """The sweep that a run before has left unfinished."""
        query = sa.select(checkpoint.c.cursor).where(
            checkpoint.c.source == self.source,
            checkpoint.c.partition == today(),
            checkpoint.c.complete.is_(False),
        )
        with current_engine().connect() as connection:
            cursor = connection.scalar(query)
        sweep = Sweep.resume(cursor) if cursor else None
        return sweep if sweep and datetime.now(UTC) - sweep.started_at < RESUME_WITHIN else None

    def _client(self, chosen: Settings) -> VendorClient:
        base_url = chosen.vendor_url(self.source)
        if base_url is None:
            simulated = chosen.vendors == "simulator" and self.simulator_path is not None
            base_url = f"{chosen.simulator_url}{self.simulator_path}" if simulated else self.base_url
        key = chosen.vendor_key(self.source)
        headers = {self.auth_header: key.get_secret_value()} if key and self.auth_header else {}
        return VendorClient(
            self.source, base_url, auth_headers=headers, policy=RequestPolicy(max_requests=self.per_minute)
        )

    def _parser(self, deliveries: Deliveries | None = None) -> JsonParser:
        columns = {column: _path(path) for column, path in self.columns.items()}
        mapping = JsonMapping(columns, _path(self.record_path), frozenset(self.zero_is_null))
        return JsonParser(mapping, settings().first_day, deliveries)


class JsonParser:
    """Parses payloads that are JSON."""

    def __init__(self, mapping: JsonMapping, first_day: date, deliveries: Deliveries | None) -> None:
        self.version = parser_version(
            PARSER, first_day, sorted(mapping.columns.items()), mapping.record_path, sorted(mapping.zero_is_null)
        )
        self.uses_fetched_at = mapping.uses_fetched_at
        self._mapping = mapping
        self._first_day = first_day
        self._deliveries = deliveries

    def version_of(self, kept: Kept) -> str:  # noqa: ARG002 - a file has more to say
        """The same for every answer."""
        return self.version

    def is_whole(self, kept: Kept) -> bool:  # noqa: ARG002 - a file has more to say
        """An answer stands for itself."""
        return True

    def parse(self, kept: Kept) -> ParsedPayload:
        """The answer's records."""
        assert self._deliveries is not None  # noqa: S101 - made without deliveries only to ask for its version
        return parse_json(self._deliveries.read(kept), self._mapping, self._first_day)


def parser_version(code: str, *decides: Any) -> str:  # noqa: ANN401 - whatever has a stable repr
    """`code` and a digest of all that decides what is made of the same bytes."""
    return f"{code}:{hashlib.sha256(repr(decides).encode()).hexdigest()[:12]}"


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(dotted.split(".")) if dotted else ()
