"""Rows as Arrow and Parquet, made in batches from COPY's CSV.

A column of exact numbers is ``decimal128(38, scale)`` where every number of this answer fits that without loss, else
text. A double would lose digits; decimal256 is read by few libraries.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.ipc
import pyarrow.parquet as pq

from kasparro_api.listing import Kind
from kasparro_api.listing_sql import LIST_SEPARATOR

DECIMAL_DIGITS = 38
ROW_GROUP = 8_192
"""Rows that are in memory together."""

COPY_OPTIONS = "FORMAT csv"

_TYPES = {
    Kind.TEXT: pa.string(),
    Kind.TEXTS: pa.list_(pa.string()),
    Kind.INTEGER: pa.int64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.DAY: pa.date32(),
    Kind.TIME: pa.timestamp("us", tz="UTC"),
}


class _Writer(Protocol):
    def write_table(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


def schema(columns: Mapping[str, Kind], scales: Mapping[str, int | None]) -> pa.Schema:
    """The columns' types; `scales` has the digits after the point of those numbers that fit a decimal128."""

    def type_(name: str, kind: Kind) -> pa.DataType:
        if kind is not Kind.NUMBER:
            return _TYPES[kind]
        scale = scales.get(name)
        return pa.string() if scale is None else pa.decimal128(DECIMAL_DIGITS, scale)

    return pa.schema([(name, type_(name, kind)) for name, kind in columns.items()])


def fitting_scale(scale: int | None, greatest: Decimal | None) -> int | None:
    """The scale of a decimal128 that holds numbers of so many digits after the point, up to `greatest`, or None."""
    if scale is None or greatest is None:
        return 0
    before_the_point = max(greatest.adjusted() + 1, 1)
    return scale if before_the_point + scale <= DECIMAL_DIGITS else None


async def encoded(name: str, rows: AsyncIterator[Sequence[bytes]], schema: pa.Schema) -> AsyncIterator[bytes]:
    """The rows in format `name`, ``parquet`` or ``arrow``, batch by batch."""
    sink = _Sink()
    with closing(_WRITERS[name](sink, schema)) as writer:
        batch: list[bytes] = []
        async for block in rows:
            batch += block
            if len(batch) >= ROW_GROUP:
                await asyncio.to_thread(_write, writer, batch, schema)
                batch.clear()
                yield sink.taken()
        if batch:
            await asyncio.to_thread(_write, writer, batch, schema)
    yield sink.taken()


def _write(writer: _Writer, rows: Iterable[bytes], schema: pa.Schema) -> None:
    writer.write_table(table(b"".join(rows), schema))


def table(text: bytes, schema: pa.Schema) -> pa.Table:
    """The rows of COPY's CSV without a header; NULL is a cell without quotes and content."""
    sent = pa.schema([field.with_type(pa.string()) if pa.types.is_list(field.type) else field for field in schema])
    read = pa_csv.read_csv(
        io.BytesIO(text),
        read_options=pa_csv.ReadOptions(column_names=schema.names, use_threads=False, block_size=len(text) + 1),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=sent,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    for number, field in enumerate(schema):
        if pa.types.is_list(field.type):
            read = read.set_column(number, field, _lists(read.column(number)))
    return read


def _lists(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists from their members with `LIST_SEPARATOR` before each.

    No scalar is made here: making one, pyarrow imports pandas, which takes 50 MB.
    """
    return pc.list_slice(pc.split_pattern(texts, LIST_SEPARATOR), 1)


class _Sink(io.RawIOBase):
    """A file whose content is taken away piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:  # noqa: ANN401 - whatever has a buffer
        self._pieces.append(bytes(piece))
        return len(piece)

    def taken(self) -> bytes:
        pieces = b"".join(self._pieces)
        self._pieces.clear()
        return pieces


def _parquet(sink: _Sink, schema: pa.Schema) -> _Writer:
    return pq.ParquetWriter(pa.PythonFile(sink, "w"), schema, compression="zstd")  # type: ignore[no-any-return]


def _arrow(sink: _Sink, schema: pa.Schema) -> _Writer:
    return pyarrow.ipc.new_stream(pa.PythonFile(sink, "w"), schema)  # type: ignore[no-any-return]


_WRITERS: Mapping[str, Callable[[_Sink, pa.Schema], _Writer]] = {"parquet": _parquet, "arrow": _arrow}
