from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.api import ApiSpec, PageNumbers, Sweep, fetch_pages
from kasparro_pipeline.sources.http import FetchError, RequestPolicy, VendorClient
from kasparro_tests.sources.vendor import Reply, running_vendor

POLICY = RequestPolicy(attempts=2, wait_initial=0.01, wait_max=0.01, wait_jitter=0)
MARKETS = ApiSpec("/coins/markets", {"vs_currency": "usd", "order": "market_cap_desc"}, PageNumbers(size=3))
TICKERS = ApiSpec("/tickers", {"quotes": "USD"})


def page(*ids: int) -> Reply:
    return Reply(json.dumps([{"id": f"coin-{number}"} for number in ids]).encode())


def fetch(vendor, spec, sweep=None):
    with VendorClient("coingecko", vendor.url, policy=POLICY) as client:
        return list(fetch_pages(client, spec, "2026-11-20", sweep))


def test_reads_pages_to_the_one_that_is_not_full():
    replies = page(1, 2, 3), page(4, 5, 6), page(7)
    with running_vendor(*replies) as vendor:
        payloads = fetch(vendor, MARKETS)
    assert [payload.body for payload in payloads] == [reply.body for reply in replies]
    assert [payload.position for payload in payloads] == [0, 1, 2]
    assert [payload.checkpoint.complete for payload in payloads] == [False, False, True]
    assert [payload.checkpoint.cursor["next_page"] for payload in payloads] == [2, 3, 4]
    assert len({payload.checkpoint.cursor["sweep"] for payload in payloads}) == 1
    assert {payload.partition for payload in payloads} == {"2026-11-20"}
    assert payloads[1].request == f"{vendor.url}/coins/markets?vs_currency=usd&order=market_cap_desc&per_page=3&page=2"
    assert [request["page"] for request in vendor.requests] == ["1", "2", "3"]


def test_an_empty_page_after_a_full_one_is_the_last():
    with running_vendor(page(1, 2, 3), Reply(b"[]")) as vendor:
        payloads = fetch(vendor, MARKETS)
    assert [payload.body for payload in payloads] == [page(1, 2, 3).body, b"[]"]
    assert payloads[-1].checkpoint.complete


def test_goes_on_with_the_page_an_interrupted_sweep_had_reached():
    with running_vendor(page(1, 2, 3), page(4, 5, 6), page(7)) as vendor, VendorClient("x", vendor.url) as client:
        first = next(fetch_pages(client, MARKETS, "2026-11-20"))
        rest = list(fetch_pages(client, MARKETS, "2026-11-20", Sweep.resume(first.checkpoint.cursor)))
    assert [request["page"] for request in vendor.requests] == ["1", "2", "3"]
    assert [payload.position for payload in rest] == [1, 2]
    assert {payload.checkpoint.cursor["sweep"] for payload in rest} == {first.checkpoint.cursor["sweep"]}


def test_a_resumed_sweep_may_find_that_there_is_nothing_more():
    with running_vendor(Reply(b"[]")) as vendor:
        payloads = fetch(vendor, MARKETS, Sweep(datetime(2026, 11, 20, tzinfo=UTC), 5))
    assert [payload.position for payload in payloads] == [4]
    assert payloads[0].checkpoint.complete


def test_without_paging_one_answer_is_all():
    with running_vendor(page(*range(10))) as vendor:
        payloads = fetch(vendor, TICKERS)
    assert len(payloads) == 1
    assert payloads[0].checkpoint.complete
    assert vendor.requests == [{"path": "/v1/tickers", "quotes": "USD"}]


def test_records_may_lie_within_the_answer():
    spec = ApiSpec("/assets", paging=PageNumbers(2, "p", "limit"), record_path=("data", "coins"))
    replies = Reply(b'{"data":{"coins":[{},{}]}}'), Reply(b'{"data":{"coins":[{}]}}')
    with running_vendor(*replies) as vendor:
        assert len(fetch(vendor, spec)) == 2
    assert vendor.requests[1] == {"path": "/v1/assets", "limit": "2", "p": "2"}


@pytest.mark.parametrize(
    ("spec", "replies", "said"),
    [
        (TICKERS, [Reply(b"[]")], "answered without a record; an empty answer is not 'no coins'"),
        (MARKETS, [Reply(b"[]")], "answered without a record"),
        (TICKERS, [Reply(b'{"error":"id not found"}')], 'got `object`: {"error":"id not found"}; check the endpoint'),
        (TICKERS, [Reply(b'"maintenance"')], "no array of records at the top"),
        (ApiSpec("/x", record_path=("data",)), [Reply(b"[{}]")], "no array of records at data"),
        (ApiSpec("/x", record_path=("data",)), [Reply(b'{"coins":[]}')], "the answer has no 'data'"),
        (MARKETS, [page(1, 2, 3)], "answered the same as the page before; check the paging"),
    ],
)
def test_what_is_no_snapshot_is_an_error(spec, replies, said):
    with running_vendor(*replies) as vendor, pytest.raises(FetchError) as caught:
        fetch(vendor, spec)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"coingecko: GET {vendor.url}{spec.endpoint}")


def test_pages_before_a_failure_are_handed_out():
    with running_vendor(page(1, 2, 3), Reply(b"", 404)) as vendor, VendorClient("x", vendor.url) as client:
        pages = fetch_pages(client, MARKETS, "2026-11-20")
        assert next(pages).position == 0
        with pytest.raises(FetchError, match="page=2 answered 404"):
            next(pages)


@pytest.mark.parametrize("cursor", [{}, {"sweep": "yesterday", "next_page": 1}, {"sha256": "0", "size": 1}])
def test_a_foreign_cursor_is_refused(cursor):
    with pytest.raises(KasparroError, match="is no sweep over pages"):
        Sweep.resume(cursor)
