from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.api import ApiSpec, SnapshotFetch, Sweep
from kasparro_pipeline.sources.http import FetchError, Known, RequestPolicy, VendorClient
from kasparro_pipeline.sources.paging import Paging
from kasparro_pipeline.sources.records import Version
from kasparro_tests.sources.vendor import Reply, running_vendor

POLICY = RequestPolicy(attempts=2, wait_initial=0.01, wait_max=0.01, wait_jitter=0)
BY_PAGE = Paging("page", 3, "page", "per_page")
MARKETS = ApiSpec("/coins/markets", {"vs_currency": "usd"}, BY_PAGE)
TICKERS = ApiSpec("/tickers", {"quotes": "USD"})
CURSOR = ApiSpec("/assets", {}, Paging("cursor", 2, "after", "limit", next_path=("meta", "next")), ("data",))


def page(*ids: int) -> Reply:
    return Reply(json.dumps([{"id": f"coin-{number}"} for number in ids]).encode())


def cursor_page(ids: list[int], following: object) -> Reply:
    data = [{"id": f"coin-{number}"} for number in ids]
    return Reply(json.dumps({"data": data, "meta": {"next": following}}).encode())


def coins(*ids: int) -> frozenset[str]:
    return frozenset(f"coin-{number}" for number in ids)


def fetch(vendor, spec, sweep=None, **options):
    with VendorClient("coingecko", vendor.url, policy=POLICY) as client:
        snapshot = SnapshotFetch(client, spec, "2026-11-20", sweep, **options)
        return list(snapshot.payloads()), snapshot


def test_reads_pages_to_the_one_that_is_not_full():
    replies = page(1, 2, 3), page(4, 5, 6), page(7)
    with running_vendor(*replies) as vendor:
        payloads, _ = fetch(vendor, MARKETS)
    assert [payload.body for payload in payloads] == [reply.body for reply in replies]
    assert [payload.position for payload in payloads] == [0, 1, 2]
    assert [payload.checkpoint.complete for payload in payloads] == [False, False, True]
    assert [payload.checkpoint.cursor["place"] for payload in payloads[:2]] == [2, 3]
    assert len({payload.checkpoint.cursor["sweep"] for payload in payloads}) == 1
    assert {payload.partition for payload in payloads} == {"2026-11-20"}
    assert payloads[1].request == f"{vendor.url}/coins/markets?vs_currency=usd&per_page=3&page=2"
    assert [request["page"] for request in vendor.requests] == ["1", "2", "3"]


def test_an_empty_page_after_a_full_one_is_the_last():
    with running_vendor(page(1, 2, 3), Reply(b"[]")) as vendor:
        payloads, _ = fetch(vendor, MARKETS)
    assert [payload.body for payload in payloads] == [page(1, 2, 3).body, b"[]"]
    assert payloads[-1].checkpoint.complete


def test_goes_on_with_the_page_an_interrupted_sweep_had_reached():
    with running_vendor(page(1, 2, 3), page(4, 5, 6), page(7)) as vendor, VendorClient("x", vendor.url) as client:
        first = next(SnapshotFetch(client, MARKETS, "2026-11-20").payloads())
        sweep = Sweep.resume(json.loads(json.dumps(first.checkpoint.cursor)))
        rest, _ = fetch(vendor, MARKETS, sweep, coins=coins(1, 2, 3))
    assert [request["page"] for request in vendor.requests] == ["1", "2", "3"]
    assert [payload.position for payload in rest] == [1, 2]
    assert {payload.checkpoint.cursor["sweep"] for payload in rest} == {first.checkpoint.cursor["sweep"]}


def test_a_resumed_sweep_may_find_that_there_is_nothing_more():
    with running_vendor(Reply(b"[]")) as vendor:
        payloads, _ = fetch(vendor, MARKETS, Sweep(datetime(2026, 11, 20, tzinfo=UTC), 5, 4))
    assert [payload.position for payload in payloads] == [4]
    assert payloads[0].checkpoint.complete


