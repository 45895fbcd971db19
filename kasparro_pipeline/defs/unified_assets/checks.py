"""Dagster's asset checks, made of the rules that `kasparro_pipeline.warehouse.rules` declares."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta

import dagster as dg
import sqlalchemy as sa

from kasparro_pipeline.ranges import RANGE_END, RANGE_START
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.rules import Rule, Violation, look, remember, rules_of

SHOWN_DAYS = 20
_ONE_PARTITION = "dagster/partition"


def checks_of(table: sa.Table, asset_key: list[str], source: str = "%") -> dg.AssetChecksDefinition:
    """The checks of `asset_key`, whose rows are those of `table` that `source` (a LIKE pattern) has brought.

    Each is one query for all days of the run. One that finds something on these days fails as an error, and what it
    finds on others is a warning; without days in the run all days count.
    """
    rules = {rule.name: rule for rule in rules_of(table)}
    key = dg.AssetKey(asset_key)

    @dg.multi_asset_check(
        name=f"{'__'.join(asset_key)}_checks",
        specs=[
            dg.AssetCheckSpec(rule.name, asset=key, description=rule.says, blocking=True) for rule in rules.values()
        ],
        can_subset=True,  # else no job could run the asset without all of its checks
    )
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        days = _days(context.run.tags)
        for name in sorted(check.name for check in context.selected_asset_check_keys):
            rule = rules[name]
            with current_engine().begin() as connection:
                found = look(connection, rule, days, source)
                remember(connection, rule, found, asset_key=key.to_user_string(), days=days, run_id=context.run.run_id)
            yield _result(key, rule, found, days)

    return checks


def report_failed(context: dg.AssetExecutionContext, table: sa.Table, found: Mapping[str, list[Violation]]) -> None:
    """Tell, as the checks themselves would, what was found of the rows of `table` before they were written."""
    days = _days(context.run.tags)
    for rule in (rule for rule in rules_of(table) if rule.name in found):
        with current_engine().begin() as connection:
            asset_key = context.asset_key.to_user_string()
            remember(connection, rule, found[rule.name], asset_key=asset_key, days=days, run_id=context.run.run_id)
        told = _result(context.asset_key, rule, found[rule.name], days)
        context.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=context.asset_key,
                check_name=rule.name,
                passed=told.passed,
                metadata=told.metadata,
                severity=told.severity,
                description=told.description,
                blocking=True,
            )
        )


def _result(
    key: dg.AssetKey, rule: Rule, found: list[Violation], days: tuple[date, date] | None
) -> dg.AssetCheckResult:
    ours = [v for v in found if v.day is None or days is None or days[0] <= v.day < days[1]]
    told = [f"{v.day or 'all days'}: {v.detail}" for v in (ours or found)]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=rule.name,
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if ours else dg.AssetCheckSeverity.WARN,
        description="; ".join(told[:3]) or None,
        metadata={"violations": len(found), **({"days": told[:SHOWN_DAYS]} if told else {})},
    )


def _days(tags: Mapping[str, str]) -> tuple[date, date] | None:
    """First day of the run and the one after its last; None where its partitions are no days."""
    first, last = (tags.get(name) or tags.get(_ONE_PARTITION) for name in (RANGE_START, RANGE_END))
    try:
        return (date.fromisoformat(first), date.fromisoformat(last) + timedelta(days=1)) if first and last else None
    except ValueError:
        return None
