"""What must be true of the tables: the one place that declares it, as data, and what looks whether it is.

A rule is a query for its violations, by day. It is asked once for a whole range of days. What it finds goes to
``failed_check``, from where /health tells it, and which days not to unify.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import sqlalchemy as sa

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.tables import coin, coin_identity, failed_check, observation, unified_assets

MAX_DAYS = 1000
"""Of a rule's violations that are kept: the newest."""
MIN_COINS = 10
"""A fall from fewer coins means nothing."""
MIN_COMPARED = 100
"""Nor does a share of fewer coins that several sources know: a small file is not to hold a day up."""
FAR_PCT = 20
"""From here on two prices are far from each other for the rule too, see unify.sql."""
LISTED_AFTER_HOURS = 6
"""A list fetched just after midnight still holds the day before."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that must be true of a table. A day that violates it is not unified."""

    table: sa.Table
    name: str
    says: str
    """One sentence for people."""
    violations: str
    """A query for (day, detail); day is NULL for what concerns no day. Parameters: start and end (days, end excluded,
    +-infinity for all), source (a LIKE pattern), and the settings that are called like the check."""

    @property
    def by_days(self) -> bool:
        """Whether only the days that are asked for are looked at; else all are, because that costs nothing."""
        return ":start" in self.violations


@dataclass(frozen=True, slots=True)
class Violation:
    """A day, or with None the table, that breaks a rule."""

    day: date | None
    detail: str


def _key_is_unique(table: sa.Table) -> Rule:
    """The constraint is what keeps keys unique, so it is enough to see that it is there and valid: no row is read."""
    keys = ", ".join(column.name for column in table.primary_key.columns)
    return Rule(
        table,
        "keys_unique",
        f"({keys}) is kept unique by the table's primary key.",
        f"SELECT NULL::date, 'the primary key ({keys}) is missing or not valid' WHERE NOT EXISTS ("  # noqa: S608
        f"SELECT FROM pg_index WHERE indrelid = '{table.fullname}'::regclass AND indisprimary AND indisvalid)",
    )


RULES: tuple[Rule, ...] = (
    _key_is_unique(observation),
    Rule(
        observation,
        "no_future_day",
        "No observation is of a day that has not begun.",
        """
SELECT (observed_at AT TIME ZONE 'UTC')::date, count(*) || ' observations, such as ' || source || ' '
       || min(source_coin_id)
FROM kasparro.observation
WHERE source IN (SELECT DISTINCT c.source FROM kasparro.source_coin AS c WHERE c.source LIKE :source)
  AND observed_at >= date_trunc('day', now(), 'UTC') + interval '1 day'
GROUP BY 1, source""",
    ),
    Rule(
        observation,
        "accounted_for",
        "Of every delivery, records = inserted + updated + unchanged + quarantined.",
        """
SELECT (fetched_at AT TIME ZONE 'UTC')::date, count(*) || ' deliveries, such as ' || min(request)
FROM kasparro.delivery
WHERE source LIKE :source
  AND fetched_at >= CAST(:start AS date) AND fetched_at < CAST(:end AS date)
  AND parser_version IS NOT NULL
  AND records IS DISTINCT FROM inserted + updated + unchanged + quarantined
GROUP BY 1""",
    ),
    _key_is_unique(coin),
    _key_is_unique(coin_identity),
    Rule(
        coin_identity,
        "no_orphan",
        "Every identity is of a coin that some source has named, and leads to a coin that there is.",
        """
SELECT NULL::date, count(*) || ' identities, such as ' || min(i.source || ' ' || i.source_coin_id)
FROM kasparro.coin_identity AS i
LEFT JOIN kasparro.coin AS c USING (coin_id)
LEFT JOIN kasparro.source_coin AS s ON s.source = i.source AND s.source_coin_id = i.source_coin_id
WHERE c.coin_id IS NULL OR s.source IS NULL
HAVING count(*) > 0""",
    ),
    _key_is_unique(unified_assets),
    Rule(
        unified_assets,
        "no_future_day",
        "No row is of a day that has not begun.",
        """
SELECT day, count(*) || ' rows, such as ' || min(coin_id) FROM kasparro.unified_assets
WHERE day > (now() AT TIME ZONE 'UTC')::date GROUP BY day""",
    ),
    Rule(
        unified_assets,
        "price_positive_or_flagged",
        "A price is above 0, or the row is flagged no_price or price_not_positive.",
        """
SELECT day, count(*) || ' rows, such as ' || min(coin_id) FROM kasparro.unified_assets
WHERE day >= :start AND day < :end AND (price_usd > 0) IS NOT TRUE
  AND NOT flags && ARRAY['no_price', 'price_not_positive'] COLLATE "C"
GROUP BY day""",
    ),
    Rule(
        unified_assets,
        "no_orphan",
        "Every row is of a coin that there is.",
        """
SELECT day, count(*) || ' rows, such as ' || min(coin_id) FROM kasparro.unified_assets
WHERE day >= :start AND day < :end AND coin_id NOT IN (SELECT c.coin_id FROM kasparro.coin AS c)
GROUP BY day""",
    ),
    Rule(
        unified_assets,
        "coin_count",
        "Of a day that is over, a vendor whose whole list was fetched on it and on the day before has no less than a "
        "share of the coins that it had the day before (KASPARRO_CHECK_COIN_COUNT).",
        f"""
WITH listed AS (
    SELECT DISTINCT source, (fetched_at AT TIME ZONE 'UTC')::date AS day
    FROM kasparro.delivery
    WHERE source_coin_id IS NULL AND is_last AND parser_version IS NOT NULL AND source NOT LIKE 'csv\\_%'
      AND fetched_at >= CAST(:start AS date) - 1 AND fetched_at < CAST(:end AS date)
      AND fetched_at < date_trunc('day', now(), 'UTC')
      AND fetched_at - date_trunc('day', fetched_at, 'UTC') >= interval '{LISTED_AFTER_HOURS} hours'
), counted AS (
    SELECT u.day, s.source, count(*) AS coins
    FROM kasparro.unified_assets AS u CROSS JOIN unnest(u.sources) AS s (source)
    WHERE u.day >= CAST(:start AS date) - 1 AND u.day < :end AND EXISTS (SELECT FROM listed)
    GROUP BY u.day, s.source
)
SELECT l.day, coalesce(t.coins, 0) || ' coins of ' || l.source || ' after ' || y.coins || ' the day before'
FROM listed AS l
JOIN listed AS b ON b.source = l.source AND b.day = l.day - 1
JOIN counted AS y ON y.source = l.source AND y.day = b.day
LEFT JOIN counted AS t ON t.source = l.source AND t.day = l.day
WHERE l.day >= :start AND y.coins >= {MIN_COINS} AND coalesce(t.coins, 0) < :check_coin_count * y.coins""",  # noqa: S608
    ),
    Rule(
        unified_assets,
        "sources_agree",
        f"Of the coins with several fresh prices, where they are {MIN_COMPARED} or more, no more than a share "
        f"(KASPARRO_CHECK_SOURCES_AGREE) has prices more than {FAR_PCT} % apart.",
        f"""
SELECT day, count(*) FILTER (WHERE price_spread_pct > {FAR_PCT}) || ' of ' || count(*)
       || ' coins have prices more than {FAR_PCT} % apart'
FROM kasparro.unified_assets
WHERE day >= :start AND day < :end AND price_spread_pct IS NOT NULL
GROUP BY day
HAVING count(*) >= {MIN_COMPARED}
   AND count(*) FILTER (WHERE price_spread_pct > {FAR_PCT}) > :check_sources_agree * count(*)""",  # noqa: S608
    ),
)


