"""Which coins become one, and above all which do not."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from random import Random

import pytest

from kasparro_pipeline.identity.match import Override, SourceCoin, curated_overrides, identify

PRIORITIES = {"coingecko": 10, "coinpaprika": 20, "csv_a": 90, "csv_b": 90}
GECKO_BTC = SourceCoin("coingecko", "bitcoin", "btc", "Bitcoin")
PAPRIKA_BTC = SourceCoin("coinpaprika", "btc-bitcoin", "BTC", "Bitcoin")


def ids(*coins: SourceCoin, overrides=(), existing=None, priorities=PRIORITIES) -> dict[tuple[str, str], str]:
    found = identify(coins, overrides, priorities, existing or {})
    assert [(i.source, i.source_coin_id) for i in found] == sorted(coin.key for coin in coins)
    return {(identity.source, identity.source_coin_id): identity.coin_id for identity in found}


def test_a_bare_symbol_never_merges() -> None:
    bare = (SourceCoin("csv_a", "BTC", "BTC", None), SourceCoin("csv_b", "BTC", "BTC", None))
    found = ids(GECKO_BTC, *bare)
    assert len(set(found.values())) == 3
    assert found[GECKO_BTC.key] == "bitcoin"


def test_neither_an_empty_name_nor_one_without_letters_is_a_name() -> None:
    for name in ("", "  ", "--", "_"):
        assert len(set(ids(*(SourceCoin(s, "x", "X", name) for s in ("csv_a", "csv_b"))).values())) == 2


def test_equal_symbol_with_another_name_stays_apart() -> None:
    assert len(set(ids(GECKO_BTC, SourceCoin("coinpaprika", "btc-other", "BTC", "Bitcoin Two")).values())) == 2


def test_equal_name_with_another_symbol_stays_apart() -> None:
    assert len(set(ids(GECKO_BTC, SourceCoin("coinpaprika", "xbt-bitcoin", "XBT", "Bitcoin")).values())) == 2


def test_symbol_and_name_that_each_source_has_once_merge() -> None:
    found = identify([PAPRIKA_BTC, GECKO_BTC], [], PRIORITIES, {})
    assert {identity.coin_id for identity in found} == {"bitcoin"}
    assert {identity.method for identity in found} == {"symbol+name"}
    assert all(0 < identity.confidence < 1 for identity in found)
    assert "coinpaprika btc-bitcoin" in found[0].evidence


def test_case_blanks_and_punctuation_do_not_count() -> None:
    coins = (
        SourceCoin("coingecko", "usd-coin", "usdc", "USD Coin"),
        SourceCoin("coinpaprika", "usdc-usd-coin", "USDC", "usd-coin"),
        SourceCoin("csv_a", "USDC", " USDC ", "\uff35\uff33\uff24 Coin"),  # full-width letters
    )
    assert set(ids(*coins).values()) == {"usd-coin"}


def test_what_one_source_has_twice_stays_apart() -> None:
    twin = SourceCoin("coinpaprika", "btc-bitcoin2", "btc", "BITCOIN")
    found = identify([GECKO_BTC, PAPRIKA_BTC, twin], [], PRIORITIES, {})
    assert len({identity.coin_id for identity in found}) == 3
    assert {identity.method for identity in found} == {"own"}


def test_an_override_speaks_for_every_source_its_glob_names() -> None:
    coins = [GECKO_BTC, *(SourceCoin(s, "BTC", "BTC", None) for s in ("csv_a", "csv_b", "coinpaprika"))]
    overrides = [
        Override("csv_*", "BTC", "bitcoin", "the tickers of exchanges"),
        Override("coingecko", "bitcoin", "bitcoin", "the coin itself"),
    ]
    found = {i.source: i for i in identify(coins, overrides, PRIORITIES, {})}
    assert {source: i.coin_id == "bitcoin" for source, i in found.items()} == {
        "coingecko": True,
        "csv_a": True,
        "csv_b": True,
        "coinpaprika": False,
    }
    assert (found["csv_a"].method, found["csv_a"].confidence) == ("override", 1)
    assert found["csv_a"].evidence == "the tickers of exchanges"


@pytest.mark.parametrize("existing", [{}, {GECKO_BTC.key: "bitcoin"}])
def test_an_override_joins_the_coin_that_has_its_id(existing) -> None:
    ticker = SourceCoin("csv_a", "BTC", "BTC", None)
    found = ids(GECKO_BTC, ticker, overrides=[Override("csv_*", "BTC", "bitcoin", "")], existing=existing)
    assert set(found.values()) == {"bitcoin"}


def test_an_override_takes_a_coin_away_from_its_namesake() -> None:
    coins = (GECKO_BTC, PAPRIKA_BTC)
    overrides = [Override(*coin.key, coin_id, "") for coin, coin_id in zip(coins, ("one", "two"), strict=True)]
    assert ids(*coins, overrides=overrides) == {GECKO_BTC.key: "one", PAPRIKA_BTC.key: "two"}


def test_a_coin_keeps_the_id_it_has() -> None:
    assert set(ids(GECKO_BTC, PAPRIKA_BTC, existing={PAPRIKA_BTC.key: "btc-bitcoin"}).values()) == {"btc-bitcoin"}
    found = ids(GECKO_BTC, PAPRIKA_BTC)
    assert ids(GECKO_BTC, PAPRIKA_BTC, existing=found) == found


def test_what_comes_later_does_not_take_an_id_that_is_in_use() -> None:
    old = SourceCoin("csv_a", "bitcoin", "XXX", None)
    found = ids(old, GECKO_BTC, existing={old.key: "bitcoin"})
    assert found[old.key] == "bitcoin"
    assert found[GECKO_BTC.key] != "bitcoin"


def test_coins_that_part_do_not_share_their_old_id() -> None:
    renamed = SourceCoin("coinpaprika", "btc-bitcoin", "BTC", "Something Else")
    found = ids(GECKO_BTC, renamed, existing={GECKO_BTC.key: "bitcoin", renamed.key: "bitcoin"})
    assert found[GECKO_BTC.key] == "bitcoin"
    assert found[renamed.key] != "bitcoin"


def test_the_order_does_not_matter() -> None:
    coins = [
        GECKO_BTC,
        PAPRIKA_BTC,
        SourceCoin("csv_a", "BTC", "BTC", None),
        SourceCoin("csv_b", "bitcoin", "BTC", "Bitcoin"),
        SourceCoin("csv_b", "bitcoin-", "B", None),
    ]
    overrides = [Override("csv_a", "BTC", "bitcoin", "")]
    results = [identify(order, overrides, PRIORITIES, {}) for order in permutations(coins)]
    assert all(result == results[0] for result in results)


def test_ids_are_unique_to_a_group() -> None:
    """Ids that make the same slug, of many sources: no coin gets another's id, and each group one of its own."""
    spellings = ["a-b", "a b", "A_B", "a.b", "a--b", "-", "", "a-b-csv-x", "a-b-2"]
    coins = [SourceCoin(f"csv_{s}", spelling, "X", None) for s in "xyz" for spelling in spellings]
    Random(1).shuffle(coins)
    found = ids(*coins)
    assert len(found) == len(coins)
    assert Counter(found.values()).most_common(1)[0][1] == 1
    assert all(coin_id and coin_id.strip("-") == coin_id for coin_id in found.values())


def test_the_curated_overrides_are_whole() -> None:
    overrides = curated_overrides()
    assert all(o.source and o.source_coin_id and o.coin_id and o.note for o in overrides)
    assert len({(o.source, o.source_coin_id) for o in overrides}) == len(overrides)
