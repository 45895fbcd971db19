"""``GET /lineage``: the assets, what each stands on, and how it is, as Dagster and the checks know it now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from kasparro_api.dagster import Dagster, dagster_of
from kasparro_api.database import Database
from kasparro_api.parameters import QueryParameters
from kasparro_api.problems import documented
from kasparro_api.schemas import AssetGraph
from kasparro_api.serve import database_of, metadata

router = APIRouter(tags=["provenance"])

_ASSETS = """
{ assetNodes {
    assetKey { path } groupName kinds description dependencyKeys { path } partitionDefinition { type }
} }
"""
_LATEST = """
query ($keys: [AssetKeyInput!]!) { assetsLatestInfo(assetKeys: $keys) {
    assetKey { path } latestMaterialization { timestamp runId partition } latestRun { runId status }
    inProgressRunIds unstartedRunIds
} }
"""
_FAILED = "SELECT asset_key, count(*), bool_or(severity = 'error') FROM kasparro.failed_check GROUP BY asset_key"
_PARTITIONS = {"TIME_WINDOW": "day", "DYNAMIC": "drop"}


@router.get(
    "/lineage",
    summary="The assets, and what each stands on",
    responses={200: {"model": AssetGraph}, **documented(422, 502, 503)},
)
async def lineage(request: Request) -> JSONResponse:
    """Every Dagster asset with what it depends on, its last materialization, whether it is stale, and its health.

    `health` is `degraded` after a failed run or check, `warning` after a check's warning or when stale, `unknown` where
    there never was a materialization. 503 while Dagster's webserver is away: nothing else knows the assets as they are.
    Where one row came from is under `/data/{coin_id}/{day}/lineage`.
    """
    QueryParameters.read(request.query_params)
    dagster = dagster_of(request)
    nodes = (await dagster.ask(_ASSETS))["assetNodes"]
    keys = {"keys": [{"path": node["assetKey"]["path"]} for node in nodes]}
    latest, failed = await asyncio.gather(dagster.ask(_LATEST, keys), _failed(database_of(request)))
    by_key = {_name(info["assetKey"]): info for info in latest["assetsLatestInfo"]}
    stale = await _stale(dagster, by_key)
    assets = [_asset(node, by_key.get(_name(node["assetKey"]), {}), failed, stale) for node in nodes]
    assets.sort(key=lambda asset: asset["asset_key"])
    return JSONResponse({"metadata": metadata(request), "data": assets}, headers={"Cache-Control": "no-store"})


async def _stale(dagster: Dagster, latest: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Whether what was made last of each asset is stale; Dagster knows that of single partitions only."""
    made = {name: info for name, info in latest.items() if info["latestMaterialization"]}
    if not made:
        return {}
    values: dict[str, Any] = {}
    for number, info in enumerate(made.values()):
        values[f"k{number}"] = {"path": info["assetKey"]["path"]}
        values[f"p{number}"] = info["latestMaterialization"]["partition"]
    declared = ", ".join(f"$k{number}: AssetKeyInput!, $p{number}: String" for number in range(len(made)))
    asked = " ".join(
        f"a{number}: assetNodes(assetKeys: [$k{number}]) {{ staleStatus(partition: $p{number}) }}"
        for number in range(len(made))
    )
    found = await dagster.ask(f"query ({declared}) {{ {asked} }}", values)
    return {name: (found[f"a{number}"][0]["staleStatus"] or "FRESH").lower() for number, name in enumerate(made)}


async def _failed(database: Database) -> dict[str, tuple[int, bool]]:
    async with database.connection() as connection:
        rows = await (await connection.execute(_FAILED)).fetchall()
    return {asset_key: (count, is_error) for asset_key, count, is_error in rows}


def _asset(
    node: Mapping[str, Any],
    latest: Mapping[str, Any],
    failed: Mapping[str, tuple[int, bool]],
    stale: Mapping[str, str],
) -> dict[str, Any]:
    name = _name(node["assetKey"])
    count, is_error = failed.get(name, (0, False))
    made, run = latest.get("latestMaterialization"), latest.get("latestRun")
    run_failed = run is not None and run["status"] == "FAILURE"
    staleness = stale.get(name, "missing")
    health = "healthy"
    if run_failed or is_error:
        health = "degraded"
    elif made is None:
        health = "unknown"
    elif count or staleness != "fresh":
        health = "warning"
    return {
        "asset_key": name,
        "group": node["groupName"],
        "kinds": node["kinds"],
        "description": node["description"],
        "depends_on": sorted(map(_name, node["dependencyKeys"])),
        "partitions": _PARTITIONS.get((node["partitionDefinition"] or {"type": ""})["type"]),
        "last_materialization": made
        and {
            "at": datetime.fromtimestamp(int(made["timestamp"]) / 1000, UTC).isoformat().replace("+00:00", "Z"),
            "run_id": made["runId"],
            "partition": made["partition"],
        },
        "running": bool(latest.get("inProgressRunIds")),
        "queued": bool(latest.get("unstartedRunIds")),
        "staleness": staleness,
        "failed_checks": count,
        "last_run": run and {"run_id": run["runId"], "status": run["status"].lower()},
        "health": health,
    }


def _name(key: Mapping[str, Any]) -> str:
    return "/".join(key["path"])
