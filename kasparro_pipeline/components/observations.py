"""From deliveries to observations: what is parsed, and the account of it that commits with the rows.

For every delivery: records in = inserted + updated + unchanged + quarantined, to the last one. In the same
transaction as the observations go the quarantined records, what each source calls each coin, the days touched, and
the delivery's account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.io_managers.postgres import Load
from kasparro_pipeline.io_managers.raw_payload import Deliveries, Kept
from kasparro_pipeline.sources.records import ParsedPayload
from kasparro_pipeline.warehouse.merge import Merged
from kasparro_pipeline.warehouse.tables import delivery, quarantine, source_coin, touched_day

BY_DAY = "(t.observed_at AT TIME ZONE 'UTC')::date"
COUNTS = ("records", "inserted", "updated", "unchanged", "quarantined")


class Parser(Protocol):
    """Makes observations of a source's deliveries."""

    version: str
    """Changes whenever the same bytes would be parsed differently; a file's dialect may add to it."""
    uses_fetched_at: bool
    """The same bytes are news each time they come."""

    def version_of(self, kept: Kept) -> str:
        """`version`, and what the delivery's file adds to it."""

    def is_whole(self, kept: Kept) -> bool:
        """Whether the delivery's file was read to its end; if not, its blocks hold nothing that counts."""

    def parse(self, kept: Kept) -> ParsedPayload:
        """The delivery's records."""


@dataclass(slots=True)
class _Account:
    kept: Kept
    version: str
    counts: dict[str, int]


class ObservationLoad:
    """Parses what this parser's version has not parsed yet, and keeps the account."""

    def __init__(self, engine: Callable[[], sa.Engine], deliveries: Deliveries, parser: Parser, run: SourceRun) -> None:
        self._engine = engine
        self._deliveries = deliveries
        self._parser = parser
        self._run = run
        self._current: tuple[Kept, str, ParsedPayload] | None = None
        self._known: list[_Account] = []
        self._sums: dict[str, dict[str, int]] = {}

    def load(self) -> Load:
        """What to hand to the `PostgresIOManager`."""
        return Load(self._frames(), self._after_frame, self._before_commit, self._run.failed, group_by=BY_DAY)

    def _frames(self) -> Iterator[pa.Table]:
        for kept in self._deliveries:
            if (kept.parser_version or "").startswith(self._parser.version):
                continue
            if not self._parser.is_whole(kept):
                self._known.append(_Account(kept, self._parser.version, dict.fromkeys(COUNTS, 0)))
                continue
            version = self._parser.version_of(kept)
            known = None if self._parser.uses_fetched_at else self._parsed_before(kept, version)
            if known is not None:
                self._known.append(_Account(kept, version, known))
                continue
            parsed = self._parser.parse(kept)
            self._current = (kept, version, parsed)
            yield parsed.observations

    def _parsed_before(self, kept: Kept, version: str) -> dict[str, int] | None:
        """The account of the same bytes, where parsing them again could change nothing.

        It could where the source's rows were updated since: what is stored may then be another payload's word.
        """
        later = delivery.alias()
        updated_since = (
            sa.select(sa.literal(1))
            .where(later.c.source == kept.source, later.c.parsed_at > delivery.c.parsed_at, later.c.updated > 0)
            .exists()
        )
        query = (
            sa.select(delivery.c.records, delivery.c.quarantined)
            .where(
                delivery.c.source == kept.source,
                delivery.c.sha256 == kept.sha256,
                delivery.c.parser_version == version,
                ~updated_since,
            )
            .limit(1)
        )
        with self._engine().connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        unchanged = row.records - row.quarantined
        return dict(zip(COUNTS, (row.records, 0, 0, unchanged, row.quarantined), strict=True))

    def _after_frame(self, connection: sa.Connection, merged: Merged) -> None:
        if self._current is None:
            return
        kept, version, parsed = self._current
        counts = {
            "records": parsed.records,
            "inserted": merged.inserted,
            "updated": merged.updated,
            "unchanged": merged.unchanged + parsed.duplicates,
            "quarantined": len(parsed.quarantined),
        }
        if sum(counts.values()) != 2 * counts["records"]:
            raise AssertionError(f"{kept.request}: the account does not add up: {counts}")
        self._write_account(connection, _Account(kept, version, counts))
        self._write_quarantine(connection, kept, version, parsed)
        _write_coins(connection, parsed.observations)
        self._current = None

    def _before_commit(self, connection: sa.Connection, total: Merged) -> None:
        for account in self._known:
            self._write_account(connection, account)
        touch_days(connection, total.groups)
        self._run.succeeded(connection, self._sums)

    def _write_account(self, connection: sa.Connection, account: _Account) -> None:
        kept = account.kept
        connection.execute(
            sa.update(delivery)
            .where(
                delivery.c.source == kept.source,
                delivery.c.partition == kept.partition,
                delivery.c.position == kept.position,
                delivery.c.fetched_at == kept.fetched_at,
            )
            .values(
                parser_version=account.version,
                parsed_at=sa.func.clock_timestamp(),
                parse_run_id=self._run.run_id,
                **account.counts,
            )
        )
        sums = self._sums.setdefault(kept.source, dict.fromkeys(COUNTS, 0))
        for name, count in account.counts.items():
            sums[name] += count

    def _write_quarantine(self, connection: sa.Connection, kept: Kept, version: str, parsed: ParsedPayload) -> None:
        """The payload's quarantined records and no others: what parses now leaves the quarantine."""
        of_payload = (quarantine.c.source == kept.source, quarantine.c.payload_sha256 == kept.sha256)
        positions = [refused.position for refused in parsed.quarantined]
        connection.execute(sa.delete(quarantine).where(*of_payload, quarantine.c.position.not_in(positions)))
        if not positions:
            return
        statement = insert(quarantine)
        replaced = ("location", "reason_code", "reason", "record", "parser_version", "run_id")
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["source", "payload_sha256", "position"],
                set_={name: statement.excluded[name] for name in replaced},
            ),
            [
                {
                    "source": kept.source,
                    "payload_sha256": kept.sha256,
                    "position": refused.position,
                    "location": refused.location,
                    "reason_code": refused.reason_code,
                    "reason": refused.reason,
                    "record": refused.record,
                    "parser_version": version,
                    "run_id": self._run.run_id,
                }
                for refused in parsed.quarantined
            ],
        )


