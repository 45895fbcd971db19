"""From delivered coin lists to ``coin_listing`` and ``coin_contract``, and the account that commits with them.

Of what was delivered for one place, the whole list or one platform's contracts, the newest delivery counts; one that is
parsed after it changes nothing. What a list no longer has is not deleted but no longer `listed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import sqlalchemy as sa

from kasparro_pipeline.components import accounts
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.io_managers.postgres import Load
from kasparro_pipeline.io_managers.raw_payload import Deliveries, Kept
from kasparro_pipeline.sources.coin_list import ParsedList
from kasparro_pipeline.warehouse.merge import Merge, Merged
from kasparro_pipeline.warehouse.tables import coin_contract, coin_listing, delivery
from kasparro_pipeline.warehouse.touched import Touched

BY_COIN = ("source_coin_id",)


class ListParser(Protocol):
    """Reads a vendor's lists."""

    version: str
    """Changes whenever the same bytes would be read differently."""

    def platform(self, kept: Kept) -> str | None:
        """Whose contracts the delivery lists; None: it is the list of coins."""

    def parse(self, kept: Kept) -> ParsedList:
        """The delivery's records."""


@dataclass(slots=True)
class _Due:
    """A delivery and what became of it so far."""

    kept: Kept
    parsed: ParsedList
    counts: bool
    """No later one of the same place was parsed before."""
    inserted: int = 0
    written: set[str] = field(default_factory=set)
    """Listed coins whose row was inserted or updated."""


class _Frame(NamedTuple):
    rows: pa.Table
    gone: int
    """How many of the rows say that something is no longer listed."""


