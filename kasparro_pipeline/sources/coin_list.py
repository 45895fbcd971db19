"""A vendor's own list of its coins, and of their contracts: records to rows.

A list is an array of coins, which may hold their contracts by platform (CoinGecko), or the contracts of one platform
(CoinPaprika). Formats: https://docs.coingecko.com/reference/coins-list, https://api.coinpaprika.com (``/coins``,
``/contracts/{platform}``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import msgspec

from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.chains import address_on, chain_of
from kasparro_pipeline.sources.collect import shown_record
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.json_text import UNREADABLE, Path, records_at
from kasparro_pipeline.sources.records import Quarantined

_Record = Mapping[str, Any] | list[Any]
_Row = TypeVar("_Row", bound=tuple[Any, ...])


@dataclass(frozen=True, slots=True)
class ListMapping:
    """Where the records of a list and their values are. What a vendor does not have is as if it were null."""

    record_path: Path = ()
    source_coin_id: Path = ("id",)
    symbol: Path = ("symbol",)
    name: Path = ("name",)
    listed: Path = ("is_active",)
    """Whether the coin is still traded; where it is null, it is."""
    contracts: Path = ("platforms",)
    """An object of addresses by platform."""


@dataclass(frozen=True, slots=True)
class ContractMapping:
    """Where the records of a list of contracts and their values are."""

    record_path: Path = ()
    source_coin_id: Path = ("id",)
    address: Path = ("address",)
    listed: Path = ("active",)


class Contract(NamedTuple):
    """An address that a source gives as a coin's."""

    source_coin_id: str
    chain: str
    address: str
    platform: str
    """What the source calls the chain."""
    listed: bool
    position: int
    """Record in the payload, from 1."""


class ListedCoin(NamedTuple):
    """A coin as its source lists it."""

    source_coin_id: str
    symbol: str | None
    name: str | None
    listed: bool
    contracts: tuple[tuple[str, str], ...]
    """Platform and address, as the source has them, in its order."""
    position: int


@dataclass(slots=True)
class ParsedList:
    """What one payload lists: ``records == rows + duplicates + len(quarantined)``, where the rows are its coins, or its
    contracts where it lists only those."""

    coins: list[ListedCoin] = field(default_factory=list)
    contracts: list[Contract] = field(default_factory=list)
    records: int = 0
    duplicates: int = 0
    """Records equal to another one of the same payload."""
    quarantined: list[Quarantined] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)
    """Coins of quarantined records: what those say of them is not known."""
    tells_contracts: bool = False
    """A coin that is listed without a contract has none; otherwise nothing is said of it."""


def parse_coins(body: bytes, request: str, mapping: ListMapping) -> ParsedList:
    """The coins of a list; what is none is quarantined with its reason."""
    parsed = ParsedList()

    def read(record: _Record, position: int) -> ListedCoin:
        coin = _id(record, mapping.source_coin_id)
        symbol, name = (_text(record, path) for path in (mapping.symbol, mapping.name))
        told = _value(record, mapping.contracts)
        parsed.tells_contracts |= told is not None
        return ListedCoin(coin, symbol, name, _flag(record, mapping.listed), _contracts(mapping, told), position)

    parsed.coins = _read(body, request, mapping, parsed, read, lambda coin: coin.source_coin_id)
    for coin in parsed.coins:
        # two platforms may be one chain, and an address may be there in two spellings
        found = {(chain := chain_of(name), address_on(chain, text)): name for name, text in coin.contracts}
        parsed.contracts += [
            Contract(coin.source_coin_id, *key, platform, listed=coin.listed, position=coin.position)
            for key, platform in found.items()
        ]
    return parsed


def parse_contracts(body: bytes, request: str, platform: str, mapping: ContractMapping) -> ParsedList:
    """The contracts of one platform's list; what is none is quarantined with its reason."""
    parsed = ParsedList(tells_contracts=True)
    chain = chain_of(platform)

    def read(record: _Record, position: int) -> Contract:
        coin, address = _id(record, mapping.source_coin_id), _text(record, mapping.address)
        if address is None:
            raise RefusedError("missing_key", f"{'.'.join(mapping.address)} is missing")
        return Contract(
            coin, chain, address_on(chain, address), platform, listed=_flag(record, mapping.listed), position=position
        )

    parsed.contracts = _read(body, request, mapping, parsed, read, lambda found: found[:3])
    return parsed


