"""A vendor's own list of its coins and their contracts as two assets, ``<source>_list/raw`` and ``…/coins``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from typing import Annotated

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field, model_validator

from kasparro_pipeline.components.api_fetch import ApiFetch, Vendor
from kasparro_pipeline.components.api_parser import parser_version
from kasparro_pipeline.components.freshness import Freshness, longest_pause
from kasparro_pipeline.components.listings import ListingLoad
from kasparro_pipeline.components.partitions import ONLY_WAITING, daily, today
from kasparro_pipeline.components.source_assets import listing_asset, raw_asset, source_job
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.components.yaml_types import Dotted, Endpoint, Params, Percent, names_of, read_as
from kasparro_pipeline.io_managers.postgres import Load
from kasparro_pipeline.io_managers.raw_payload import Deliveries, Kept
from kasparro_pipeline.ranges import range_tags
from kasparro_pipeline.sources.api import MAX_LOST_PERCENT, ApiSpec
from kasparro_pipeline.sources.chains import CHAINS, EVM
from kasparro_pipeline.sources.coin_list import (
    ContractMapping,
    ListMapping,
    ParsedList,
    parse_coins,
    parse_contracts,
    platform_of,
)
from kasparro_pipeline.sources.json_text import Path, path_of
from kasparro_pipeline.sources.records import Payload
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import checkpoint

PARSER = "list-2"
"""Raised by one whenever the code would make other rows of the same bytes."""


def _columns_of(mapping: type[ListMapping | ContractMapping]) -> list[str]:
    return [field.name for field in fields(mapping) if field.name != "record_path"]


ListColumns = Annotated[dict[str, str | int], names_of(_columns_of(ListMapping))]
ContractColumns = Annotated[dict[str, str | int], names_of(_columns_of(ContractMapping))]


class Contracts(dg.Model, dg.Resolvable):
    """The endpoint that lists the contracts of one platform; one call a platform."""

    endpoint: str = Field(pattern=r"\{platform\}")
    """``{platform}`` in it stands for the platform."""
    platforms: list[str] = Field(min_length=1)
    """The vendor's ids of the chains whose contracts are listed."""
    columns: ContractColumns = {}
    """Dotted paths of ``source_coin_id``, ``address`` and ``listed``, where they are not ``id``, ``address`` and
    ``active``."""

    @model_validator(mode="after")
    def _has_known_columns(self) -> Contracts:
        _check_columns(self.columns, ContractMapping)
        return self

    def mapping(self, record_path: str) -> ContractMapping:
        """As the parser takes it; the records are where those of the coins are."""
        return ContractMapping(**_paths(record_path, self.columns))


class CoinList(dg.Model, dg.Resolvable):
    """The vendor's list of all its coins, fetched once a day."""

    endpoint: Endpoint
    params: Params = {}
    refresh: Annotated[str, read_as(str, longest_pause)]
    """Cron line, in UTC: when today's list is asked for, if it is not there yet."""
    record_path: Dotted = ""
    columns: ListColumns = {}
    """Dotted paths of ``source_coin_id``, ``symbol``, ``name``, ``listed`` (whether it is still traded) and
    ``contracts`` (addresses by platform), where they are not ``id``, ``symbol``, ``name``, ``is_active`` and
    ``platforms``."""
    contracts: Contracts | None = None
    """Where contracts are listed apart."""
    max_lost_percent: Percent = MAX_LOST_PERCENT
    """A list that lacks more of the coins of the one before is not believed in what it lacks."""
    freshness: Freshness | None = None
    """None: that of a source fetched once a day."""

    @model_validator(mode="after")
    def _has_known_columns(self) -> CoinList:
        _check_columns(self.columns, ListMapping)
        return self

    def mapping(self) -> ListMapping:
        """As the parser takes it."""
        return ListMapping(**_paths(self.record_path, self.columns))

    def spec(self) -> ApiSpec:
        """As the fetcher takes it."""
        told = self.contracts
        further = [told.endpoint.replace("{platform}", name) for name in dict.fromkeys(told.platforms)] if told else []
        mapping = self.mapping()
        return ApiSpec(
            self.endpoint,
            self.params,
            None,
            mapping.record_path,
            mapping.source_coin_id,
            self.max_lost_percent,
            tuple(further),
            may_be_missing=True,
        )


