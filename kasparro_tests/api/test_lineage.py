"""From a row to the bytes, over HTTP."""

from __future__ import annotations

import hashlib
import os
from datetime import date, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import zstandard

from kasparro_api.schemas import DataPage, Lineage
from kasparro_pipeline.warehouse.retention import prune_observations, prune_unified_history
from kasparro_pipeline.warehouse.tables import delivery, raw_payload, source_run, touched_day, unified_assets
from kasparro_tests.api.rows import insert, unified
from kasparro_tests.api.test_operations import step
from kasparro_tests.warehouse.market import DAY, at, observe, said, unify_days

PAGE = b'[{"id": "bitcoin", "current_price": 100.00}]'
BLOCK = "symbol,name,date,price\nBTC,Bitcoin Ü,2026-11-10,102\n".encode()


def keep(engine: sa.Engine, source: str, body: bytes, **columns: Any) -> str:
    sha256 = hashlib.sha256(body).hexdigest()
    stored = {"body": zstandard.ZstdCompressor().compress(body), "size_bytes": len(body), "first_fetched_at": at()}
    insert(engine, raw_payload, [{"source": source, "sha256": sha256, **stored}])
    place = {"source": source, "partition": str(DAY), "position": 0, "fetched_at": at("23:52"), "sha256": sha256}
    more = {"request": f"http://{source}.example/coins?page=1", "first_record": 1, "is_last": True}
    insert(engine, delivery, [{**place, **more, "run_id": "run-f", "parse_run_id": "run-p", **columns}])
    return sha256


@pytest.fixture
def payloads(engine: sa.Engine) -> dict[str, str]:
    """One row of two sources, with all that it came from."""
    kept = {
        "coingecko": keep(engine, "coingecko", PAGE, parser_version="json-1:abc"),
        "csv_desk": keep(engine, "csv_desk", BLOCK, request="desk/a.csv", first_record=40),
    }
    observe(
        engine,
        [
            said("coingecko", "100.00", payload_sha256=kept["coingecko"], position=3),
            said("csv_desk", "102", max_supply="21000000", payload_sha256=kept["csv_desk"], position=2),
            said("csv_desk", "1", source_coin_id="ether"),
        ],
    )
    unify_days(engine)
    return kept


def test_a_row_is_traced_to_words_payloads_and_runs(service: httpx.Client, payloads: dict[str, str]) -> None:
    answer = service.get(f"/data/bitcoin/{DAY}/lineage")
    assert answer.status_code == 200, answer.text
    told = Lineage.model_validate_json(answer.content)
    assert (told.row.coin_id, told.row.price_usd, told.row.max_supply) == ("bitcoin", "100.00", "21000000")
    assert list(told.fields) == [*list(told.fields)[:7], "symbol", "name"]
    verdicts = {field: [(v.source, v.value, v.verdict) for v in told.fields[field]] for field in told.fields}
    assert verdicts["price_usd"] == [("coingecko", "100.00", "chosen"), ("csv_desk", "102", "later_priority")]
    assert verdicts["max_supply"] == [("coingecko", None, "no_value"), ("csv_desk", "21000000", "chosen")]
    words = [(o.source, o.price_usd, o.payload_sha256, o.position) for o in told.observations]
    assert words == [
        ("coingecko", "100.00", payloads["coingecko"], 3),
        ("csv_desk", "102", payloads["csv_desk"], 2),
    ]
    assert told.observations[0].identity.method == "override"
    (gecko,), (desk,) = (payload.deliveries or [] for payload in told.payloads)
    assert (gecko.request, gecko.run_id, gecko.parse_run_id) == (
        "http://coingecko.example/coins?page=1",
        "run-f",
        "run-p",
    )
    assert gecko.parser_version == "json-1:abc"
    assert (desk.request, desk.first_record) == ("desk/a.csv", 40)
    assert told.unified_by is not None
    assert (told.unified_by.run_id, told.unified_by.changing) == ("run-u", False)


def test_a_lineage_that_is_ahead_of_its_row_says_so(
    service: httpx.Client, payloads: dict[str, str], engine: sa.Engine
) -> None:
    insert(engine, touched_day, [{"day": DAY - timedelta(days=2)}])
    assert service.get(f"/data/bitcoin/{DAY}/lineage").json()["unified_by"]["changing"]


