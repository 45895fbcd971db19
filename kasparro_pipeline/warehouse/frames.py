"""Frames on their way into COPY: cut into chunks, every value in a form that text carries exactly.

What belongs here: pandas and Arrow. What does not: SQL and connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from kasparro_pipeline.warehouse.months import BY_MONTH

pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own pool keeps what it once had: 50 MB beside a load

CHUNK_ROWS = 20_000
_ROW = "kasparro_row"


@dataclass(frozen=True, slots=True)
class UtcDay:
    """The UTC day of the times in a ``timestamptz`` column."""

    column: str


class MergeError(ValueError):
    """The frame does not fit the table; nothing of it was written."""


def as_arrow(frame: pd.DataFrame | pa.Table | pa.RecordBatch, table: sa.Table) -> pa.Table:
    """`frame` as an Arrow table whose columns and keys fit `table`; an empty one is not looked at.

    Raises:
        MergeError: a column is missing, unknown or there twice, a key is null, or pandas holds what no column can.
    """
    if len(frame) == 0:
        return pa.table({})
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    names = frame.columns if isinstance(frame, pd.DataFrame) else frame.column_names
    check_columns([str(name) for name in names], table)
    rows = _from_pandas(frame, table) if isinstance(frame, pd.DataFrame) else _without_views(frame)
    _check_keys(rows, table)
    return rows


def chunks(rows: pa.Table) -> Iterator[pa.Table]:
    """`rows` in pieces of at most `CHUNK_ROWS`."""
    for start in range(0, rows.num_rows, CHUNK_ROWS):
        yield rows.slice(start, CHUNK_ROWS)


def check_columns(names: list[str], table: sa.Table) -> None:
    """Raise a `MergeError` unless rows with columns `names` can be merged into `table`."""
    unknown = sorted(set(names) - set(table.columns.keys()))
    if unknown:
        raise MergeError(f"{table.fullname} has no column {', '.join(unknown)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MergeError(f"{table.fullname}: column {', '.join(twice)} is in the data twice")
    missing = [column.name for column in table.columns if column.name not in names and _is_required(column)]
    if missing:
        raise MergeError(f"{table.fullname}: column {', '.join(missing)} is missing from the data")


def exact(chunk: pa.Table, table: sa.Table) -> pa.Table:
    """`chunk` as text, integers and dates from which PostgreSQL reads the very same values; equal keys look equal.

    Raises:
        MergeError: a value cannot be carried exactly into its column.
    """
    columns = []
    for name in chunk.column_names:
        with _named(table.columns[name]):
            columns.append(_exact_values(chunk.column(name), table.columns[name].type))
    return pa.table(columns, names=chunk.column_names)


@contextmanager
def _named(column: sa.Column[Any]) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, MergeError) as error:
        raise MergeError(f"{column.table.fullname}.{column.name}: {str(error).splitlines()[0]}") from None


def by_key(rows: pa.Table, table: sa.Table) -> pa.Table:
    """`rows` in the order of their keys, texts by their bytes; of rows with one key only the last."""
    codes = [_codes(_in_one_form(rows.column(key.name), key)) for key in table.primary_key.columns]
    order = np.lexsort(codes[::-1])
    is_last = np.ones(len(order), bool)
    is_last[:-1] = np.any([code[order[1:]] != code[order[:-1]] for code in codes], axis=0)
    return rows.take(pa.array(order[is_last]))


def _codes(keys: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Numbers in the order of `keys`, equal where those are."""
    if not pa.types.is_string(keys.type):
        kind = pa.int64() if pa.types.is_timestamp(keys.type) else keys.type
        numbers: npt.NDArray[np.int64] = keys.cast(kind).to_numpy().astype(np.int64)
        return numbers
    texts = keys.combine_chunks().dictionary_encode()
    ranks = np.empty(len(texts.dictionary), np.int64)
    ranks[pc.sort_indices(texts.dictionary).to_numpy()] = np.arange(len(ranks))
    of_texts: npt.NDArray[np.int64] = ranks[texts.indices.to_numpy()]
    return of_texts


def spread(rows: pa.Table, count: int) -> pa.Table:
    """At most `count` of `rows`, the first and the last among them, the others evenly between."""
    return rows.take(pa.array(np.unique(np.linspace(0, rows.num_rows - 1, count).astype(np.int64))))


