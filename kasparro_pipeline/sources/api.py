"""A vendor's snapshot, page by page, as payloads that carry their checkpoints.

Coins change places while pages are read, and one that moves from a page not yet read to one that was is in neither.
So the coins of a finished sweep are compared with those of the sweep before: where some are missing, the pages are read
once more, and what is missing still has vanished, by name. Where too many are, the answers are not believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.http import Answer, Known, NoSuchError, VendorClient
from kasparro_pipeline.sources.json_records import coin_ids
from kasparro_pipeline.sources.json_text import Path, records_at
from kasparro_pipeline.sources.paging import Paging, Place
from kasparro_pipeline.sources.records import Checkpoint, Payload

MAX_LOST_PERCENT = 33.0
NAMES_SHOWN = 20
READINGS = 2
"""How often the pages of one sweep are read at most."""


@dataclass(frozen=True, slots=True)
class ApiSpec:
    """What to ask a vendor for: a snapshot of all its coins."""

    endpoint: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    paging: Paging | None = None
    """None: one answer holds everything."""
    record_path: Path = ()
    """Path to the array of records; empty: the answer itself."""
    id_path: Path = ("id",)
    """Path in a record to the vendor's id of the coin."""
    max_lost_percent: float = MAX_LOST_PERCENT
    """A sweep that lacks more of the coins of the sweep before has failed."""
    further: tuple[str, ...] = ()
    """Endpoints asked one after the other after `endpoint`, which then has no pages; each answer is a page."""
    may_be_missing: bool = False
    """A vendor that has never answered `endpoint` and does not know it (404) is no failure: it has no such thing."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass over a vendor's pages and how far it has come: what a checkpoint's cursor holds."""

    started_at: datetime
    place: Place = None
    """The next page; None: the first."""
    position: int = 0
    """How many pages came before it."""
    reading: int = 1
    """1, or 2 where coins were missing after the first time."""
    longest: int = 0
    """How many records the first page held."""

    @classmethod
    def begin(cls) -> Self:
        """A pass that starts now, with the first page."""
        return cls(datetime.now(UTC))

    @classmethod
    def resume(cls, cursor: Mapping[str, Any]) -> Self:
        """The pass that left `cursor` behind.

        Raises:
            KasparroError: it is no cursor of this kind.
        """
        try:
            started_at = datetime.fromisoformat(cursor["sweep"])
            position, reading = int(cursor["position"]), int(cursor["reading"])
            return cls(started_at, cursor["place"], position, reading, int(cursor.get("longest", 0)))
        except (KeyError, TypeError, ValueError):
            raise KasparroError(
                f"checkpoint {dict(cursor)!r} is no sweep over pages; delete it to start anew"
            ) from None

    def cursor(self) -> dict[str, Any]:
        """JSON that `resume` understands."""
        return {
            "sweep": self.started_at.isoformat(),
            "place": self.place,
            "position": self.position,
            "reading": self.reading,
            "longest": self.longest,
        }


