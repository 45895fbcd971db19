"""ETags: an unchanged answer is not sent again, a changed one never called unchanged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal

import httpx
import pytest
import sqlalchemy as sa

from kasparro_pipeline.warehouse.tables import coin, data_version, source_run, unified_assets
from kasparro_tests.api.rows import insert, unified

DAY = date(2026, 11, 1)


def test_unchanged_data_is_a_304_without_a_body(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified("a", DAY)])
    for path in ("/data", "/latest", "/data?format=csv", "/data?format=parquet", "/coins"):
        first = service.get(path)
        for asked in (first.headers["etag"], f'"x", {first.headers["etag"]}', "*"):
            again = service.get(path, headers={"If-None-Match": asked})
            assert (again.status_code, again.content) == (304, b""), path
            assert again.headers["etag"] == first.headers["etag"]
            assert again.headers["cache-control"] == "private, no-cache"
    assert service.get("/data", headers={"If-None-Match": '"x"'}).status_code == 200


def test_each_question_has_an_etag_of_its_own(service: httpx.Client) -> None:
    paths = ("/data", "/v1/data", "/data?limit=5", "/data?format=csv", "/data?format=ndjson", "/latest")
    tags = [service.get(path).headers["etag"] for path in paths]
    tags.append(service.get("/data", headers={"Accept": "application/vnd.apache.arrow.stream"}).headers["etag"])
    assert len(set(tags)) == len(tags)


WRITES: list[tuple[str, Callable[[sa.Connection], object]]] = [
    ("insert", lambda c: c.execute(unified_assets.insert().values(unified("b", DAY)))),
    ("update", lambda c: c.execute(sa.update(unified_assets).values(price_usd=2))),
    ("delete", lambda c: c.execute(sa.delete(unified_assets))),
    ("truncate", lambda c: c.execute(sa.text("TRUNCATE kasparro.unified_assets"))),
    ("merge", lambda c: c.execute(sa.text("""MERGE INTO kasparro.unified_assets t USING (SELECT 1) s ON true
                                           WHEN MATCHED THEN UPDATE SET price_usd = 3"""))),
]  # fmt: skip


@pytest.mark.parametrize(("write"), [write for _, write in WRITES], ids=[name for name, _ in WRITES])
def test_a_committed_change_ends_the_304_and_a_rolled_back_one_does_not(
    service: httpx.Client, engine: sa.Engine, write: Callable[[sa.Connection], object]
) -> None:
    insert(engine, unified_assets, [unified("a", DAY, price_usd=Decimal(1))])
    asked = {"If-None-Match": service.get("/data").headers["etag"]}
    with engine.connect() as connection:
        write(connection)
        assert service.get("/data", headers=asked).status_code == 304
        connection.rollback()
        assert service.get("/data", headers=asked).status_code == 304
        write(connection)
        connection.commit()
    assert service.get("/data", headers=asked).status_code == 200


def test_writers_do_not_wait_for_each_other_and_none_is_missed(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified("a", DAY)])
    seen = [service.get("/data").headers["etag"]]
    with engine.connect() as one, engine.connect() as two:
        one.execute(unified_assets.insert().values(unified("b", DAY)))
        two.execute(unified_assets.insert().values(unified("c", DAY)))
        for connection in (two, one):  # the later one first
            connection.commit()
            seen.append(service.get("/data").headers["etag"])
    insert(engine, unified_assets, [unified("d", DAY)])
    seen.append(service.get("/data").headers["etag"])
    assert len(set(seen)) == 4
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(data_version)) == 1


def test_a_strict_transaction_leaves_a_version_too(service: httpx.Client, engine: sa.Engine) -> None:
    asked = {"If-None-Match": service.get("/data").headers["etag"]}
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as strict:
        strict.execute(sa.select(unified_assets))
        insert(engine, unified_assets, [unified("a", DAY)])
        strict.execute(unified_assets.insert().values(unified("b", DAY)))
        strict.commit()
    assert service.get("/data", headers=asked).status_code == 200


def test_no_answer_is_older_than_its_question(service: httpx.Client, engine: sa.Engine) -> None:
    """Readers with If-None-Match at all times; each commit has to be seen by whoever asks after it."""
    insert(engine, unified_assets, [unified("a", DAY)])
    ended = threading.Event()

    def read() -> int:
        tag, count = "", 0
        while not ended.is_set():
            answer = service.get("/data?limit=1", headers={"If-None-Match": tag})
            tag = answer.headers["etag"]
            count += answer.status_code in (200, 304)
        return count

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for number in range(40):
                asked = {"If-None-Match": service.get("/data?limit=1000").headers["etag"]}
                insert(engine, unified_assets, [unified(f"c{number}", DAY - timedelta(days=1))])
                answer = service.get("/data?limit=1000", headers=asked)
                assert answer.status_code == 200
                assert answer.json()["metadata"]["count"] == number + 2
        finally:
            ended.set()
    assert all(reader.result() > 0 for reader in readers)


def test_each_listing_looks_at_its_own_tables(service: httpx.Client, engine: sa.Engine) -> None:
    def status(path: str, tag: str) -> int:
        return service.get(path, headers={"If-None-Match": tag}).status_code

    tags = {path: service.get(path).headers["etag"] for path in ("/data", "/latest", "/coins", "/runs", "/sources")}
    insert(engine, coin, [{"coin_id": "a"}])
    changed = {path for path, tag in tags.items() if status(path, tag) == 200}
    assert changed == {"/data", "/coins"}
    tags = {path: service.get(path).headers["etag"] for path in tags}
    run = {"run_id": "r", "asset_key": "x/raw", "source": "x", "partition": "p", "status": "success"}
    insert(engine, source_run, [run])
    assert {path for path, tag in tags.items() if status(path, tag) == 200} == {"/runs", "/sources"}
    with engine.connect() as connection:
        versioned = connection.execute(sa.text("SELECT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"))
        assert {"quarantine", "observation"} <= {name.split(".")[-1] for name in versioned.scalars()}
