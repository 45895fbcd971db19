"""A vendor's API as two assets: its payloads, and the observations in them. All of it is said in one defs.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Annotated, Literal

import dagster as dg
from pydantic import Field, model_validator

from kasparro_pipeline.alerts.incidents import Watched
from kasparro_pipeline.components.api_fetch import ApiFetch, Vendor, last_swept
from kasparro_pipeline.components.api_parser import ApiParser
from kasparro_pipeline.components.coin_list import CoinList, ListSource
from kasparro_pipeline.components.drift import report_drift
from kasparro_pipeline.components.freshness import Freshness, longest_pause
from kasparro_pipeline.components.observations import ObservationLoad
from kasparro_pipeline.components.partitions import ONLY_WAITING, daily, today
from kasparro_pipeline.components.scaffold import ApiSourceScaffolder
from kasparro_pipeline.components.source_assets import drift_check, observations_asset, raw_asset, source_job
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.components.yaml_types import (
    Count,
    Dotted,
    Endpoint,
    MaybeCount,
    MaybeDotted,
    MaybeWhole,
    Params,
    Percent,
    Seconds,
    Url,
    Whole,
    YesNo,
    names_of,
    read_as,
)
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.io_managers.postgres import Load
from kasparro_pipeline.io_managers.raw_payload import Deliveries
from kasparro_pipeline.ranges import range_tags
from kasparro_pipeline.settings import Settings, settings
from kasparro_pipeline.sources import paging
from kasparro_pipeline.sources.api import MAX_LOST_PERCENT, ApiSpec
from kasparro_pipeline.sources.collect import ROW_COLUMNS
from kasparro_pipeline.sources.history import HistoryMapping, HistorySpec
from kasparro_pipeline.sources.http import RequestPolicy
from kasparro_pipeline.sources.json_records import NUMBERS, JsonMapping
from kasparro_pipeline.sources.json_text import Path, path_of
from kasparro_pipeline.sources.records import Payload
from kasparro_pipeline.warehouse.calls import CallLedger
from kasparro_pipeline.warehouse.database import current_engine

Columns = Annotated[dict[str, str | int], names_of(ROW_COLUMNS)]
Series = Annotated[dict[str, str | int], names_of(NUMBERS)]
ZeroIsNull = Annotated[list[str], names_of(NUMBERS, list[str])]
Cron = Annotated[str, read_as(str, longest_pause)]
PagingBy = Literal["page", "offset", "cursor", "link"]
Times = Literal["unix", "unix_ms", "iso", "day"]


class Paging(dg.Model, dg.Resolvable):
    """By page number or offset, where a page with fewer than `size` records is the last; or by cursor or link."""

    by: Annotated[PagingBy, read_as(PagingBy)] = "page"
    size: MaybeCount = None
    """Records of a page to ask for; None: as many as the vendor gives, and one shorter than the first is the last."""
    size_param: str = "per_page"
    param: str | None = None
    """Parameter that names the page; None: called like `by`. A link names its own."""
    first: MaybeWhole = None
    """The first page's number, or the first offset; None: 1 and 0."""
    next_path: MaybeDotted = None
    """With a cursor or link: path in the answer to the next one; nothing or null there in the last answer."""

    @model_validator(mode="after")
    def _fits_together(self) -> Paging:
        is_told = self.by in {"cursor", "link"}
        if is_told != bool(self.next_path):
            raise ValueError("next_path belongs to paging by cursor or by link, which need it")
        if is_told and self.first is not None:
            raise ValueError("first belongs to paging by page or by offset; the first cursor is none")
        if self.by == "link" and self.param is not None:
            raise ValueError("param does not belong to paging by link, which names its own")
        return self

    def spec(self) -> paging.Paging:
        """As the fetcher takes it."""
        return paging.Paging(
            self.by, self.size, self.param or self.by, self.size_param, self.first, path_of(self.next_path or "")
        )


class Budget(dg.Model, dg.Resolvable):
    """Calls that the vendor's plan allows, tries included; days and months are UTC's."""

    per_day: MaybeCount = None
    per_month: MaybeCount = None