def test_without_paging_one_answer_is_all():
    with running_vendor(page(*range(10))) as vendor:
        payloads, _ = fetch(vendor, TICKERS)
    assert len(payloads) == 1
    assert payloads[0].checkpoint.complete
    assert vendor.requests == [{"path": "/v1/tickers", "quotes": "USD"}]


def test_pages_may_be_named_by_offset_and_records_lie_within_the_answer():
    spec = ApiSpec("/assets", {}, Paging("offset", 2, "start", "limit"), ("data",))
    with running_vendor(cursor_page([1, 2], None), cursor_page([3], None)) as vendor:
        assert len(fetch(vendor, spec)[0]) == 2
    assert vendor.requests == [
        {"path": "/v1/assets", "limit": "2", "start": "0"},
        {"path": "/v1/assets", "limit": "2", "start": "2"},
    ]


@pytest.mark.parametrize("last", [None, ""])
def test_pages_may_be_named_by_cursor(last):
    with running_vendor(cursor_page([1, 2], "x y"), cursor_page([3], 17), cursor_page([4, 5], last)) as vendor:
        payloads, snapshot = fetch(vendor, CURSOR)
    assert [request.get("after") for request in vendor.requests] == [None, "x y", "17"]
    assert [payload.checkpoint.complete for payload in payloads] == [False, False, True]
    assert snapshot.coins == coins(1, 2, 3, 4, 5)


def test_a_cursor_is_found_beside_a_number_that_is_none():
    odd = Reply(b'{"data":[{"id":"coin-1","price":NaN},{"id":"coin-2"}],"meta":{"next":"x"}}')
    with running_vendor(odd, cursor_page([3], None)) as vendor:
        fetch(vendor, CURSOR)
    assert [request.get("after") for request in vendor.requests] == [None, "x"]


def test_a_sweep_by_cursor_is_resumed_at_its_cursor():
    with running_vendor(cursor_page([1, 2], "next"), cursor_page([3], None)) as vendor:
        with VendorClient("x", vendor.url) as client:
            first = next(SnapshotFetch(client, CURSOR, "2026-11-20").payloads())
        fetch(vendor, CURSOR, Sweep.resume(first.checkpoint.cursor), coins=coins(1, 2))
    assert vendor.requests[1]["after"] == "next"


def test_a_coin_that_changed_places_is_found_by_reading_the_pages_again():
    replies = page(1, 2, 3), page(5, 6), page(1, 2, 4), page(3, 5, 6)  # coin 4 moved up while page 1 was behind us
    with running_vendor(*replies) as vendor:
        payloads, snapshot = fetch(vendor, MARKETS, before=coins(1, 2, 3, 4, 5, 6))
    assert [request["page"] for request in vendor.requests] == ["1", "2", "1"]  # all were found: no further page
    assert [payload.position for payload in payloads] == [0, 1, 0]
    assert [payload.checkpoint.complete for payload in payloads] == [False, False, True]
    assert snapshot.vanished == []
    assert snapshot.coins == coins(1, 2, 3, 4, 5, 6)


def test_a_coin_that_is_in_no_page_has_vanished():
    replies = page(1, 2, 3), page(5), page(1, 2, 3), page(5)
    with running_vendor(*replies) as vendor:
        _, snapshot = fetch(vendor, MARKETS, before=coins(1, 2, 3, 4, 5))
    assert [request["page"] for request in vendor.requests] == ["1", "2", "1", "2"]
    assert snapshot.vanished == ["coin-4"]


def test_the_second_reading_is_resumed_as_such():
    sweep = Sweep(datetime(2026, 11, 20, tzinfo=UTC), 2, 1, reading=2)
    with running_vendor(page(5)) as vendor:
        _, snapshot = fetch(
            vendor, MARKETS, Sweep.resume(sweep.cursor()), before=coins(1, 2, 3, 4, 5), coins=coins(1, 2, 3, 5)
        )
    assert len(vendor.requests) == 1
    assert snapshot.vanished == ["coin-4"]


