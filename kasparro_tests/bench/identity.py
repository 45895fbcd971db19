"""Identity over two generated lists: ``python -m kasparro_tests.bench.identity``.

Coins as CoinGecko and CoinPaprika list them, in the shares of real lists: half of the smaller list is in the larger,
a tenth of those under another name; a third of all coins shares its symbol with others, some symbols with sixty.
Everything runs in a process of its own; memory is its greatest resident size, Python and libraries included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from random import Random

from kasparro_pipeline.identity.coins import SourceCoin
from kasparro_pipeline.identity.match import identify

_SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sta", "ve", "xo", "zen", "tor", "bri", "dal", "fin", "gro", "hul", "jin")
_ENDINGS = ("", " Token", " Network", " Finance", " Protocol", " Inu", " Swap", " DAO", "coin", " AI")
PRIORITIES = {"coingecko": 10, "coinpaprika": 20}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--coingecko", type=int, default=20_000)
    options.add_argument("--coinpaprika", type=int, default=15_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.measure:
        _measure(arguments.coingecko, arguments.coinpaprika)
        return
    print(f"identity of {arguments.coingecko:,} and {arguments.coinpaprika:,} coins")  # noqa: T201
    command = [sys.executable, "-m", __spec__.name, "--measure"]
    sizes = ["--coingecko", str(arguments.coingecko), "--coinpaprika", str(arguments.coinpaprika)]
    for _ in range(arguments.rounds):
        subprocess.run([*command, *sizes], check=True)


def _measure(coingecko: int, coinpaprika: int) -> None:
    coins = listed(coingecko, coinpaprika)
    started, worked = time.perf_counter(), time.process_time()
    matching = identify(coins, [], PRIORITIES, {})
    first, cpu = time.perf_counter() - started, time.process_time() - worked
    known = {(identity.source, identity.source_coin_id): identity for identity in matching.identities}
    started = time.perf_counter()
    identify(coins, [], PRIORITIES, known)
    again = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    joined = len(coins) - len({identity.coin_id for identity in matching.identities})
    told = f"first {first:.2f} s ({cpu:.2f} s of CPU), again {again:.2f} s, {memory:.0f} MB"
    print(f"  {told}; {joined:,} pairs joined, {len(matching.open):,} open")  # noqa: T201


def listed(coingecko: int, coinpaprika: int) -> list[SourceCoin]:
    """So many coins of each list, the same each time."""
    random = Random(1)
    coins = [_coin(random) for _ in range(coingecko + coinpaprika // 2)]
    both = coinpaprika // 2
    taken: dict[str, int] = {}
    result = [SourceCoin("coingecko", _free(_slug(n), taken), s.lower(), n) for s, n in coins[:coingecko]]
    for symbol, name in [*coins[:both], *coins[coingecko : coingecko + coinpaprika - both]]:
        told = _coin(random)[1] if random.random() < 0.1 else name
        key = _free(f"{symbol.lower()}-{_slug(told)}", taken)
        result.append(SourceCoin("coinpaprika", key, symbol, told))
    return result


def _coin(random: Random) -> tuple[str, str]:
    stem = "".join(random.choices(_SYLLABLES, k=random.randint(2, 4)))
    name = stem.title() + random.choice(_ENDINGS)
    if random.random() < 0.02:
        return random.choice(("USDT", "USDC", "WBTC", "PEPE", "AI", "CAT", "DOGE")), name
    return stem[: random.randint(3, 8)].upper(), name


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _free(key: str, taken: dict[str, int]) -> str:
    taken[key] = taken.get(key, 0) + 1
    return key if taken[key] == 1 else f"{key}-{taken[key]}"


if __name__ == "__main__":
    main()