def key_texts(rows: pa.Table, table: sa.Table) -> list[list[str]]:
    """The keys, column by column, as text that PostgreSQL reads."""
    keys = exact(rows.select([key.name for key in table.primary_key.columns]), table)
    return [[str(value) for value in column.to_pylist()] for column in keys.columns]


def absent(rows: pa.Table, stored: list[tuple[Any, ...]], table: sa.Table) -> pa.BooleanArray:
    """Which of `rows` have none of the keys `stored`."""
    mask = np.ones(rows.num_rows, bool)
    if stored:
        names = [key.name for key in table.primary_key.columns]
        columns = [pa.chunked_array([pa.array(values)]) for values in zip(*stored, strict=True)]
        keys = _numbered_keys(pa.table(columns, names), table).select(names)
        mask[_numbered_keys(rows, table).join(keys, names, join_type="left semi")[_ROW].to_numpy()] = False
    return pa.array(mask)


def counted(
    rows: pa.Table, by: Sequence[str | UtcDay], list_by: str | None, max_listed: int
) -> Iterator[tuple[tuple[Any, ...], int, list[Any] | None]]:
    """Each combination of values, how many rows have it, and what those have in `list_by`; None: over `max_listed`."""
    names = [f"by{place}" for place in range(len(by))]
    values = pa.table([*(_values(rows, name) for name in by), _values(rows, list_by or by[0])], [*names, "listed"])
    groups = values.group_by(names, use_threads=False)
    found = groups.aggregate([([], "count_all"), ("listed", "list")]).to_pydict()
    for *group, count, listed in zip(*(found[name] for name in [*names, "count_all", "listed_list"]), strict=True):
        yield tuple(group), count, listed if count <= max_listed else None


def _values(rows: pa.Table, by: str | UtcDay) -> pa.ChunkedArray:
    if isinstance(by, UtcDay):
        return _plain(rows.column(by.column)).cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    return _plain(rows.column(by))


def _numbered_keys(rows: pa.Table, table: sa.Table) -> pa.Table:
    """The keys in one form, so that equal ones look equal, and the row's number in the last column."""
    columns = [_in_one_form(rows.column(key.name), key) for key in table.primary_key.columns]
    names = [key.name for key in table.primary_key.columns]
    return pa.table([*columns, pa.array(np.arange(rows.num_rows))], [*names, _ROW])


def _in_one_form(values: pa.ChunkedArray, column: sa.Column[Any]) -> pa.ChunkedArray:
    with _named(column):
        if isinstance(column.type, sa.DateTime):  # whose text costs more, and has no order beyond the year 9999
            return _micros(_plain(values), aware=column.type.timezone)
        return _exact_values(values, column.type)


def key_range(rows: pa.Table, table: sa.Table) -> tuple[list[str], list[str]]:
    """The least and the greatest key, in PostgreSQL's order where texts have ``COLLATE "C"``, as text that it reads."""
    ordered = _numbered_keys(rows, table)
    ends = []
    for pick in (pc.min, pc.max):
        end = ordered
        for key in ordered.column_names[:-1]:
            end = end.filter(pc.equal(end.column(key), pick(end.column(key))))
        ends.append([text for (text,) in key_texts(rows.take(end[_ROW].slice(0, 1)), table)])
    return ends[0], ends[1]


def months(rows: pa.Table, table: sa.Table) -> list[int]:
    """The months in which the rows are, as numbers; the table is partitioned by month, see `warehouse.months`."""
    times = _in_one_form(rows.column(table.info[BY_MONTH]), table.columns[table.info[BY_MONTH]])
    numbers = pc.add(pc.multiply(pc.year(times), 12), pc.subtract(pc.month(times), 1))
    return list(pc.unique(numbers).to_pylist())


def columns_with_nul(rows: pa.Table) -> list[str]:
    """The text columns in which a NUL character stands."""
    texts = [name for name in rows.column_names if pa.types.is_string(rows.column(name).type)]
    return [name for name in texts if pc.any(pc.match_substring(rows.column(name), "\0")).as_py()]


def is_ordered_alike(table: sa.Table) -> bool:
    """Whether Arrow and PostgreSQL put the table's keys in the same order."""
    types = [key.type for key in table.primary_key.columns]
    return not any(isinstance(kind, sa.String) and kind.collation != "C" for kind in types)


