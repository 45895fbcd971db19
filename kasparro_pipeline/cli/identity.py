"""``kasparro identity``: who is who, and what a person says of it."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.identity.coins import Ruling, read_rulings, write_rulings
from kasparro_pipeline.identity.contracts import Claim
from kasparro_pipeline.identity.measure import Measure, measure, read_known
from kasparro_pipeline.identity.vendors import (
    COINGECKO,
    COINPAPRIKA,
    coins_of,
    read_list,
    with_coingecko_quotes,
    with_coinpaprika_quotes,
    with_contracts,
)
from kasparro_pipeline.settings import settings
from kasparro_pipeline.sources.coin_list import (
    Contract,
    ContractMapping,
    ListMapping,
    ParsedList,
    parse_coins,
    parse_contracts,
)
from kasparro_pipeline.stack import enter
from kasparro_pipeline.warehouse import decisions as store
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.decisions import DIFFERENT, SAME, Coins, Decision

app = typer.Typer(
    help="Who is who across sources: how good it is, what is open, what was decided.", no_args_is_help=True
)
console = Console(highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Who = Annotated[str | None, typer.Option(help="Who decides; default: this user.")]
Why = Annotated[str, typer.Option(help="The reason, kept with the decision.")]
_PAIR = ("source", "source_coin_id", "other_source", "other_source_coin_id")


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
    gecko, paprika, known = _list(coingecko), _list(coinpaprika), read_known(truth)
    coins, others = (
        coins_of(source, (coin[:3] for coin in found.coins))
        for source, found in ((COINGECKO, gecko), (COINPAPRIKA, paprika))
    )
    results = {"words": measure([*coins, *others], known)}
    theirs = [contract for told in contracts or () for contract in _platform(told)]
    coins, others = (
        with_contracts(listed, (Claim(source, *found[:3]) for found in claimed if found.listed))
        for source, listed, claimed in ((COINGECKO, coins, gecko.contracts), (COINPAPRIKA, others, theirs))
    )
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


def _list(file: Path) -> ParsedList:
    read_list(file)  # says what is wrong where it is none
    return parse_coins(file.read_bytes(), str(file), ListMapping())


def _platform(told: str) -> list[Contract]:
    platform, is_named, name = told.partition("=")
    if not is_named:
        raise KasparroError(f"--contracts {told}: write PLATFORM=FILE, such as eth-ethereum=contracts.json")
    read_list(file := Path(name))
    return parse_contracts(file.read_bytes(), name, platform, ContractMapping()).contracts


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


@app.command()
def review(  # noqa: PLR0913, PLR0917 - each is an option
    accept: Annotated[
        list[int] | None, typer.Option(help="Number of a pair that is one coin; may be given again.")
    ] = None,
    reject: Annotated[
        list[int] | None, typer.Option(help="Number of a pair that is two coins; may be given again.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="SOURCE:ID of a coin that is not the one it was joined with.")
    ] = None,
    who: Who = None,
    why: Why = "reviewed",
    limit: Annotated[int, typer.Option(help="How many pairs to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the pairs that may be one coin, the likeliest first, and decide.

    In a terminal it asks, pair by pair. A decision is kept with who, when and why, and the unified rows of exactly the
    days of its coins are made again at once.
    """
    enter(settings())
    with current_engine().begin() as connection:
        decided = [
            *(Decision(SAME, store.open_pair(connection, number), _who(who), why) for number in accept or ()),
            *(Decision(DIFFERENT, store.open_pair(connection, number), _who(who), why) for number in reject or ()),
            *(Decision(DIFFERENT, pair, _who(who), why) for told in split or () for pair in _split(connection, told)),
        ]
        _decide(connection, decided)
        waiting = store.open_pairs(connection, limit)
    if as_json:
        _print_json(waiting)
    elif not decided and waiting and sys.stdin.isatty():
        decided = _ask(waiting, _who(who), why)
    elif not decided:
        _show_waiting(waiting)
    if decided:
        _unify()


@app.command()
def decisions(as_json: AsJson = False) -> None:
    """Show what was decided, the latest first; also what was undone."""
    enter(settings())
    with current_engine().connect() as connection:
        rows = store.decisions(connection, that_hold=False)
    if as_json:
        _print_json(rows)
        return
    table = Table("number", "ruling", "coin", "and", "who", "when", "why", "undone")
    for row in rows:
        undone = f"{row.undone_at:%Y-%m-%d %H:%M} {row.undone_by}: {row.undone_why}" if row.undone_at else ""
        told = (row.ruling, *_two(row), row.who, f"{row.decided_at:%Y-%m-%d %H:%M}", row.why, undone)
        table.add_row(str(row.id), *map(escape, told))
    console.print(table)


