"""Answers in the shapes of real vendors, each loaded by a defs.yaml as a user would write it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster.components.testing import create_defs_folder_sandbox

from kasparro_pipeline.components import ApiSource
from kasparro_pipeline.components.partitions import today
from kasparro_pipeline.defs.resources import defs as resources
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.tables import observation, quarantine
from kasparro_tests.sources.vendor import Reply, Vendor, running_vendor

COMMON = """\
type: kasparro_pipeline.components.ApiSource
attributes:
  source: vendor
  priority: 30
  base_url: https://api.vendor.example/v1
  per_minute: 6000
  refresh: "*/15 * * * *"
"""
Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A vendor: its defs.yaml, its answers one after the other, and what is to be made of them."""

    yaml: str
    answers: list[str]
    asked: list[Mapping[str, str]]
    """Parameters of each request."""
    rows: list[Row]
    """What is looked at of the observations, by id."""
    quarantined: list[str] | None = None
    """Reason codes."""


COINCAP = Shape(
    """\
  endpoint: /assets
  paging: {by: offset, size: 2, size_param: limit}
  record_path: data
  time_path: timestamp
  auth_header: Authorization
  auth_scheme: Bearer
  columns:
    source_coin_id: id
    symbol: symbol
    name: name
    price_usd: priceUsd
    market_cap_usd: marketCapUsd
    volume_24h_usd: volumeUsd24Hr
    circulating_supply: supply
    max_supply: maxSupply
    rank: rank
""",
    [
        '{"data":[{"id":"bitcoin","rank":"1","symbol":"BTC","name":"Bitcoin","supply":"17193925.0000000000000000",'
        '"maxSupply":"21000000.0000000000000000","marketCapUsd":"119150835874.4699281625807300",'
        '"volumeUsd24Hr":"2927959461.1750323310959460","priceUsd":"6929.8217756835584756"},'
        '{"id":"ethereum","rank":"2","symbol":"ETH","name":"Ethereum","supply":"101160540.0000000000000000",'
        '"maxSupply":null,"marketCapUsd":"40967739219.6612727047843840","volumeUsd24Hr":"1026669440.6451482672850841",'
        '"priceUsd":"404.9774667045200896"}],"timestamp":1533581088278}',
        '{"data":[{"id":"shiba-inu","rank":"1790","symbol":"SHIB","name":"Shiba Inu","supply":"589e12",'
        '"maxSupply":null,"marketCapUsd":null,"volumeUsd24Hr":"0.0000000000000000","priceUsd":"1e-7"}],'
        '"timestamp":1533581089000}',
    ],
    [{"limit": "2", "offset": "0"}, {"limit": "2", "offset": "2"}],
    [
        {
            "source_coin_id": "bitcoin",
            "observed_at": datetime(2018, 8, 6, 18, 44, 48, 278000, UTC),
            "price_usd": Decimal("6929.8217756835584756"),
            "market_cap_usd": Decimal("119150835874.4699281625807300"),
            "rank": 1,
        },
        {"source_coin_id": "ethereum", "max_supply": None, "rank": 2},
        {
            "source_coin_id": "shiba-inu",
            "observed_at": datetime(2018, 8, 6, 18, 44, 49, tzinfo=UTC),
            "price_usd": Decimal("1e-7"),
            "circulating_supply": Decimal("589e12"),
            "volume_24h_usd": Decimal(0),
            "market_cap_usd": None,
        },
    ],
)

