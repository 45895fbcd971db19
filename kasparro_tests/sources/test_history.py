from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa

from kasparro_pipeline.sources.history import (
    Backfill,
    Days,
    HistoryFetch,
    HistoryMapping,
    HistorySpec,
    parse_history,
)
from kasparro_pipeline.sources.http import FetchError, RequestPolicy, VendorClient
from kasparro_pipeline.sources.json_records import Coin, JsonMapping, parse_json
from kasparro_pipeline.warehouse.merge import Merge
from kasparro_pipeline.warehouse.tables import observation
from kasparro_tests.sources.samples import COINGECKO, delivery
from kasparro_tests.sources.vendor import Reply, running_vendor

BITCOIN = Coin("bitcoin", "btc", "Bitcoin")
SERIES = HistoryMapping(
    series={"price_usd": ("prices",), "market_cap_usd": ("market_caps",), "volume_24h_usd": ("total_volumes",)}
)
POINTS = HistoryMapping(
    JsonMapping({"observed_at": ("timestamp",), "price_usd": ("price",)}, one_coin=True),
)
MAY = Days(date(2026, 5, 1), date(2026, 5, 31))
CHART = HistorySpec("/coins/{id}/range", ("bitcoin", "a/b"), "from", "to", {"vs": "usd", "of": "{id}"})


def parse(body: bytes, mapping: HistoryMapping = SERIES, coin: Coin = BITCOIN):
    parsed = parse_history(delivery(body), mapping, coin)
    assert parsed.records == parsed.observations.num_rows + parsed.duplicates + len(parsed.quarantined)
    return parsed


def fetch(vendor, spec, backfill, calls: int = 99):
    with VendorClient("x", vendor.url, policy=RequestPolicy(attempts=1)) as client:
        history = HistoryFetch(client, spec, backfill)
        payloads = history.payloads()
        return [payload for payload, _ in zip(payloads, range(calls), strict=False)], history


def test_each_coin_is_asked_for_once_for_the_whole_range():
    with running_vendor(Reply(b"{}")) as vendor:
        payloads, _ = fetch(vendor, CHART, Backfill.begin(MAY, CHART.coins))
    assert vendor.requests == [
        {"path": "/v1/coins/bitcoin/range", "vs": "usd", "of": "bitcoin", "from": "1777593600", "to": "1780271999"},
        {"path": "/v1/coins/a%2Fb/range", "vs": "usd", "of": "a/b", "from": "1777593600", "to": "1780271999"},
    ]
    assert [(payload.partition, payload.source_coin_id) for payload in payloads] == [
        ("2026-05-01", "bitcoin"),
        ("2026-05-01", "a/b"),
    ]
    assert [payload.checkpoint.complete for payload in payloads] == [False, True]


@pytest.mark.parametrize(
    ("times", "first", "last"),
    [
        ("unix_ms", "1777593600000", "1779321599000"),
        ("iso", "2026-05-01T00:00:00Z", "2026-05-20T23:59:59Z"),
        ("day", "2026-05-01", "2026-05-20"),
    ],
)
def test_a_long_range_takes_several_calls_in_one_partition(times, first, last):
    spec = HistorySpec("/h", ("a",), "f", "t", {"of": "{id}"}, times, max_days=20)
    with running_vendor(Reply(b"[]")) as vendor:
        payloads, _ = fetch(vendor, spec, Backfill.begin(MAY, spec.coins))
    assert (vendor.requests[0]["f"], vendor.requests[0]["t"]) == (first, last)
    assert vendor.requests[1]["f"].startswith("1779321600" if times == "unix_ms" else "2026-05-21")
    assert vendor.requests[1]["t"].startswith("1780271999" if times == "unix_ms" else "2026-05-31")
    assert [(payload.partition, payload.position) for payload in payloads] == [("2026-05-01", 0), ("2026-05-01", 1)]


def test_an_interrupted_backfill_goes_on_with_the_next_call():
    begun = Backfill.begin(MAY, CHART.coins)
    with running_vendor(Reply(b"{}")) as vendor:
        (first,), _ = fetch(vendor, CHART, begun, calls=1)
        left = Backfill.begin(MAY, CHART.coins).resumed(first.checkpoint.cursor)
        assert left.started_at == begun.started_at
        rest, _ = fetch(vendor, CHART, left)
    assert [payload.source_coin_id for payload in rest] == ["a/b"]
    other = Backfill.begin(Days(MAY.first, MAY.first), CHART.coins)
    assert other.resumed(first.checkpoint.cursor) == other
    assert other.resumed({"sweep": "2026-05-01", "place": 3}) == other