class History(dg.Model, dg.Resolvable):
    """The endpoint for past days: one call a coin and range; its points are records, or a series for each column."""

    endpoint: Endpoint
    """``{id}`` in it, or in a parameter, stands for the coin."""
    coins: Annotated[list[str | int], read_as(list[str | int])]
    """The vendor's ids of the coins whose history is fetched."""
    params: Params = {}
    from_param: str
    to_param: str
    times: Annotated[Times, read_as(Times)] = "unix"
    """How both are written: seconds or milliseconds since 1970, RFC 3339, or the day alone."""
    max_days: MaybeCount = None
    """Days that one call may ask for; a longer range takes several."""
    record_path: Dotted = ""
    columns: Columns = {}
    """Where the answer is an array of points: column to dotted path in a point; needs ``observed_at``."""
    series: Series = {}
    """Where it holds an array of ``[time, value]`` for each column: column to dotted path of its array."""

    @model_validator(mode="after")
    def _has_one_shape(self) -> History:
        if bool(self.columns) == bool(self.series):
            raise ValueError("give either columns (an array of points) or series (an array for each column)")
        if not any("{id}" in str(text) for text in (self.endpoint, *self.params.values())):
            raise ValueError("{id} is missing in endpoint and params; it says where the coin goes")
        return self

    def spec(self) -> HistorySpec:
        """As the fetcher takes it."""
        return HistorySpec(
            self.endpoint,
            tuple(dict.fromkeys(map(str, self.coins))),
            self.from_param,
            self.to_param,
            self.params,
            self.times,
            self.max_days,
        )

    def mapping(self, zero_is_null: frozenset[str]) -> HistoryMapping:
        """As the parser takes it."""
        records = None
        if self.columns:
            columns: dict[str, Path] = {column: path_of(path) for column, path in self.columns.items()}
            records = JsonMapping(columns, path_of(self.record_path), zero_is_null=zero_is_null, one_coin=True)
        return HistoryMapping(records, {column: path_of(path) for column, path in self.series.items()}, zero_is_null)


