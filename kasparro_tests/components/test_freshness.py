"""When a source is late: by its schedule or its own word, as Dagster's daemon sees it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import freeze_time

from kasparro_pipeline.components.freshness import Freshness, longest_pause
from kasparro_pipeline.definitions import defs


@pytest.fixture(scope="module")
def graph() -> AssetGraph:
    return defs().resolve_asset_graph()


@pytest.mark.parametrize(
    ("cron", "pause"),
    [
        ("*/10 * * * *", timedelta(minutes=10)),
        ("5/10 * * * *", timedelta(minutes=10)),
        ("0 6,18 * * *", timedelta(hours=12)),
        ("0 9 * * 1-5", timedelta(days=3)),
        ("0 0 1 * *", timedelta(days=31)),
    ],
)
def test_the_longest_pause_of_a_schedule(cron: str, pause: timedelta) -> None:
    assert longest_pause(cron) == pause


def test_what_is_no_cron_line_is_named() -> None:
    with pytest.raises(ValueError, match="'hourly' is no cron line"):
        longest_pause("hourly")


def test_sources_lists_and_the_unified_table_have_a_policy_and_drops_none(graph: AssetGraph) -> None:
    policies = {node.key.to_user_string(): node.freshness_policy for node in graph.asset_nodes}
    often = dg.FreshnessPolicy.time_window(timedelta(hours=2), timedelta(minutes=30))
    daily = dg.FreshnessPolicy.time_window(timedelta(days=12), timedelta(days=3))
    assert {name: policy for name, policy in policies.items() if policy} == {
        "coingecko/raw": often,
        "coinpaprika/raw": often,
        "coingecko_list/raw": daily,
        "coinpaprika_list/raw": daily,
        "unified_assets": often,
    }
    assert policies["csv_drops/raw"] is None


@pytest.mark.parametrize(("silent", "state"), [(29, "PASS"), (31, "WARN"), (119, "WARN"), (121, "FAIL")])
def test_a_silent_vendor_is_shown_as_late(graph: AssetGraph, silent: int, state: str) -> None:
    key, now = dg.AssetKey(["coingecko", "raw"]), datetime.now(UTC)
    with dg.instance_for_test() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=now.date().isoformat()))
        with freeze_time(now + timedelta(minutes=silent)):
            evaluator, context = TimeWindowFreshnessPolicyEvaluator(), LoadingContextForTest(instance)
            assert asyncio.run(evaluator.evaluate_freshness(context, graph.get(key))).value == state


def test_dagsters_daemon_looks_by_default() -> None:
    with dg.instance_for_test() as instance:
        assert instance.freshness_enabled


@pytest.mark.parametrize(("warn", "fail"), [(60, 60), (61, 60), (0, 60)])
def test_a_freshness_that_cannot_be_is_refused(warn: int, fail: int) -> None:
    with pytest.raises(ValueError, match="warn_minutes"):
        Freshness(warn_minutes=warn, fail_minutes=fail)