CRYPTOCOMPARE = Shape(
    """\
  endpoint: /top/mktcapfull
  params: {tsym: USD}
  paging: {by: page, first: 0, size: 3, size_param: limit}
  record_path: Data
  columns:
    source_coin_id: CoinInfo.Id
    observed_at: RAW.USD.LASTUPDATE
    symbol: CoinInfo.Name
    name: CoinInfo.FullName
    price_usd: RAW.USD.PRICE
    market_cap_usd: RAW.USD.MKTCAP
    volume_24h_usd: RAW.USD.TOTALVOLUME24HTO
    circulating_supply: RAW.USD.SUPPLY
""",
    [
        '{"Message":"Success","Type":100,"MetaData":{"Count":3},"SponsoredData":[],"Data":[{"CoinInfo":{"Id":"1182",'
        '"Name":"BTC","FullName":"Bitcoin","Internal":"BTC"},"RAW":{"USD":{"TYPE":"5","PRICE":27012.34,'
        '"LASTUPDATE":1684000000,"SUPPLY":19371031,"MKTCAP":523256955548.54,"TOTALVOLUME24HTO":1.0E+10}},'
        '"DISPLAY":{"USD":{"PRICE":"$ 27,012.3"}}},{"CoinInfo":{"Id":"7605","Name":"ETH","FullName":"Ethereum"},'
        '"RAW":{"USD":{"PRICE":1800.5,"LASTUPDATE":1684000001,"SUPPLY":120000000.5,"MKTCAP":null}}},'
        '{"CoinInfo":{"Id":"9","Name":"NEW","FullName":"New"}}],"RateLimit":{},"HasWarning":false}',
        '{"Message":"Success","Type":100,"SponsoredData":[],"Data":[{"CoinInfo":{"Id":"8","Name":"OLD","FullName":"Old"'
        '},"RAW":{"USD":{"PRICE":1e-7,"LASTUPDATE":1684000002}}}],"RateLimit":{},"HasWarning":false}',
    ],
    [{"tsym": "USD", "limit": "3", "page": "0"}, {"tsym": "USD", "limit": "3", "page": "1"}],
    [
        {
            "source_coin_id": "1182",
            "observed_at": datetime(2023, 5, 13, 17, 46, 40, tzinfo=UTC),
            "symbol": "BTC",
            "price_usd": Decimal("27012.34"),
            "volume_24h_usd": Decimal(10**10),
        },
        {"source_coin_id": "7605", "market_cap_usd": None, "volume_24h_usd": None},
        {"source_coin_id": "8", "price_usd": Decimal("1e-7")},
    ],
    ["missing_price"],
)

COINMARKETCAP = Shape(
    """\
  endpoint: /cryptocurrency/listings/latest
  params: {convert: USD, aux: "max_supply,total_supply"}
  paging: {by: offset, param: start, first: 1, size: 2, size_param: limit}
  record_path: data
  auth_header: X-CMC_PRO_API_KEY
  columns:
    source_coin_id: id
    observed_at: quote.USD.last_updated
    symbol: symbol
    name: name
    price_usd: quote.USD.price
    market_cap_usd: quote.USD.market_cap
    max_supply: max_supply
    rank: cmc_rank
""",
    [
        '{"status":{"timestamp":"2018-06-02T22:51:28.209Z","error_code":0,"error_message":null,"elapsed":10,'
        '"credit_count":1,"total_count":3},"data":[{"id":1,"name":"Bitcoin","symbol":"BTC","cmc_rank":1,'
        '"max_supply":21000000,"quote":{"USD":{"price":9283.92,"market_cap":852164659250.2758,'
        '"last_updated":"2018-08-09T23:02:00.000+02:00"}}},{"id":1839,"name":"BNB","symbol":"BNB","cmc_rank":4,'
        '"max_supply":null,"quote":{"USD":{"price":1.2345678901234567e-11,"market_cap":0,'
        '"last_updated":"2018-08-09T21:56:28.000Z"}}}]}',
        '{"status":{"error_code":0,"error_message":null},"data":[{"id":2,"name":"Dead","symbol":"DEAD","cmc_rank":9,'
        '"max_supply":1e3,"quote":{"USD":{"price":null,"market_cap":null,"last_updated":"2018-08-09T21:56:28.000Z"}}}]}',
    ],
    [
        {"convert": "USD", "aux": "max_supply,total_supply", "start": "1", "limit": "2"},
        {"convert": "USD", "aux": "max_supply,total_supply", "start": "3", "limit": "2"},
    ],
    [
        {
            "source_coin_id": "1",
            "observed_at": datetime(2018, 8, 9, 21, 2, tzinfo=UTC),
            "price_usd": Decimal("9283.92"),
            "market_cap_usd": Decimal("852164659250.2758"),
        },
        {"source_coin_id": "1839", "price_usd": Decimal("1.2345678901234567e-11"), "max_supply": None},
        {"source_coin_id": "2", "price_usd": None, "max_supply": Decimal(1000)},
    ],
)