class ListingLoad:
    """Reads what this parser's version has not read yet, and keeps the account.

    Args:
        vendor: whose coins they are: the source that its observations have.
        only_waiting: what another version has read is left as it is.
        max_lost_percent: where a list lacks more of what is listed, what it lacks is not taken for gone.
    """

    def __init__(  # noqa: PLR0913
        self,
        deliveries: Deliveries,
        parser: ListParser,
        run: SourceRun,
        vendor: str,
        max_lost_percent: float,
        *,
        only_waiting: bool = False,
    ) -> None:
        self._deliveries = deliveries
        self._parser = parser
        self._run = run
        self._vendor = vendor
        self._max_lost_percent = max_lost_percent
        self._only_waiting = only_waiting
        self._due: list[_Due] = []
        self._sums = dict.fromkeys(accounts.COUNTS, 0)
        self._newest: dict[str | None, tuple[Kept, str]] = {}

    def load(self) -> Load:
        """What to hand to the `PostgresIOManager` for ``coin_listing``; contracts are merged beside it."""
        return Load(self._frames, self._after_frame, self._before_commit, self._run.failed, group_by=BY_COIN)

    def _frames(self, connection: sa.Connection) -> Iterator[pa.Table]:
        self._newest = self._newest_parsed(connection)
        version = self._parser.version
        parsed_by = delivery.c.parser_version
        stale = parsed_by.is_(None) if self._only_waiting else parsed_by.is_distinct_from(version)
        for kept in self._deliveries.those(connection, stale):
            platform = self._parser.platform(kept)
            newest, by = self._newest.get(platform, (None, None))
            if newest is not None and newest.sha256 == kept.sha256 and by == version and newest.rank < kept.rank:
                self._write_known(connection, kept, newest)
                continue
            due = _Due(kept, self._parser.parse(kept), counts=newest is None or newest.rank <= kept.rank)
            self._due.append(due)
            if due.counts:
                self._newest[platform] = (kept, version)
            if due.counts and due.parsed.coins:
                yield self._listing(connection, due).rows

    def _newest_parsed(self, connection: sa.Connection) -> dict[str | None, tuple[Kept, str]]:
        """The newest delivery of each place that was parsed, and by which version."""
        ours = (delivery.c.source == self._deliveries.source, delivery.c.parser_version.is_not(None))
        found = self._deliveries.find(connection, *ours)
        return {self._parser.platform(kept): (kept, kept.parser_version or "") for kept in found}

    def _write_known(self, connection: sa.Connection, kept: Kept, newest: Kept) -> None:
        """The account of bytes that are the newest already: nothing is parsed."""
        told = (delivery.c.records, delivery.c.quarantined)
        before = next((due for due in self._due if due.kept is newest), None)
        if before is not None:
            records, quarantined = before.parsed.records, len(before.parsed.quarantined)
        else:
            records, quarantined = connection.execute(sa.select(*told).where(*accounts.is_delivery(newest))).one()
        self._write_account(connection, kept, records, 0, 0, quarantined)
        self._newest[self._parser.platform(kept)] = (kept, self._parser.version)

    def _after_frame(self, connection: sa.Connection, merged: Merged) -> None:  # noqa: ARG002 - the hook's signature
        due = self._due[-1]
        due.inserted = merged.inserted
        due.written = _coins(merged) & {coin.source_coin_id for coin in due.parsed.coins}

    def _before_commit(self, connection: sa.Connection, total: Merged) -> None:
        touched = total.inserted + total.updated
        merge = Merge(connection, coin_contract, group_by=BY_COIN)
        for due in self._due:
            inserted, updated = due.inserted, len(due.written) - due.inserted
            if due.counts and due.parsed.tells_contracts:
                frame = self._contracts(connection, due)
                merged = merge.frame(frame.rows)
                touched += merged.inserted + merged.updated
                if self._parser.platform(due.kept) is not None:
                    inserted, updated = merged.inserted, merged.updated - frame.gone
                else:
                    changed = _coins(merged) & {coin.source_coin_id for coin in due.parsed.coins}
                    updated = len(due.written | changed) - inserted
            quarantined = due.parsed.quarantined
            account = self._write_account(connection, due.kept, due.parsed.records, inserted, updated, len(quarantined))
            accounts.write_quarantine(connection, [(account, quarantined)], self._run.run_id)
        merge.finish()
        if touched:  # what is known of the coins has changed, so who is who is asked again
            days = Touched()
            days.add(self._vendor, {datetime.now(UTC).date(): ()})
            days.write(connection)
        self._run.succeeded(connection, {self._deliveries.source: self._sums})

    def _write_account(  # noqa: PLR0913, PLR0917
        self, connection: sa.Connection, kept: Kept, records: int, inserted: int, updated: int, quarantined: int
    ) -> accounts.Account:
        unchanged = records - inserted - updated - quarantined
        counts = dict(zip(accounts.COUNTS, (records, inserted, updated, unchanged, quarantined), strict=True))
        account = accounts.Account(kept, self._parser.version, counts)
        accounts.write_accounts(connection, [account], self._run.run_id)
        for name, count in counts.items():
            self._sums[name] += count
        return account

    def _listing(self, connection: sa.Connection, due: _Due) -> _Frame:
        rows = [
            {
                "source_coin_id": coin.source_coin_id,
                "symbol": coin.symbol,
                "name": coin.name,
                "listed": coin.listed,
                "position": coin.position,
            }
            for coin in due.parsed.coins
        ]
        return self._frame(connection, coin_listing, due, rows, [])

    def _contracts(self, connection: sa.Connection, due: _Due) -> _Frame:
        platform = self._parser.platform(due.kept)
        scope = [] if platform is None else [coin_contract.c.platform == platform]
        return self._frame(connection, coin_contract, due, [row._asdict() for row in due.parsed.contracts], scope)

    def _frame(
        self,
        connection: sa.Connection,
        table: sa.Table,
        due: _Due,
        rows: Iterable[dict[str, Any]],
        scope: Sequence[sa.ColumnElement[bool]],
    ) -> _Frame:
        """The rows as they stand after this delivery: those it has, and those within `scope` that it no longer has."""
        keys = [column.name for column in table.primary_key.columns][1:]

        def key_of(row: Mapping[Any, Any]) -> tuple[str, ...]:
            return tuple(row[name] for name in keys)

        query = sa.select(table).where(table.c.source == self._vendor, *scope)
        stored = {key_of(row): row for row in map(dict, connection.execute(query).mappings())}
        at = due.kept.fetched_at
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in rows:
            before = stored.get(key_of(row), {})
            ended = at if before.get("listed", True) else before["unlisted_at"]
            found[key_of(row)] = {
                **row,
                "source": self._vendor,
                "first_listed_at": before.get("first_listed_at", at),
                "unlisted_at": None if row["listed"] else ended,
                "payload_sha256": due.kept.sha256,
            }
        listed = {key: row for key, row in stored.items() if row["listed"]}
        # of a record in quarantine nothing is known, not that its coin is gone
        gone = {key: row for key, row in listed.items() if key not in found and key[0] not in due.parsed.doubtful}
        if 100 * len(gone) > self._max_lost_percent * len(listed):
            gone = {}
        for key, row in gone.items():
            found[key] = {**row, "listed": False, "unlisted_at": at}
        names = [column.name for column in table.columns]
        times = {"first_listed_at", "unlisted_at"}
        types = {"listed": pa.bool_(), "position": pa.int64()} | dict.fromkeys(times, pa.timestamp("us", tz="UTC"))
        schema = pa.schema([pa.field(name, types.get(name, pa.string())) for name in names])
        return _Frame(pa.Table.from_pylist([{n: row[n] for n in names} for row in found.values()], schema), len(gone))


def _coins(merged: Merged) -> set[str]:
    return {coin for (coin,) in merged.groups}
