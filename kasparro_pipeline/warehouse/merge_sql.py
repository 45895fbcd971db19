"""The statements of a merge.

None of them joins. Every stored row is looked up by its key (``LATERAL … OFFSET 0`` cannot be turned into a join), so
that the plan is the same with fresh, stale or no statistics, and a merge of a thousand rows costs the same in a table
of a million as in one of a hundred million.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.schema import ColumnElementColumnDefault

from kasparro_pipeline.warehouse.frames import UtcDay
from kasparro_pipeline.warehouse.months import BY_MONTH, month_sql

STAGING = "kasparro_staging"
KEPT = "kasparro_kept"
MAX_LISTED = 2000
"""Of a group no list is told that would be longer."""
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def quoted(*names: str, alias: str | None = None) -> str:
    """`names` as identifiers, separated by commas."""
    quote = _DIALECT.identifier_preparer.quote_identifier
    return ", ".join(f"{alias}.{quote(name)}" if alias else quote(name) for name in names)


@dataclass(frozen=True, slots=True)
class KeyRange:
    """All keys from `low` to `high`, both included, as PostgreSQL's text of each key column."""

    low: list[str]
    high: list[str]


@dataclass(frozen=True)
class Target:
    """The table that is merged into, as it is written in SQL."""

    table: sa.Table

    @cached_property
    def name(self) -> str:
        """Schema and table, quoted."""
        return str(_DIALECT.identifier_preparer.format_table(self.table))

    @cached_property
    def keys(self) -> list[str]:
        """The columns of the primary key, in its order."""
        return [column.name for column in self.table.primary_key.columns]

    def within(self, keys: KeyRange) -> tuple[str, list[str]]:
        """A condition on ``t``: its key is in the range; and the condition's parameters."""
        months, ends = self.months(keys)
        within = f"({self._t_keys}) >= ({self._values}) AND ({self._t_keys}) <= ({self._values}){months}"
        return within, [*keys.low, *keys.high, *ends]

    def months(self, keys: KeyRange) -> tuple[str, list[str]]:
        """`` AND …``: that ``t`` is in one of the partitions in which keys of the range can be; and its parameters.

        Without it every partition would be looked into, and planned for. Empty where the range does not tell.
        """
        column = self.table.info.get(BY_MONTH)
        if column is None:
            return "", []
        place = self.keys.index(column)
        if keys.low[:place] != keys.high[:place]:
            return "", []
        return f" AND t.{quoted(column)} BETWEEN %s AND %s", [keys.low[place], keys.high[place]]

    def first_from(self, keys: KeyRange) -> tuple[str, list[str]]:
        """Whether the first stored key from the low one on is at most the high one; and the query's parameters."""
        months, ends = self.months(keys)
        # Within the partitions the condition on the time must not be what ends the search, but the key.
        at_most = f" AND ({self._t_keys}) <= ({self._values})" if months else ""
        return (
            f"SELECT ({self._t_keys}) <= ({self._values}) FROM (SELECT {self._t_keys} FROM {self.name} t "  # noqa: S608
            f"WHERE ({self._t_keys}) >= ({self._values}){months}{at_most} ORDER BY {self._t_keys} LIMIT 1) t",
            [*keys.high, *keys.low, *ends, *(keys.high if months else ())],
        )

    def stored_within(self, keys: KeyRange, limit: int) -> tuple[str, list[Any]]:
        """The stored keys of the range, no more than `limit`; and the query's parameters."""
        within, parameters = self.within(keys)
        return f"SELECT {self._t_keys} FROM {self.name} t WHERE {within} LIMIT %s", [*parameters, limit]  # noqa: S608

    def stored_among(self, some: list[list[str]], keys: KeyRange) -> tuple[str, list[Any]]:
        """How many of some keys of the range, texts column by column, are stored; and the query's parameters."""
        arrays = ", ".join(["%s::text[]"] * len(self.keys))
        names = ", ".join(f"k{place}" for place in range(len(self.keys)))
        same = " AND ".join(
            f"t.{quoted(key.name)} = k{place}::{_bare_type(key.type)}"
            for place, key in enumerate(self.table.primary_key.columns)
        )
        months, ends = self.months(keys)
        stored = f"SELECT FROM {self.name} t WHERE {same}{months} OFFSET 0"
        query = f"SELECT count(*) FROM unnest({arrays}) AS k ({names}), LATERAL ({stored}) t"  # noqa: S608
        return query, [*some, *ends]

    @property
    def _t_keys(self) -> str:
        return quoted(*self.keys, alias="t")

    @property
    def _values(self) -> str:
        return ", ".join(["%s"] * len(self.keys))


