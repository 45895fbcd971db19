from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from kasparro_api.schemas import CoinRow, ObservationRow, Page, RunRow, SourceRow, UnifiedRow


@pytest.fixture(scope="module")
def document(bare_service: httpx.Client) -> dict[str, Any]:
    return bare_service.get("/openapi.json").json()


def test_documentation_page_needs_no_other_host(bare_service: httpx.Client) -> None:
    page = bare_service.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) >= 2
    assert "://" not in page
    for path in loaded:
        assert bare_service.get(path).status_code == 200


def test_every_parameter_of_data_is_documented_as_it_is(document: dict[str, Any]) -> None:
    parameters = {told["name"]: told for told in document["paths"]["/data"]["get"]["parameters"]}
    assert set(parameters) >= {
        *("limit", "cursor", "sort", "fields", "count", "format", "symbol", "coin_id", "source", "flags", "q"),
        *("from", "to", "min_price", "max_price", "min_market_cap", "max_rank", "as_of"),
    }
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1}
    assert parameters["sort"]["schema"]["enum"] == ["-day", "day", "coin_id", "-coin_id"]
    assert parameters["min_price"]["schema"] == {"type": "string"}
    assert all(told["description"] and not told["required"] for told in parameters.values())


def test_every_operation_is_documented_with_an_example(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        told = operations["get"]
        assert told["summary"], path
        assert told["description"], path
        good = told["responses"]["200"]["content"]
        assert "example" in str(good) or "$ref" in str(good), path
        for parameter in told.get("parameters", []):
            assert parameter["in"] in ("query", "path")
        assert all(answer["description"] for answer in told["responses"].values())
        assert len({one["name"] for one in told.get("parameters", [])}) == len(told.get("parameters", []))


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/data", {"200", "304", "401", "403", "422", "429", "503"}),
        ("/coins/{coin_id}/history", {"200", "304", "401", "403", "404", "422", "429", "503"}),
        ("/identity/review", {"200", "304", "401", "403", "422", "429", "503"}),
        ("/data/{coin_id}/{day}/lineage", {"200", "304", "401", "403", "404", "422", "429", "503"}),
        ("/payloads/{sha256}", {"200", "304", "401", "403", "404", "422", "429", "503"}),
        ("/health", {"200", "503"}),
        ("/stats", {"200", "401", "403", "429", "503"}),
    ],
)
def test_every_status_is_documented(document: dict[str, Any], path: str, statuses: set[str]) -> None:
    assert set(document["paths"][path]["get"]["responses"]) == statuses


def test_decimals_are_documented_as_strings(document: dict[str, Any]) -> None:
    price = document["components"]["schemas"]["UnifiedRow"]["properties"]["price_usd"]
    assert [kind["type"] for kind in price["anyOf"]] == ["string", "null"]
    assert "decimal" in document["paths"]["/data"]["get"]["description"]


@pytest.mark.parametrize("path", ["/data", "/latest", "/coins", "/coins/{coin_id}/observations", "/sources", "/runs"])
def test_the_examples_are_answers_as_documented(document: dict[str, Any], path: str) -> None:
    pages = {"/coins": CoinRow, "/sources": SourceRow, "/runs": RunRow, "/coins/{coin_id}/observations": ObservationRow}
    told = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    Page[pages.get(path, UnifiedRow)].model_validate(told)


def test_who_needs_a_key_is_documented(document: dict[str, Any]) -> None:
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
    paths = document["paths"]
    assert paths["/data"]["get"]["security"] == [{}, {"bearer": []}, {"key": []}]
    assert paths["/runs"]["post"]["security"] == [{"bearer": []}, {"key": []}]
    assert "security" not in paths["/health"]["get"]