@dataclass(frozen=True)
class ListSource:
    """One vendor's list as a source of its own, which is asked as the vendor is and counts against its budget."""

    vendor: str
    """Whose coins they are."""
    told: CoinList
    ask: Callable[[], Vendor]
    """Whom to ask."""

    @property
    def name(self) -> str:
        """What the list is called among the sources, and its job."""
        return list_name(self.vendor)

    @property
    def expected(self) -> Freshness:
        """How old the newest list may be."""
        return self.told.freshness or Freshness.of_interval(timedelta(days=1))

    @property
    def parser_version(self) -> str:
        """By which deliveries are parsed now."""
        return self._parser().version

    def is_due(self) -> bool:
        """Whether today's list is still to be fetched."""
        done = sa.select(checkpoint.c.complete).where(
            checkpoint.c.source == self.name, checkpoint.c.partition == today()
        )
        with current_engine().connect() as connection:
            return not connection.scalar(done)

    def definitions(self) -> dg.Definitions:
        """The two assets, a job over both, and its schedule."""
        told = self.told.mapping()
        paths = {name: ".".join(path) for name, path in asdict(told).items() if name != "record_path"}
        records = f"{self.told.record_path}[]." if self.told.record_path else ""
        told_by = {name: [f"{records}{path}"] for name, path in paths.items()}
        description = f"{self.vendor}'s own list of its coins."
        expected = self.expected
        raw = raw_asset(self.name, self.name, daily(), description, self._fetch, fields=told_by, freshness=expected)
        coins = listing_asset(self.name, self.asset_key, daily(), self.parser_version, self._parse, fields=told_by)
        job = source_job(self.name, self.asset_key)
        return dg.Definitions(assets=[raw, coins], jobs=[job], schedules=[self._refresh(job)])

    @property
    def asset_key(self) -> dg.AssetKey:
        """Of what the lists say."""
        return list_asset(self.vendor)

    def _refresh(self, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
        @dg.schedule(
            name=f"{self.name}_refresh",
            job=job,
            cron_schedule=self.told.refresh,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Fetches {self.vendor}'s list of its coins once a day, and again while that fails.",
        )
        def refresh() -> dg.RunRequest | dg.SkipReason:
            if not self.is_due():
                return dg.SkipReason("today's list is there")
            spent = self.ask().ledger.spent()
            # As tags: a partition_key must be one at the time of the tick, which may be one that was missed days ago.
            return dg.SkipReason(spent) if spent else dg.RunRequest(tags=range_tags(today(), today()))

        return refresh

    def _parse(self, context: dg.AssetExecutionContext, raw: Deliveries) -> Load:
        run = SourceRun.begin(current_engine, context, [self.name])
        only_waiting, lost = ONLY_WAITING in context.run.tags, self.told.max_lost_percent
        return ListingLoad(raw, self._parser(raw), run, self.vendor, lost, only_waiting=only_waiting).load()

    def _fetch(self, context: dg.AssetExecutionContext) -> Iterator[Payload]:
        vendor = replace(self.ask(), source=self.name)
        return ApiFetch(current_engine, vendor, self.told.spec(), None).payloads(context, today())

    def _parser(self, deliveries: Deliveries | None = None) -> CoinListParser:
        return CoinListParser(self.told, deliveries)


class CoinListParser:
    """Parses the lists that a vendor's API answered: of coins, or of one platform's contracts."""

    def __init__(self, told: CoinList, deliveries: Deliveries | None) -> None:
        self._coins = told.mapping()
        self._contracts = told.contracts.mapping(told.record_path) if told.contracts else ContractMapping()
        self._endpoint = told.contracts.endpoint if told.contracts else None
        self._deliveries = deliveries
        decides = (self._coins, self._contracts, self._endpoint, sorted(CHAINS.items()), sorted(EVM))
        self.version = parser_version(PARSER, *decides)

    def platform(self, kept: Kept) -> str | None:
        """Whose contracts the delivery lists; None: it is the list of coins."""
        return platform_of(self._endpoint, kept.request) if self._endpoint else None

    def parse(self, kept: Kept) -> ParsedList:
        """The delivery's records."""
        assert self._deliveries is not None  # noqa: S101 - made without deliveries only to ask for its version
        body, platform = self._deliveries.body(kept), self.platform(kept)
        if platform is None:
            return parse_coins(body, kept.request, self._coins)
        return parse_contracts(body, kept.request, platform, self._contracts)


def list_name(vendor: str) -> str:
    """What a vendor's list is called among the sources."""
    return f"{vendor}_list"


def list_asset(vendor: str) -> dg.AssetKey:
    """The asset of what a vendor's lists say."""
    return dg.AssetKey([list_name(vendor), "coins"])


def _check_columns(columns: Mapping[str, str | int], mapping: type[ListMapping | ContractMapping]) -> None:
    known = _columns_of(mapping)
    if unknown := sorted(set(columns) - set(known)):
        raise ValueError(f"columns: no column {', '.join(unknown)}; there are {', '.join(known)}")


def _paths(record_path: str, columns: Mapping[str, str | int]) -> dict[str, Path]:
    return {name: path_of(path) for name, path in ({"record_path": record_path} | dict(columns)).items()}
