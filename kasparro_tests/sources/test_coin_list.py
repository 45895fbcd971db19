"""Vendors' lists of coins and contracts: what is read, and what is not taken."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kasparro_pipeline.sources.coin_list import (
    ContractMapping,
    ListMapping,
    ParsedList,
    parse_coins,
    parse_contracts,
    platform_of,
)

REALDATA = Path(os.environ.get("KASPARRO_REALDATA") or "/nonexistent")
URL = "https://vendor.test/v1/coins"


def coins(*records: Any, mapping: ListMapping | None = None) -> ParsedList:
    return checked(parse_coins(json.dumps(records).encode(), URL, mapping or ListMapping()))


def contracts(platform: str, *records: Any) -> ParsedList:
    return checked(parse_contracts(json.dumps(records).encode(), URL, platform, ContractMapping()))


def checked(parsed: ParsedList) -> ParsedList:
    rows = len(parsed.coins) if parsed.coins else len(parsed.contracts)
    assert parsed.records == rows + parsed.duplicates + len(parsed.quarantined)
    return parsed


def test_a_coin_comes_with_its_contracts_chains_and_addresses_written_alike() -> None:
    platforms = {"ethereum": "0xABcd", "solana": " EPjF ", "": "", "base": None, "eth-ethereum": "0xabCD"}
    parsed = coins({"id": "usdc", "symbol": "usdc", "name": "USDC", "platforms": platforms})
    assert parsed.coins[0][:4] == ("usdc", "usdc", "USDC", True)
    assert [contract[:3] for contract in parsed.contracts] == [
        ("usdc", "ethereum", "0xabcd"),
        ("usdc", "solana", "EPjF"),
    ]
    assert parsed.tells_contracts
    assert not coins({"id": "usdc"}).tells_contracts


def test_a_platforms_list_speaks_of_one_chain() -> None:
    parsed = contracts(
        "trx-tron",
        {"id": "usdt-tether", "address": "TR7N", "type": "TRC20", "active": False},
        {"id": "usdt-tether", "address": "tr7n"},
        {"id": "usdt-tether", "address": "tr7n", "type": "other"},
    )
    told = [(row.chain, row.address, row.platform, row.listed) for row in parsed.contracts]
    assert told == [("tron", "TR7N", "trx-tron", False), ("tron", "tr7n", "trx-tron", True)]
    assert parsed.duplicates == 1


def test_what_is_no_record_of_a_list_is_quarantined_and_no_other() -> None:
    parsed = coins(
        {"id": "bitcoin", "symbol": "btc", "name": "Bitcoin", "is_active": False},
        7,
        {"symbol": "none"},
        {"id": "odd", "name": {"en": "Odd"}},
        {"id": "flag", "is_active": "yes"},
        {"id": "list", "platforms": ["0x1"]},
        {"id": "nul", "name": "a\0b"},
        {"id": "twice", "name": "One"},
        {"id": "twice", "name": "Two"},
    )
    assert [(coin.source_coin_id, coin.name, coin.listed) for coin in parsed.coins] == [
        ("bitcoin", "Bitcoin", False),
        ("twice", "Two", True),
    ]
    refused = [(row.position, row.reason_code) for row in parsed.quarantined]
    assert refused == [
        *((2, "bad_type"), (3, "missing_key"), (4, "bad_type"), (5, "bad_type"), (6, "bad_type"), (7, "bad_text")),
        (8, "conflict"),
    ]
    assert parsed.quarantined[0].location == f"{URL} record 2"
    assert parsed.doubtful == {"odd", "flag", "list", "nul"}


def test_records_may_be_the_members_of_an_object_and_arrays() -> None:
    body = b'{"Data":{"42":{"Symbol":"42","CoinName":"42 Coin","IsTrading":1},"365":{"CoinName":"x","IsTrading":0}}}'
    places = {
        "source_coin_id": ("0",),
        "symbol": ("1", "Symbol"),
        "name": ("1", "CoinName"),
        "listed": ("1", "IsTrading"),
    }
    parsed = checked(parse_coins(body, URL, ListMapping(("Data", "*"), **places)))
    assert [coin[:4] for coin in parsed.coins] == [("42", "42", "42 Coin", True), ("365", None, "x", False)]
    (coin,) = coins(["a", "x"], mapping=ListMapping(source_coin_id=("0",), name=("1",), symbol=("7",))).coins
    assert coin[:3] == ("a", None, "x")


def test_an_answer_that_is_no_list_is_one_record() -> None:
    parsed = parse_coins(b'{"error": "rate limit"}', URL, ListMapping())
    assert (parsed.records, [row.reason_code for row in parsed.quarantined]) == (1, ["unreadable_payload"])


def test_values_may_stand_elsewhere() -> None:
    mapping = ListMapping(source_coin_id=("coin", "key"), symbol=("coin", "ticker"))
    parsed = coins({"coin": {"key": 12, "ticker": "TWV"}}, mapping=mapping)
    assert parsed.coins[0][:3] == ("12", "TWV", None)


@pytest.mark.parametrize(
    ("url", "platform"),
    [
        ("https://v.test/v1/contracts/eth-ethereum", "eth-ethereum"),
        ("https://v.test/v1/contracts/eth-ethereum?x=1", "eth-ethereum"),
        ("https://v.test/v1/coins", None),
        ("https://v.test/v1/contracts/a/b", None),
    ],
)
def test_whose_contracts_an_answer_lists_is_in_its_url(url: str, platform: str | None) -> None:
    assert platform_of("/contracts/{platform}", url) == platform


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="KASPARRO_REALDATA names no folder")
@pytest.mark.parametrize(
    ("file", "records"),
    [
        ("coingecko/list/2022-01-29_12387_coins.json", 12387),
        ("coingecko/list/2025-03-31_17142_coins.json", 17142),
        ("coinpaprika/coins_2021-08-12_7250.json", 7250),
    ],
)
def test_real_lists(file: str, records: int) -> None:
    parsed = checked(parse_coins((REALDATA / file).read_bytes(), URL, ListMapping()))
    assert (parsed.records, parsed.quarantined) == (records, [])
