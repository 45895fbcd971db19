from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.csv.explain import explain
from kasparro_pipeline.sources.csv.reading import CsvReading
from kasparro_tests.sources.samples import CSV

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def observed(tmp_path, content: str | bytes, request: str = "investing/prices.csv", **told):
    file = tmp_path / "file.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    reading = CsvReading.of(CSV.columns, [{"match": "investing/*.csv", **told}])
    found = explain(file, request, reading, date(2009, 1, 3), NOW)
    columns = ("source_coin_id", "symbol", "name", "observed_at", "price_usd", "volume_24h_usd")
    return found, [tuple(row[column] for column in columns) for row in found.rows]


def test_everything_may_be_said_of_a_file(tmp_path):
    content = "Währung;Datum;Zuletzt;Vol.\nschon;wieder;x;y\nWährung;Datum;Zuletzt;Vol.\nÜ;01.02.2020;44.089;10,36K\n"
    found, rows = observed(
        tmp_path,
        content.encode("latin-1"),
        delimiter=";",
        encoding="latin-1",
        decimal=",",
        date_order="dmy",
        header_line=3,
        columns={"price_usd": "zuletzt", "observed_at": ["datum"], "volume_24h_usd": "vol.", "symbol": "Währung"},
    )
    assert rows == [("Ü", "Ü", None, datetime(2020, 2, 1, tzinfo=UTC), "44089", "10360")]
    assert found.dialect == {
        "encoding": "latin-1",
        "delimiter": ";",
        "header line": 3,
        "mapping": {
            "symbol": "Währung",
            "price_usd": "Zuletzt",
            "volume_24h_usd": "Vol.",
            "observed_at": "Datum",
        },
        "decimal sign": {"price_usd": ",", "volume_24h_usd": ","},
        "date order": "dmy",
    }
    assert (found.records, found.observations, found.quarantined) == (1, 1, {})


def test_a_file_without_a_header_and_without_a_coin(tmp_path):
    told = {"header": ["date", "price", "x"], "coin": {"symbol": "BTC", "name": "Bitcoin"}}
    _, rows = observed(tmp_path, "2020-01-01|1.5|a\n2020-01-02|2|b\n", **told)
    assert rows[1] == ("btc-bitcoin", "BTC", "Bitcoin", datetime(2020, 1, 2, tzinfo=UTC), "2", None)
    assert len(rows) == 2


def test_a_coin_in_another_currency_is_refused(tmp_path):
    found, _ = observed(tmp_path, "date,price\n2020-01-01,1\n", coin={"id": "bitcoin", "quote": "EUR"})
    assert found.quarantined == {"not_usd": 1}


def test_a_format_counts_for_the_files_it_matches_only(tmp_path):
    found, _ = observed(tmp_path, "id,date,price\na,2020-01-01,1\n", "kaggle/prices.csv", delimiter=";")
    assert found.observations == 1
    found, _ = observed(tmp_path, "id,date,price\na,2020-01-01,1\n", delimiter=";")
    assert found.quarantined == {"no_known_column": 1}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"delimeter": ";"}, "unknown field `delimeter`"),
        ({"delimiter": "x"}, "Invalid enum value 'x' - at `$.delimiter`"),
        ({"decimal": 1}, "at `$.decimal`"),
        ({"date_order": "ydm"}, "Invalid enum value 'ydm'"),
        ({"header_line": "first"}, "at `$.header_line`"),
        ({"header_line": 0}, "lines are counted from 1"),
        ({"header": ["a"], "header_line": 1}, "leave out header_line"),
        ({"encoding": "utf-99"}, "unknown encoding: utf-99"),
        ({"encoding": "utf-7"}, "unknown encoding: utf-7"),
        ({"columns": {"prise": "x"}}, "no column prise"),
        ({"coin": {}}, "coin needs a symbol, a name or an id"),
    ],
)
def test_a_wrong_key_or_value_is_one_clear_line(entry, said):
    with pytest.raises(KasparroError) as caught:
        CsvReading.of(CSV.columns, [{"match": "*"}, {"match": "a/*", **entry}])
    assert str(caught.value).startswith("formats[1] (a/*): ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_format_without_a_pattern_is_refused():
    with pytest.raises(KasparroError, match=r"without match.*missing required field `match`"):
        CsvReading.of(CSV.columns, [{"delimiter": ";"}])


def test_what_would_be_quarantined_is_counted_with_examples(tmp_path):
    content = "id,date,price\n" + "a,2020-01-01,x\n" * 5 + "b,2020-01-01,1\n,2020-01-01,1\n"
    found, rows = observed(tmp_path, content)
    assert (found.records, found.observations, found.quarantined) == (7, 1, {"bad_number": 5, "missing_key": 1})
    assert [example["location"] for example in found.examples] == [f"investing/prices.csv:{n}" for n in (2, 3, 4, 8)]
    assert found.source == "csv_investing"
    assert len(rows) == 1
