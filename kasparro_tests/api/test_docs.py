from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from kasparro_api.schemas import UnifiedRow


@pytest.fixture(scope="module")
def document(bare_service: httpx.Client) -> dict[str, Any]:
    return bare_service.get("/openapi.json").json()


def test_root_leads_to_the_documentation(bare_service: httpx.Client) -> None:
    assert bare_service.get("/", follow_redirects=True).url.path == "/docs"


def test_documentation_page_needs_no_other_host(bare_service: httpx.Client) -> None:
    page = bare_service.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) >= 2
    assert "://" not in page
    for path in loaded:
        assert bare_service.get(path).status_code == 200


def test_every_parameter_of_data_is_documented_as_it_is(document: dict[str, Any]) -> None:
    parameters = {told["name"]: told for told in document["paths"]["/data"]["get"]["parameters"]}
    assert set(parameters) == {
        "limit", "cursor", "symbol", "coin_id", "source", "from", "to", "min_price", "max_price", "as_of"
    }  # fmt: skip
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    assert parameters["from"]["schema"] == {"type": "string", "format": "date"}
    assert parameters["as_of"]["schema"]["format"] == "date-time"
    assert parameters["min_price"]["schema"] == {"type": "string"}
    assert parameters["symbol"]["schema"]["type"] == "string"
    assert all(told["description"] and not told["required"] for told in parameters.values())


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/data", {"200", "422", "503"}),
        ("/health", {"200", "503"}),
        ("/stats", {"200", "503"}),
        ("/identity/review", {"200", "422", "503"}),
        ("/data/{coin_id}/{day}/lineage", {"200", "404", "422", "503"}),
        ("/payloads/{sha256}", {"200", "404", "422", "503"}),
    ],
)
def test_every_status_is_documented(document: dict[str, Any], path: str, statuses: set[str]) -> None:
    responses = document["paths"][path]["get"]["responses"]
    assert set(responses) == statuses
    assert all(answer["content"] and answer["description"] for answer in responses.values())


def test_decimals_are_documented_as_strings(document: dict[str, Any]) -> None:
    price = document["components"]["schemas"]["UnifiedRow"]["properties"]["price_usd"]
    assert [kind["type"] for kind in price["anyOf"]] == ["string", "null"]
    assert "decimal" in document["paths"]["/data"]["get"]["description"]


def test_the_examples_are_rows_as_documented(document: dict[str, Any]) -> None:
    properties = document["components"]["schemas"]["UnifiedRow"]["properties"]
    told = {name: schema["examples"][0] for name, schema in properties.items() if "examples" in schema}
    absent = {name: None for name in properties if name.endswith(("_usd", "_supply"))}
    times = {"observed_at": "2026-11-01T12:00:00Z", "updated_at": "2026-11-01T12:00:01.5Z"}
    UnifiedRow.model_validate({**absent, **times, **told})
