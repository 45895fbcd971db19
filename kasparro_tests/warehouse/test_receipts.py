from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pytest
import sqlalchemy as sa

from kasparro_pipeline.warehouse import frames, receipts
from kasparro_pipeline.warehouse.merge import Merge, Merged, Window
from kasparro_pipeline.warehouse.merge_sql import KeyRange, Target
from kasparro_pipeline.warehouse.receipts import Receipt, Receipts
from kasparro_pipeline.warehouse.tables import merge_receipt
from kasparro_tests.warehouse.things import counts, merge, stored, thing, things

ROWS = [("a", no, str(no)) for no in range(receipts.MIN_ROWS)]
CHUNK = things(*ROWS)
ALL_UNCHANGED = {"staged": len(ROWS), "unchanged": len(ROWS)}


@pytest.fixture
def loaded(shop: sa.Engine) -> sa.Engine:
    """`CHUNK` was merged, and its receipt holds."""
    assert load(shop).inserted == len(ROWS)
    with nothing_sent():
        assert counts(load(shop)) == ALL_UNCHANGED
    return shop


def load(engine: sa.Engine, *loaded: pa.Table) -> Merged:
    return merge(engine, *(loaded or [CHUNK]), receipts=merge_receipt)


@contextmanager
def nothing_sent() -> Iterator[None]:
    """Whoever sends a row in here fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("rows were sent")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Merge, "_copy", refuse)
        yield


def execute(engine: sa.Engine, statement: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [
        ("UPDATE shop.thing SET price = -1 WHERE no = 500", {"updated": 1}),
        ("DELETE FROM shop.thing WHERE no IN (0, 999)", {"inserted": 2}),
        ("DELETE FROM shop.thing", {"inserted": 1000}),
        ("UPDATE shop.thing SET no = no + 1000 WHERE no = 7", {"inserted": 1}),
        ("UPDATE shop.thing SET price = price WHERE no = 500", {}),
        ("INSERT INTO shop.thing (kind, no) SELECT 'a', 1000; DELETE FROM shop.thing WHERE no = 3", {"inserted": 1}),
        ("VACUUM FULL shop.thing", {}),
        ("UPDATE kasparro.merge_receipt SET versions = '1:' || split_part(versions, ':', 2)", {}),
        ("TRUNCATE kasparro.merge_receipt", {}),
    ],
)
def test_whoever_changes_the_rows_makes_them_compared_again(
    loaded: sa.Engine, statement: str, outcome: dict[str, int]
) -> None:
    execute(loaded, statement)
    with pytest.raises(AssertionError, match="rows were sent"), nothing_sent():
        load(loaded)
    merged = load(loaded)
    written = {"inserted": 0, "updated": 0} | outcome
    assert {"inserted": merged.inserted, "updated": merged.updated} == written
    assert merged.unchanged == 1000 - sum(written.values())
    assert set(ROWS) <= set(stored(loaded))


def test_a_changed_and_vacuumed_place_is_not_taken_for_the_old_row(loaded: sa.Engine) -> None:
    """The new row comes to lie exactly where the old one lay; only its transaction tells them apart."""
    place = "SELECT ctid::text FROM shop.thing WHERE no = 999"
    with loaded.connect() as connection:
        before = connection.exec_driver_sql(place).scalar()
    execute(loaded, "DELETE FROM shop.thing WHERE no = 999")
    execute(loaded, "VACUUM shop.thing")
    execute(loaded, "INSERT INTO shop.thing (kind, no, price) VALUES ('a', 999, -1)")
    with loaded.connect() as connection:
        assert connection.exec_driver_sql(place).scalar() == before
    assert load(loaded).updated == 1


def test_a_row_beside_the_range_does_not_matter(loaded: sa.Engine) -> None:
    execute(loaded, "INSERT INTO shop.thing (kind, no) VALUES ('b', 1), ('a', 1000), ('', 5)")
    with nothing_sent():
        assert counts(load(loaded)) == ALL_UNCHANGED


def test_the_first_comparison_leaves_a_receipt_too(shop: sa.Engine) -> None:
    merge(shop, CHUNK)
    assert counts(load(shop)) == ALL_UNCHANGED
    with nothing_sent():
        assert counts(load(shop)) == ALL_UNCHANGED


def test_later_frames_of_the_same_transaction_are_seen(shop: sa.Engine) -> None:
    merged = load(shop, CHUNK, things(("a", 5, "-1")), CHUNK)
    assert counts(merged) == {"staged": 2001, "inserted": 1000, "updated": 2, "unchanged": 999}
    assert stored(shop) == ROWS


def test_later_frames_of_the_same_transaction_are_seen_after_a_rewrite(shop: sa.Engine) -> None:
    load(shop, CHUNK, things(*((kind, no, "-1") for kind, no, _ in ROWS)))
    execute(shop, "VACUUM FULL shop.thing")
    assert load(shop).updated == 1000


def test_what_is_rolled_back_has_no_receipt(shop: sa.Engine) -> None:
    with shop.connect() as connection:
        connection.begin()
        Merge(connection, thing, receipts=merge_receipt).frame(CHUNK)
        connection.rollback()
    assert load(shop).inserted == 1000


def test_content_tells_chunks_apart(loaded: sa.Engine) -> None:
    """Same places in a dictionary but other words, a null for a word, the same words in another column."""
    kinds, numbers = CHUNK["kind"], CHUNK["no"]

    def worded(*words: str | None) -> pa.Table:
        codes = pa.array([no % 2 for no in range(1000)], pa.int32())
        notes = pa.DictionaryArray.from_arrays(codes, pa.array(words, pa.string()))
        return pa.table({"kind": kinds, "no": numbers, "Note": notes})

    load(loaded, worded("x", "y"))
    assert load(loaded, worded("x", "z")).updated == 500
    assert load(loaded, worded("x", None)).updated == 500
    assert load(loaded, worded("x", "z").rename_columns(["kind", "no", "seen"])).updated == 0
    assert load(loaded, worded("x", "z")).updated == 500


def test_what_counts_as_equal_is_part_of_the_content(loaded: sa.Engine) -> None:
    seen = CHUNK.append_column("seen", pa.array(["x"] * 1000))
    assert load(loaded, seen).updated == 0
    strict = thing.to_metadata(sa.MetaData())
    strict.c.seen.info = {}
    assert merge(loaded, seen, table=strict, receipts=merge_receipt).updated == 1000


def test_the_same_rows_of_a_slice_are_the_same_content(loaded: sa.Engine) -> None:
    longer = pa.concat_tables([things(("a", -1, "1")), CHUNK]).combine_chunks()
    with nothing_sent():
        assert counts(load(loaded, longer.slice(1))) == ALL_UNCHANGED


def test_a_chunk_that_is_small_has_none(shop: sa.Engine) -> None:
    load(shop, things(*ROWS[:-1]))
    assert _receipts(shop) == 0


def test_other_rows_in_the_range_do_not_matter_while_they_stay(shop: sa.Engine) -> None:
    odd, even = (things(*((kind, 2 * no + plus, price) for kind, no, price in ROWS)) for plus in (1, 0))
    load(shop, odd)
    load(shop, even)
    with nothing_sent():
        assert load(shop, even).unchanged == 1000
    assert load(shop, odd).unchanged == 1000  # compared: its receipt is older than the even rows
    with nothing_sent():
        assert load(shop, even, odd).unchanged == 2000
    execute(shop, "DELETE FROM shop.thing WHERE no = 7")
    assert load(shop, even).unchanged == 1000
    assert load(shop, odd).inserted == 1


def test_a_frame_among_many_more_rows_has_none(shop: sa.Engine) -> None:
    merge(shop, things(*(("a", no, "1") for no in range(3000) if no % 3)))
    load(shop, things(*((kind, 3 * no, price) for kind, no, price in ROWS)))
    assert _receipts(shop) == 0


def test_a_frame_of_many_chunks_in_no_order(shop: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "CHUNK_ROWS", 300)
    shuffled = things(*((kind, no * 7 % 1000, price) for kind, no, price in ROWS))
    load(shop, shuffled)
    with nothing_sent():
        assert counts(load(shop, shuffled)) == ALL_UNCHANGED
    execute(shop, "UPDATE shop.thing SET price = -1 WHERE no IN (0, 999)")
    assert load(shop, shuffled).updated == 2


def test_a_key_that_is_not_ordered_by_bytes_has_none(shop: sa.Engine) -> None:
    """Such an order may put a key outside the range that the bytes tell."""
    loose = thing.to_metadata(sa.MetaData(), name="loose")
    loose.c.kind.type = sa.Text()
    loose.create(shop)
    frame = things(*((kind, no, "1") for kind in "aBc" for no in range(500)))
    merge(shop, frame, table=loose, receipts=merge_receipt)
    assert _receipts(shop) == 0


def test_a_window_uses_none(shop: sa.Engine) -> None:
    for end, outcome in ((1000, {"inserted": 1000}), (500, {"unchanged": 500, "rejected": 500})):
        window = Window("no", 0, end)  # type: ignore[arg-type]
        merged = merge(shop, CHUNK, receipts=merge_receipt, window=window)
        assert counts(merged) == {"staged": 1000, **outcome}


def test_repeated_keys(shop: sa.Engine) -> None:
    """Not every row was written, so that only a comparison makes it certain."""
    frame = things(*ROWS, *ROWS[:100])
    assert counts(load(shop, frame)) == {"staged": 1100, "inserted": 1000, "unchanged": 100}
    assert load(shop, frame).unchanged == 1100
    with nothing_sent():
        assert counts(load(shop, frame)) == {"staged": 1100, "unchanged": 1100}


def test_their_number_is_bounded(shop: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "MAX_RECEIPTS", 2)
    loads = [things(*((kind, no, price) for _, no, price in ROWS)) for kind in "abc"]
    load(shop, *loads)
    assert _receipts(shop) == 2
    with nothing_sent():
        assert load(shop, *loads[1:]).unchanged == 2000


class TestCertainty:
    """A receipt is left only where nobody can have come in between."""

    @pytest.fixture
    def connection(self, shop: sa.Engine) -> Iterator[sa.Connection]:
        merge(shop, CHUNK)
        with shop.begin() as connection:
            yield connection

    @pytest.fixture
    def all_receipts(self, connection: sa.Connection) -> Receipts:
        driver = connection.connection.driver_connection
        return Receipts(driver.execute, merge_receipt, Target(thing))  # type: ignore[union-attr]

    @pytest.fixture
    def receipt(self, all_receipts: Receipts) -> Receipt:
        found = all_receipts.of(CHUNK)
        assert found is not None
        return found

    def test_a_change_by_another_session_before_the_comparison(self, shop: sa.Engine, receipt: Receipt) -> None:
        receipt.look_before()
        execute(shop, "UPDATE shop.thing SET price = -1 WHERE no = 500")
        receipt.leave(written=0)
        assert not receipt.holds()

    def test_nothing_in_between(self, receipt: Receipt) -> None:
        receipt.look_before()
        receipt.leave(written=0)
        assert receipt.holds()

    def test_some_rows_written(self, receipt: Receipt) -> None:
        receipt.look_before()
        receipt.leave(written=1)
        assert not receipt.holds()

    def test_a_range_of_many_more_rows_is_not_read_to_its_end(self, all_receipts: Receipts) -> None:
        assert all_receipts.stamp(KeyRange(["a", "0"], ["a", "999"]), limit=10).rows == 10


def _receipts(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(merge_receipt)) or 0)
