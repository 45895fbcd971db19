"""From deliveries to observations: what is parsed, and the account of it that commits with the rows.

For every delivery: records in = inserted + updated + unchanged + quarantined, to the last one. In the same
transaction as the observations go the quarantined records, what each source calls each coin, the days touched, and
the delivery's account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.components.drift import DriftError, DriftWatch, Shaped
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.components.statements import Settled, Statements, settle
from kasparro_pipeline.components.withdrawals import Withdrawals
from kasparro_pipeline.io_managers.postgres import Load
from kasparro_pipeline.io_managers.raw_payload import Deliveries, Kept, Rank
from kasparro_pipeline.sources.records import ParsedPayload, Quarantined
from kasparro_pipeline.warehouse.merge import Merged
from kasparro_pipeline.warehouse.tables import delivery, quarantine, source_coin
from kasparro_pipeline.warehouse.touched import Touched

BY_DAY = "(t.observed_at AT TIME ZONE 'UTC')::date"
COIN = "t.source_coin_id"
EXTENT = ("first_observed_at", "last_observed_at", "first_coin_id", "last_coin_id")
BEING_READ = timedelta(hours=1)
"""So long the blocks of a file without its last one may be a file that another run is reading."""
_NULLS = pc.ScalarAggregateOptions(skip_nulls=False)
MAX_COINS = 200_000
"""Rows about coins that are held in memory."""
COUNTS = ("records", "inserted", "updated", "unchanged", "quarantined")


class Parser(Protocol):
    """Makes observations of a source's deliveries."""

    version: str
    """Changes whenever the same bytes would be parsed differently; a file's dialect may add to it."""
    uses_fetched_at: bool
    """The same bytes are news each time they come."""
    restates: bool
    """A partition is a file in blocks: what is delivered of it replaces what was delivered before."""

    def version_of(self, kept: Kept) -> str:
        """`version`, and what the delivery's file adds to it."""

    def shaped(self, kept: Kept) -> Shaped | None:
        """The shape of the delivery's records; None where another one tells it."""

    def parse(self, kept: Kept) -> ParsedPayload:
        """The delivery's records."""


@dataclass(slots=True)
class _Account:
    kept: Kept
    version: str
    counts: dict[str, int]
    extent: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Parsed:
    kept: Kept
    version: str
    records: ParsedPayload
    settled: Settled
    keeps_quarantine: bool
    """The same bytes were delivered again later; what is wrong with them is told of that delivery."""


