"""Rows as Arrow and Parquet, written by a process of its own for each file (`arrow_writer.py`).

A column of exact numbers is ``decimal128(38, scale)`` where every number of this answer fits that without loss, else
text. A double would lose digits; decimal256 is read by few libraries.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from decimal import Decimal
from typing import cast

from kasparro_api.arrow_pipe import DECIMAL_DIGITS, LENGTH_BYTES
from kasparro_api.listing import Kind

COPY_OPTIONS = "FORMAT csv"
BATCH_BYTES = 1 << 21
"""Of CSV that becomes a batch of Arrow or a row group of Parquet; both processes hold one at a time."""
READ_BYTES = 1 << 17


def types(columns: Mapping[str, Kind], scales: Mapping[str, int | None]) -> dict[str, str | int | None]:
    """What the writer is told of the columns; `scales` has the digits after the point of the numbers that fit."""
    return {name: scales.get(name) if kind is Kind.NUMBER else kind.value for name, kind in columns.items()}


def fitting_scale(scale: int | None, greatest: Decimal | None) -> int | None:
    """The scale of a decimal128 that holds numbers of so many digits after the point, up to `greatest`, or None."""
    if scale is None or greatest is None:
        return 0
    before_the_point = max(greatest.adjusted() + 1, 1)
    return scale if before_the_point + scale <= DECIMAL_DIGITS else None


async def encoded(
    name: str, rows: AsyncGenerator[Sequence[bytes], None], types: Mapping[str, str | int | None]
) -> AsyncGenerator[bytes, None]:
    """The rows of COPY in format `name`, ``parquet`` or ``arrow``, piece by piece.

    Raises:
        Exception: what `rows` raises.
        OSError: the writer failed; what it said is in the log.
    """
    command = (sys.executable, "-m", "kasparro_api.arrow_writer", name, json.dumps(types))
    writer = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    pipe, made = cast(asyncio.StreamWriter, writer.stdin), cast(asyncio.StreamReader, writer.stdout)
    feeding = asyncio.create_task(_feed(writer, pipe, rows))
    try:
        while piece := await made.read(READ_BYTES):
            yield piece
        await feeding
        if await writer.wait():
            raise OSError(f"the writer of {name} ended with {writer.returncode}")
    finally:
        feeding.cancel()
        await asyncio.wait({feeding})
        with suppress(ProcessLookupError):
            writer.kill()
        await writer.wait()


async def _feed(writer: Process, pipe: asyncio.StreamWriter, rows: AsyncGenerator[Sequence[bytes], None]) -> None:
    batch: list[bytes] = []
    size = 0
    try:
        async with aclosing(rows):
            async for block in rows:
                batch += block
                size += sum(map(len, block))
                if size >= BATCH_BYTES:
                    await _send(pipe, b"".join(batch))
                    batch.clear()
                    size = 0
        await _send(pipe, b"".join(batch))
    except BaseException:
        with suppress(ProcessLookupError):
            writer.kill()  # it must not take this for the end
        raise
    pipe.close()


async def _send(pipe: asyncio.StreamWriter, batch: bytes) -> None:
    """An empty batch is the end."""
    pipe.write(len(batch).to_bytes(LENGTH_BYTES))
    pipe.write(batch)
    await pipe.drain()
