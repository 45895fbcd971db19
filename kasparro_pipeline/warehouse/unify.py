"""The rule for `unified_assets`, for all who run it or explain what it chose."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import sqlalchemy as sa

from kasparro_pipeline.warehouse.tables import unified_assets
from kasparro_pipeline.warehouse.touched import HISTORY_DAYS, Part

RULE = (Path(__file__).parent / "unify.sql").read_text(encoding="utf-8")
"""A statement that gives the columns of `unified_assets` and ``why``: every source's value and verdict by field."""

_COLUMNS = [column.name for column in unified_assets.columns if column.name != "updated_at"]


def rule_version(priorities: Mapping[str, int]) -> str:
    """Changes whenever the same observations might become other rows; `priorities` are those that are configured."""
    return hashlib.sha256(f"{RULE}{sorted(priorities.items())}".encode()).hexdigest()[:12]


def unify(part: Part, priorities: Mapping[str, int]) -> sa.TextualSelect:
    """The rows of `unified_assets` for these days and coins.

    `priorities` of the sources: the lower, the sooner a source's word is taken.
    """
    start, end = (datetime.combine(day, time(), UTC) for day in (part.first, part.end))
    bound = sa.text(f"SELECT {', '.join(_COLUMNS)} FROM (\n{RULE}) AS rule").bindparams(  # noqa: S608 - our own text
        start=start,
        since=start - timedelta(days=HISTORY_DAYS),
        end=end,
        coin_ids=None if part.coin_ids is None else sorted(part.coin_ids),
        sources=list(priorities),
        priorities=list(priorities.values()),
    )
    return bound.columns(*(sa.column(name, unified_assets.c[name].type) for name in _COLUMNS))