def test_a_lineage_says_that_observations_are_no_longer_kept(
    service: httpx.Client, payloads: dict[str, str], engine: sa.Engine
) -> None:
    path = f"/data/bitcoin/{DAY}/lineage"
    assert prune_observations(engine, at("00:00", date(2026, 10, 31))) == 0
    assert not service.get(path).json()["pruned"]
    prune_observations(engine, at("00:00", date(2026, 12, 2)))
    told = Lineage.model_validate_json(service.get(path).content)
    assert told.pruned
    assert (told.row.price_usd, told.fields, told.observations, told.payloads) == ("100.00", {}, [], [])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/data/nothing/2026-11-10/lineage", 404),
        ("/data/bitcoin/2026-11-09/lineage", 404),
        ("/data/bitcoin/yesterday/lineage", 422),
        ("/data/bit%00coin/2026-11-10/lineage", 404),
        ("/data/';--/2026-11-10/lineage", 404),
        (f"/payloads/{'0' * 64}", 404),
        ("/payloads/abc", 422),
        ("/payloads/..%2f..%2fetc%2fpasswd", 404),
    ],
)
def test_what_there_is_not_is_a_problem(
    service: httpx.Client, payloads: dict[str, str], path: str, status: int
) -> None:
    answer = service.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "media_type", "ending"),
    [
        (PAGE, "application/json", "json"),
        (b"\xef\xbb\xbf \n{}", "application/json", "json"),
        (BLOCK, "text/csv; charset=utf-8", "csv"),
        (b"\x89PNG\r\n\0\0\0\x01" * 20, "application/octet-stream", "bin"),
        (b"", "application/octet-stream", "bin"),
        (b"[" + os.urandom(400_000).hex().encode() + b"]", "application/json", "json"),
    ],
    ids=["json", "json after a mark", "csv", "binary", "nothing", "many pieces"],
)
def test_a_payload_is_given_byte_for_byte(
    service: httpx.Client, engine: sa.Engine, body: bytes, media_type: str, ending: str
) -> None:
    sha256 = keep(engine, "coingecko", body)
    answer = service.get(f"/payloads/{sha256}", headers={"Accept-Encoding": "identity"})
    assert answer.status_code == 200
    assert answer.content == body
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-disposition"] == f'attachment; filename="{sha256}.{ending}"'
    assert answer.headers["content-length"] == str(len(body))
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_has_not_changed_is_not_sent_again(
    service: httpx.Client, engine: sa.Engine, payloads: dict[str, str]
) -> None:
    insert(engine, source_run, [step("coingecko", "run-f", 0)])
    paths = ["/coins/bitcoin", f"/data/bitcoin/{DAY}/lineage", f"/payloads/{payloads['csv_desk']}"]
    paths += ["/runs/run-f", "/compare-runs?a=run-f&b=run-f"]
    etags = {path: service.get(path).headers["etag"] for path in paths}
    for path in paths:
        assert service.get(path).headers["etag"] == etags[path]
        again = service.get(path, headers={"If-None-Match": f'W/"x", {etags[path]}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etags[path])
    assert "immutable" in service.get(paths[2], headers={"If-None-Match": etags[paths[2]]}).headers["cache-control"]
    assert service.get(f"/payloads/{'0' * 64}", headers={"If-None-Match": "*"}).status_code == 404
    with engine.begin() as connection:
        connection.execute(sa.update(unified_assets).values(price_usd=1))
    for path in paths[:2]:
        assert service.get(path, headers={"If-None-Match": etags[path]}).status_code == 200


def test_as_of_pages_through_the_past(service: httpx.Client, engine: sa.Engine) -> None:
    """No later change moves a page; what was deleted since is there."""
    with engine.begin() as connection:
        for n in range(5):
            connection.execute(sa.insert(unified_assets).values(unified(f"coin-{n}", DAY, price_usd=n + 1)))
    with engine.connect() as connection:
        moment = connection.scalar(sa.select(sa.func.clock_timestamp()))
    then = service.get("/data").json()["data"]
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM kasparro.unified_assets WHERE coin_id = 'coin-1'")
        connection.exec_driver_sql("UPDATE kasparro.unified_assets SET price_usd = 9 WHERE coin_id = 'coin-3'")
    assert service.get("/data").json()["data"] != then
    found, parameters = [], {"as_of": moment.isoformat(), "limit": "2"}
    while True:
        page = service.get("/data", params=parameters).json()
        found += page["data"]
        if page["metadata"]["next_cursor"] is None:
            break
        parameters["cursor"] = page["metadata"]["next_cursor"]
    assert found == then
    DataPage.model_validate(page)
    only = service.get("/data", params={"as_of": moment.isoformat(), "coin_id": "coin-3", "max_price": "8"}).json()
    assert [row["price_usd"] for row in only["data"]] == ["4"]


def test_as_of_before_the_kept_history_is_refused(service: httpx.Client, engine: sa.Engine) -> None:
    prune_unified_history(engine, at())
    answer = service.get("/data", params={"as_of": "2026-11-01T00:00:00Z"})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "as_of: the history of unified_assets begins at 2026-11-10T23:50:00+00"
    assert service.get("/data", params={"as_of": "2026-11-20T00:00:00Z"}).status_code == 200


@pytest.mark.parametrize("as_of", ["yesterday", "2026-11-01", ""])
def test_as_of_needs_a_time(bare_service: httpx.Client, as_of: str) -> None:
    answer = bare_service.get("/data", params={"as_of": as_of})
    assert answer.status_code == 422
    assert "as_of: not a time: write YYYY-MM-DDTHH:MM:SSZ" in answer.json()["detail"]
