"""Whether rows have keys of their own, told much sooner than by grouping them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_SPREAD = np.int64(0x1E3779B97F4A7C15)


def codes(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A whole number for each value of texts, times or whole numbers, equal where those are; of nulls -1."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_string(values.type):
        values = values.dictionary_encode().indices
    numbers: npt.NDArray[np.int64] = values.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return numbers


def surely_differ(*key: npt.NDArray[np.int64]) -> bool:
    """Whether no two rows have the same `codes` in all columns; False where that is not plain to see."""
    mixed = np.zeros(len(key[0]), np.int64)
    for column in key:
        mixed = mixed * _SPREAD + column
    return bool(np.diff(np.sort(mixed)).all())
