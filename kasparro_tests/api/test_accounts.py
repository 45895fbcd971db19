from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from kasparro_api.schemas import DriftRow, Page, QuarantineRow
from kasparro_pipeline.warehouse.tables import drift, quarantine
from kasparro_tests.api.rows import insert

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def held(number: int, **columns: Any) -> dict[str, Any]:
    return {
        "source": "coingecko",
        "payload_sha256": "ab" * 32,
        "position": number,
        "location": f"https://vendor.test record {number}",
        "reason_code": "bad_number",
        "reason": "price_usd: 'twelve' is not a plain decimal number",
        "record": '{"id": "a"}',
        "parser_version": "json-1",
        "created_at": NOON + timedelta(minutes=number // 2),  # pairs of equal times
        **columns,
    }


def drifted(number: int, **columns: Any) -> dict[str, Any]:
    return {
        "source": "coingecko",
        "scope": "",
        "path": f"field_{number}",
        "kind": "missing",
        "severity": "warn",
        "mapped_column": "symbol",
        "detail": "the field is gone",
        "first_seen": NOON + timedelta(minutes=number // 2),
        "last_seen": NOON + timedelta(hours=number),
        "payload_sha256": "ab" * 32,
        **columns,
    }


def walk(service: httpx.Client, route: str, **parameters: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        body = service.get(route, params=parameters).json()
        assert body["metadata"]["count"] == len(body["data"]) <= body["metadata"]["limit"]
        rows += body["data"]
        if body["metadata"]["next_cursor"] is None:
            return rows
        parameters["cursor"] = body["metadata"]["next_cursor"]


def test_quarantine_is_as_documented(service: httpx.Client, engine: sa.Engine) -> None:
    record = 'a\n"b" \\x00 \u2028 \U0001f680 ' + "x" * 20_000
    insert(engine, quarantine, [held(1, record=record)])
    answer = service.get("/quarantine", headers={"X-Request-ID": "a-1"})
    page = Page[QuarantineRow].model_validate_json(answer.content)
    assert (page.metadata.request_id, page.metadata.count, page.metadata.limit) == ("a-1", 1, 100)
    assert page.data[0].record == record
    assert answer.json()["data"][0]["created_at"] == "2026-11-01T12:00:00Z"


def test_drift_is_as_documented(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, drift, [drifted(1, kind="renamed", renamed_to="b", confidence=Decimal("0.870"), resolved_at=NOON)])
    page = Page[DriftRow].model_validate_json(service.get("/drift").content)
    assert (page.data[0].kind, page.data[0].confidence) == ("renamed", "0.870")


@pytest.mark.parametrize("route", ["/quarantine", "/drift"])
def test_pages_newest_first_skip_and_repeat_nothing(service: httpx.Client, engine: sa.Engine, route: str) -> None:
    table, row = (quarantine, held) if route == "/quarantine" else (drift, drifted)
    insert(engine, table, [row(number) for number in range(9)])
    for limit in (1, 2, 8, 9, 10):
        ids = [row["id"] for row in walk(service, route, limit=limit)]
        assert len(ids) == 9
        assert ids == sorted(ids, reverse=True)


def test_filters(service: httpx.Client, engine: sa.Engine) -> None:
    rows = [held(0), held(2, source="csv_a", reason_code="conflict"), held(4, source="csv_b")]
    insert(engine, quarantine, rows)
    insert(engine, drift, [drifted(0), drifted(1, source="csv_a", kind="new"), drifted(2, kind="retyped")])
    insert(engine, drift, [drifted(1, source="csv_b", kind="retyped", resolved_at=NOON)])
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("/quarantine", {"source": "csv_a, csv_b"}, 2),
        ("/quarantine", {"source": "csv"}, 0),
        ("/quarantine", {"reason_code": "conflict"}, 1),
        ("/quarantine", {"from": "2026-11-01T12:01:00Z"}, 2),
        ("/quarantine", {"from": "2026-11-01T13:01:30+01:00"}, 1),
        ("/quarantine", {"from": "2026-11-02"}, 0),
        ("/drift", {"source": "coingecko"}, 2),
        ("/drift", {"kind": "new,missing"}, 2),
        ("/drift", {"status": "open"}, 3),
        ("/drift", {"status": "closed"}, 1),
        ("/drift", {"status": "closed,open", "source": "csv_b"}, 1),
        ("/drift", {"from": "2026-11-01T14:00:00"}, 1),
    ]
    for route, parameters, expected in cases:
        assert len(walk(service, route, **parameters)) == expected, (route, parameters)


@pytest.mark.parametrize("route", ["/quarantine", "/drift"])
@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"sauce": "x"}, "unknown parameter sauce"),
        ({"from": "yesterday"}, "from: not a day or time"),
        ({"limit": "0"}, "limit"),
        ({"cursor": "abc"}, "cursor: not a cursor"),
    ],
)
def test_wrong_parameters_are_refused(bare_service: httpx.Client, route: str, parameters: Any, told: str) -> None:
    answer = bare_service.get(route, params=parameters)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


def test_without_a_database(bare_service: httpx.Client) -> None:
    assert bare_service.get("/drift").status_code == 503
