from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa

from kasparro_pipeline.warehouse.frames import key_range
from kasparro_pipeline.warehouse.merge import MergeError
from kasparro_tests.warehouse.things import C_TEXT, TIME, counts, merge, stored, thing

EXACT = [
    "1e-1000",
    "123456789012345678901234567890123456789012345.5",
    "1.97e37",
    "3.84e-18",
    "9223372036854775807",
    "0",
]
MIDNIGHT = datetime(2026, 6, 1)  # noqa: DTZ001 - without a zone on purpose
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
TOKYO = timezone(timedelta(hours=9))


def one(column: str, *values: Any) -> pa.Table:
    """A frame with `column`, whose values may be an Arrow array."""
    array = values[0] if isinstance(values[0], pa.Array | pa.ChunkedArray) else pa.array(values)
    return pa.table({"kind": ["a"] * len(array), "no": list(range(len(array))), column: array})


def pandas_one(column: str, values: Any) -> pd.DataFrame:
    return pd.DataFrame({"kind": "a", "no": range(len(values)), column: values})


def values(engine: sa.Engine, column: str) -> list[Any]:
    return [value for (value,) in stored(engine, column)]


class TestNumbers:
    @pytest.mark.parametrize(
        "frame",
        [
            one("price", *EXACT),
            one("price", pa.array(EXACT).dictionary_encode()),
            one("price", pa.array(EXACT, pa.large_string())),
            one("price", pa.array(EXACT, pa.string_view())),
            pandas_one("price", EXACT),
            pandas_one("price", pd.Series(EXACT, dtype=object)),
            pandas_one("price", pd.Categorical(EXACT)),
            pandas_one("price", [Decimal(digits) for digits in EXACT]),
        ],
        ids=["text", "dictionary", "large_string", "string_view", "str", "object", "categorical", "Decimal"],
    )
    def test_every_digit_is_kept(self, shop: sa.Engine, frame: pa.Table | pd.DataFrame) -> None:
        merge(shop, frame)
        assert [Decimal(value) for value in values(shop, "price")] == [Decimal(digits) for digits in EXACT]
        assert counts(merge(shop, frame)) == {"staged": 6, "unchanged": 6}

    @pytest.mark.parametrize(
        ("kind", "number"),
        [(pa.decimal128(38, 37), "1.9700000000000000000000000000000000001"), (pa.decimal256(76, 50), f"{'9' * 26}.5")],
    )
    def test_arrow_decimals(self, shop: sa.Engine, kind: pa.DataType, number: str) -> None:
        merge(shop, one("price", pa.array([Decimal(number), None], kind)))
        assert Decimal(values(shop, "price")[0]) == Decimal(number)
        assert values(shop, "price")[1] is None

    @pytest.mark.parametrize(
        "frame",
        [
            one("price", 0.5),
            one("price", pa.array([0.5], pa.float32())),
            one("price", pa.array([0.5]).dictionary_encode()),
            pandas_one("price", [0.5, None]),
            pandas_one("price", pd.Series([Decimal(1), 0.5], dtype=object)),
            pandas_one("price", pd.Series([Decimal(1), np.float32(0.5)], dtype=object)),
        ],
    )
    def test_a_float_is_refused(self, shop: sa.Engine, frame: pa.Table | pd.DataFrame) -> None:
        with pytest.raises(MergeError, match=r"^shop\.thing.*price: a float has lost digits"):
            merge(shop, frame)

    def test_missing_numbers_of_pandas_are_null(self, shop: sa.Engine) -> None:
        missing = [None, float("nan"), pd.NA, pd.NaT, Decimal("NaN"), Decimal(1)]
        merge(shop, pandas_one("price", pd.Series(missing, dtype=object)))
        assert values(shop, "price") == [None] * 5 + ["1"]
        assert merge(shop, pandas_one("price", [float("nan")])).unchanged == 1

    @pytest.mark.parametrize("dtype", ["Int64", "UInt8", "int64[pyarrow]", object])
    def test_integers_of_pandas(self, shop: sa.Engine, dtype: Any) -> None:
        merge(shop, pandas_one("amount", pd.Series([1, None, 3], dtype=dtype)))
        assert values(shop, "amount") == [1, None, 3]

    def test_the_greatest_integer(self, shop: sa.Engine) -> None:
        merge(shop, one("amount", 2**63 - 1, -(2**63)))
        assert values(shop, "amount") == [2**63 - 1, -(2**63)]

    @pytest.mark.parametrize("amount", [1.5, "x", 2**63])
    def test_what_is_no_integer_is_refused(self, shop: sa.Engine, amount: Any) -> None:
        array = pa.array([amount], pa.uint64() if isinstance(amount, int) else None)
        with pytest.raises(MergeError, match=r"^shop\.thing\.amount: .*(truncated|parse|not in range)"):
            merge(shop, one("amount", array))