class ChecksFailedError(KasparroError):
    """Rows were not written, because they would break rules."""

    def __init__(self, found: Mapping[str, list[Violation]]) -> None:
        self.found = found
        """What breaks each rule, by its name; nothing where it holds."""
        told = [f"{name}{f' on {v.day}' if v.day else ''}: {v.detail}" for name, vs in found.items() for v in vs]
        more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
        super().__init__(f"not unified, checks failed: {'; '.join(told[:3])}{more}")


def demand(connection: sa.Connection, table: sa.Table, days: Collection[date]) -> None:
    """See that these days of `table`, as the transaction has written them, break no rule.

    Raises:
        ChecksFailedError: they do; the transaction has to be rolled back.
    """
    if not days:
        return
    span = (min(days), max(days) + timedelta(days=1))
    found = {
        rule.name: [v for v in look(connection, rule, span) if v.day is None or v.day in days]
        for rule in rules_of(table)
    }
    if any(found.values()):
        raise ChecksFailedError(found)


def rules_of(table: sa.Table) -> list[Rule]:
    """The rules of one table."""
    return [rule for rule in RULES if rule.table is table]


def look(
    connection: sa.Connection, rule: Rule, days: tuple[date, date] | None = None, source: str = "%"
) -> list[Violation]:
    """What breaks `rule`, newest day first: on the days from the first to before the second, where `days` are given.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the table cannot be read.
    """
    start, end = days or ("-infinity", "infinity")
    query = sa.text(f"SELECT * FROM ({rule.violations}) AS v (day, detail) ORDER BY day DESC LIMIT {MAX_DAYS}")  # noqa: S608
    limits = {name: getattr(settings(), name) for name in ("check_coin_count", "check_sources_agree")}
    values = {"start": start, "end": end, "source": source, **limits}
    used = {name: value for name, value in values.items() if f":{name}" in rule.violations}
    return [Violation(day, detail) for day, detail in connection.execute(query, used)]


def remember(  # noqa: PLR0913
    connection: sa.Connection,
    rule: Rule,
    found: Collection[Violation],
    *,
    asset_key: str,
    days: tuple[date, date] | None,
    run_id: str,
) -> None:
    """Replace what was known of this check, on these days, by what was found."""
    known = (failed_check.c.asset_key == asset_key) & (failed_check.c.check_name == rule.name)
    if days is not None and rule.by_days:
        within = (failed_check.c.day >= days[0]) & (failed_check.c.day < days[1])
        found_days = [violation.day for violation in found if violation.day is not None]
        known &= failed_check.c.day.is_(None) | within | failed_check.c.day.in_(found_days)
    connection.execute(sa.delete(failed_check).where(known))
    rows = [
        {
            "asset_key": asset_key,
            "check_name": rule.name,
            "day": violation.day,
            "severity": "error",
            "blocking": True,
            "detail": violation.detail,
            "run_id": run_id,
        }
        for violation in found
    ]
    if rows:
        connection.execute(sa.insert(failed_check), rows)


def days_that_fail(connection: sa.Connection) -> set[date]:
    """The days that failed a blocking check when they were looked at last."""
    query = sa.select(failed_check.c.day).where(failed_check.c.blocking, failed_check.c.day.is_not(None))
    return set(connection.scalars(query))