class ObservationLoad:
    """Parses what this parser's version has not parsed yet, and keeps the account.

    With `only_waiting`, what another version has parsed is left as it is.

    Any order, any repetition and any split into runs of a source's deliveries gives the same tables: see `statements`.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        parser: Parser,
        run: SourceRun,
        on_drift: Callable[[], None] = lambda: None,
        *,
        only_waiting: bool = False,
    ) -> None:
        self._deliveries = deliveries
        self._parser = parser
        self._statements = Statements(parser)
        self._watch = DriftWatch(parser, run.run_id)
        self._run = run
        self._on_drift = on_drift
        self._only_waiting = only_waiting
        self._current: _Parsed | None = None
        self._latest: dict[str, Rank] = {}
        self._touched = Touched()
        self._sums: dict[str, dict[str, int]] = {}
        self._coins = _Coins()

    def load(self) -> Load:
        """What to hand to the `PostgresIOManager`."""
        return Load(self._frames, self._after_frame, self._before_commit, self._failed, group_by=BY_DAY, list_by=COIN)

    def _frames(self, connection: sa.Connection) -> Iterator[pa.Table]:
        withdrawals = Withdrawals(connection, self._deliveries, self._statements)
        due = self._deliveries.those(connection, self._is_due())
        for _, same in groupby(due, lambda kept: (kept.source, kept.partition, kept.fetched_at)):
            blocks = list(same)
            last = self._last_block(connection, blocks[-1]) if self._parser.restates else None
            if self._parser.restates and last is None:
                self._leave_out(connection, blocks)
                continue
            for kept in blocks:
                yield from self._frame(connection, kept, is_newest=kept is due[-1])
            if last is not None:
                coins, rows = withdrawals.settle(last.source, last.partition, last.fetched_at)
                self._touched.add(last.source, coins)
                connection.execute(sa.update(delivery).where(*_is(last)).values(withdrawn=rows))

    def _is_due(self) -> sa.ColumnElement[bool]:
        """Whether a delivery was never parsed, or (unless only those are wanted) by another version of the parser."""
        waits = delivery.c.parser_version.is_(None)
        if self._only_waiting:
            return waits
        return waits | ~delivery.c.parser_version.startswith(self._parser.version, autoescape=True)

    def _last_block(self, connection: sa.Connection, kept: Kept) -> Kept | None:
        """The last block of the file that this one is of; None where the file was not read to its end."""
        same = (delivery.columns[name] == getattr(kept, name) for name in ("source", "partition", "fetched_at"))
        return next(iter(self._deliveries.find(connection, *same, delivery.c.is_last)), None)

    def _leave_out(self, connection: sa.Connection, blocks: list[Kept]) -> None:
        """Blocks of a file that was not read to its end: another run may be at it, or else they hold nothing."""
        if datetime.now(UTC) - blocks[0].fetched_at < BEING_READ:
            return
        for kept in blocks:
            self._write_account(connection, _Account(kept, self._parser.version, dict.fromkeys(COUNTS, 0)))

    def _frame(self, connection: sa.Connection, kept: Kept, *, is_newest: bool) -> Iterator[pa.Table]:
        version = self._parser.version_of(kept)
        latest = self._latest_parsed(connection, kept.source)
        late = latest is not None and latest > kept.rank
        lost = self._watch.look(connection, kept)
        if lost and is_newest and not late and not self._parser.restates:
            raise DriftError(lost)  # of an older payload, or a file, each record is quarantined
        if not late and not self._parser.uses_fetched_at:
            known = _parsed_before(connection, kept, version)
            if known is not None:
                self._write_account(connection, known)
                return
        records = self._parser.parse(kept)
        settled = Settled(records.observations, 0)
        if late:
            later = self._parsed_after(connection, kept)
            settled = settle(connection, kept, records.observations, later, self._statements)
        self._current = _Parsed(kept, version, records, settled, late and _came_again(connection, kept))
        yield settled.observations

    def _latest_parsed(self, connection: sa.Connection, source: str) -> Rank | None:
        """Rank of the latest delivery that was parsed."""
        if source not in self._latest:
            place = (delivery.c.fetched_at, delivery.c.partition, delivery.c.position)
            query = (
                sa.select(*place)
                .where(delivery.c.source == source, delivery.c.parser_version.is_not(None))
                .order_by(*(column.desc() for column in place))
                .limit(1)
            )
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            self._latest[source] = (row[0], row[1], row[2])
        return self._latest[source]

    def _parsed_after(self, connection: sa.Connection, kept: Kept) -> list[Kept]:
        """The deliveries after this one that this parser has parsed, oldest first."""
        return self._deliveries.find(
            connection,
            delivery.c.source == kept.source,
            _ranked_above(kept),
            delivery.c.parser_version.startswith(self._parser.version, autoescape=True),
            delivery.c.records > 0,
        )

    def _after_frame(self, connection: sa.Connection, merged: Merged) -> None:
        if self._current is None:
            return
        parsed, kept = self._current, self._current.kept
        quarantined = parsed.records.quarantined
        counts = {
            "records": parsed.records.records,
            "inserted": merged.inserted,
            "updated": merged.updated,
            "unchanged": merged.unchanged + parsed.settled.overruled + parsed.records.duplicates,
            "quarantined": len(quarantined),
        }
        if sum(counts.values()) != 2 * counts["records"]:
            raise AssertionError(f"{kept.request}: the account does not add up: {counts}")
        extent = _extent(parsed.records.observations)
        self._write_account(connection, _Account(kept, parsed.version, counts, extent))
        if not parsed.keeps_quarantine:
            self._write_quarantine(connection, kept, parsed.version, quarantined)
        self._coins.add(connection, parsed.settled.observations)
        self._touched.add(kept.source, merged.listed)
        self._current = None

    def _before_commit(self, connection: sa.Connection, _: Merged) -> None:
        self._watch.write(connection)
        self._coins.write(connection)
        self._touched.write(connection)
        self._run.succeeded(connection, self._sums)

    def _failed(self, error: BaseException) -> None:
        self._run.failed(error)
        if isinstance(error, DriftError):
            with self._run.engine().begin() as connection:
                self._watch.write_found(connection)
            self._on_drift()

    def _write_account(self, connection: sa.Connection, account: _Account) -> None:
        kept = account.kept
        values = {
            "parser_version": account.version,
            "parsed_at": sa.func.clock_timestamp(),
            "parse_run_id": self._run.run_id,
            **dict.fromkeys(EXTENT),
            **account.extent,
            **account.counts,
        }
        connection.execute(sa.update(delivery).where(*_is(kept)).values(values))
        self._latest[kept.source] = max(self._latest_parsed(connection, kept.source) or kept.rank, kept.rank)
        sums = self._sums.setdefault(kept.source, dict.fromkeys(COUNTS, 0))
        for name, count in account.counts.items():
            sums[name] += count

    def _write_quarantine(
        self, connection: sa.Connection, kept: Kept, version: str, quarantined: list[Quarantined]
    ) -> None:
        """The payload's quarantined records and no others: what parses now leaves the quarantine."""
        of_payload = (quarantine.c.source == kept.source, quarantine.c.payload_sha256 == kept.sha256)
        positions = [refused.position for refused in quarantined]
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
                for refused in quarantined
            ],
        )