class SnapshotFetch:
    """Fetches one sweep: iterate over `payloads`, then look at `coins` and `vanished`.

    Args:
        before: coins of the sweep before; empty: there was none to compare with.
        coins: those that this sweep has met in the runs that began it.
        known: the answer kept at this position for this URL, to ask whether the vendor has a newer one.
    """

    def __init__(  # noqa: PLR0913
        self,
        client: VendorClient,
        spec: ApiSpec,
        partition: str,
        sweep: Sweep | None = None,
        *,
        before: frozenset[str] = frozenset(),
        coins: frozenset[str] = frozenset(),
        known: Callable[[int, str], Known | None] = lambda position, url: None,  # noqa: ARG005
    ) -> None:
        self.coins = set(coins)
        self.vanished: list[str] = []
        """Coins of the sweep before that are in no page of this one, in order."""
        self.unknown: list[str] = []
        """Endpoints that the vendor may do without and does not know: it answered 404."""
        self._client = client
        self._spec = spec
        self._partition = partition
        self._sweep = sweep or Sweep.begin()
        self._before = before
        self._known = known

    def payloads(self) -> Iterator[Payload]:
        """Each page as it comes, from the one that the sweep has reached to the last.

        Raises:
            FetchError: a page cannot be had, is no array of records, repeats the one before, or the first one is
                empty; or the sweep is over and has lost too many coins, which ends it all the same: its pages are kept,
                and the next one begins anew.
        """
        while True:
            sweep = self._sweep
            try:
                answer = self._ask(sweep)
            except NoSuchError:
                if self._needs(sweep.place):
                    raise
                self.unknown.append(str(sweep.place or self._spec.endpoint))
                self._sweep, complete = self._following(sweep)
                if sweep.place is not None and complete:
                    self._compare(self._client.url(str(sweep.place), {}))
                if sweep.place is None or complete:
                    return
                continue
            records = self._records(answer, sweep)
            self._meet(records, answer, sweep)
            self._sweep, complete = self._next(answer, len(records), sweep)
            yield Payload(
                source=self._client.source,
                partition=self._partition,
                position=sweep.position,
                fetched_at=answer.received_at,
                body=answer.body,
                request=answer.url,
                checkpoint=Checkpoint(self._sweep.cursor(), complete),
                version=answer.version,
            )
            if complete:
                self._compare(answer.url)
                return

    def _ask(self, sweep: Sweep) -> Answer:
        endpoint, params = self._spec.endpoint, dict(self._spec.params)
        if sweep.place in self._spec.further:
            endpoint, params = str(sweep.place), {}
        if self._spec.paging is not None:
            params |= self._spec.paging.params(self._place(sweep))
        return self._client.get(endpoint, params, self._known(sweep.position, self._client.url(endpoint, params)))

    def _needs(self, place: Place) -> bool:
        """Whether the sweep fails where the vendor does not know what it is asked for."""
        return place not in self._spec.further and (bool(self._before) or not self._spec.may_be_missing)

    def _place(self, sweep: Sweep) -> Place:
        start = self._spec.paging.start if self._spec.paging else None
        return start if sweep.place is None else sweep.place

    def _records(self, answer: Answer, sweep: Sweep) -> Sequence[msgspec.Raw | bytes]:
        try:
            records = records_at(answer.body, self._spec.record_path)
        except RefusedError as refused:
            raise self._unusable(answer, refused) from None
        if not records and sweep.position == 0:
            hint = "an empty answer is not 'no coins'; try later"
            raise self._client.failure(answer.url, "answered without a record", answer.body, hint)
        return records

    def _meet(self, records: Sequence[msgspec.Raw | bytes], answer: Answer, sweep: Sweep) -> None:
        found = coin_ids(records, self._spec.id_path)
        is_page = self._spec.paging is not None and sweep.position > 0
        if records and is_page and sweep.reading == 1 and not found - self.coins:
            raise self._client.failure(
                answer.url, "brings no coin that the pages before it had not", hint="check the paging and the coin's id"
            )
        self.coins |= found

    def _next(self, answer: Answer, records: int, sweep: Sweep) -> tuple[Sweep, bool]:
        """Where to go on, and whether the sweep is over."""
        paging = self._spec.paging
        if self._spec.further:
            return self._following(sweep)
        longest = sweep.longest or records
        try:
            place = paging.after(self._place(sweep), records, longest, answer.body) if paging else None
        except RefusedError as refused:
            raise self._unusable(answer, refused) from None
        missing = bool(self._before - self.coins)
        if place is not None and place == sweep.place:
            raise self._client.failure(answer.url, "names itself as the page after it", hint="check the paging")
        if place is not None and (missing or sweep.reading == 1):
            return replace(sweep, place=place, position=sweep.position + 1, longest=longest), False
        if missing and paging is not None and sweep.reading < READINGS:
            return Sweep(sweep.started_at, reading=sweep.reading + 1), False
        return sweep, True

    def _following(self, sweep: Sweep) -> tuple[Sweep, bool]:
        """Where to go on after an endpoint of several."""
        further = self._spec.further
        index = further.index(str(sweep.place)) + 1 if sweep.place in further else 0
        if index == len(further):
            return sweep, True
        return replace(sweep, place=further[index], position=sweep.position + 1), False

    def _unusable(self, answer: Answer, refused: RefusedError) -> KasparroError:
        hint = "check the endpoint and the paths in defs.yaml"
        return self._client.failure(answer.url, f"cannot be used: {refused.reason}", answer.body, hint)

    def _compare(self, url: str) -> None:
        self.vanished = sorted(self._before - self.coins)
        lost = 100 * len(self.vanished) / len(self._before) if self._before else 0
        if lost > self._spec.max_lost_percent:
            raise self._client.failure(
                url,
                f"and the pages before it lack {len(self.vanished)} of the {len(self._before)} coins there were "
                f"({named(self.vanished)}), which is more than {self._spec.max_lost_percent:g} percent",
                hint="try later, or raise max_lost_percent in defs.yaml if they are gone for good",
            )


def named(coins: Sequence[str]) -> str:
    """The first of `coins`, and how many more there are."""
    more = f" and {len(coins) - NAMES_SHOWN} more" if len(coins) > NAMES_SHOWN else ""
    return ", ".join(coins[:NAMES_SHOWN]) + more