def touch_days(connection: sa.Connection, days: Iterable[date]) -> None:
    """Say that `unified_assets` has to be made again for these days."""
    rows = [{"day": day} for day in sorted(days)]
    if rows:
        connection.execute(sa.insert(touched_day), rows)


def _write_coins(connection: sa.Connection, observations: pa.Table) -> None:
    """Remember what the source calls its coins; the latest observation's word counts."""
    key = ["source", "source_coin_id"]
    newest = observations.select([*key, "observed_at", "symbol", "name"]).sort_by("observed_at")
    coins = newest.group_by(key, use_threads=False).aggregate(
        [("observed_at", "min"), ("observed_at", "max"), ("symbol", "last"), ("name", "last")]
    )
    if not coins.num_rows:
        return
    names = {
        "observed_at_min": "first_seen",
        "observed_at_max": "last_seen",
        "symbol_last": "symbol",
        "name_last": "name",
    }
    statement = insert(source_coin)
    new, old = statement.excluded, source_coin.c
    later = new.last_seen >= old.last_seen
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=key,
            set_={
                "symbol": _word(later, new.symbol, old.symbol),
                "name": _word(later, new.name, old.name),
                "first_seen": sa.func.least(old.first_seen, new.first_seen),
                "last_seen": sa.func.greatest(old.last_seen, new.last_seen),
            },
            where=later | (new.first_seen < old.first_seen) | old.name.is_(None),
        ),
        coins.rename_columns([names.get(name, name) for name in coins.column_names]).to_pylist(),
    )


def _word(
    later: sa.ColumnElement[bool], new: sa.ColumnElement[Any], old: sa.ColumnElement[Any]
) -> sa.ColumnElement[Any]:
    """The later observation's word; the other one's where it has none, as a history without names."""
    return sa.case((later, sa.func.coalesce(new, old)), else_=sa.func.coalesce(old, new))
