"""A vendor's snapshot, page by page, as payloads that carry their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.http import Answer, VendorClient
from kasparro_pipeline.sources.json_text import Path, records_at
from kasparro_pipeline.sources.records import Checkpoint, Payload


@dataclass(frozen=True, slots=True)
class PageNumbers:
    """Paging by number, from 1; a page with fewer than `size` records is the last."""

    size: int
    page_param: str = "page"
    size_param: str = "per_page"


@dataclass(frozen=True, slots=True)
class ApiSpec:
    """What to ask a vendor for: a snapshot of all its coins."""

    endpoint: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    paging: PageNumbers | None = None
    """None: one answer holds everything."""
    record_path: Path = ()
    """Path to the array of records; empty: the answer itself."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass over a vendor's pages and how far it has come: what a checkpoint's cursor holds."""

    started_at: datetime
    next_page: int = 1

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
            return cls(datetime.fromisoformat(cursor["sweep"]), int(cursor["next_page"]))
        except (KeyError, TypeError, ValueError):
            raise KasparroError(
                f"checkpoint {dict(cursor)!r} is no sweep over pages; delete it to start anew"
            ) from None

    def cursor(self) -> dict[str, Any]:
        """JSON that `resume` understands."""
        return {"sweep": self.started_at.isoformat(), "next_page": self.next_page}


def fetch_pages(client: VendorClient, spec: ApiSpec, partition: str, sweep: Sweep | None = None) -> Iterator[Payload]:
    """Each page as it comes, from the one `sweep` has reached (None: a new sweep) to the last.

    Raises:
        FetchError: a page cannot be had, is no array of records, repeats the one before, or the first one is empty.
    """
    sweep = sweep or Sweep.begin()
    before = b""
    for page in range(sweep.next_page, 2**31):
        answer = client.get(spec.endpoint, _params(spec, page))
        records = _count(client, spec, page, answer)
        if records and answer.body == before:
            raise client.failure(answer.url, "answered the same as the page before", hint="check the paging")
        before = answer.body
        complete = spec.paging is None or records < spec.paging.size
        yield Payload(
            source=client.source,
            partition=partition,
            position=page - 1,
            fetched_at=answer.received_at,
            body=answer.body,
            request=answer.url,
            checkpoint=Checkpoint(Sweep(sweep.started_at, page + 1).cursor(), complete),
        )
        if complete:
            return


def _params(spec: ApiSpec, page: int) -> Mapping[str, str | int]:
    if spec.paging is None:
        return spec.params
    return {**spec.params, spec.paging.size_param: spec.paging.size, spec.paging.page_param: page}


def _count(client: VendorClient, spec: ApiSpec, page: int, answer: Answer) -> int:
    try:
        records = len(records_at(answer.body, spec.record_path))
    except RefusedError as refused:
        hint = "check the endpoint and the record path"
        raise client.failure(answer.url, f"cannot be used: {refused.reason}", answer.body, hint) from None
    if not records and page == 1:
        raise client.failure(
            answer.url, "answered without a record", hint="an empty answer is not 'no coins'; try later"
        )
    return records
