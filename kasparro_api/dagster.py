"""Dagster, asked over its webserver's GraphQL: what there is to run, and to run it. No definition is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from fastapi import Request

from kasparro_pipeline.services import local_url
from kasparro_pipeline.settings import Settings

CONNECT_TIMEOUT_S = 2
ANSWER_TIMEOUT_S = 8
"""A launch takes a fifth of a second where the machine is not busy."""

_SOURCES = """
{ assetNodes { assetKey { path } jobNames partitionDefinition { type } repository { name location { name } } } }
"""
_PARTITIONS = """
query ($key: AssetKeyInput!) { assetNodes(assetKeys: [$key]) { partitionKeys } }
"""
_LAUNCH = """
mutation ($run: ExecutionParams!) { launchRun(executionParams: $run) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message }
} }
"""
_TAGGED = """
query ($tag: ExecutionTag!) { runsOrError(filter: {tags: [$tag]}) {
    __typename ... on Runs { results { runId tags { key value } } } ... on Error { message }
} }
"""
_STATUS = """
query ($run: ID!) { runOrError(runId: $run) { __typename ... on Run { status startTime endTime } } }
"""


class DagsterUnavailableError(Exception):
    """Dagster's webserver does not answer; the message says what to do."""


class DagsterRefusedError(Exception):
    """Dagster answers, and will not; the message is its own, in one line."""


class Dagster:
    """The webserver that `settings` lead to; any method may raise the two errors above."""

    def __init__(self, settings: Settings) -> None:
        base = settings.dagster_url or local_url(settings.host, settings.dagster_port)
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._client = httpx.AsyncClient(base_url=base, timeout=timeout, trust_env=False)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def asset_nodes(self) -> list[dict[str, Any]]:
        """Every asset: its key, jobs, kind of partitions, and whose it is."""
        nodes: list[dict[str, Any]] = (await self.ask(_SOURCES))["assetNodes"]
        if not nodes:
            raise DagsterUnavailableError("Dagster has not loaded Kasparro's definitions; see its UI, Deployment")
        return nodes

    async def partitions(self, asset_key: Sequence[str]) -> list[str]:
        """The partitions of an asset, in their order."""
        (node,) = (await self.ask(_PARTITIONS, {"key": {"path": asset_key}}))["assetNodes"]
        keys: list[str] = node["partitionKeys"]
        return keys

    async def launch(self, job: str, repository: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Start a run of a job; its id."""
        run = {
            "selector": {
                "jobName": job,
                "repositoryName": repository["name"],
                "repositoryLocationName": repository["location"]["name"],
            },
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        answer = (await self.ask(_LAUNCH, {"run": run}))["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise DagsterRefusedError(_line(answer.get("message") or answer["__typename"]))
        return str(answer["run"]["runId"])

    async def runs_tagged(self, key: str, value: str) -> dict[str, dict[str, str]]:
        """The runs with this tag, and all tags of each."""
        answer = (await self.ask(_TAGGED, {"tag": {"key": key, "value": value}}))["runsOrError"]
        if answer["__typename"] != "Runs":
            raise DagsterRefusedError(_line(answer["message"]))
        return {run["runId"]: {tag["key"]: tag["value"] for tag in run["tags"]} for run in answer["results"]}

    async def run_status(self, run_id: str) -> dict[str, Any] | None:
        """``status`` (Dagster's word), ``startTime`` and ``endTime`` (Unix seconds or None); None: no such run."""
        answer: dict[str, Any] = (await self.ask(_STATUS, {"run": run_id}))["runOrError"]
        return answer if answer["__typename"] == "Run" else None

    async def ask(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
        """What the query finds."""
        try:
            answer = await self._client.post("/graphql", json={"query": query, "variables": variables or {}})
            told = answer.json()
            answered = isinstance(told, dict) and ("data" in told or "errors" in told)
        except (httpx.HTTPError, ValueError) as error:
            raise DagsterUnavailableError("Dagster's webserver does not answer; see `kasparro status`") from error
        if not answered:
            raise DagsterUnavailableError(f"no Dagster webserver answers at {self._client.base_url}")
        if told.get("errors"):
            raise DagsterRefusedError(_line(told["errors"][0].get("message", "no reason given")))
        return told["data"]


def dagster_of(request: Request) -> Dagster:
    """The service's Dagster."""
    dagster: Dagster = request.state.dagster
    return dagster


def _line(message: str) -> str:
    return message.strip().partition("\n")[0][:500]