COINLORE_COIN = {"symbol": "BTC", "name": "Bitcoin", "rank": 1, "price_usd": "6456.52", "msupply": "21000000"}
COINLORE = Shape(
    """\
  endpoint: /tickers/
  paging: {by: offset, param: start, size: 500, size_param: limit}  # it gives 100 at most, here ten
  record_path: data
  time_path: info.time
  columns: {source_coin_id: id, symbol: symbol, name: name, price_usd: price_usd, max_supply: msupply, rank: rank}
""",
    [
        json.dumps(
            {"data": [COINLORE_COIN | {"id": str(number)} for number in range(10)], "info": {"time": 1538560355}}
        ),
        '{"data":[{"id":"80","symbol":"ETH","name":"Ethereum","rank":2,"price_usd":"225.1","msupply":""},'
        '{"id":"81","symbol":"A","name":"A","rank":4,"price_usd":"?","msupply":null},'
        '{"id":"82","symbol":"B","name":"B","rank":5,"price_usd":"0.000000000000000001","msupply":null}],'
        '"info":{"coins_num":13,"time":1538560356}}',
    ],
    [{"start": start, "limit": "500"} for start in ("0", "10")],
    [
        *({"source_coin_id": str(number), "price_usd": Decimal("6456.52")} for number in range(8)),
        {"source_coin_id": "8", "observed_at": datetime(2018, 10, 3, 9, 52, 35, tzinfo=UTC)},
        {"source_coin_id": "80", "max_supply": None, "observed_at": datetime(2018, 10, 3, 9, 52, 36, tzinfo=UTC)},
        {"source_coin_id": "82", "price_usd": Decimal("1e-18")},
        {"source_coin_id": "9"},
    ],
    ["bad_number"],
)

COINRANKING = Shape(
    """\
  endpoint: /coins
  paging: {by: cursor, size: 1, size_param: limit, next_path: pagination.nextCursor}
  record_path: data.coins
  auth_header: x-access-token
  columns: {source_coin_id: uuid, symbol: symbol, name: name, price_usd: price, volume_24h_usd: 24hVolume, rank: rank}
""",
    [
        '{"status":"success","data":{"stats":{"total":2},"coins":[{"uuid":"Qwsogvtv82FCd","symbol":"BTC",'
        '"name":"Bitcoin","price":"9370.9993109108","24hVolume":"6818750000","rank":1,"sparkline":["9515.0",null]}]},'
        '"pagination":{"limit":1,"hasNextPage":true,"nextCursor":"b2Zmc2V0OjE=","previousCursor":null}}',
        '{"status":"success","data":{"stats":{"total":2},"coins":[{"uuid":"razxDUgYGNAdQ","symbol":"ETH",'
        '"name":"Ethereum","price":"1e2","24hVolume":null,"rank":2}]},'
        '"pagination":{"limit":1,"hasNextPage":false,"nextCursor":null}}',
    ],
    [{"limit": "1"}, {"limit": "1", "cursor": "b2Zmc2V0OjE="}],
    [
        {"source_coin_id": "Qwsogvtv82FCd", "volume_24h_usd": Decimal(6818750000)},
        {"source_coin_id": "razxDUgYGNAdQ", "price_usd": Decimal(100), "volume_24h_usd": None},
    ],
)