@dataclass(frozen=True)
class MergeSql:
    """The statements that write staged rows with `columns` into `target`, counting them by `group_by`.

    With `list_by` each count comes with the values of that column in the rows counted; null where they are too many.
    """

    target: Target
    columns: list[str]
    group_by: tuple[str | UtcDay, ...]
    list_by: str | None = None

    @cached_property
    def create_staging(self) -> str:
        """A temporary table with the types of the target and no constraints."""
        return (
            f"CREATE TEMP TABLE {STAGING} ON COMMIT DROP AS "  # noqa: S608
            f"SELECT {self._columns} FROM {self.target.name} WITH NO DATA"
        )

    @cached_property
    def staged_range(self) -> str:
        """The least and the greatest staged key; nulls where nothing is staged."""
        texts = ", ".join(f"{quoted(key)}::text" for key in self.target.keys)
        descending = ", ".join(f"{quoted(key)} DESC" for key in self.target.keys)
        # As text only after the one row is found: the text of a time costs more than finding it.
        first, last = (
            f"(SELECT ARRAY[{texts}] FROM (SELECT {self._keys} FROM {STAGING} ORDER BY {order} LIMIT 1) s)"  # noqa: S608
            for order in (self._keys, descending)
        )
        return f"SELECT {first}, {last}"

    @cached_property
    def staged_months(self) -> str:
        """The numbers of the months that are staged, where the target is partitioned by month."""
        month = month_sql(quoted(self.target.table.info[BY_MONTH]))
        return f"SELECT DISTINCT {month} FROM {STAGING}"  # noqa: S608

    @cached_property
    def insert(self) -> str:
        """Insert all that is staged; returns (rows, 0, list, group ...). Fails where a key is stored already."""
        return f"WITH inserted AS ({self._write(STAGING)}) {self._counted('count(*), 0', 'inserted')}"

    def upsert(self, months: str = "", *, expect_others: bool = False) -> str:
        """Update what differs and insert what is absent; returns (inserted, updated, list, group ...).

        `months` of the staged keys, see `Target`. Fails where another transaction stores an absent key meanwhile,
        unless `expect_others`, which is slower.
        """
        inserted = self._write("differing WHERE NOT kasparro_stored", upserts=expect_others)
        return (
            f"WITH differing AS MATERIALIZED ({self._differing(months)}), inserted AS ({inserted}), "
            f"updated AS ({self._write('differing WHERE kasparro_stored', upserts=True)}) "
            f"{self._counted('count(*), 0', 'inserted')} UNION ALL {self._counted('0, count(*)', 'updated')}"
        )

    def delete_missing(self, column: str, among: str | None = None) -> str:
        """Delete rows whose key was not kept and whose `column` is within the two parameters: (rows, list, group ...).

        With `among` only rows that have there one of the values of a third parameter, an array.
        """
        one_of = f"AND t.{quoted(among)} = ANY (%s) " if among else ""
        return (
            f"WITH gone AS (DELETE FROM {self.target.name} t WHERE {quoted(column)} >= %s AND {quoted(column)} < %s "  # noqa: S608
            f"{one_of}AND NOT EXISTS (SELECT FROM {KEPT} k WHERE {self._same_key('k')} OFFSET 0) "
            f"RETURNING {self._group}) {self._counted('count(*)', 'gone')}"
        )

    @cached_property
    def _compared(self) -> list[str]:
        columns = self.target.table.columns
        values = [name for name in self.columns if name not in self.target.keys]
        return [name for name in values if columns[name].info.get("compare", True)]

    def _differing(self, months: str) -> str:
        compared = f", {quoted(*self._compared, alias='t')}" if self._compared else ""
        stored = f"SELECT true AS kasparro_stored{compared} FROM {self.target.name} t "  # noqa: S608
        stored += f"WHERE {self._same_key('s')}{months}"
        return (
            "SELECT s.*, t.kasparro_stored IS NOT NULL AS kasparro_stored "  # noqa: S608
            f"FROM {STAGING} s LEFT JOIN LATERAL ({stored} OFFSET 0) t ON true "
            f"WHERE t.kasparro_stored IS NULL OR {self._differs('s')}"
        )

    def _write(self, rows: str, *, upserts: bool = False) -> str:
        # In the order of the key: the index grows page after page, and two writers lock rows in the same order.
        conflict = f"ON CONFLICT ({self._keys}) {self._conflict_action} " if upserts else ""
        return (
            f"INSERT INTO {self.target.name} AS t ({self._columns}) SELECT {self._columns} FROM {rows} "  # noqa: S608
            f"ORDER BY {self._keys} {conflict}RETURNING {self._group}"
        )

    @property
    def _conflict_action(self) -> str:
        if not self._compared:
            return "DO NOTHING"
        values = [name for name in self.columns if name not in self.target.keys]
        sets = [f"{quoted(name)} = excluded.{quoted(name)}" for name in values] + self._onupdates
        return f"DO UPDATE SET {', '.join(sets)} WHERE {self._differs('excluded')}"

    @property
    def _onupdates(self) -> list[str]:
        return [
            f"{quoted(column.name)} = {column.onupdate.arg.compile(dialect=_DIALECT)}"
            for column in self.target.table.columns
            if isinstance(column.onupdate, ColumnElementColumnDefault) and column.name not in self.columns
        ]

    def _differs(self, alias: str) -> str:
        if not self._compared:
            return "false"
        return f"({quoted(*self._compared, alias=alias)}) IS DISTINCT FROM ({quoted(*self._compared, alias='t')})"

    def _same_key(self, alias: str) -> str:
        return " AND ".join(f"t.{quoted(key)} = {alias}.{quoted(key)}" for key in self.target.keys)

    @property
    def _group(self) -> str:
        listed = f"{quoted(self.list_by, alias='t')} AS listed" if self.list_by else "NULL AS listed"
        return ", ".join([listed, *(f"{_value(by)} AS grp{place}" for place, by in enumerate(self.group_by))])

    def _counted(self, counts: str, rows: str) -> str:
        names = [f"grp{place}" for place in range(len(self.group_by))]
        listed = f"CASE WHEN count(*) <= {MAX_LISTED} THEN array_agg(listed) END" if self.list_by else "NULL"
        return f"SELECT {', '.join([counts, listed, *names])} FROM {rows} GROUP BY ({', '.join(names)})"  # noqa: S608

    @property
    def _columns(self) -> str:
        return quoted(*self.columns)

    @property
    def _keys(self) -> str:
        return quoted(*self.target.keys)


def _bare_type(kind: sa.types.TypeEngine[Any]) -> str:
    """The type without a collation, which a cast cannot have."""
    return "text" if isinstance(kind, sa.String) else str(kind.compile(_DIALECT))


def _value(by: str | UtcDay) -> str:
    if isinstance(by, UtcDay):
        return f"({quoted(by.column, alias='t')} AT TIME ZONE 'UTC')::date"
    return quoted(by, alias="t")
