from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from kasparro_api.schemas import Page, ReviewRow
from kasparro_pipeline.warehouse.tables import identity_review
from kasparro_tests.api.rows import insert
from kasparro_tests.api.test_data import token


def pair(number: int, confidence: str, **columns: Any) -> dict[str, Any]:
    return {
        "source": "coingecko",
        "source_coin_id": f"coin-{number}",
        "other_source": "csv_desk",
        "other_source_coin_id": f"C{number}",
        "reason": "symbol",
        "confidence": Decimal(confidence),
        "evidence": 'the symbol is equal, "ż" and \u2028',
        **columns,
    }


def walk(service: httpx.Client, **parameters: Any) -> list[str]:
    ids: list[str] = []
    while True:
        answer = service.get("/identity/review", params=parameters)
        assert answer.status_code == 200, answer.text
        page = Page[ReviewRow].model_validate(answer.json())
        assert page.metadata.count == len(page.data) <= page.metadata.limit
        ids += [told.source_coin_id for told in page.data]
        if page.metadata.next_cursor is None:
            return ids
        parameters["cursor"] = page.metadata.next_cursor


def test_the_likeliest_first_page_by_page(service: httpx.Client, engine: sa.Engine) -> None:
    assert walk(service) == []
    likely = ["0.2", "0.5", "0.200", "0.5", "0.30", "0.2"]
    insert(engine, identity_review, [pair(number, confidence) for number, confidence in enumerate(likely)])
    expected = ["coin-1", "coin-3", "coin-4", "coin-0", "coin-2", "coin-5"]
    for limit in (1, 2, 3, 5, 6, 7):
        assert walk(service, limit=limit) == expected
    (first, *_) = service.get("/identity/review").json()["data"]
    assert (first["confidence"], first["reason"], first["other_source_coin_id"]) == ("0.5", "symbol", "C1")
    assert first["evidence"] == 'the symbol is equal, "ż" and \u2028'
    assert first["created_at"].endswith("Z")


def test_filters(service: httpx.Client, engine: sa.Engine) -> None:
    insert(
        engine,
        identity_review,
        [pair(0, "0.5"), pair(1, "0.5", reason="price"), pair(2, "0.5", other_source="csv_other", reason="ambiguous")],
    )
    assert walk(service, source="csv_other") == ["coin-2"]
    assert walk(service, source="coingecko", reason="price,ambiguous", limit=1) == ["coin-1", "coin-2"]
    assert walk(service, reason="pri%") == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": 0},
        {"limit": 1001},
        {"page": 2},
        {"source": "a,,b"},
        {"cursor": "!"},
        {"cursor": token(["-confidence", "NaN", "1"])},
        {"cursor": token(["-confidence", "0.5", str(2**63)])},
        {"cursor": token(["-confidence", "0.5", True])},
        {"cursor": token(["-confidence", "0.5; DROP", "1"])},
    ],
)
def test_what_cannot_be_asked_is_told(bare_service: httpx.Client, parameters: dict[str, Any]) -> None:
    answer = bare_service.get("/identity/review", params=parameters)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert next(iter(parameters)) in answer.json()["detail"]


def test_without_a_database(bare_service: httpx.Client) -> None:
    assert bare_service.get("/identity/review").status_code == 503