MESSARI = Shape(
    """\
  endpoint: /assets
  params: {with-metrics: true, with-profiles: false}
  paging: {by: page, size: 3, size_param: limit}
  record_path: data
  columns:
    source_coin_id: id
    symbol: symbol
    name: name
    price_usd: metrics.market_data.price_usd
    market_cap_usd: metrics.marketcap.current_marketcap_usd
    circulating_supply: metrics.supply.circulating
    rank: metrics.marketcap.rank
""",
    [
        '{"status":{"elapsed":6,"timestamp":"2021-05-11T19:54:28.6Z"},"data":[{"id":"1e31218a","symbol":"BTC",'
        '"name":"Bitcoin","metrics":{"market_data":{"price_usd":56689.08,"volume":1},"marketcap":{"rank":1,'
        '"current_marketcap_usd":1060526546081.6},"supply":{"circulating":18707737.2}}},{"id":"21c795f5",'
        '"symbol":"ETH","name":"Ethereum","metrics":{"market_data":{"price_usd":4174.3},"marketcap":null,'
        '"supply":null}},{"id":"362f0140","symbol":null,"name":"None","metrics":null}]}',
        '{"status":{"elapsed":6},"data":[]}',
    ],
    [
        {"with-metrics": "true", "with-profiles": "false", "limit": "3", "page": "1"},
        {"with-metrics": "true", "with-profiles": "false", "limit": "3", "page": "2"},
    ],
    [
        {"source_coin_id": "1e31218a", "price_usd": Decimal("56689.08"), "rank": 1},
        {"source_coin_id": "21c795f5", "price_usd": Decimal("4174.3"), "rank": None, "circulating_supply": None},
        {"source_coin_id": "362f0140", "symbol": None, "price_usd": None},
    ],
)

BINANCE = Shape(
    """\
  endpoint: /ticker/24hr
  params: {symbols: '["BTCUSD","ETHUSD"]', type: FULL}
  columns: {source_coin_id: symbol, observed_at: closeTime, price_usd: lastPrice, volume_24h_usd: quoteVolume}
""",
    [
        '[{"symbol":"BTCUSD","priceChange":"-94.99999800","lastPrice":"67999.99000000","volume":"8913.30000000",'
        '"quoteVolume":"606000000.12345678","openTime":1699783499040,"closeTime":1699869899040,"count":76},'
        '{"symbol":"ETHUSD","lastPrice":"0.00000012","quoteVolume":"0.00000000","closeTime":1699869899041}]',
    ],
    [{"symbols": '["BTCUSD","ETHUSD"]', "type": "FULL"}],
    [
        {
            "source_coin_id": "BTCUSD",
            "observed_at": datetime(2023, 11, 13, 10, 4, 59, 40000, UTC),
            "price_usd": Decimal("67999.99"),
        },
        {"source_coin_id": "ETHUSD", "price_usd": Decimal("0.00000012"), "volume_24h_usd": Decimal(0)},
    ],
)

KRAKEN = Shape(
    """\
  endpoint: /public/Ticker
  params: {pair: "XBTUSD,ETHUSD"}
  record_path: result.*
  columns: {source_coin_id: 0, price_usd: 1.c.0, volume_24h_usd: 1.v.1}
""",
    [
        '{"error":[],"result":{"XXBTZUSD":{"a":["30300.10000","1","1.000"],"b":["30300.00000","1","1.000"],'
        '"c":["30303.20000","0.00067643"],"v":["4083.67001100","4412.73601799"],"t":[34619,38907]},'
        '"XETHZUSD":{"c":["1888.1e0","0.1"],"v":["1"]},"ODD":{"c":"1"},"NONE":{"c":null,"v":[null,null]},'
        '"EMPTY":{"c":[]}}}',
    ],
    [{"pair": "XBTUSD,ETHUSD"}],
    [
        {"source_coin_id": "NONE", "price_usd": None, "volume_24h_usd": None},
        {"source_coin_id": "XETHZUSD", "price_usd": Decimal("1888.1"), "volume_24h_usd": None},
        {"source_coin_id": "XXBTZUSD", "price_usd": Decimal("30303.2"), "volume_24h_usd": Decimal("4412.73601799")},
    ],
    ["bad_type", "missing_price"],
)

