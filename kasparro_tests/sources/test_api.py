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

LINK = ApiSpec("/assets", {"q": "x"}, Paging("link", 2, "link", "limit", next_path=("meta", "next")), ("data",))
LINKS_TO_NOWHERE = [
    ("https://vendor.example/v1/assets/page/2", "meta.next is no link that differs by its parameters: 'https://vendor"),
    ("?id=1&id=2", "is no link that differs by its parameters"),
    (2, "is no link that differs by its parameters: '2'"),
    ({"href": "?page=2"}, "meta.next is neither a text nor a number"),
]


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


@pytest.mark.parametrize(("size", "held", "asked"), [(500, 20, [0, 20, 40]), (500, 19, [0]), (None, 3, [0, 3, 6])])
def test_a_vendor_that_gives_fewer_records_than_it_is_asked_for_is_read_to_its_end(size, held, asked):
    pages = page(*range(held)), page(*range(held, 2 * held)), page(2 * held)
    with running_vendor(*pages) as vendor:
        fetch(vendor, ApiSpec("/coins", {}, Paging("offset", size, "start", "limit")))
    assert [int(request["start"]) for request in vendor.requests] == asked


def test_a_resumed_sweep_knows_how_long_the_first_page_was():
    spec = ApiSpec("/coins", {}, Paging("page", 50, "page", "limit"))
    with running_vendor(page(*range(20)), page(*range(20, 39))) as vendor, VendorClient("x", vendor.url) as client:
        first = next(SnapshotFetch(client, spec, "2026-11-20").payloads())
        rest, _ = fetch(vendor, spec, Sweep.resume(first.checkpoint.cursor), coins=coins(*range(20)))
    assert [payload.checkpoint.complete for payload in rest] == [True]


def test_a_checkpoint_that_does_not_know_how_long_the_first_page_was_is_gone_on_from():
    cursor = Sweep(datetime(2026, 11, 20, tzinfo=UTC), 2, 1).cursor()
    del cursor["longest"]
    with running_vendor(page(4, 5)) as vendor:
        fetch(vendor, MARKETS, Sweep.resume(cursor), coins=coins(1, 2, 3))
    assert [request["page"] for request in vendor.requests] == ["2"]


@pytest.mark.parametrize(("by", "first", "following"), [("page", 0, 1), ("offset", 1, 4), ("page", 7, 8)])
def test_pages_and_offsets_begin_where_the_vendor_says(by, first, following):
    spec = ApiSpec("/coins", {}, Paging(by, 3, "start", "limit", first))
    with running_vendor(page(1, 2, 3), page(4)) as vendor:
        fetch(vendor, spec)
    assert [request["start"] for request in vendor.requests] == [str(first), str(following)]


def test_without_a_size_pages_are_as_long_as_the_vendor_makes_them():
    with running_vendor(page(1, 2), page(3)) as vendor:
        fetch(vendor, ApiSpec("/coins", {}, Paging("page", None, "page", "per_page")))
    assert vendor.requests == [{"path": "/v1/coins", "page": "1"}, {"path": "/v1/coins", "page": "2"}]


def test_of_a_link_only_its_parameters_are_taken():
    links = "https://elsewhere.example/v9/assets?after=a%2Fb+c&limit=2&empty=", "?limit=2&after=d"
    replies = cursor_page([1, 2], links[0]), cursor_page([3], links[1]), cursor_page([4], None)
    with running_vendor(*replies) as vendor:
        payloads, _ = fetch(vendor, LINK)
    assert [payload.checkpoint.complete for payload in payloads] == [False, False, True]
    assert vendor.requests == [
        {"path": "/v1/assets", "q": "x", "limit": "2"},
        {"path": "/v1/assets", "q": "x", "limit": "2", "after": "a/b c"},
        {"path": "/v1/assets", "q": "x", "limit": "2", "after": "d"},
    ]
    assert payloads[1].request.endswith("&empty=")


@pytest.mark.parametrize(("link", "said"), LINKS_TO_NOWHERE)
def test_a_link_that_cannot_be_followed_is_refused(link, said):
    with running_vendor(cursor_page([1], link)) as vendor, pytest.raises(FetchError, match=said):
        fetch(vendor, LINK)
    assert len(vendor.requests) == 1


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


@pytest.mark.parametrize("last", [None, "", False, 0])
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
    sweep = Sweep(datetime(2026, 11, 20, tzinfo=UTC), 2, 1, reading=2, longest=3)
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
        (TICKERS, [Reply(b"[]")], "answered without a record: []; an empty answer is not 'no coins'"),
        (MARKETS, [Reply(b"[]")], "answered without a record"),
        (TICKERS, [Reply(b'{"error":"id not found"}')], "answered an error under HTTP 200 after 1 try: id not found"),
        (TICKERS, [Reply(b'"maintenance"')], "no array of records at the top"),
        (ApiSpec("/x", record_path=("data", "*")), [Reply(b'{"data":[1]}')], "nothing to read at data"),
        (ApiSpec("/x", record_path=("data", "*")), [Reply(b'{"coins":{}}')], "the answer has no 'data'"),
        (ApiSpec("/x", record_path=("*",)), [Reply(b"[1]")], "nothing to read at the top"),
        (ApiSpec("/x", record_path=("*",)), [Reply(b"{}")], "answered without a record: {}"),
        (ApiSpec("/x"), [Reply(b'{"code":"51001","msg":"no such pair","data":[]}')], '"msg":"no such pair"'),
        (MARKETS, [page(1, 2, 3), Reply(b'{"success":false,"message":"come back","data":[]}')], "try: come back"),
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
