"""Which coins become one, and above all which do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from random import Random

import pytest

from kasparro_pipeline.identity.coins import Identity, Key, Matching, Quote, Ruling, SourceCoin
from kasparro_pipeline.identity.contracts import Claim, evidence_of
from kasparro_pipeline.identity.match import identify
from kasparro_pipeline.simulator.coins import universe

PRIORITIES = {"coingecko": 10, "coinpaprika": 20, "csv_a": 90, "csv_b": 90}
DAY = date(2026, 11, 1)


def gecko(source_coin_id: str, symbol: str, name: str | None, **more) -> SourceCoin:
    return SourceCoin("coingecko", source_coin_id, symbol, name, **more)


def paprika(source_coin_id: str, symbol: str, name: str | None, **more) -> SourceCoin:
    return SourceCoin("coinpaprika", source_coin_id, symbol, name, **more)


GECKO_BTC = gecko("bitcoin", "btc", "Bitcoin")
PAPRIKA_BTC = paprika("btc-bitcoin", "BTC", "Bitcoin")
CSV_BTC = SourceCoin("csv_a", "BTC", "BTC", None)

_STEMS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "hazel", "iris", "jade", "koala", "lotus")
LISTED = [
    (
        gecko(f"{a}-{b}", f"{a[:2]}{b[:2]}{i}", f"{a} {b}"),
        paprika(f"{a[:2]}{b[:2]}{i}-{a}-{b}", f"{a[:2]}{b[:2]}{i}", f"{a} {b}"),
    )
    for i, (a, b) in enumerate(permutations(_STEMS, 2))
]
"""Coins that both vendors list in the same words, as most are: between such lists weaker evidence counts too."""


def matched(*coins: SourceCoin, rulings=(), existing=None) -> Matching:
    found = identify(coins, rulings, PRIORITIES, existing or {})
    assert [(i.source, i.source_coin_id) for i in found.identities] == sorted(coin.key for coin in coins)
    return found


def ids(*coins: SourceCoin, rulings=(), existing=None) -> dict[Key, str]:
    found = matched(*coins, rulings=rulings, existing=existing)
    return {(identity.source, identity.source_coin_id): identity.coin_id for identity in found.identities}


def by_key(found: Matching) -> dict[Key, Identity]:
    return {(identity.source, identity.source_coin_id): identity for identity in found.identities}


def method(one: SourceCoin, other: SourceCoin, *among: SourceCoin) -> str | None:
    """By what the two are one among the coins that both vendors list; None: they are not."""
    listed = [coin for pair in LISTED for coin in pair]
    found = by_key(matched(one, other, *among, *listed))
    return found[other.key].method if found[one.key].coin_id == found[other.key].coin_id else None


def why_open(one: SourceCoin, other: SourceCoin, *among: SourceCoin) -> str | None:
    found = matched(one, other, *among, *(coin for pair in LISTED for coin in pair))
    return {((p.source, p.source_coin_id), (p.other_source, p.other_source_coin_id)): p.reason for p in found.open}.get(
        (one.key, other.key)
    )


def ruling(kind: str, one: Key, other: Key) -> Ruling:
    return Ruling(kind, *one, *other, "ann", "she knows")


# what does not join


def test_a_bare_symbol_never_joins_and_waits() -> None:
    found = matched(GECKO_BTC, CSV_BTC, SourceCoin("csv_b", "BTC", "BTC", None))
    assert len({identity.coin_id for identity in found.identities}) == 3
    assert ("coingecko", "bitcoin", "csv_a", "BTC", "symbol") in {
        (p.source, p.source_coin_id, p.other_source, p.other_source_coin_id, p.reason) for p in found.open
    }


@pytest.mark.parametrize("name", ["", "  ", "--", "_"])
def test_neither_an_empty_name_nor_one_without_letters_is_a_name(name: str) -> None:
    assert len(set(ids(*(SourceCoin(s, "x", "X", name) for s in ("csv_a", "csv_b"))).values())) == 2


def test_equal_symbol_with_another_name_waits() -> None:
    other = paprika("btc-other", "BTC", "Something")
    assert method(GECKO_BTC, other) is None
    assert why_open(GECKO_BTC, other) == "symbol"


def test_an_equal_common_name_with_another_symbol_waits() -> None:
    namesakes = [gecko(f"honey-{word}", f"h{word}", f"Honey {word}") for word in ("pot", "bee", "jar")]
    one, other = gecko("honey", "hny", "Honey"), paprika("hon-honey", "HON", "Honey")
    assert method(one, other, *namesakes) is None
    assert why_open(one, other, *namesakes) == "namesake"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (gecko("wrapped-bitcoin", "btc", "Bitcoin"), PAPRIKA_BTC),
        (gecko("bitcoin", "btc", "Bitcoin"), paprika("btc-wrapped-bitcoin", "BTC", "Wrapped Bitcoin")),
        (gecko("bridged-usdc-polygon", "usdc", "USDC"), paprika("usdc-usd-coin", "USDC", "USDC")),
        (gecko("binance-peg-dogecoin", "doge", "Binance-Peg Dogecoin"), paprika("doge-dogecoin", "DOGE", "Dogecoin")),
        (gecko("staked-ether", "eth", "Ethereum"), paprika("eth-ethereum", "ETH", "Ethereum")),
        (gecko("wbtc", "wbtc", "Bitcoin"), paprika("btc-bitcoin", "BTC", "Bitcoin")),
    ],
)
def test_a_coin_that_stands_for_another_is_not_it(one: SourceCoin, other: SourceCoin) -> None:
    assert method(one, other) is None
    assert why_open(one, other) in (None, "namesake")


def test_two_of_one_source_are_not_one_and_wait() -> None:
    twin = paprika("btc-bit-coin", "btc", "BITCOIN")
    other = gecko("the-bitcoin", "btc", "Bitcoin")
    found = matched(other, PAPRIKA_BTC, twin)
    assert {identity.method for identity in found.identities} == {"own"}
    assert [pair.reason for pair in found.open] == ["ambiguous"] * 2


def test_what_is_left_over_is_no_evidence() -> None:
    """Two namesakes on both sides, one pair certain: the other two are not one because they are left."""
    coins = (gecko("yield", "yld", "Yield"), gecko("yield-app", "yld", "Yield App"))
    others = (paprika("yld-yield", "YLD", "YIELD"), paprika("yld-yield-coin", "YLD", "Yield Coin"))
    found = ids(*coins, *others)
    assert found[coins[0].key] == found[others[0].key]
    assert len(set(found.values())) == 3


def test_another_edition_is_another_coin() -> None:
    assert method(gecko("swap-v2", "swp", "Amber Swap V2"), paprika("swp-swap", "SWP", "Amber Swap Token")) is None


def test_a_numbered_namesake_counts_only_between_lists_of_the_same_time() -> None:
    one, other = gecko("nova-2", "nva", "Nova"), paprika("nva-nova", "NVA", "Nova")
    assert method(one, other) == "symbol+name-number"
    assert by_key(matched(one, other))[one.key].method == "own"
    assert [pair.reason for pair in matched(one, other).open] == ["numbered"]


def test_between_known_lists_a_newcomer_is_judged_as_at_the_first_time() -> None:
    listed = [coin for pair in LISTED for coin in pair]
    one, other = gecko("nova-2", "nva", "Nova"), paprika("nva-nova", "NVA", "Nova")
    found = ids(one, other, *listed, existing=by_key(matched(*listed)))
    assert found[one.key] == found[other.key]


# what joins


@pytest.mark.parametrize(
    ("one", "other", "by"),
    [
        (GECKO_BTC, PAPRIKA_BTC, "symbol+name+id"),
        (
            gecko("bitcoincash", "bch", "Bitcoin Cash"),
            paprika("bch-bitcoin-cash", "BCH", "Bitcoin Cash"),
            "symbol+name+slug",
        ),
        (gecko("ripple", "xrp", "XRP"), paprika("xrp-xrp", "XRP", "xrp"), "symbol+name"),
        (gecko("0chain", "zcn", "Zus"), paprika("zcn-0chain", "ZCN", "0Chain"), "symbol+slug"),
        (gecko("hathor", "htr", "Hathor"), paprika("htr-hathor-network", "HTR", "Hathor Network"), "symbol+core"),
        (
            gecko("space-erc-20", "spc", "Spacelink (ERC-20)"),
            paprika("spc-spacelink", "SPC", "Spacelink"),
            "symbol+core",
        ),
        (gecko("aeronic", "arnx", "Aeronic"), paprika("arn-aeronic", "ARN", "Aeronic"), "name+slug"),
        (gecko("aeronic", "arnx", "Aeronic V2"), paprika("arn-aeronic", "ARN", "Old Words"), "slug"),
        (gecko("map", "mapo", "Atlas Protocol"), paprika("map-at", "MAP", "Atlas Protocol"), "name"),
        (gecko("badge", "badger", "Badger DAO"), paprika("badger-badger", "BADGER", "Badger"), "symbol+kind"),
        (gecko("one", "fry", "FoundryDAO Logistics"), paprika("fry-x", "FRY", "Foundry Logistics"), "symbol+word"),
    ],
)
def test_each_rule(one: SourceCoin, other: SourceCoin, by: str) -> None:
    assert method(one, other) == by


def test_confidence_is_that_of_the_rule_and_the_evidence_names_both() -> None:
    found = matched(GECKO_BTC, PAPRIKA_BTC)
    assert {identity.coin_id for identity in found.identities} == {"bitcoin"}
    assert {identity.confidence for identity in found.identities} == {Decimal("0.998")}
    assert "coingecko bitcoin (btc, Bitcoin) and coinpaprika btc-bitcoin (BTC, Bitcoin)" in found.identities[0].evidence
    assert found.open == []


def test_case_width_blanks_and_punctuation_do_not_count() -> None:
    coins = (
        gecko("usd-coin", "usdc", "USD Coin"),
        paprika("usdc-usd-coin", "USDC", "usd-coin"),
        SourceCoin("csv_a", "USDC", " USDC ", "\uff35\uff33\uff24 Coin"),  # full-width letters
    )
    assert set(ids(*coins).values()) == {"usd-coin"}


def at(**addresses: str) -> dict[str, frozenset[str]]:
    return {chain.replace("_", "-"): frozenset(text.split()) for chain, text in addresses.items()}


def test_an_equal_contract_on_one_chain_joins_whatever_the_words() -> None:
    one = gecko("alpha", "aaa", "Alpha", contracts=at(ethereum="0xabc1 0xabc0", base="0x1"))
    other = paprika("zzz-omega", "ZZZ", "Omega", contracts=at(ethereum="0xabc2 0xabc1"))
    found = by_key(matched(one, other))[other.key]
    assert found.method == "contract"
    assert found.evidence.endswith("the contract address on a chain is equal: 0xabc1 on ethereum")
    assert method(one, replace(other, contracts=at(base="0xabc1"))) is None


def test_an_equal_contract_is_more_than_equal_words() -> None:
    one = gecko("alpha", "aaa", "Alpha", contracts=at(ethereum="0xabc1"))
    namesake = paprika("aaa-alpha", "AAA", "Alpha")
    other = paprika("zzz-omega", "ZZZ", "Omega", contracts=at(ethereum="0xabc1"))
    assert method(one, other, namesake) == "contract"
    assert by_key(matched(one, other, namesake))[namesake.key].method == "own"


def test_what_was_joined_by_its_words_is_joined_by_its_contract_once_that_is_known() -> None:
    before = by_key(matched(GECKO_BTC, PAPRIKA_BTC))
    coins = [replace(coin, contracts=at(ethereum="0xabc1")) for coin in (GECKO_BTC, PAPRIKA_BTC)]
    now = by_key(matched(*coins, existing=before))
    assert {(row.coin_id, row.method) for row in now.values()} == {("bitcoin", "contract")}
    assert by_key(matched(*coins, existing=now)) == now


def test_other_contracts_keep_namesakes_apart() -> None:
    one = gecko("alpha", "aaa", "Alpha", contracts=at(ethereum="0x1"))
    other = paprika("aaa-alpha", "AAA", "Alpha", contracts=at(ethereum="0x2"))
    assert method(one, other) is None
    assert why_open(one, other) == "contract"


def test_what_stands_for_a_coin_is_not_it_though_their_contracts_are_equal() -> None:
    bridged = gecko("bridged-dollar", "usd", "Bridged Dollar", contracts=at(polygon_pos="0x2"))
    dollar = paprika("usd-dollar", "USD", "Dollar", contracts=at(ethereum="0x1", polygon_pos="0x2"))
    assert method(bridged, dollar) is None
    assert why_open(bridged, dollar) == "derived"
    real = gecko("dollar", "usd", "Dollar", contracts=at(ethereum="0x1"))
    found = ids(bridged, dollar, real)
    assert found[dollar.key] == found[real.key] != found[bridged.key]


def test_an_address_that_several_coins_of_a_source_claim_is_no_evidence() -> None:
    claims = [
        Claim("coingecko", "alpha", "ethereum", "0xa"),
        Claim("coingecko", "beta", "ethereum", "0xa"),
        Claim("coinpaprika", "a-alpha", "ethereum", "0xa"),
        Claim("coingecko", "beta", "base", "0xa"),
        Claim("coingecko", "native", "base", "0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"),
    ]
    assert evidence_of(claims) == {
        ("coinpaprika", "a-alpha"): at(ethereum="0xa"),
        ("coingecko", "beta"): at(base="0xa"),
    }


def quoted(coin: SourceCoin, price: str, cap: str | None = None, day: date = DAY) -> SourceCoin:
    return replace(coin, quote=Quote(day, Decimal(price), Decimal(cap) if cap else None))


def test_prices_of_one_day_that_are_apart_keep_namesakes_apart() -> None:
    one, other = quoted(GECKO_BTC, "100"), quoted(PAPRIKA_BTC, "0.01")
    assert method(one, other) is None
    assert why_open(one, other) == "price"
    assert method(one, quoted(PAPRIKA_BTC, "0.01", day=DAY - timedelta(days=1))) == "symbol+name+id"


def test_prices_that_agree_add_to_confidence() -> None:
    found = by_key(matched(quoted(GECKO_BTC, "100", "5000"), quoted(PAPRIKA_BTC, "101", "5100")))
    assert Decimal("0.998") < found[PAPRIKA_BTC.key].confidence < 1
    assert "they cost 100 and 101 USD" in found[PAPRIKA_BTC.key].evidence


def test_symbol_price_and_market_cap_together_join_a_renamed_coin() -> None:
    one, other = gecko("stella", "alpha", "Stella"), paprika("alpha-old-name", "ALPHA", "Old Name")
    assert method(quoted(one, "1.5", "1000"), quoted(other, "1.5", "1010")) == "price"
    assert method(quoted(one, "1.5", "1000"), quoted(other, "1.5")) is None
    assert method(quoted(one, "1.5", "1000"), quoted(other, "1.5", "9000")) is None


def test_price_and_market_cap_prove_a_common_name() -> None:
    namesakes = [gecko(f"honey-{word}", f"h{word}", f"Honey {word}") for word in ("pot", "bee", "jar")]
    one, other = gecko("honey", "hny", "Honey"), paprika("hon-honey", "HON", "Honey")
    assert method(quoted(one, "1.5", "1000"), quoted(other, "1.5", "1010"), *namesakes) == "price"
    assert method(quoted(one, "1.5", "1000"), quoted(other, "1.7", "1010"), *namesakes) is None


# rulings


def test_a_ruling_speaks_for_every_source_its_glob_names() -> None:
    coins = [GECKO_BTC, *(SourceCoin(s, "BTC", "BTC", None) for s in ("csv_a", "csv_b", "coinpaprika"))]
    found = by_key(matched(*coins, rulings=[ruling("same", ("csv_*", "BTC"), GECKO_BTC.key)]))
    assert {key[0]: identity.coin_id == "bitcoin" for key, identity in found.items()} == {
        "coingecko": True,
        "csv_a": True,
        "csv_b": True,
        "coinpaprika": False,
    }
    assert (found[CSV_BTC.key].method, found[CSV_BTC.key].confidence) == ("ruling", 1)
    assert found[CSV_BTC.key].evidence.endswith("ann: she knows")


def test_a_ruling_parts_what_a_rule_joined() -> None:
    before = by_key(matched(GECKO_BTC, PAPRIKA_BTC))
    parted = [ruling("different", PAPRIKA_BTC.key, GECKO_BTC.key)]
    found = matched(GECKO_BTC, PAPRIKA_BTC, rulings=parted, existing=before)
    assert len({identity.coin_id for identity in found.identities}) == 2
    assert found.open == []
    assert by_key(found)[GECKO_BTC.key].coin_id == "bitcoin"
    assert ids(GECKO_BTC, PAPRIKA_BTC, existing=by_key(found)) == {GECKO_BTC.key: "bitcoin", PAPRIKA_BTC.key: "bitcoin"}


def test_what_a_ruling_joined_ends_with_the_ruling() -> None:
    said = [ruling("same", CSV_BTC.key, GECKO_BTC.key)]
    joined = by_key(matched(GECKO_BTC, CSV_BTC, rulings=said))
    assert len({identity.coin_id for identity in joined.values()}) == 1
    assert len(set(ids(GECKO_BTC, CSV_BTC, existing=joined).values())) == 2


def test_the_first_of_two_rulings_on_a_pair_counts() -> None:
    said = [ruling("different", CSV_BTC.key, GECKO_BTC.key), ruling("same", GECKO_BTC.key, CSV_BTC.key)]
    assert len(set(ids(GECKO_BTC, CSV_BTC, rulings=said).values())) == 2
    assert len(set(ids(GECKO_BTC, CSV_BTC, rulings=said[::-1]).values())) == 1


def test_a_split_coin_joins_no_other_of_the_group() -> None:
    third = SourceCoin("csv_a", "bitcoin", "BTC", "Bitcoin")
    before = by_key(matched(GECKO_BTC, PAPRIKA_BTC, third))
    assert len({identity.coin_id for identity in before.values()}) == 1
    parted = [ruling("different", third.key, other.key) for other in (GECKO_BTC, PAPRIKA_BTC)]
    found = ids(GECKO_BTC, PAPRIKA_BTC, third, rulings=parted, existing=before)
    assert found[GECKO_BTC.key] == found[PAPRIKA_BTC.key] == "bitcoin" != found[third.key]


# over time


def test_a_coin_keeps_the_id_it_has() -> None:
    own = {PAPRIKA_BTC.key: Identity(*PAPRIKA_BTC.key, "btc-bitcoin", "own", Decimal(1), "")}
    assert set(ids(GECKO_BTC, PAPRIKA_BTC, existing=own).values()) == {"btc-bitcoin"}
    found = matched(GECKO_BTC, PAPRIKA_BTC)
    assert matched(GECKO_BTC, PAPRIKA_BTC, existing=by_key(found)) == found


def test_a_coin_stays_what_it_is_when_renamed_and_when_a_namesake_comes() -> None:
    before = by_key(matched(GECKO_BTC, PAPRIKA_BTC))
    renamed = paprika("btc-bitcoin", "XBT", "Gold of the Net")
    namesake = paprika("btc-bitcoin-two", "BTC", "Bitcoin")
    found = ids(GECKO_BTC, renamed, namesake, existing=before)
    assert found[GECKO_BTC.key] == found[renamed.key] == "bitcoin" != found[namesake.key]


def test_an_id_that_ends_where_its_like_begins_was_renamed() -> None:
    end = datetime(2026, 11, 1, tzinfo=UTC)
    old = replace(PAPRIKA_BTC, first_seen=end - timedelta(days=90), last_seen=end)
    before = by_key(matched(GECKO_BTC, old))
    new = replace(
        PAPRIKA_BTC, source_coin_id="btc-new-id", first_seen=end + timedelta(days=1), last_seen=end + timedelta(days=2)
    )
    found = by_key(matched(GECKO_BTC, old, new, existing=before))
    assert {identity.coin_id for identity in found.values()} == {"bitcoin"}
    assert found[new.key].method == "renamed"
    for begin in (end - timedelta(days=1), end + timedelta(days=30)):  # side by side; long after
        found = by_key(matched(GECKO_BTC, old, replace(new, first_seen=begin), existing=before))
        assert found[new.key].coin_id != "bitcoin"


def test_a_symbol_that_another_coin_took_is_not_silently_the_same() -> None:
    luna = gecko("terra-luna", "luna", "Terra")
    old = SourceCoin("csv_a", "LUNA", "LUNA", "Terra")
    before = by_key(matched(luna, old))
    assert len({identity.coin_id for identity in before.values()}) == 1
    new = replace(old, name="Lunar Rock", was=("LUNA", "Terra"))
    found = matched(luna, new, existing=before)
    assert len({identity.coin_id for identity in found.identities}) == 2
    assert by_key(found)[luna.key].coin_id == "terra-luna"
    assert [(pair.reason, pair.other_source_coin_id) for pair in found.open][:1] == [("reused", "LUNA")]


def test_an_id_whose_symbol_and_name_changed_stays_and_is_asked_about() -> None:
    before = by_key(matched(GECKO_BTC, PAPRIKA_BTC))
    renamed = paprika("btc-bitcoin", "GLD", "Gold of the Net", was=("BTC", "Bitcoin"))
    found = matched(GECKO_BTC, renamed, existing=before)
    assert {identity.coin_id for identity in found.identities} == {"bitcoin"}
    assert [(pair.reason, pair.other_source_coin_id) for pair in found.open] == [("changed", "btc-bitcoin")]
    followed = replace(GECKO_BTC, symbol="gld", name="Gold of the Net", was=("btc", "Bitcoin"))
    assert matched(followed, renamed, existing=before).open == []
    said = [ruling("same", GECKO_BTC.key, renamed.key)]
    assert matched(GECKO_BTC, renamed, rulings=said, existing=before).open == []
    said = [ruling("different", GECKO_BTC.key, renamed.key)]
    assert len(set(ids(GECKO_BTC, renamed, rulings=said, existing=before).values())) == 2


def test_what_comes_later_does_not_take_an_id_that_is_in_use() -> None:
    old = SourceCoin("csv_a", "bitcoin", "XXX", None)
    found = ids(old, GECKO_BTC, existing=by_key(matched(old)))
    assert found[old.key] == "bitcoin"
    assert found[GECKO_BTC.key] != "bitcoin"


# of the whole


def crowd(random: Random) -> list[SourceCoin]:
    """Coins of four sources that share symbols, names and ids at random."""
    words = ["nova", "terra", "luna", "bit", "safe", "moon", "gold", "coin", "token", "network"]
    coins = {}
    for source in PRIORITIES:
        for _ in range(40):
            name = " ".join(random.sample(words, 2))
            symbol = random.choice(["NOV", "TER", "LUN", "BIT", "SAF", "MON"])
            key = f"{symbol}-{name}" if source == "coinpaprika" else name
            coins[source, key] = SourceCoin(source, key.replace(" ", "-").lower(), symbol, name)
    return list(coins.values())


def test_the_order_does_not_matter_and_running_again_changes_nothing() -> None:
    coins = crowd(Random(7))
    found = matched(*coins)
    assert len({identity.coin_id for identity in found.identities}) < len(coins)
    assert found.open
    for seed in range(4):
        Random(seed).shuffle(coins)
        assert matched(*coins) == found
    again = matched(*coins, existing=by_key(found))
    assert again.identities == found.identities


def test_no_group_has_two_coins_of_a_source() -> None:
    for seed in range(5):
        found = matched(*crowd(Random(seed)))
        counts = Counter((identity.coin_id, identity.source) for identity in found.identities)
        assert max(counts.values()) == 1


def test_ids_are_unique_to_a_group() -> None:
    """Ids that make the same slug, of many sources: no coin gets another's id, and each group one of its own."""
    spellings = ["a-b", "a b", "A_B", "a.b", "a--b", "-", "", "a-b-csv-x", "a-b-2"]
    coins = [SourceCoin(f"csv_{s}", spelling, None, None) for s in "xyz" for spelling in spellings]
    Random(1).shuffle(coins)
    found = ids(*coins)
    assert len(found) == len(coins)
    assert Counter(found.values()).most_common(1)[0][1] == 1
    assert all(coin_id and coin_id.strip("-") == coin_id for coin_id in found.values())


def test_the_simulators_coins_are_recognised() -> None:
    """The vendors of the simulator call some coins by other names, symbols and ids."""
    coins: list[SourceCoin] = []
    truth: dict[Key, str] = {}
    for coin in universe():
        for vendor, listing in coin.listings.items():
            source = "csv_a" if vendor == "exchange" else vendor
            coins.append(SourceCoin(source, listing.id, listing.symbol, listing.name))
            truth[coins[-1].key] = coin.key
    groups: dict[str, set[str]] = {}
    for key, coin_id in ids(*coins).items():
        groups.setdefault(coin_id, set()).add(truth[key])
    assert [group for group in groups.values() if len(group) > 1] == []
    assert len(groups) <= 1.02 * len(set(truth.values()))


def test_like_staked_and_wrapped_coins_wait() -> None:
    one, other = gecko("wrapped-steth", "wsteth", "Wrapped stETH"), paprika("w-x", "WSTETH", "Wrapped staked Ether")
    assert method(one, other) is None
    assert why_open(one, other) == "symbol"