def _read(  # noqa: PLR0913, PLR0917
    body: bytes,
    request: str,
    mapping: ListMapping | ContractMapping,
    parsed: ParsedList,
    read: Callable[[_Record, int], _Row],
    key_of: Callable[[_Row], Hashable],
) -> list[_Row]:
    """The rows of `body`, with the books kept in `parsed`; of two that differ under one key the later counts."""
    try:
        records = records_at(body, mapping.record_path)
    except RefusedError as refused:
        parsed.records = 1
        parsed.quarantined.append(Quarantined(0, request, refused.code, refused.reason, shown_record(body)))
        return []
    parsed.records = len(records)
    rows: dict[Hashable, _Row] = {}

    def refuse(position: int, refused: RefusedError) -> None:
        place, shown = f"{request} record {position}", shown_record(records[position - 1])
        parsed.quarantined.append(Quarantined(position, place, refused.code, refused.reason, shown))

    for position, record in enumerate(records, 1):
        try:
            told = _decoded(record)
        except RefusedError as refused:
            refuse(position, refused)
            continue
        try:
            row = read(told, position)
        except RefusedError as refused:
            refuse(position, refused)
            with suppress(RefusedError):
                parsed.doubtful.add(_id(told, mapping.source_coin_id))
            continue
        key = key_of(row)
        earlier = rows.get(key)
        if earlier is not None and earlier[:-1] == row[:-1]:
            parsed.duplicates += 1
            continue
        if earlier is not None:
            reason = f"record {position} says something else of {fields.shown(str(row[0]))}, and counts"
            refuse(earlier[-1], RefusedError("conflict", reason))
        rows[key] = row
    parsed.quarantined.sort(key=lambda quarantined: quarantined.position)
    return list(rows.values())


def _decoded(record: msgspec.Raw | bytes) -> _Record:
    try:
        found = msgspec.json.decode(record)
    except UNREADABLE as error:
        raise RefusedError("bad_json", f"the record cannot be read: {error}") from None
    if not isinstance(found, dict | list):
        raise RefusedError("bad_type", "the record is neither an object nor an array")
    return found


def _value(record: _Record, path: Path) -> Any:  # noqa: ANN401 - whatever JSON has there
    found: Any = record
    for key in path:
        if isinstance(found, list):
            found = dict(enumerate(found)).get(int(key)) if key.isdecimal() else None
        else:
            found = found.get(key) if isinstance(found, dict) else None
    return found


def _text(record: _Record, path: Path) -> str | None:
    found, name = _value(record, path), ".".join(path)
    if found is None:
        return None
    if not isinstance(found, str | int) or isinstance(found, bool):
        raise RefusedError("bad_type", f"{name}: {fields.shown(repr(found))} is no text")
    return fields.text(name, found)


def _id(record: _Record, path: Path) -> str:
    coin = _text(record, path)
    if coin is None:
        raise RefusedError("missing_key", f"{'.'.join(path)} is missing")
    return coin


def _flag(record: _Record, path: Path) -> bool:
    found = _value(record, path)
    if found is None:
        return True
    if found not in (True, False):  # or 1, or 0
        raise RefusedError("bad_type", f"{'.'.join(path)}: {fields.shown(repr(found))} is neither true nor false")
    return bool(found)


def _contracts(mapping: ListMapping, told: object) -> tuple[tuple[str, str], ...]:
    if told is None:
        return ()
    name = ".".join(mapping.contracts)
    if not isinstance(told, dict):
        raise RefusedError("bad_type", f"{name}: {fields.shown(repr(told))} is no object of addresses by platform")
    found = ((platform.strip(), _text(told, (platform,))) for platform in told)
    return tuple((platform, address) for platform, address in found if platform and address)


def platform_of(endpoint: str, request: str) -> str | None:
    """What stands in the place of ``{platform}`` in `endpoint` where the URL `request` asks for it; else None."""
    before, _, after = endpoint.partition("{platform}")
    found = re.search(f"{re.escape(before)}([^/?]+){re.escape(after)}$", request.partition("?")[0])
    return found[1] if found else None