class TestTimes:
    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    @pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "-05:00"])
    def test_of_any_unit_and_zone(self, shop: sa.Engine, unit: str, zone: str) -> None:
        merge(shop, one("at", pa.array([NOON, None], pa.timestamp(unit, tz=zone))))
        assert values(shop, "at") == [NOON, None]

    def test_do_not_depend_on_the_session(self, shop: sa.Engine) -> None:
        elsewhere = sa.create_engine(shop.url, connect_args={"options": "-c timezone=Asia/Tokyo"})
        merge(elsewhere, one("at", pa.array([NOON], pa.timestamp("us", tz="UTC"))))
        assert values(elsewhere, "at") == [NOON]
        elsewhere.dispose()

    @pytest.mark.parametrize("at", [NOON.replace(microsecond=1), NOON.astimezone(TOKYO), pd.Timestamp(NOON)])
    def test_of_pandas(self, shop: sa.Engine, at: datetime) -> None:
        merge(shop, pandas_one("at", [at, pd.NaT]))
        assert values(shop, "at") == [at, None]

    def test_all_missing(self, shop: sa.Engine) -> None:
        merge(shop, pandas_one("at", [pd.NaT, pd.NaT]))
        assert values(shop, "at") == [None, None]

    def test_far_away(self, shop: sa.Engine) -> None:
        far = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]
        merge(shop, one("at", pa.array(far, pa.timestamp("us", tz="UTC"))))
        assert values(shop, "at") == far

    @pytest.mark.parametrize(
        ("column", "array", "reason"),
        [
            ("at", pa.array([MIDNIGHT]), "use timestamps with a time zone"),
            ("at_local", pa.array([NOON]), "use timestamps without a time zone"),
            ("at", pa.array(["2026-06-01T00:00Z"]), "the data is string; use timestamps"),
            ("at", pa.array([date(2026, 6, 1)]), "the data is date32.day.; use timestamps"),
            ("at", pa.array([1], pa.timestamp("ns", tz="UTC")), "would lose data"),
            ("day", pa.array([MIDNIGHT.replace(hour=1)]), "with a time of day"),
            ("day", pa.array([datetime(2026, 6, 1, tzinfo=UTC)]), "or a time zone"),
        ],
    )
    def test_what_is_not_one_moment_is_refused(
        self, shop: sa.Engine, column: str, array: pa.Array, reason: str
    ) -> None:
        with pytest.raises(MergeError, match=rf"^shop\.thing\.{column}: .*{reason}"):
            merge(shop, one(column, array))

    def test_without_a_zone(self, shop: sa.Engine) -> None:
        local = MIDNIGHT.replace(hour=1, second=2, microsecond=3)
        merge(shop, one("at_local", local))
        assert values(shop, "at_local") == [local]

    @pytest.mark.parametrize(
        "days",
        [
            pa.array([date(2026, 6, 1), None], pa.date32()),
            pa.array([date(2026, 6, 1), None], pa.date64()),
            pa.array([MIDNIGHT, None], pa.timestamp("ns")),
            pa.array(["2026-06-01", None]),
        ],
    )
    def test_days(self, shop: sa.Engine, days: pa.Array) -> None:
        merge(shop, one("day", days))
        assert values(shop, "day") == [date(2026, 6, 1), None]


