"""Parsing pages of JSON: ``python -m kasparro_tests.bench.pages``; records a second of one core's time.

Pages are made like CoinGecko's (250 records of 26 fields, times of their own) and CoinPaprika's (one answer of 5,000
records, nested quotes), the numbers drawn at random, and read by the mappings in ``kasparro_pipeline/defs``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

from kasparro_pipeline.components import ApiSource
from kasparro_pipeline.definitions import defs
from kasparro_pipeline.sources.json_records import JsonMapping, parse_json
from kasparro_pipeline.sources.records import Delivery

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
GOAL = 100_000
FILLING = ("ath", "atl", "high_24h", "low_24h", "price_change_24h", "fully_diluted_valuation", "change_1", "change_2")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--records", type=int, default=50_000)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    for source, records, record in (("coingecko", 250, _coingecko), ("coinpaprika", 5_000, _coinpaprika)):
        delivery, mapping = _delivery(source, records, record), _mapping(source)
        assert parse_json(delivery, mapping).observations.num_rows == records
        times = arguments.records // records
        rates = [times * records / _seconds(delivery, mapping, times) for _ in range(arguments.rounds)]
        size = len(delivery.body) // records
        print(  # noqa: T201
            f"{source:11} {records:5} records a page, {size:4} bytes a record: median {statistics.median(rates):8.0f}, "
            f"best {max(rates):8.0f} records/s of one core  goal {GOAL} or more"
        )


def _seconds(delivery: Delivery, mapping: JsonMapping, times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        parse_json(delivery, mapping)
    return time.process_time() - started


def _mapping(source: str) -> JsonMapping:
    tree = defs().component_tree
    assert tree is not None
    (component,) = [one for one in tree.get_all_components(ApiSource) if one.source == source]
    return component.snapshot_mapping


def _delivery(source: str, records: int, record: Callable[[random.Random, int], dict[str, object]]) -> Delivery:
    draw = random.Random(1)
    body = json.dumps([record(draw, number) for number in range(records)], separators=(",", ":")).encode()
    sha256 = hashlib.sha256(body).hexdigest()
    return Delivery(source, "2026-11-20", 0, NOW, sha256, f"https://{source}.test", 1, body)


def _coingecko(draw: random.Random, number: int) -> dict[str, object]:
    return {
        "id": f"made-coin-{number}",
        "symbol": f"mc{number}",
        "name": f"Made Coin {number}",
        "image": f"https://images.example/coins/{number}/large/made-coin.png?1547033579",
        "current_price": draw.random() * 10 ** draw.randint(-6, 4),
        "market_cap": draw.randint(10**6, 10**12),
        "market_cap_rank": number + 1,
        "total_volume": draw.randint(10**4, 10**10),
        **{name: draw.random() * 100 for name in FILLING},
        "ath_date": "2021-11-10T14:24:11.849Z",
        "atl_date": "2013-07-06T00:00:00.000Z",
        "circulating_supply": float(draw.randint(10**6, 10**9)),
        "total_supply": float(draw.randint(10**6, 10**9)),
        "max_supply": None,
        "roi": None,
        "last_updated": f"2026-11-20T11:{draw.randint(0, 59):02}:{draw.randint(0, 59):02}.{draw.randint(0, 999):03}Z",
    }


def _coinpaprika(draw: random.Random, number: int) -> dict[str, object]:
    changes = {
        f"percent_change_{span}": round(draw.random() * 10, 2) for span in ("15m", "1h", "6h", "24h", "7d", "1y")
    }
    return {
        "id": f"mc{number}-made-coin-{number}",
        "name": f"Made Coin {number}",
        "symbol": f"MC{number}",
        "rank": number + 1,
        "circulating_supply": draw.choice([0, draw.randint(10**6, 10**9)]),
        "total_supply": draw.randint(10**6, 10**9),
        "max_supply": draw.choice([0, draw.randint(10**6, 10**9)]),
        "beta_value": draw.random(),
        "first_data_at": "2013-04-28T00:00:00Z",
        "last_updated": f"2026-11-20T11:{draw.randint(0, 59):02}:{draw.randint(0, 59):02}Z",
        "quotes": {
            "USD": {
                "price": draw.random() * 10 ** draw.randint(-4, 4),
                "volume_24h": draw.random() * 10**9,
                "market_cap": draw.choice([0, draw.randint(10**6, 10**12)]),
                **changes,
            }
        },
    }


if __name__ == "__main__":
    main()