@dg.scaffold_with(ApiSourceScaffolder)
class ApiSource(dg.Component, dg.Model, dg.Resolvable):
    """A vendor's snapshot of all its coins, fetched many times a day, and the history of some of them.

    ``<source>/raw`` keeps the answers, ``<source>/observations`` what they say. The base URL is
    ``KASPARRO_<SOURCE>_URL``, else the simulator or the vendor by ``KASPARRO_VENDORS``; the key is
    ``KASPARRO_<SOURCE>_API_KEY`` and goes into `auth_header` only.
    """

    source: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    priority: Whole
    """The lower, the sooner this source's word is taken when sources disagree."""
    base_url: Url
    """The vendor's own, up to its version: ``https://api.coingecko.com/api/v3``."""
    simulator_path: str | None = None
    """Where the simulator answers for this vendor; None: it does not."""
    endpoint: Endpoint
    params: Params = {}
    paging: Paging | None = None
    record_path: Dotted = ""
    """Dotted path to the array of records; empty: the answer itself. With ``.*`` at its end, to an object whose members
    are the records, each as an array of its name and value."""
    time_path: Dotted = ""
    """Dotted path in the answer to the time of all its records, where they have none of their own."""
    columns: Columns
    """Column of an observation to the dotted path of its value in a record; a number is a place in an array, from 0."""
    zero_is_null: ZeroIsNull = []
    """Columns in which the vendor writes 0 for "not known"."""
    max_lost_percent: Percent = MAX_LOST_PERCENT
    """A snapshot that lacks more of the coins of the one before is not believed."""
    history: History | None = None
    coin_list: CoinList | None = None
    """The vendor's own list of its coins and their contracts: a source of its own, ``<source>_list``."""
    auth_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")
    auth_scheme: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")
    """What stands before the key in the header, such as ``Bearer``."""
    per_minute: Count
    """Requests a minute that the vendor allows."""
    budget: Budget = Budget()
    timeout: Seconds = 30
    """Seconds for connecting, and for each pause within an answer."""
    http2: YesNo = False
    refresh: Cron
    """Cron line, in UTC."""
    freshness: Freshness | None = None
    """None: by `refresh`."""

    @model_validator(mode="after")
    def _fits_together(self) -> ApiSource:
        if self.auth_scheme and not self.auth_header:
            raise ValueError("auth_scheme stands before the key in auth_header, which is missing")
        try:
            self._parser()
        except KasparroError as error:
            raise ValueError(str(error)) from None
        return self

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002 - Dagster's signature
        """The two assets, a job over both, and its schedule; the same for the list of coins."""
        job = source_job(self.source)

        @dg.schedule(
            name=f"{self.source}_refresh",
            job=job,
            cron_schedule=self.refresh,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Fetches what {self.source} says now, and the history of days on which nothing asked.",
        )
        def refresh() -> dg.RunRequest | dg.SkipReason:
            spent = self._vendor(settings()).ledger.spent()
            if spent:
                return dg.SkipReason(spent)
            # As tags: a partition_key must be one at the time of the tick, which may be one that was missed days ago.
            return dg.RunRequest(tags=range_tags(self.first_due(), today()))

        fields = self.vendor_fields
        description = f"Answers of {self.base_url}{self.endpoint}."
        expected = self.expected
        raw = raw_asset(self.source, self.source, daily(), description, self._fetch, fields=fields, freshness=expected)
        observations = observations_asset(self.source, daily(), self.parser_version, self._parse, fields=fields)
        snapshot = dg.Definitions(
            assets=[raw, observations],
            asset_checks=[drift_check(self.source, self.source)],
            jobs=[job],
            schedules=[refresh],
        )
        return dg.Definitions.merge(snapshot, self.listing.definitions()) if self.listing else snapshot

    @property
    def listing(self) -> ListSource | None:
        """The vendor's list as a source."""
        return ListSource(self.source, self.coin_list, lambda: self._vendor(settings())) if self.coin_list else None

    def address(self, chosen: Settings) -> str:
        """Where the vendor, or the simulator in its place, is asked."""
        return self._vendor(chosen).base_url

    def first_due(self) -> str:
        """The first partition to fetch: the day after the last whole sweep, where there is a history to ask for the
        days on which nothing asked; else today's."""
        newest = today()
        if self.history is None:
            return newest
        with current_engine().connect() as connection:
            swept = last_swept(connection, self.source)
        return newest if swept is None else min(newest, (swept + timedelta(days=1)).isoformat())

    def watched(self) -> list[Watched]:
        """What is expected of the source, and of its list."""
        ours = Watched(self.source, self.expected.late_after, self._vendor(settings()).ledger)
        return [ours, Watched(self.listing.name, self.listing.expected.late_after)] if self.listing else [ours]

    @property
    def expected(self) -> Freshness:
        """How old the newest snapshot may be."""
        return self.freshness or Freshness.of_interval(longest_pause(self.refresh))

    @property
    def vendor_fields(self) -> dict[str, list[str]]:
        """Where in an answer each column comes from, such as ``data[].quotes.USD.price``."""
        records = f"{self.record_path}[]." if self.record_path else ""
        told = {column: [f"{records}{path}"] for column, path in self.columns.items()}
        return told | {"observed_at": [self.time_path]} if self.time_path else told

    @property
    def parser_version(self) -> str:
        """By which deliveries are parsed now."""
        return self._parser().version

    def _fetch(self, context: dg.AssetExecutionContext) -> Iterator[Payload]:
        history = self.history.spec() if self.history else None
        fetch = ApiFetch(current_engine, self._vendor(settings()), self._spec(), history)
        return fetch.payloads(context, today())

    def _parse(self, context: dg.AssetExecutionContext, raw: Deliveries) -> Load:
        run = SourceRun.begin(current_engine, context, [self.source])
        on_drift = partial(report_drift, context, self.source)
        only_waiting = ONLY_WAITING in context.run.tags
        return ObservationLoad(raw, self._parser(raw), run, on_drift, only_waiting=only_waiting).load()

    def _spec(self) -> ApiSpec:
        return ApiSpec(
            self.endpoint,
            self.params,
            self.paging.spec() if self.paging else None,
            path_of(self.record_path),
            path_of(self.columns["source_coin_id"]),
            self.max_lost_percent,
        )

    def _vendor(self, chosen: Settings) -> Vendor:
        """Whom to ask; what the vendor's plan allows does not bind the simulator, which has a rate of its own."""
        base_url = chosen.vendor_url(self.source)
        budget, per_minute = self.budget, self.per_minute
        if base_url is None and chosen.vendors == "simulator" and self.simulator_path is not None:
            base_url = f"{chosen.simulator_url}{self.simulator_path}"
            budget, per_minute = Budget(), chosen.simulator_rate_per_minute
        key = chosen.vendor_key(self.source)
        policy = RequestPolicy(max_requests=per_minute, timeout=self.timeout, http2=self.http2)
        return Vendor(
            self.source,
            base_url or self.base_url,
            CallLedger(current_engine, self.source, budget.per_day, budget.per_month, policy.per_seconds),
            policy,
            {self.auth_header: " ".join(filter(None, (self.auth_scheme, key.get_secret_value())))}
            if key and self.auth_header
            else {},
        )

    @property
    def snapshot_mapping(self) -> JsonMapping:
        """Where a snapshot's records and their values are."""
        columns: dict[str, Path] = {column: path_of(path) for column, path in self.columns.items()}
        records, time = path_of(self.record_path), path_of(self.time_path)
        return JsonMapping(columns, records, time, frozenset(self.zero_is_null))

    def _parser(self, deliveries: Deliveries | None = None) -> ApiParser:
        history = self.history.mapping(frozenset(self.zero_is_null)) if self.history else None
        return ApiParser(self.snapshot_mapping, history, settings().first_day, deliveries)