class TestTexts:
    TEXTS = [
        '"quoted" and "", twice""',
        "comma, semicolon; tab\t",
        "line\nline\r\nline\r",
        "back\\slash \\N \\n",
        "\\.",
        "\\N",
        "",
        None,
        "NULL",
        " spaced ",
        "Ünïcödé 🪙 \u202e \ufeff",
    ]

    @pytest.mark.parametrize(
        "frame",
        [
            one("Note", *TEXTS),
            one("Note", pa.array(TEXTS).dictionary_encode()),
            pandas_one("Note", TEXTS),
            pandas_one("Note", pd.Series(TEXTS, dtype=object)),
            pandas_one("Note", pd.Series(TEXTS, dtype="string[pyarrow]")),
        ],
    )
    def test_arrive_as_they_are(self, shop: sa.Engine, frame: pa.Table | pd.DataFrame) -> None:
        merge(shop, frame)
        assert values(shop, "Note") == self.TEXTS
        assert counts(merge(shop, frame)) == {"staged": 11, "unchanged": 11}

    def test_as_keys(self, shop: sa.Engine) -> None:
        kinds = [text for text in self.TEXTS if text is not None]
        frame = pa.table({"kind": kinds, "no": [1] * len(kinds)})
        merge(shop, frame)
        assert set(values(shop, "kind")) == set(kinds)
        assert merge(shop, frame).unchanged == len(kinds)

    def test_bytes(self, shop: sa.Engine) -> None:
        bodies = [b"", b"\x00\xff\\", None, b'"']
        merge(shop, one("body", pa.array(bodies)))
        assert values(shop, "body") == bodies

    @pytest.mark.parametrize(
        ("column", "array", "reason"),
        [
            ("body", pa.array(["text"]), "the data is string; use bytes"),
            ("Note", pa.array([b"\xff"]), "Invalid UTF8"),
            ("tags", pa.array([["x"]]), r"a column of list<.*> can only come from a Select"),
            ("amount", pa.array([timedelta(1)]), r"a column of duration.* can only come from a Select"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, shop: sa.Engine, column: str, array: pa.Array, reason: str) -> None:
        with pytest.raises(MergeError, match=rf"^shop\.thing\.{column}: {reason}"):
            merge(shop, one(column, array))

    @pytest.mark.parametrize("note", ["a\ud800", object(), {1}])
    def test_what_pandas_cannot_hand_on_is_refused(self, shop: sa.Engine, note: Any) -> None:
        with pytest.raises(MergeError, match=r"^shop\.thing: "):
            merge(shop, pandas_one("Note", pd.Series(["x", note], dtype=object)))


class TestColumns:
    @pytest.mark.parametrize(
        ("frame", "reason"),
        [
            (one("colour", "red"), "has no column colour"),
            (pd.DataFrame({"kind": ["a"], "no": [1], 7: ["x"]}), "has no column 7"),
            (pa.table({"kind": ["a"]}), "column no is missing from the data"),
            (pa.table([["a"], [1], [2]], names=["kind", "no", "no"]), "column no is in the data twice"),
            (pd.DataFrame([["a", 1, 2]], columns=["kind", "no", "no"]), "column no is in the data twice"),
            (pa.table({"kind": ["a", None], "no": [1, 2]}), "key column kind is null in 1 of 2 rows"),
            (pd.DataFrame({"kind": ["a", "b"], "no": [1, None]}), "key column no is null in 1 of 2 rows"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, shop: sa.Engine, frame: pa.Table | pd.DataFrame, reason: str) -> None:
        with pytest.raises(MergeError, match=rf"^shop\.thing:? {reason}$"):
            merge(shop, frame)

    def test_that_need_a_value_must_be_there(self, shop: sa.Engine) -> None:
        strict = thing.to_metadata(sa.MetaData())
        strict.c.price.nullable = strict.c.updated_at.nullable = False
        with pytest.raises(MergeError, match=r"^shop\.thing: column price is missing from the data$"):
            merge(shop, one("Note", "x"), table=strict)

    def test_in_any_order_and_left_out_keep_what_is_stored(self, shop: sa.Engine) -> None:
        merge(shop, one("price", "1"))
        merge(shop, one("Note", "x").select(["Note", "no", "kind"]))
        assert stored(shop, "price", "Note") == [("1", "x")]

    def test_the_index_of_pandas_is_no_column(self, shop: sa.Engine) -> None:
        merge(shop, pandas_one("price", ["1", "2"]).set_index(pd.Index([7, 8], name="colour")))
        assert values(shop, "price") == ["1", "2"]

    def test_the_frame_is_left_as_it_was(self, shop: sa.Engine) -> None:
        frame = pandas_one("price", pd.Series([Decimal("1.50")], dtype=object))
        merge(shop, frame)
        assert frame["price"].tolist() == [Decimal("1.50")]
        assert isinstance(frame["price"][0], Decimal)


class TestKeyRange:
    TIMED = sa.Table(
        "timed",
        sa.MetaData(),
        sa.Column("kind", C_TEXT, primary_key=True),
        sa.Column("at", TIME, primary_key=True),
        sa.Column("no", sa.Integer, primary_key=True),
    )

    @staticmethod
    def _rows(*keys: tuple[str, datetime, int]) -> pa.Table:
        kinds, times, numbers = zip(*keys, strict=True)
        at = pa.array(times, pa.timestamp("us", tz="Asia/Tokyo")).dictionary_encode()
        return pa.table({"no": [str(number) for number in numbers], "kind": kinds, "at": at})

    def test_is_that_of_whole_keys(self) -> None:
        later = NOON + timedelta(seconds=1)
        low, high = key_range(self._rows(("b", NOON, 1), ("a", later, 10), ("a", later, 9), ("b", NOON, 0)), self.TIMED)
        assert low == ["a", "2026-06-01 12:00:01.000000+00", "9"]
        assert high == ["b", "2026-06-01 12:00:00.000000+00", "1"]

    def test_is_in_the_order_of_bytes(self) -> None:
        low, high = key_range(self._rows(("é", NOON, 1), ("z", NOON, 1), ("Z", NOON, 1)), self.TIMED)
        assert (low[0], high[0]) == ("Z", "é")
