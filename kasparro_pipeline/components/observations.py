"""From deliveries to observations: what is parsed, and the account of it that commits with the rows.

Deliveries are parsed one after the other and merged many at a time. In the same transaction as the observations go the
quarantined records, what each source calls each coin, the days touched, and every delivery's account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Protocol

import pyarrow as pa
import sqlalchemy as sa

from kasparro_pipeline.components.accounts import (
    COUNTS,
    Account,
    came_again,
    extent_of,
    is_delivery,
    parsed_before,
    ranked_above,
    write_accounts,
    write_quarantine,
)
from kasparro_pipeline.components.coin_names import CoinNames
from kasparro_pipeline.components.drift import DriftError, DriftWatch, Shaped
from kasparro_pipeline.components.parse_ahead import ParseAhead
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.components.statements import Statements, settle
from kasparro_pipeline.components.withdrawals import Withdrawals
from kasparro_pipeline.io_managers.postgres import Load
from kasparro_pipeline.io_managers.raw_payload import Deliveries, Kept, Rank
from kasparro_pipeline.sources.keys import codes, surely_differ
from kasparro_pipeline.sources.records import ParsedPayload
from kasparro_pipeline.warehouse.frames import CHUNK_ROWS
from kasparro_pipeline.warehouse.merge import Merged, UtcDay, Written
from kasparro_pipeline.warehouse.tables import delivery
from kasparro_pipeline.warehouse.touched import Touched

WRITTEN_BY = (UtcDay("observed_at"), "source", "payload_sha256")
"""By which written rows are counted: the day they touch, and the delivery they are from."""
COIN = "source_coin_id"
BEING_READ = timedelta(hours=1)
"""So long the blocks of a file without its last one may be a file that another run is reading."""
_KEY = ["source", "source_coin_id", "observed_at"]


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
class _Parsed:
    """A delivery on its way into the table."""

    kept: Kept
    version: str
    records: ParsedPayload
    observations: pa.Table
    """Those of its observations that no later delivery overrules."""
    overruled: int
    keeps_quarantine: bool
    """The same bytes were delivered again later; what is wrong with them is told of that delivery."""

    def account(self, written: Written) -> Account:
        """What became of its records, `written` of which were not in the table as they are."""
        unchanged = self.observations.num_rows - written.inserted - written.updated
        counts = {
            "records": self.records.records,
            "inserted": written.inserted,
            "updated": written.updated,
            "unchanged": unchanged + self.overruled + self.records.duplicates,
            "quarantined": len(self.records.quarantined),
        }
        return Account(self.kept, self.version, counts, extent_of(self.records.observations))


class ObservationLoad:
    """Parses what this parser's version has not parsed yet, and keeps the account.

    With `only_waiting`, what another version has parsed is left as it is.

    Any order, any repetition and any split into runs of a source's deliveries gives the same tables: see `statements`.
    Of the deliveries that are merged together no two speak of one key or are the same bytes, so that it is as if each
    were merged by itself.
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
        self._batch: list[_Parsed] = []
        self._being_merged: list[_Parsed] = []
        self._bytes_parsed: set[tuple[str, str]] = set()
        self._latest: dict[str, Rank] = {}
        self._touched = Touched()
        self._sums: dict[str, dict[str, int]] = {}
        self._coins = CoinNames()
        self._lost: dict[tuple[str, str], str] = {}
        """File to what its newest state lost."""

    def load(self) -> Load:
        """What to hand to the `PostgresIOManager`."""
        return Load(
            *(self._frames, self._after_frame, self._before_commit, self._failed, self._after_commit),
            group_by=WRITTEN_BY,
            list_by=COIN,
            comes_again=False,  # known bytes are not parsed again, and other ones fall into other frames
        )

    def _frames(self, connection: sa.Connection) -> Iterator[pa.Table]:
        withdrawals = Withdrawals(connection, self._deliveries, self._statements)
        due = self._deliveries.those(connection, self._is_due())
        self._bytes_parsed = self._parsed_of(connection, due)
        with ParseAhead(self._parser.parse, (kept for kept in due if not self._is_known(kept))) as ahead:
            for _, same in groupby(due, lambda kept: (kept.source, kept.partition, kept.fetched_at)):
                blocks = list(same)
                last = self._last_block(connection, blocks[-1]) if self._parser.restates else None
                if self._parser.restates and last is None:
                    self._leave_out(connection, blocks)
                    continue
                for kept in blocks:
                    yield from self._take(connection, kept, ahead, is_newest=kept is due[-1])
                if last is not None and not withdrawals.is_first(last.source, last.partition):
                    yield from self._flush()
                    coins, rows = withdrawals.settle(last.source, last.partition, last.fetched_at)
                    self._touched.add(last.source, coins)
                    connection.execute(sa.update(delivery).where(*is_delivery(last)).values(withdrawn=rows))
            yield from self._flush()

    def _is_due(self) -> sa.ColumnElement[bool]:
        """Whether a delivery was never parsed, or (unless only those are wanted) by another version of the parser."""
        waits = delivery.c.parser_version.is_(None)
        if self._only_waiting:
            return waits
        return waits | ~delivery.c.parser_version.startswith(self._parser.version, autoescape=True)

    def _parsed_of(self, connection: sa.Connection, due: list[Kept]) -> set[tuple[str, str]]:
        """Source and digest of those bytes that were parsed before, by whatever version."""
        sources, payloads = {kept.source for kept in due}, {kept.sha256 for kept in due}
        query = sa.select(delivery.c.source, delivery.c.sha256).where(
            delivery.c.source.in_(sources),
            delivery.c.sha256 == sa.any_(sa.literal(list(payloads), sa.ARRAY(sa.Text))),
            delivery.c.parser_version.is_not(None),
        )
        return {(source, sha256) for source, sha256 in connection.execute(query)}

    def _is_known(self, kept: Kept) -> bool:
        """Whether the same bytes may have been parsed to the same observations before."""
        return not self._parser.uses_fetched_at and (kept.source, kept.sha256) in self._bytes_parsed

    def _last_block(self, connection: sa.Connection, kept: Kept) -> Kept | None:
        """The last block of the file that this one is of; None where the file was not read to its end."""
        same = (delivery.columns[name] == getattr(kept, name) for name in ("source", "partition", "fetched_at"))
        return next(iter(self._deliveries.find(connection, *same, delivery.c.is_last)), None)

    def _leave_out(self, connection: sa.Connection, blocks: list[Kept]) -> None:
        """Blocks of a file that was not read to its end: another run may be at it, or else they hold nothing."""
        if datetime.now(UTC) - blocks[0].fetched_at < BEING_READ:
            return
        nothing = [Account(kept, self._parser.version, dict.fromkeys(COUNTS, 0)) for kept in blocks]
        self._write_accounts(connection, nothing)

    def _take(self, connection: sa.Connection, kept: Kept, ahead: ParseAhead, *, is_newest: bool) -> Iterator[pa.Table]:
        """Parse the delivery, unless its bytes are known; the frames that have to be merged before, or now."""
        version = self._parser.version_of(kept)
        latest = self._latest_parsed(connection, kept.source)
        late = latest is not None and latest > kept.rank
        lost = self._watch.look(connection, kept)
        if self._parser.restates:
            self._note_lost(kept, lost)
        elif lost and is_newest and not late:
            raise DriftError(lost)  # of an older payload each record is quarantined
        if late or any((kept.source, kept.sha256) == (one.kept.source, one.kept.sha256) for one in self._batch):
            yield from self._flush()
        if not late and self._is_known(kept):
            yield from self._flush()
            known = parsed_before(connection, kept, version)
            if known is not None:
                self._write_accounts(connection, [known])
                return
        parsed = self._parsed(connection, kept, version, ahead.parsed(kept), late=late)
        if not self._has_room_for(parsed):
            yield from self._flush()
        self._batch.append(parsed)
        if late:
            yield from self._flush()

    def _parsed(
        self, connection: sa.Connection, kept: Kept, version: str, records: ParsedPayload, *, late: bool
    ) -> _Parsed:
        said = records.observations
        if not late:
            return _Parsed(kept, version, records, said, 0, keeps_quarantine=False)
        settled = settle(connection, kept, said, self._parsed_after(connection, kept), self._statements)
        again = came_again(connection, kept)
        return _Parsed(kept, version, records, settled.observations, settled.overruled, again)

    def _has_room_for(self, parsed: _Parsed) -> bool:
        """Whether it is small enough to join the batch, and tells of the same columns: a history's answer has fewer."""
        rows = sum(one.observations.num_rows for one in [*self._batch, parsed])
        return rows <= CHUNK_ROWS and all(one.observations.schema == parsed.observations.schema for one in self._batch)

    def _flush(self) -> Iterator[pa.Table]:
        """The batch as one frame; where two of its deliveries speak of one key, a frame each."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        frame = _observations(batch)
        for together in [batch] if len(batch) == 1 or _keys_differ(frame) else [[one] for one in batch]:
            self._being_merged = together
            yield _observations(together)

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

    def _note_lost(self, kept: Kept, lost: str | None) -> None:
        """A file that lost a key field is quarantined, and the run fails once that is stored."""
        if kept.position == 0:
            self._lost.pop((kept.source, kept.partition), None)
        if lost:
            self._lost[kept.source, kept.partition] = lost

    def _parsed_after(self, connection: sa.Connection, kept: Kept) -> list[Kept]:
        """The deliveries after this one that this parser has parsed, oldest first."""
        return self._deliveries.find(
            connection,
            delivery.c.source == kept.source,
            ranked_above(kept),
            delivery.c.parser_version.startswith(self._parser.version, autoescape=True),
            delivery.c.records > 0,
        )

    def _after_frame(self, connection: sa.Connection, merged: Merged) -> None:
        written: dict[tuple[str, str], Written] = {}
        for (_, *delivered), rows in merged.groups.items():
            written.setdefault((delivered[0], delivered[1]), Written()).add(rows)
        accounts = [
            one.account(written.get((one.kept.source, one.kept.sha256), Written())) for one in self._being_merged
        ]
        self._write_accounts(connection, accounts)
        found = zip(accounts, self._being_merged, strict=True)
        told = [(account, one.records.quarantined) for account, one in found if not one.keeps_quarantine]
        write_quarantine(connection, told, self._run.run_id, are_files=self._parser.restates)
        self._coins.add(connection, _observations(self._being_merged))
        self._touched.add_written(merged.listed)
        self._being_merged = []

    def _before_commit(self, connection: sa.Connection, _: Merged) -> None:
        self._watch.write(connection)
        self._coins.write(connection)
        self._touched.write(connection)
        self._run.succeeded(connection, self._sums)

    def _after_commit(self) -> None:
        if not self._lost:
            return
        for (source, _), lost in sorted(self._lost.items()):
            self._run.failed(DriftError(lost), [source])
        self._on_drift()
        raise DriftError("\n".join(self._lost.values()))

    def _failed(self, error: BaseException) -> None:
        self._run.failed(error)
        if isinstance(error, DriftError):
            with self._run.engine().begin() as connection:
                self._watch.write_found(connection)
            self._on_drift()

    def _write_accounts(self, connection: sa.Connection, accounts: list[Account]) -> None:
        write_accounts(connection, accounts, self._run.run_id)
        for account in accounts:
            kept = account.kept
            self._bytes_parsed.add((kept.source, kept.sha256))
            self._latest[kept.source] = max(self._latest_parsed(connection, kept.source) or kept.rank, kept.rank)
            sums = self._sums.setdefault(kept.source, dict.fromkeys(COUNTS, 0))
            for name, count in account.counts.items():
                sums[name] += count


def _observations(parsed: Iterable[_Parsed]) -> pa.Table:
    return pa.concat_tables(one.observations for one in parsed)


def _keys_differ(frame: pa.Table) -> bool:
    if surely_differ(*(codes(frame.column(name)) for name in _KEY)):
        return True
    return bool(frame.group_by(_KEY, use_threads=False).aggregate([]).num_rows == frame.num_rows)