GECKOTERMINAL = Shape(
    """\
  endpoint: /networks/eth/tokens
  params: {include: top_pools}
  paging: {by: link, next_path: links.next}
  record_path: data
  columns:
    source_coin_id: attributes.address
    symbol: attributes.symbol
    price_usd: attributes.price_usd
    market_cap_usd: attributes.market_cap_usd
    volume_24h_usd: attributes.volume_usd.h24
""",
    [
        '{"data":[{"id":"eth_0xdac","type":"token","attributes":{"address":"0xdac","symbol":"USDT",'
        '"price_usd":"1.0009","market_cap_usd":null,"volume_usd":{"h24":"1.5"}},"relationships":{}}],'
        '"links":{"first":"http://app.example/v1/networks/eth/tokens?include=top_pools&page=1",'
        '"next":"http://app.example/v1/networks/eth/tokens?include=top_pools&page%5Bafter%5D=a%20b"}}',
        '{"data":[{"id":"eth_0xa0b","type":"token","attributes":{"address":"0xa0b","symbol":"USDC",'
        '"price_usd":"0.99","market_cap_usd":"3e10"}}],"links":{"next":"?include=top_pools&page=3"}}',
        '{"data":[],"links":{"prev":"?page=2","next":null}}',
    ],
    [{"include": "top_pools"}, {"include": "top_pools", "page[after]": "a b"}, {"include": "top_pools", "page": "3"}],
    [
        {"source_coin_id": "0xa0b", "market_cap_usd": Decimal(3 * 10**10), "volume_24h_usd": None},
        {"source_coin_id": "0xdac", "price_usd": Decimal("1.0009"), "market_cap_usd": None},
    ],
)

BITFINEX = Shape(
    """\
  endpoint: /tickers
  params: {symbols: "tBTCUSD,tETHUSD"}
  columns: {source_coin_id: 0, price_usd: 7}
""",
    [
        '[["tBTCUSD",10645,73.93854271,10647,75.22266119,731.60645389,0.0738,10644.00645389,14480.89849423,10766,'
        '9889.1449809],["tETHUSD",1,2,3,4,5,6,7.5E-9,8,9,10],["tSHORT",1,2]]',
    ],
    [{"symbols": "tBTCUSD,tETHUSD"}],
    [
        {"source_coin_id": "tBTCUSD", "price_usd": Decimal("10644.00645389")},
        {"source_coin_id": "tETHUSD", "price_usd": Decimal("7.5E-9")},
    ],
    ["missing_price"],
)

DEFILLAMA = Shape(
    """\
  endpoint: /prices/current
  record_path: coins.*
  columns: {source_coin_id: 0, symbol: 1.symbol, price_usd: 1.price, observed_at: 1.timestamp}
""",
    [
        '{"coins":{"coingecko:bitcoin":{"price":70012.5,"symbol":"BTC","timestamp":1717000000,"confidence":0.99},'
        '"ethereum:0xdF\\u00e9":{"decimals":18,"symbol":"X","price":2e-15,"timestamp":1717000001}}}',
    ],
    [{}],
    [
        {"source_coin_id": "coingecko:bitcoin", "observed_at": datetime(2024, 5, 29, 16, 26, 40, tzinfo=UTC)},
        {"source_coin_id": "ethereum:0xdFé", "price_usd": Decimal("2e-15")},
    ],
)

SHAPES = {name.lower(): shape for name, shape in list(globals().items()) if isinstance(shape, Shape)}


@pytest.fixture
def load(monkeypatch) -> Callable[..., None]:
    """Loads what a vendor says of a day through Dagster; by default its snapshot of today."""

    def run(vendor: Vendor, yaml: str, day: str | None = None) -> None:
        monkeypatch.setenv("KASPARRO_VENDOR_URL", vendor.url)
        monkeypatch.setenv("KASPARRO_VENDOR_API_KEY", "sesame")
        settings.cache_clear()
        with create_defs_folder_sandbox() as sandbox:
            path = sandbox.scaffold_component(ApiSource, "vendor")
            (path / "defs.yaml").write_text(COMMON + yaml, encoding="utf-8")
            with sandbox.load_component_and_build_defs(path) as (_, found), dg.DagsterInstance.ephemeral() as instance:
                job = dg.Definitions.merge(found, resources()).resolve_job_def("vendor")
                assert job.execute_in_process(partition_key=day or today(), instance=instance).success

    return run


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_vendor_is_one_yaml_file(shape, engine, load) -> None:
    answers = [Reply(answer.encode()) for answer in shape.answers]
    with running_vendor(*answers) as vendor:
        load(vendor, shape.yaml)
    asked = [{name: value for name, value in request.items() if name != "path"} for request in vendor.requests]
    assert asked == shape.asked
    with engine.connect() as connection:
        found = connection.execute(sa.select(observation).order_by(observation.c.source_coin_id)).mappings().all()
        refused = connection.scalars(sa.select(quarantine.c.reason_code).order_by(quarantine.c.id)).all()
    assert [row["source_coin_id"] for row in found] == [row["source_coin_id"] for row in shape.rows]
    for row, expected in zip(found, shape.rows, strict=True):
        assert {name: row[name] for name in expected} == expected
    assert list(refused) == (shape.quarantined or [])


