"""What a caller may ask to be run, and the Dagster runs that come of it.

Dagster itself takes partitions that there are none of, so every name is looked up before it hears of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, Self

from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from kasparro_api import values
from kasparro_api.dagster import Dagster
from kasparro_pipeline.ranges import key_ranges

SHOWN_NAMES = 20
MAX_NAMES = 1000


def _day(value: object) -> date:
    if isinstance(value, date):
        return value
    if not isinstance(value, str):
        raise ValueError("not a day: write YYYY-MM-DD")
    return values.day(value)


Day = Annotated[date, BeforeValidator(_day, json_schema_input_type=str), Field(json_schema_extra={"format": "date"})]
Names = Annotated[list[Annotated[str, AfterValidator(values.word)]], Field(min_length=1, max_length=MAX_NAMES)]


class RunRequest(BaseModel):
    """What to load; without a word, everything of today."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"sources": ["coingecko", "csv_drops"], "from": "2026-11-01"}]},
    )

    sources: Names | None = Field(
        None,
        description="API sources, drop folders (`csv_<folder>`), `csv_drops` for all drops; all unless told.",
        examples=[["coingecko", "coinpaprika"]],
    )
    from_: Day | None = Field(
        None,
        alias="from",
        description="First day of the API sources (UTC); `to`, else today, unless told.",
        examples=["2026-11-01"],
    )
    to: Day | None = Field(None, description="Last day, inclusive; today unless told.", examples=["2026-11-07"])
    partitions: Names | None = Field(
        None,
        description="Drops, by their path below the drop folder, instead of all; not together with days.",
        examples=[["sample_exchange/2026-10.csv"]],
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.partitions and (self.from_ or self.to):
            raise PydanticCustomError(
                "days_of_drops", "partitions names drops, which have no days: leave out from and to"
            )
        if self.from_ and self.to and self.from_ > self.to:
            raise PydanticCustomError("empty_range", "from is after to: swap them")
        return self

    def days(self, first_day: date) -> tuple[date, date]:
        """First and last day asked for, both included.

        Raises:
            RequestValidationError: one lies before `first_day` or in the future.
        """
        today = datetime.now(UTC).date()
        last = self.to or today
        first = self.from_ or self.to or today
        for name, day in (("from", first), ("to", last)):
            if not first_day <= day <= today:
                raise refused(name, f"{day} is no day of the API sources: give one from {first_day} to {today} (UTC)")
        return first, last


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run of one source over the partitions from `first` to `last`."""

    source: str
    first: str
    last: str
    repository: Mapping[str, Any]
    """Whose job it is, as Dagster names it."""


async def planned(
    asked: RunRequest, first_day: date, dagster: Dagster, folders: Mapping[str, Sequence[str]]
) -> list[PlannedRun]:
    """The runs that `asked` comes to; `folders` are the drops that were ever read, by source.

    Raises:
        RequestValidationError: there is no such source, day or drop; the message names what there is.
        DagsterUnavailableError: nobody can say what there is.
        DagsterRefusedError: likewise.
    """
    first, last = asked.days(first_day)
    repositories, dynamic = _jobs(await dagster.asset_nodes())
    chosen = _chosen(asked, set(repositories), dynamic, folders)
    runs = []
    for job in sorted(repositories):
        if job not in dynamic:
            if job in chosen:
                runs.append(PlannedRun(job, first.isoformat(), last.isoformat(), repositories[job]))
            continue
        of_folders = None if job in chosen else {key for name in chosen & set(folders) for key in folders[name]}
        if of_folders is None or of_folders:
            keys = await dagster.partitions([job, "raw"])
            wanted = _drops(asked.partitions, keys, of_folders)
            runs += [PlannedRun(job, *ends, repositories[job]) for ends in key_ranges(wanted, keys)]
    return runs


def _jobs(nodes: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Mapping[str, Any]], set[str]]:
    """The sources' jobs, each named like its source, with their repository; and those whose partitions are drops."""
    raw = [node for node in nodes if node["assetKey"]["path"][1:] == ["raw"] and node["partitionDefinition"]]
    ours = {node["assetKey"]["path"][0]: node for node in raw if node["assetKey"]["path"][0] in node["jobNames"]}
    dynamic = {name for name, node in ours.items() if node["partitionDefinition"]["type"] == "DYNAMIC"}
    return {name: node["repository"] for name, node in ours.items()}, dynamic


def _chosen(asked: RunRequest, jobs: set[str], dynamic: set[str], folders: Mapping[str, Sequence[str]]) -> set[str]:
    if asked.sources is None:
        return dynamic if asked.partitions else jobs
    known = jobs | set(folders)
    if unknown := sorted(set(asked.sources) - known):
        raise refused("sources", f"no {_listed(unknown)}; there are {_listed(sorted(known))}")
    if asked.partitions and (others := sorted(set(asked.sources) & (jobs - dynamic))):
        raise refused("partitions", f"{_listed(others)} has days, not drops: give from and to, or leave the source out")
    return set(asked.sources)


def _drops(named: Sequence[str] | None, keys: Sequence[str], of_folders: set[str] | None) -> list[str]:
    allowed = [key for key in keys if of_folders is None or key in of_folders]
    if named is None:
        return allowed
    if unknown := sorted(set(named) - set(allowed)):
        raise refused("partitions", f"no drop {_listed(unknown)}; there are {_listed(allowed) or 'none'}")
    return list(dict.fromkeys(named))


def _listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 100 else f"{name[:100]}…" for name in names[:SHOWN_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def refused(field: str, why: str) -> RequestValidationError:
    """The error that says of a field of the body why it will not do."""
    return RequestValidationError([{"loc": ("body", field), "msg": why, "type": "value_error"}])
