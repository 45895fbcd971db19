"""Numbers as people and spreadsheets write them, to the plain digits they name; on text alone, never through a float.

``$1.7T``, ``9,926,540,000``, ``44.089,0``, ``10,36K``, ``1 234.5``. Whether ``1,234`` is a thousand or a little more
than one is nothing that a single value can say: it is decided for a whole column (see `NumberForms`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.fields import RefusedError, shown

DecimalSign = Literal[".", ","]

SUPPLIES = frozenset({"circulating_supply", "total_supply", "max_supply"})
"""Counted in coins, so that ``19,957,137 BTC`` is one."""

_POWERS = {"": 0, "k": 3, "m": 6, "b": 9, "bn": 9, "t": 12}
_DOLLARS = frozenset({"$", "US$", "USD"})
_NO_UNITS = frozenset("#?*~\ufeff")
_SPACES = "\u00a0\u202f\u2009 "
_LOOSE = re.compile(
    r"(?P<sign>[+\-\u2212]?)\s*(?P<before>[^\s0-9.,+\-\u2212]{0,4})\s*(?P<sign2>[+\-\u2212]?)"
    rf"(?P<core>[0-9.,](?:[0-9.,'\u2019{_SPACES}]*[0-9.,])?)(?:[eE](?P<exponent>[+-]?[0-9]{{1,5}}))?"
    r"\s*(?P<power>(?:[KkMmBbTt]|[Bb][Nn])(?![^\W\d_]))?\s*(?P<after>[^\s0-9.,]{0,6})"
)
_SIGNS: tuple[tuple[DecimalSign, str], ...] = ((".", ","), (",", "."))
_GROUPED: dict[DecimalSign, re.Pattern[str]] = {
    sign: re.compile(
        rf"(?:(?P<whole>[0-9]+|[1-9][0-9]{{0,2}}(?:(?P<group>[{other}'\u2019{_SPACES}])[0-9]{{3}})"
        rf"(?:(?P=group)[0-9]{{3}})*)(?:\{sign}(?P<fraction>[0-9]*))?|\{sign}(?P<bare>[0-9]+))"
    )
    for sign, other in _SIGNS
}
_NOT_DIGIT = re.compile("[^0-9]+")

_TOO_MANY = {"price_usd": 3, "market_cap_usd": 5, "volume_24h_usd": 5}
"""So many points are no thousands of dollars: no coin costs a billion, and all of one no quadrillion."""


def number(column: str, value: str, decimal: DecimalSign | None) -> str | None:
    """The number as plain digits, fit for PostgreSQL's NUMERIC; None for a null.

    A plain number stays as it came. Without a `decimal` sign a number with a comma in it is refused.

    Raises:
        RefusedError: ``bad_number``, ``number_out_of_range``, or ``not_usd`` for an amount in another currency.
    """
    if decimal != ",":
        try:
            return fields.number(column, value)
        except RefusedError as refused:
            if refused.code != "bad_number":
                raise
    elif fields.is_null(value):
        return None
    return fields.number(column, _plain(column, value.strip(), decimal))


def whole(column: str, value: str, decimal: DecimalSign | None) -> int | None:
    """A whole number of 64 bits; see `number`."""
    digits = number(column, value, decimal)
    return None if digits is None else fields.whole(column, digits)


def shifted(digits: str, places: int) -> str:
    """`digits` (``10.36``, unsigned) times ten to the power of `places`, exactly."""
    before, _, after = digits.partition(".")
    if places < 0:
        before = before.rjust(1 - places, "0")
        before, after = before[:places], before[places:] + after
    else:
        after = after.ljust(places, "0")
        before, after = before + after[:places], after[places:]
    before = before.lstrip("0") or "0"
    return f"{before}.{after}" if after else before


def _plain(column: str, value: str, decimal: DecimalSign | None) -> str:
    match = _LOOSE.fullmatch(value) if len(value) <= fields.MAX_DIGITS else None
    if match is None:
        raise _refused(column, value, "is no number")
    _check_unit(column, value, match["before"], match["after"])
    core = match["core"]
    if decimal is None and "," in core:
        raise _refused(column, value, "may have a decimal comma or thousands; say which by `decimal` in defs.yaml")
    grouped = _GROUPED[decimal or "."].fullmatch(core)
    if grouped is None or (decimal == "," and "," not in core and core.count(".") >= _TOO_MANY.get(column, inf)):
        raise _refused(column, value, _why_not(core))
    digits = _NOT_DIGIT.sub("", grouped["whole"] or "0")
    fraction = grouped["fraction"] or grouped["bare"]
    plain = f"{digits}.{fraction}" if fraction else digits
    if match["power"]:
        if match["exponent"]:
            raise _refused(column, value, "is no number")
        plain = shifted(plain, _POWERS[match["power"].lower()])
    if match["sign"] and match["sign2"]:
        raise _refused(column, value, "is no number")
    sign = "-" if (match["sign"] or match["sign2"]) in ("-", "\u2212") else ""
    return f"{sign}{plain}" + (f"e{match['exponent']}" if match["exponent"] else "")


def _why_not(core: str) -> str:
    if core.count(".") > 1 or core.count(",") > 1:
        return "has lost its decimal sign, as spreadsheets do; export the file again"
    return "is no number in the form that its column has"


def _check_unit(column: str, value: str, before: str, after: str) -> None:
    if column in SUPPLIES and not before and after.isalnum():
        return
    for unit in (before, after):
        if unit and unit not in _DOLLARS:
            if unit == "%":
                raise _refused(column, value, "is a percentage")
            if column != "rank" and unit not in _NO_UNITS and (not unit.isalpha() or unit.isupper()):
                raise RefusedError("not_usd", f"{column}: {shown(value)} is an amount in {unit}, not in USD")
            raise _refused(column, value, "is no number")


def _refused(column: str, value: str, why: str) -> RefusedError:
    return RefusedError("bad_number", f"{column}: {shown(value)} {why}")


@dataclass
class NumberForms:
    """What the numbers of a file's columns show: a decimal point, a decimal comma, or neither."""

    proofs: dict[str, dict[DecimalSign, str]] = field(default_factory=dict)
    """Column to the first value that can be read only with this decimal sign."""
    doubtful: dict[str, str] = field(default_factory=dict)
    """Column to the first value that can be read either way and holds a comma."""
    dotted: dict[str, str] = field(default_factory=dict)
    """Column to the first value like ``44.089``."""
    dots_are_doubtful: bool = False
    """Such a value may be 44,089: the file is of a kind that has decimal commas, or has shown ``1.234.567``."""

    def add(self, column: str, value: str) -> None:
        """Look at one value."""
        match = _LOOSE.fullmatch(value.strip()) if len(value) <= fields.MAX_DIGITS else None
        if match is None:
            return
        core = match["core"]
        if core.count(".") > 1 and "," not in core:
            self.dots_are_doubtful = True  # thousands, or what a spreadsheet left of a number: no proof of either
            return
        if match["exponent"] and ("." in core or "," in core):
            ways: list[DecimalSign] = [sign for sign in _GROUPED if sign in core]
        else:
            ways = [sign for sign, form in _GROUPED.items() if form.fullmatch(core)]
        if len(ways) == 1:
            self.proofs.setdefault(column, {}).setdefault(ways[0], value)
        elif "," in core and ways:
            self.doubtful.setdefault(column, value)
        elif "." in core and ways:
            self.dotted.setdefault(column, value)

    @property
    def is_settled(self) -> bool:
        """Whether no column is in doubt."""
        return all(self.proofs.get(column) or len(self._of_file) == 1 for column in self._in_doubt)

    def decimals(self) -> Mapping[str, DecimalSign | None]:
        """Column to its decimal sign; the columns that show none have the one that the file's other columns agree on.

        Raises:
            RefusedError: ``ambiguous_numbers``; a column shows both, or nothing tells what it has.
        """
        for column, proofs in self.proofs.items():
            if len(proofs) == 2:
                raise _ambiguous(f"{column} has a decimal comma in {shown(proofs[','])}, a point in {proofs['.']!r}")
        for column, value in self._in_doubt.items():
            if column not in self.proofs and len(self._of_file) != 1:
                raise _ambiguous(f"{column}: nothing tells whether {shown(value)} has thousands or decimals")
        rest = next(iter(self._of_file)) if len(self._of_file) == 1 else None
        signs: dict[str, DecimalSign | None] = {column: next(iter(proofs)) for column, proofs in self.proofs.items()}
        return {"": rest, **signs}

    @property
    def _in_doubt(self) -> dict[str, str]:
        return {**(self.dotted if self.dots_are_doubtful else {}), **self.doubtful}

    @property
    def _of_file(self) -> set[DecimalSign]:
        return {sign for proofs in self.proofs.values() for sign in proofs}


def _ambiguous(what: str) -> RefusedError:
    return RefusedError("ambiguous_numbers", f"{what}; set `decimal` for this file in defs.yaml")