def test_a_coin_the_vendor_does_not_know_is_named_and_a_refusal_is_an_error():
    with running_vendor(Reply(b"{}", 404), Reply(b"{}")) as vendor:
        payloads, history = fetch(vendor, CHART, Backfill.begin(MAY, CHART.coins))
    assert history.unknown == ["bitcoin"]
    assert [payload.source_coin_id for payload in payloads] == ["a/b"]
    with (
        running_vendor(Reply(b'{"error":"no plan"}', 401)) as vendor,
        pytest.raises(FetchError, match=r"401 .* no plan"),
    ):
        fetch(vendor, CHART, Backfill.begin(MAY, CHART.coins))


def test_series_become_points_with_every_digit():
    parsed = parse(
        b'{"prices":[[1777593600000,1.6260000000000000001e-05],[1777597200000,2.50]],'
        b'"market_caps":[[1777593600000,9223372036854775807123],[1777597200000,null]],"total_volumes":[[1777593600000,0.0]]}'
    )
    assert parsed.observations.to_pydict() == {
        "source": ["test"] * 2,
        "source_coin_id": ["bitcoin"] * 2,
        "observed_at": [datetime(2026, 5, 1, hour, tzinfo=UTC) for hour in (0, 1)],
        "symbol": ["btc"] * 2,
        "name": ["Bitcoin"] * 2,
        "price_usd": ["1.6260000000000000001e-05", "2.50"],
        "market_cap_usd": ["9223372036854775807123", None],
        "volume_24h_usd": ["0.0", None],
        "fetched_at": parsed.observations["fetched_at"].to_pylist(),
        "payload_sha256": parsed.observations["payload_sha256"].to_pylist(),
        "position": [1, 2],
    }
    zero_is_null = HistoryMapping(series=SERIES.series, zero_is_null=frozenset({"volume_24h_usd"}))
    again = parse(b'{"prices":[[1777593600,1]],"market_caps":[],"total_volumes":[[1777593600,0.0]]}', zero_is_null)
    assert again.observations["volume_24h_usd"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("prices", "codes", "rows"),
    [
        (b"[[1777593600000,1],[1777593600000,1]]", [], 1),
        (b"[[1777593600000,1],[1777593600000,2]]", ["conflict"], 1),
        (b'[[1777593600000,1],[1777597200000],7,null,[1777597200000,"x"]]', ["bad_type"] * 3 + ["bad_number"], 1),
        (b'[[1777593600000,1],[1777597200000,NaN],["\\ud800",1]]', ["bad_type"] * 2, 1),
        (b'[["soon",1],[4102444800000,1],[null,1],[[],1]]', ["bad_time", "future_day", "missing_key", "bad_time"], 0),
    ],
)
def test_bad_points_are_quarantined_one_by_one(prices, codes, rows):
    parsed = parse(b'{"prices":%s,"market_caps":[],"total_volumes":[]}' % prices)
    assert [quarantined.reason_code for quarantined in parsed.quarantined] == codes
    assert parsed.observations.num_rows == rows


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"prices":1,"market_caps":[],"total_volumes":[]}', b"nonsense", b""])
def test_an_answer_without_series_is_one_quarantined_payload(body):
    parsed = parse(body)
    assert [quarantined.reason_code for quarantined in parsed.quarantined] == ["unreadable_payload"]


def test_points_that_are_records_become_observations_of_the_coin():
    parsed = parse(b'[{"timestamp":"2026-05-01T00:00:00Z","price":1.50},{"timestamp":"2026-05-02T00:00:00Z"}]', POINTS)
    assert parsed.observations["price_usd"].to_pylist() == ["1.50"]
    assert parsed.observations["source_coin_id"].to_pylist() == ["bitcoin"]
    assert [quarantined.reason_code for quarantined in parsed.quarantined] == ["missing_price"]


def test_a_point_leaves_alone_what_a_snapshot_of_its_moment_said_beyond_it(engine):
    snapshot = parse_json(
        delivery(
            b'[{"id":"bitcoin","symbol":"btc","name":"Bitcoin","current_price":1,"total_supply":21,"market_cap_rank":1,'
            b'"last_updated":"2026-05-01T00:00:00Z"}]'
        ),
        COINGECKO,
    )
    history = parse(b'{"prices":[[1777593600000,2]],"market_caps":[],"total_volumes":[]}')
    with engine.begin() as connection:
        for parsed in (snapshot, history):
            merge = Merge(connection, observation)
            merge.frame(parsed.observations)
            merge.finish()
        (row,) = connection.execute(sa.select(observation)).all()
    assert (row.price_usd, row.total_supply, row.rank) == (Decimal(2), Decimal(21), 1)
