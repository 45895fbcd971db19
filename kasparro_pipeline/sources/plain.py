"""Records read column by column, beside those that have to be read one by one.

What is plain to see in whole columns is taken from there; every other record, and every one that shares its key with
another, is left to the exact reader, so that both ways give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kasparro_pipeline.sources.collect import bounds
from kasparro_pipeline.sources.keys import codes, surely_differ
from kasparro_pipeline.sources.records import OBSERVATION_SCHEMA, Delivery, ParsedPayload

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

UTC_TIME = pa.timestamp("us", tz="UTC")
_KEY = ("source_coin_id", "observed_at")
_DATE_TIME = (
    r"^[12][0-9]{3}-[01][0-9]-[0-3][0-9][ T](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|\+00:00)?$"
)
_EPOCHS = ((r"^[1-9][0-9]{9}$", 10**6), (r"^[1-9][0-9]{12}$", 10**3))
"""Forms of an epoch, and how many microseconds its unit has."""


class PlainColumns:
    """Columns of some records; those that turn out not to be plain are left out."""

    def __init__(self, positions: Positions) -> None:
        self._all = positions
        self._kept: Mask = np.ones(len(positions), bool)
        self._columns: dict[str, pa.Array] = {}

    @property
    def positions(self) -> Positions:
        """Of the records that are still kept."""
        return self._all[self._kept]

    def keep_within(self, first: object, end: object) -> None:
        """Leave out what was observed before `first` or not before `end`."""
        times = self._columns["observed_at"]
        inside = pc.and_(pc.greater_equal(times, pa.scalar(first, UTC_TIME)), pc.less(times, pa.scalar(end, UTC_TIME)))
        self._keep(inside)

    def keep_unique(self) -> None:
        """Leave out all records whose coin and time another kept record has too."""
        coins, times = (codes(self._columns[name]) for name in _KEY)
        if surely_differ(coins, times):
            return
        order = np.lexsort((times, coins))
        order = order[self._kept[order]]
        same = (coins[order][1:] == coins[order][:-1]) & (times[order][1:] == times[order][:-1])
        self._kept[order[1:][same]] = False
        self._kept[order[:-1][same]] = False

    def leave(self, observations: pa.Table) -> bool:
        """Leave out the records that share coin and time with one of `observations`; whether there are any."""
        if not observations.num_rows or not self._kept.any():
            return False
        theirs = observations["observed_at"].combine_chunks()
        maybe = pc.is_in(self._columns["observed_at"], theirs).to_numpy(zero_copy_only=False)
        places = np.flatnonzero(maybe & self._kept)
        keys = set(_keys(observations)) if len(places) else set()
        ours = _keys({name: column.take(pa.array(places)) for name, column in self._columns.items() if name in _KEY})
        shared = [place for place, key in zip(places, ours, strict=True) if key in keys]
        self._kept[shared] = False
        return bool(shared)

    def observations(self, delivery: Delivery) -> pa.Table:
        """The kept records."""
        count = len(self._kept)
        columns = {
            "source": pa.repeat(delivery.source, count),
            "fetched_at": pa.repeat(pa.scalar(delivery.fetched_at, UTC_TIME), count),
            "payload_sha256": pa.repeat(delivery.sha256, count),
            "position": pa.array(self._all),
            **self._columns,
        }
        arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in OBSERVATION_SCHEMA]
        table = pa.table(arrays, OBSERVATION_SCHEMA)
        return table if self._kept.all() else table.filter(pa.array(self._kept))

    def _keep(self, good: pa.Array) -> None:
        self._kept &= good.fill_null(False).to_numpy(zero_copy_only=False)


def together(
    plain: PlainColumns, delivery: Delivery, first_day: date, read_others: Callable[[Positions], ParsedPayload]
) -> ParsedPayload:
    """The observations of `plain` and of all other records of the delivery; those are read by `read_others`.

    It is given the positions of the plain ones.
    """
    plain.keep_within(*bounds(delivery, first_day))
    plain.keep_unique()
    rest = read_others(plain.positions)
    if plain.leave(rest.observations):
        rest = read_others(plain.positions)
    observations = plain.observations(delivery)
    if rest.observations.num_rows:
        observations = pa.concat_tables([observations, rest.observations]).sort_by("position")
    records = len(observations) - len(rest.observations) + rest.records
    return ParsedPayload(observations, records, rest.duplicates, rest.quarantined)


def _keys(table: pa.Table | dict[str, pa.Array]) -> Iterator[tuple[object, ...]]:
    return zip(*(table[name].to_pylist() for name in _KEY), strict=True)


def plain_times(texts: pa.Array) -> pa.Array | None:
    """The times, where all are written in one of the forms that are fast to read; else None."""
    if pc.all(pc.match_substring_regex(texts, _DATE_TIME)).as_py():
        bare = pc.utf8_rtrim(pc.replace_substring(texts, "+00:00", ""), "Z")
        try:
            return bare.cast(pa.timestamp("us")).cast(UTC_TIME)
        except pa.ArrowInvalid:  # such as 30 February
            return None
    for form, unit in _EPOCHS:
        if pc.all(pc.match_substring_regex(texts, form)).as_py():
            return pc.multiply(texts.cast(pa.int64()), unit).cast(UTC_TIME)
    return None