def test_a_last_page_of_which_no_coin_has_a_price_is_no_drift(engine, load) -> None:
    nameless = '{"data":[{"id":"a","symbol":"A","name":"A","metrics":null},{"id":"b","metrics":{"market_data":null}}]}'
    with running_vendor(*(Reply(answer.encode()) for answer in (MESSARI.answers[0], nameless))) as vendor:
        load(vendor, MESSARI.yaml)
    with engine.connect() as connection:
        priced = connection.execute(
            sa.select(observation.c.price_usd.is_(None), sa.func.count()).group_by(sa.text("1"))
        )
        assert {row[0]: row[1] for row in priced} == {False: 2, True: 3}


HISTORIES = {
    "coincap": (
        """  history:
    endpoint: /assets/{id}/history
    params: {interval: d1}
    from_param: start
    to_param: end
    times: unix_ms
    coins: [bitcoin]
    record_path: data
    columns: {observed_at: time, price_usd: priceUsd}
""",
        '{"data":[{"priceUsd":"6379.3997635993342453","time":1763251200000}],"timestamp":1763300000000}',
        ("bitcoin", Decimal("6379.3997635993342453")),
    ),
    "binance": (
        """  history:
    endpoint: /klines
    params: {symbol: "{id}", interval: 1d}
    from_param: startTime
    to_param: endTime
    times: unix_ms
    coins: [90]
    columns: {observed_at: 0, price_usd: 4, volume_24h_usd: 7}
""",
        '[[1763251200000,"0.01634790","0.8","0.015","0.01577100","148976.1","1763337599999","2434.19055334",308]]',
        ("90", Decimal("0.01577100")),
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_histories_come_in_the_same_shapes(name, engine, load) -> None:
    yaml, answer, (coin, price) = HISTORIES[name]
    with running_vendor(Reply(answer.encode())) as vendor:
        load(vendor, COINCAP.yaml + yaml, "2025-11-16")
    (request,) = vendor.requests
    assert {"1763251200000", "1763337599000"} < set(request.values())
    with engine.connect() as connection:
        (row,) = connection.execute(sa.select(observation)).all()
    assert (row.source_coin_id, row.price_usd) == (coin, price)
    assert row.observed_at == datetime(2025, 11, 16, tzinfo=UTC)


def test_the_scheme_stands_before_the_key(engine, load) -> None:
    with running_vendor(*(Reply(answer.encode()) for answer in COINCAP.answers)) as vendor:
        load(vendor, COINCAP.yaml)
    assert {headers["Authorization"] for headers in vendor.headers} == {"Bearer sesame"}


def test_an_answer_without_the_time_of_all_its_records_is_quarantined(engine, load) -> None:
    body = json.loads(COINLORE.answers[1]) | {"info": {"time": None}}
    with running_vendor(Reply(json.dumps(body).encode())) as vendor:
        load(vendor, COINLORE.yaml)
    with engine.connect() as connection:
        refused = connection.execute(sa.select(quarantine)).one()
        assert connection.scalar(sa.select(sa.func.count()).select_from(observation)) == 0
    assert (refused.reason_code, refused.reason) == ("bad_time", "the answer has no time at info.time")
