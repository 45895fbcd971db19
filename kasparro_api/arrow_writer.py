"""Rows as Arrow or Parquet: ``python -m kasparro_api.arrow_writer parquet|arrow TYPES``, rows in, the file out.

A process of its own: pyarrow takes 80 MB, which a service that has imported it keeps. So nothing but pyarrow is
imported here; `arrow.py` starts it. A batch is its length (`LENGTH_BYTES`), then whole rows of COPY's CSV. TYPES is a
JSON object: of each column a word of `_TYPES`, the scale of a decimal, or null for a number as text.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.ipc
import pyarrow.parquet as pq

from kasparro_api.arrow_pipe import DECIMAL_DIGITS, LENGTH_BYTES, LIST_SEPARATOR

_TYPES = {
    "text": pa.string(),
    "list of texts": pa.list_(pa.string()),
    "integer": pa.int64(),
    "true or false": pa.bool_(),
    "day": pa.date32(),
    "time": pa.timestamp("us", tz="UTC"),
}


def write(source: BinaryIO, sink: BinaryIO, name: str, types: Mapping[str, str | int | None]) -> None:
    """Write the batches in `source` to `sink` in format `name`; nothing before the first of them is there."""
    schema = pa.schema([(column, _type(told)) for column, told in types.items()])
    batch = _next(source)
    file = pa.PythonFile(sink, "w")
    parquet = name == "parquet"
    with pq.ParquetWriter(file, schema, compression="zstd") if parquet else pa.ipc.new_stream(file, schema) as writer:
        while batch:
            writer.write_table(_table(batch, schema))
            batch = _next(source)


def _next(source: BinaryIO) -> bytes:
    return source.read(int.from_bytes(source.read(LENGTH_BYTES)))


def _type(told: str | int | None) -> pa.DataType:
    if told is None:
        return pa.string()
    return pa.decimal128(DECIMAL_DIGITS, told) if isinstance(told, int) else _TYPES[told]


def _table(text: bytes, schema: pa.Schema) -> pa.Table:
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


if __name__ == "__main__":
    pa.set_memory_pool(pa.system_memory_pool())  # it gives back what the faster ones keep
    write(sys.stdin.buffer, sys.stdout.buffer, sys.argv[1], json.loads(sys.argv[2]))