@app.command()
def undo(
    numbers: Annotated[list[int], typer.Argument(help="Decisions' numbers, see `kasparro identity decisions`.")],
    who: Who = None,
    why: Why = "undone",
) -> None:
    """Take decisions back: what they joined is two again, what they parted may be one again."""
    enter(settings())
    with current_engine().begin() as connection:
        for number in numbers:
            store.undo(connection, number, _who(who), why)
    _unify()


@app.command(name="export")
def export_(file: Annotated[Path, typer.Argument(help="CSV to write, such as identity_overrides.csv.")]) -> None:
    """Write the decisions that hold into a file that can be edited and given to `import`."""
    enter(settings())
    with current_engine().connect() as connection:
        rows = store.decisions(connection, that_hold=True)
    count = write_rulings(
        file, (Ruling(row.ruling, *(getattr(row, n) for n in (*_PAIR, "who", "why"))) for row in rows)
    )
    console.print(f"[green]✓[/] {count} decisions in {escape(str(file))}")


@app.command(name="import")
def import_(file: Annotated[Path, typer.Argument(help="CSV as `export` writes it.")]) -> None:
    """Take decisions from a file; those that hold already are not taken again, and none is undone."""
    rulings = read_rulings(file)
    enter(settings())
    with current_engine().begin() as connection:
        hold = {
            (row.ruling, *(getattr(row, name) for name in _PAIR)) for row in store.decisions(connection, that_hold=True)
        }
        new = [
            Decision(ruling.ruling, Coins(*(getattr(ruling, name) for name in _PAIR)), ruling.who, ruling.why)
            for ruling in reversed(rulings)  # of two on one pair the first line counts, so it is decided last
            if (ruling.ruling, *(getattr(ruling, name) for name in _PAIR)) not in hold
        ]
        _decide(connection, new)
    console.print(f"[green]✓[/] {len(new)} decisions taken, {len(rulings) - len(new)} held already")
    if new:
        _unify()


def _decide(connection: sa.Connection, decided: Iterable[Decision]) -> None:
    for decision in decided:
        store.decide(connection, decision)


def _split(connection: sa.Connection, told: str) -> list[Coins]:
    source, _, source_coin_id = told.partition(":")
    return store.others_of(connection, source, source_coin_id)


def _ask(waiting: Sequence[sa.Row[Any]], who: str, why: str) -> list[Decision]:
    """Ask a person about pair after pair; each answer is kept at once."""
    decided: list[Decision] = []
    answers = {"s": SAME, "d": DIFFERENT}
    for row in waiting:
        _show_waiting([row])
        answer = typer.prompt("same, different, later or quit? [s/d/l/q]", default="l").strip().lower()[:1]
        if answer == "q":
            break
        if answer in answers:
            reason = typer.prompt("why", default=why)
            decision = Decision(answers[answer], Coins(*(getattr(row, name) for name in _PAIR)), who, reason)
            with current_engine().begin() as connection:
                _decide(connection, [decision])
            decided.append(decision)
    return decided


def _show_waiting(rows: Iterable[sa.Row[Any]]) -> None:
    table = Table("number", "likely", "reason", "evidence")
    for row in rows:
        table.add_row(str(row.id), *map(escape, (f"{row.confidence:.0%}", row.reason, row.evidence)))
    console.print(table if table.row_count else "nothing waits for a decision")


def _two(row: sa.Row[Any]) -> tuple[str, str]:
    return f"{row.source} {row.source_coin_id}", f"{row.other_source} {row.other_source_coin_id}"


def _who(who: str | None) -> str:
    return who or getpass.getuser()


def _print_json(rows: Iterable[sa.Row[Any]]) -> None:
    told: list[Mapping[str, Any]] = [dict(row._mapping) for row in rows]
    sys.stdout.write(json.dumps(told, indent=2, default=str) + "\n")


def _unify() -> None:
    """Make the unified rows of the days touched again."""
    from kasparro_pipeline.load import Loader  # noqa: PLC0415 - Dagster takes seconds to import

    unified = Loader().unify()
    if unified.error:
        raise KasparroError(f"the decision is kept, but its days could not be unified: {unified.error}")
    console.print(f"[green]✓[/] days unified: {unified.days_unified}")