@pytest.mark.parametrize(("lost", "fails"), [(33, False), (34, True), (99, True)])
def test_an_answer_that_lost_many_coins_is_kept_but_not_believed(lost, fails):
    with running_vendor(page(*range(lost, 100))) as vendor, VendorClient("x", vendor.url, policy=POLICY) as client:
        snapshot = SnapshotFetch(client, TICKERS, "2026-11-20", before=coins(*range(100)))
        payloads = snapshot.payloads()
        assert next(payloads).checkpoint.complete  # so the next run begins anew
        if not fails:
            assert list(payloads) == []
            assert len(snapshot.vanished) == lost
            return
        with pytest.raises(FetchError, match=f"lack {lost} of the 100 coins there were .*coin-0, coin-1, .* raise max"):
            next(payloads)


def test_what_the_vendor_has_nothing_newer_of_is_delivered_again():
    version = Version('"v1"', "Fri, 20 Nov 2026 10:00:00 GMT")
    known = Known(version, page(1, 2, 3).body)
    asked = []

    def look(position, url):
        asked.append((position, url))
        return known if position == 0 else None

    with running_vendor(Reply(b"", 304), Reply(page(4).body, headers={"ETag": '"v2"'})) as vendor:
        payloads, _ = fetch(vendor, MARKETS, known=look)
    assert [payload.body for payload in payloads] == [known.body, page(4).body]
    assert [payload.version for payload in payloads] == [version, Version('"v2"', None)]
    assert vendor.headers[0]["If-None-Match"] == '"v1"'
    assert vendor.headers[0]["If-Modified-Since"] == "Fri, 20 Nov 2026 10:00:00 GMT"
    assert "If-None-Match" not in vendor.headers[1]
    assert asked[1] == (1, payloads[1].request)


@pytest.mark.parametrize(
    ("spec", "replies", "said"),
    [
        (TICKERS, [Reply(b"[]")], "answered without a record; an empty answer is not 'no coins'"),
        (MARKETS, [Reply(b"[]")], "answered without a record"),
        (TICKERS, [Reply(b'{"error":"id not found"}')], 'got `object`: {"error":"id not found"}; check the endpoint'),
        (TICKERS, [Reply(b'"maintenance"')], "no array of records at the top"),
        (ApiSpec("/x", record_path=("data",)), [Reply(b"[{}]")], "no array of records at data"),
        (ApiSpec("/x", record_path=("data",)), [Reply(b'{"coins":[]}')], "the answer has no 'data'"),
        (MARKETS, [page(1, 2, 3)], "brings no coin that the pages before it had not; check the paging"),
        (MARKETS, [page(1, 2, 3), page(4, 5, 6), page(1, 2, 3)], "brings no coin that the pages before it had not"),
        (CURSOR, [cursor_page([1], "a"), cursor_page([2], "a")], "names itself as the page after it"),
        (CURSOR, [cursor_page([1], {})], "meta.next is neither a text nor a number"),
        (CURSOR, [Reply(b'{"data":[{"id":1}],"meta":[]}')], "nothing to read at meta.next"),
    ],
)
def test_what_is_no_snapshot_is_an_error(spec, replies, said):
    with running_vendor(*replies) as vendor, pytest.raises(FetchError) as caught:
        fetch(vendor, spec)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"coingecko: GET {vendor.url}{spec.endpoint}")


def test_pages_before_a_failure_are_handed_out():
    with running_vendor(page(1, 2, 3), Reply(b"", 404)) as vendor, VendorClient("x", vendor.url) as client:
        pages = SnapshotFetch(client, MARKETS, "2026-11-20").payloads()
        assert next(pages).position == 0
        with pytest.raises(FetchError, match="page=2 answered 404"):
            next(pages)


@pytest.mark.parametrize("cursor", [{}, {"sweep": "yesterday", "place": 1}, {"sha256": "0", "size": 1}])
def test_a_foreign_cursor_is_refused(cursor):
    with pytest.raises(KasparroError, match="is no sweep over pages"):
        Sweep.resume(cursor)