def _parsed_before(connection: sa.Connection, kept: Kept, version: str) -> _Account | None:
    """The account of the same bytes, where parsing them again would say the same and could change nothing.

    It would say something else of quarantined records that now stand elsewhere, or whose day has come. It could change
    something where rows among its own were updated since, or where the bytes were parsed after later ones.
    """
    other = delivery.alias()
    unsettled = sa.exists().where(
        other.c.source == kept.source,
        _may_meet(other.c),
        ((other.c.parsed_at > delivery.c.parsed_at) & (other.c.updated > 0))
        | ((other.c.fetched_at > delivery.c.fetched_at) & (other.c.parsed_at < delivery.c.parsed_at)),
    )
    waits = sa.exists().where(
        quarantine.c.source == kept.source,
        quarantine.c.payload_sha256 == kept.sha256,
        quarantine.c.reason_code == "future_day",
    )
    elsewhere = (delivery.c.request != kept.request) | (delivery.c.first_record != kept.first_record)
    query = (
        sa.select(delivery)
        .where(
            delivery.c.source == kept.source,
            delivery.c.sha256 == kept.sha256,
            delivery.c.parser_version.is_not(None),
        )
        .where(sa.tuple_(*_place(delivery.c)) < sa.tuple_(*map(sa.literal, kept.rank)))
        .order_by(*(column.desc() for column in _place(delivery.c)))
        .limit(1)
        .add_columns(unsettled.label("unsettled"), waits.label("waits"), elsewhere.label("elsewhere"))
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None or row["parser_version"] != version or row["unsettled"]:
        return None
    if row["quarantined"] and (row["waits"] or row["elsewhere"]):
        return None
    unchanged = row["records"] - row["quarantined"]
    counts = dict(zip(COUNTS, (row["records"], 0, 0, unchanged, row["quarantined"]), strict=True))
    return _Account(kept, version, counts, {name: row[name] for name in EXTENT})


def _may_meet(other: Any) -> sa.ColumnElement[bool]:  # noqa: ANN401 - columns of an alias
    """Whether the observations of two deliveries may have a key in common, as far as their extents tell."""
    ours = delivery.c
    apart = sa.or_(
        other.first_observed_at > ours.last_observed_at,
        other.last_observed_at < ours.first_observed_at,
        other.first_coin_id > ours.last_coin_id,
        other.last_coin_id < ours.first_coin_id,
    )
    return apart.is_not(True)


def _came_again(connection: sa.Connection, kept: Kept) -> bool:
    """Whether the same bytes were delivered later, in a whole file or answer, and parsed."""
    last = delivery.alias()
    whole = sa.exists().where(
        last.c.source == delivery.c.source,
        last.c.partition == delivery.c.partition,
        last.c.fetched_at == delivery.c.fetched_at,
        last.c.is_last,
    )
    again = sa.exists().where(
        delivery.c.source == kept.source,
        delivery.c.sha256 == kept.sha256,
        delivery.c.parser_version.is_not(None),
        _ranked_above(kept),
        whole,
    )
    return bool(connection.scalar(sa.select(again)))


def _place(columns: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - columns of the table or of an alias
    """The columns of a `Rank`."""
    return columns.fetched_at, columns.partition, columns.position


def _ranked_above(kept: Kept) -> sa.ColumnElement[bool]:
    return sa.tuple_(*_place(delivery.c)) > sa.tuple_(*map(sa.literal, kept.rank))


def _is(kept: Kept) -> list[sa.ColumnElement[bool]]:
    """The delivery, by its key."""
    return [delivery.columns[name] == getattr(kept, name) for name in ("source", "partition", "position", "fetched_at")]


def _extent(observations: pa.Table) -> dict[str, Any]:
    """From when to when, and from which coin to which, the observations are."""
    if not observations.num_rows:
        return {}
    ends = [pc.min_max(observations.column(name)).as_py() for name in ("observed_at", "source_coin_id")]
    return dict(zip(EXTENT, [end[side] for end in ends for side in ("min", "max")], strict=True))


class _Coins:
    """What the sources call their coins; the latest observation's word counts. Written once for many frames."""

    def __init__(self) -> None:
        self._seen: list[pa.Table] = []

    def add(self, connection: sa.Connection, observations: pa.Table) -> None:
        """Remember the coins in `observations`; written at once only where there are very many."""
        self._seen.append(_newest(observations, "observed_at", "observed_at"))
        if sum(map(len, self._seen)) > MAX_COINS:
            self._seen = [self._all()]
        if len(self._seen[0]) > MAX_COINS // 2:
            self.write(connection)

    def write(self, connection: sa.Connection) -> None:
        """Write and forget them."""
        if self._seen:
            _write_coins(connection, self._all())
        self._seen = []

    def _all(self) -> pa.Table:
        return _newest(pa.concat_tables(self._seen), "first_seen", "last_seen")


def _newest(table: pa.Table, first: str, last: str) -> pa.Table:
    """One row a coin: least `first`; symbol, name and `last` of its latest row that has a symbol or a name."""
    key = ["source", "source_coin_id"]
    columns = dict.fromkeys([*key, first, last, "symbol", "name"])
    named = pc.or_(pc.is_valid(table.column("symbol")), pc.is_valid(table.column("name")))
    rows = table.select(list(columns)).append_column("named", named)
    grouped = rows.sort_by([("named", "ascending"), (last, "ascending")]).group_by(key, use_threads=False)
    coins = grouped.aggregate([(first, "min"), (last, "last"), ("symbol", "last", _NULLS), ("name", "last", _NULLS)])
    return coins.select([*key, f"{first}_min", f"{last}_last", "symbol_last", "name_last"]).rename_columns(
        [*key, "first_seen", "last_seen", "symbol", "name"]
    )


def _write_coins(connection: sa.Connection, coins: pa.Table) -> None:
    # One statement with an array a column: one a row would take longer than all of the load beside it.
    arrays = [
        sa.literal(
            column.to_pylist(),
            sa.ARRAY(sa.DateTime(timezone=True) if pa.types.is_timestamp(column.type) else sa.Text),
        )
        for column in coins.columns
    ]
    rows = sa.func.unnest(*arrays).table_valued(*coins.column_names).render_derived()
    statement = insert(source_coin).from_select(coins.column_names, sa.select(rows))
    new, old = statement.excluded, source_coin.c
    later = new.last_seen >= old.last_seen
    # A word without a symbol or name, as a history's may be, gives way to any that has one.
    counts = sa.case((_is_named(new) == _is_named(old), later), else_=_is_named(new))
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["source", "source_coin_id"],
            set_={
                "symbol": sa.case((counts, new.symbol), else_=old.symbol),
                "name": sa.case((counts, new.name), else_=old.name),
                "first_seen": sa.func.least(old.first_seen, new.first_seen),
                "last_seen": sa.case((counts, new.last_seen), else_=old.last_seen),
            },
            where=counts | (new.first_seen < old.first_seen),
        )
    )


def _is_named(columns: Any) -> sa.ColumnElement[bool]:  # noqa: ANN401 - columns of the table or of what is inserted
    return sa.or_(columns.symbol.is_not(None), columns.name.is_not(None))
