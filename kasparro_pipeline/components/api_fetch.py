"""One run's asking of a vendor: in turn, within the budget, on from the checkpoint, compared with the sweep before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.io_managers.raw_payload import Deliveries, stored_body
from kasparro_pipeline.sources.api import ApiSpec, SnapshotFetch, Sweep, named
from kasparro_pipeline.sources.history import Backfill, Days, HistoryFetch, HistorySpec
from kasparro_pipeline.sources.http import Known, RequestPolicy, VendorClient
from kasparro_pipeline.sources.json_records import coin_ids
from kasparro_pipeline.sources.json_text import records_at
from kasparro_pipeline.sources.records import Payload, Version
from kasparro_pipeline.warehouse.calls import CallLedger
from kasparro_pipeline.warehouse.tables import checkpoint, last_sweep, vendor_answer

RESUME_WITHIN = timedelta(hours=1)
"""An unfinished sweep older than this is begun anew: ranks have moved, so its pages no longer fit together."""


@dataclass(frozen=True, slots=True)
class Vendor:
    """Whom to ask, and how."""

    source: str
    base_url: str
    ledger: CallLedger
    policy: RequestPolicy
    auth_headers: dict[str, str] = field(repr=False)


class ApiFetch:
    """What a run fetches: today's snapshot, and the history of the past days among its partitions."""

    def __init__(
        self, engine: Callable[[], sa.Engine], vendor: Vendor, snapshot: ApiSpec, history: HistorySpec | None
    ) -> None:
        self._engine = engine
        self._vendor = vendor
        self._snapshot = snapshot
        self._history = history

    def payloads(self, context: dg.AssetExecutionContext, today: str) -> Iterator[Payload]:
        """The vendor's answers. A past day is never given today's numbers: its history is asked for, where there is
        an endpoint for it, and what was kept of it is parsed again.

        Raises:
            FetchError: an answer cannot be had or used; what came before is kept.
            BudgetSpentError: no further call may be made.
        """
        past = [date.fromisoformat(key) for key in context.partition_keys if key != today]
        if past and self._history is None:
            context.log.info("a snapshot knows only now: nothing to fetch for past days, what was kept is parsed again")
        if today not in context.partition_keys and self._history is None:
            return
        run = SourceRun.begin(self._engine, context, [self._vendor.source])
        try:
            with self._vendor.ledger.turn(), self._client() as client:
                if today in context.partition_keys:  # first: what is said now is lost if it is not asked for now
                    yield from self._sweep(client, context, today)
                if past and self._history is not None:
                    yield from self._backfill(client, context, self._history, Days(min(past), max(past)))
        except BaseException as error:
            run.failed(error)
            raise
        with self._engine().begin() as connection:
            run.succeeded(connection)

    def _client(self) -> VendorClient:
        vendor = self._vendor
        return VendorClient(
            vendor.source,
            vendor.base_url,
            auth_headers=vendor.auth_headers,
            policy=vendor.policy,
            before_try=vendor.ledger.count,
            recent=vendor.ledger.recent(),
        )

    # -- snapshot -----------------------------------------------------------------------------------------------

    def _sweep(self, client: VendorClient, context: dg.AssetExecutionContext, today: str) -> Iterator[Payload]:
        cursor = self._unfinished(today)
        sweep = Sweep.resume(cursor) if cursor and "sweep" in cursor else None
        if sweep is None or datetime.now(UTC) - sweep.started_at >= RESUME_WITHIN:
            sweep = Sweep.begin()
        fetch = SnapshotFetch(
            client,
            self._snapshot,
            today,
            sweep,
            before=self._coins_before(),
            coins=self._coins_met(today, sweep) if sweep.position or sweep.reading > 1 else frozenset(),
            known=self._known,
        )
        yield from fetch.payloads()
        if fetch.unknown:
            context.log.warning(f"{self._vendor.source}: {', '.join(fetch.unknown)} is not known (404)")
            self._complete(today)  # where the last one is unknown, no payload has said so
        if fetch.vanished:
            context.log.warning(f"{len(fetch.vanished)} coins have vanished: {named(fetch.vanished)}")
        context.add_asset_metadata({"coins": len(fetch.coins), "vanished": named(fetch.vanished)})
        said = {"asked": self._asked, "coins": sorted(fetch.coins), "finished_at": sa.func.clock_timestamp()}
        with self._engine().begin() as connection:
            connection.execute(
                insert(last_sweep)
                .values(source=self._vendor.source, **said)
                .on_conflict_do_update(index_elements=["source"], set_=said)
            )

    @property
    def _asked(self) -> str:
        """What two sweeps must have in common to be comparable."""
        paging = self._snapshot.paging.by if self._snapshot.paging else None
        asked = [self._vendor.base_url, self._snapshot.endpoint, dict(self._snapshot.params), paging]
        return json.dumps(asked, sort_keys=True)

    def _unfinished(self, partition: str) -> dict[str, Any] | None:
        """The checkpoint that a run before has left."""
        query = sa.select(checkpoint.c.cursor).where(
            checkpoint.c.source == self._vendor.source,
            checkpoint.c.partition == partition,
            checkpoint.c.complete.is_(False),
        )
        with self._engine().connect() as connection:
            return connection.scalar(query)

    def _coins_before(self) -> frozenset[str]:
        query = sa.select(last_sweep.c.coins).where(
            last_sweep.c.source == self._vendor.source, last_sweep.c.asked == self._asked
        )
        with self._engine().connect() as connection:
            return frozenset(connection.scalar(query) or ())

    def _coins_met(self, partition: str, sweep: Sweep) -> frozenset[str]:
        """The coins in the pages that the unfinished sweep has kept."""
        deliveries = Deliveries(self._engine(), self._vendor.source, [partition])
        coins: set[str] = set()
        for kept in deliveries:
            if kept.fetched_at >= sweep.started_at and kept.source_coin_id is None:
                records = records_at(deliveries.body(kept), self._snapshot.record_path)
                coins |= coin_ids(records, self._snapshot.id_path)
        return frozenset(coins)

    def _known(self, position: int, url: str) -> Known | None:
        """The answer that was kept last at this place of the sweep, where it was to the same request."""
        said = vendor_answer.c
        query = sa.select(said.sha256, said.etag, said.last_modified).where(
            said.source == self._vendor.source, said.position == position, said.request == url
        )
        with self._engine().connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        body = stored_body(self._engine(), self._vendor.source, row.sha256)
        return None if body is None else Known(Version(row.etag, row.last_modified), body)

    # -- history ------------------------------------------------------------------------------------------------

    def _backfill(
        self, client: VendorClient, context: dg.AssetExecutionContext, spec: HistorySpec, days: Days
    ) -> Iterator[Payload]:
        backfill = Backfill.begin(days, spec.coins)
        left = backfill.resumed(self._unfinished(days.first.isoformat()) or {})
        if datetime.now(UTC) - left.started_at < RESUME_WITHIN:
            backfill = left
        fetch = HistoryFetch(client, spec, backfill)
        yield from fetch.payloads()
        if fetch.unknown:
            context.log.warning(f"{self._vendor.source} has no history of {', '.join(fetch.unknown)} (404)")
        self._complete(days.first.isoformat())

    def _complete(self, partition: str) -> None:
        """Nothing more is to be read, whatever was the last thing that was."""
        with self._engine().begin() as connection:
            connection.execute(
                sa.update(checkpoint)
                .where(checkpoint.c.source == self._vendor.source, checkpoint.c.partition == partition)
                .values(complete=True)
            )


def last_swept(connection: sa.Connection, source: str) -> date | None:
    """The UTC day of the source's last whole sweep; None: there was none."""
    finished = connection.scalar(sa.select(last_sweep.c.finished_at).where(last_sweep.c.source == source))
    return finished.astimezone(UTC).date() if finished else None
