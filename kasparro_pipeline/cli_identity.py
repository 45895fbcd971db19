"""The commands of ``kasparro identity``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.identity.measure import Measure, measure, read_known
from kasparro_pipeline.identity.vendors import (
    coingecko_coins,
    coinpaprika_coins,
    read_list,
    with_coingecko_quotes,
    with_coinpaprika_quotes,
    with_contracts,
)

app = typer.Typer(
    help="Who is who across sources: how good it is, what is open, what was decided.", no_args_is_help=True
)
console = Console(highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def report(  # noqa: PLR0913, PLR0917 - each is an option
    coingecko: Annotated[Path, typer.Option(help="CoinGecko's /coins/list, JSON; platforms in it count.")],
    coinpaprika: Annotated[Path, typer.Option(help="CoinPaprika's /coins, JSON.")],
    truth: Annotated[
        list[Path],
        typer.Option(help="CSV of known pairs: coingecko_id, coinpaprika_id, ambiguous; may be given again."),
    ],
    contracts: Annotated[
        list[str] | None, typer.Option(help="PLATFORM=FILE of CoinPaprika's /contracts/PLATFORM; may be given again.")
    ] = None,
    coingecko_markets: Annotated[Path | None, typer.Option(help="CoinGecko's /coins/markets, JSON.")] = None,
    coinpaprika_tickers: Annotated[Path | None, typer.Option(help="CoinPaprika's /tickers, JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure identity on two vendors' lists, without a database.

    Recall: of the known pairs whose two ids are in both lists, the share that is joined. Precision: of the joined
    pairs whose CoinGecko id occurs in those known pairs, the share that is known; the stricter one counts a joined
    pair when either id occurs in them. Known pairs marked ambiguous (neither 0 nor empty) do not count.

    The first figures stand on ids, names and symbols alone. With contracts or prices given, the same is told again
    with them.
    """
    gecko, paprika, known = read_list(coingecko), read_list(coinpaprika), read_known(truth)
    coins, others = coingecko_coins(gecko), coinpaprika_coins(paprika)
    bare = [*coingecko_coins([{**record, "platforms": None} for record in gecko]), *others]
    results = {"words": measure(bare, known)}
    for told in contracts or ():
        platform, is_named, file = told.partition("=")
        if not is_named:
            raise KasparroError(f"--contracts {told}: write PLATFORM=FILE, such as eth-ethereum=contracts.json")
        others = with_contracts(others, platform, read_list(Path(file)))
    if coingecko_markets:
        coins = with_coingecko_quotes(coins, read_list(coingecko_markets))
    if coinpaprika_tickers:
        others = with_coinpaprika_quotes(others, read_list(coinpaprika_tickers))
    if contracts or (coingecko_markets and coinpaprika_tickers):
        results["words and evidence"] = measure([*coins, *others], known)
    if as_json:
        sys.stdout.write(json.dumps({name: result.as_dict() for name, result in results.items()}, indent=2) + "\n")
        return
    for name, result in results.items():
        _show_measure(name, result)


def _show_measure(name: str, result: Measure) -> None:
    figures = Table.grid(padding=(0, 2))
    figures.add_row("stands on", name)
    figures.add_row("coins", f"{result.coingecko:,} of coingecko, {result.coinpaprika:,} of coinpaprika")
    figures.add_row("pairs joined", f"{result.joined:,}")
    figures.add_row("pairs open", f"{result.open_pairs:,}")
    figures.add_row("precision", f"{_share(result.precision)} ({result.right} of {result.decided})")
    figures.add_row("by either id", f"{_share(result.precision_either)} ({result.right} of {result.decided_either})")
    figures.add_row("recall", f"{_share(result.recall)} ({result.right} of {result.known})")
    console.print(figures)
    methods = Table("method", "pairs")
    for method, count in result.by_method.items():
        methods.add_row(method, f"{count:,}")
    console.print(methods)
    table = Table("", "coingecko", "coinpaprika", "why")
    for pair in result.wrong:
        known = "; ".join(f"{one['coingecko']['id']} is {one['coinpaprika']['id']}" for one in pair["known"])
        table.add_row("wrong", *_coins(pair), escape(f"{pair['method']}; known: {known}"))
    for pair in result.missed:
        table.add_row("open" if pair["open"] else "missed", *_coins(pair), pair["open"] or "")
    console.print(table)


def _coins(pair: dict[str, dict[str, str | None]]) -> list[str]:
    told = (pair["coingecko"], pair["coinpaprika"])
    return [escape(f"{coin['id']} ({coin['symbol']}, {coin['name']})") for coin in told]


def _share(value: float | None) -> str:
    return "nothing to count" if value is None else f"{value:.2%}"
