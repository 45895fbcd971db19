"""Frames on their way into COPY: cut into chunks, every value in a form that text carries exactly.

What belongs here: pandas and Arrow. What does not: SQL and connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

CHUNK_ROWS = 50_000


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
    rows = _from_pandas(frame, table) if isinstance(frame, pd.DataFrame) else frame
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
        try:
            columns.append(_exact_values(chunk.column(name), table.columns[name].type))
        except (pa.ArrowException, MergeError) as error:
            raise MergeError(f"{table.fullname}.{name}: {str(error).splitlines()[0]}") from None
    return pa.table(columns, names=chunk.column_names)


def last_of_each_key(rows: pa.Table, keys: list[str]) -> pa.Table:
    """`rows` (as `exact` made them) without those whose key comes again later, in any order."""
    numbered = rows.select(keys).append_column("kasparro_row", pa.array(np.arange(rows.num_rows)))
    last = numbered.group_by(keys, use_threads=False).aggregate([("kasparro_row", "max")])["kasparro_row_max"]
    return rows if len(last) == rows.num_rows else rows.take(last)


def key_range(rows: pa.Table, table: sa.Table) -> tuple[list[str], list[str]]:
    """The least and the greatest key, in PostgreSQL's order where texts have ``COLLATE "C"``, as text that it reads."""
    keys = [column.name for column in table.primary_key.columns]
    ordered = exact(rows.select(keys), table)
    for index, key in enumerate(keys):
        if isinstance(table.columns[key].type, sa.DateTime):  # whose text has no order beyond the year 9999
            ordered = ordered.set_column(index, key, _plain(rows.column(key)))
    ends = []
    for pick in (pc.min, pc.max):
        end = ordered
        for key in keys:
            end = end.filter(pc.equal(end.column(key), pick(end.column(key))))
        ends.append([str(value) for (value,) in exact(end.slice(0, 1), table).to_pydict().values()])
    return ends[0], ends[1]


def columns_with_nul(rows: pa.Table) -> list[str]:
    """The text columns in which a NUL character stands."""
    texts = [name for name in rows.column_names if pa.types.is_string(rows.column(name).type)]
    return [name for name in texts if pc.any(pc.match_substring(rows.column(name), "\0")).as_py()]


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
    kind = times.type
    if not pa.types.is_timestamp(kind):
        raise MergeError(f"the data is {kind}; use timestamps")
    if aware != (kind.tz is not None):
        raise MergeError(f"the data is {kind}; use timestamps with{'' if aware else 'out'} a time zone")
    # Not the text of the aware time itself: formatting that costs ten times all other columns together.
    text = times.cast(pa.timestamp("us", tz=kind.tz)).cast(pa.timestamp("us")).cast(pa.string())
    return pc.binary_join_element_wise(text, "+00", "") if aware else text


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