def is_key_type(sql_type: sa.types.TypeEngine[Any]) -> bool:
    """Whether `exact` writes equal values of this type equally, as a key column needs."""
    return isinstance(sql_type, sa.String | sa.Integer | sa.Date | sa.DateTime)


def _is_required(column: sa.Column[Any]) -> bool:
    made_by_server = column.server_default is not None or column.identity is not None or column.computed is not None
    return column.primary_key or not (column.nullable or made_by_server)


def _check_keys(chunk: pa.Table, table: sa.Table) -> None:
    for key in table.primary_key.columns:
        if nulls := chunk.column(key.name).null_count:
            raise MergeError(f"{table.fullname}: key column {key.name} is null in {nulls} of {chunk.num_rows} rows")


def _from_pandas(frame: pd.DataFrame, table: sa.Table) -> pa.Table:
    frame = frame.copy(deep=False)
    try:
        for column in table.columns:
            if isinstance(column.type, sa.Numeric) and column.name in frame and frame[column.name].dtype == object:
                frame[column.name] = _digits(frame[column.name])
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise MergeError(f"{table.fullname}: {'; '.join(map(str, error.args))}") from None


def _without_views(rows: pa.Table) -> pa.Table:
    """`rows` with texts and bytes in a form that Arrow can also filter."""
    casts = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    fields = [field.with_type(casts.get(field.type, field.type)) for field in rows.schema]
    return rows.cast(pa.schema(fields))


def _digits(values: pd.Series[Any]) -> pd.Series[Any]:
    """Decimals and integers as their digits: Arrow's own decimals end at 76 of them."""
    if any(isinstance(value, float | np.floating) for value in values[values.notna()]):
        raise MergeError(f"{values.name}: {_FLOAT_REFUSED}")
    return values.map(str, na_action="ignore")


_FLOAT_REFUSED = "a float has lost digits that NUMERIC would keep; use Decimal, or the digits as text"


def _exact_values(values: pa.ChunkedArray, sql_type: sa.types.TypeEngine[Any]) -> pa.ChunkedArray:
    values = _plain(values)
    kind = values.type
    if values.null_count == len(values):
        return pa.chunked_array([pa.nulls(len(values), pa.string())])
    if pa.types.is_nested(kind) or pa.types.is_duration(kind):
        raise MergeError(f"a column of {kind} can only come from a Select")
    if isinstance(sql_type, sa.DateTime):
        return _exact_times(values, aware=sql_type.timezone)
    if isinstance(sql_type, sa.Date):
        return _exact_dates(values)
    if isinstance(sql_type, sa.Integer):
        return values.cast(pa.int64())
    if isinstance(sql_type, sa.Numeric) and pa.types.is_floating(kind):
        raise MergeError(_FLOAT_REFUSED)
    if isinstance(sql_type, sa.LargeBinary):
        return _hex(values)
    return values.cast(pa.string())


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _exact_times(times: pa.ChunkedArray, *, aware: bool) -> pa.ChunkedArray:
    # Not the text of the aware time itself: formatting that costs ten times all other columns together.
    text = _micros(times, aware=aware).cast(pa.string())
    return pc.binary_join_element_wise(text, "+00", "") if aware else text


def _micros(times: pa.ChunkedArray, *, aware: bool) -> pa.ChunkedArray:
    """As times without a zone; aware ones in UTC."""
    kind = times.type
    if not pa.types.is_timestamp(kind):
        raise MergeError(f"the data is {kind}; use timestamps")
    if aware != (kind.tz is not None):
        raise MergeError(f"the data is {kind}; use timestamps with{'' if aware else 'out'} a time zone")
    return times.cast(pa.timestamp("us", tz=kind.tz)).cast(pa.timestamp("us"))


def _exact_dates(dates: pa.ChunkedArray) -> pa.ChunkedArray:
    days = dates.cast(pa.date32())
    # pandas has no dates of its own and holds them as midnights without a zone.
    if pa.types.is_timestamp(dates.type) and (dates.type.tz or days.cast(dates.type) != dates):
        raise MergeError(f"the data is {dates.type} with a time of day or a time zone; use dates")
    return days


def _hex(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not any(test(values.type) for test in _BINARY_TYPES):
        raise MergeError(f"the data is {values.type}; use bytes")
    return pa.chunked_array([[None if value is None else rf"\x{value.hex()}" for value in values.to_pylist()]])


_BINARY_TYPES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
