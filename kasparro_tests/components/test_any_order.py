"""Any order, any repetition and any split into runs of the same deliveries gives the same tables."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kasparro_pipeline.sources.records import Payload
from kasparro_tests.components.world import HEADER, World, csv_payloads, json_payload, minute

QUICK = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
TIMES = ["2026-11-01T10:00:00Z", "2026-11-01T11:00:00Z", "2026-11-02T00:10:00Z"]
"""The last one lies on the day after some deliveries."""
PRICES = ["1", "1.0", "2", "none?"]
"""The first two are equal, and yet not the same digits; the last is no number."""


@st.composite
def deliveries_of_api(draw: st.DrawFn) -> list[list[Payload]]:
    record = st.fixed_dictionaries(
        {
            "id": st.sampled_from(["a", "b"]),
            "at": st.sampled_from(TIMES),
            "symbol": st.sampled_from(["X", "Y", None]),
            "price": st.sampled_from(PRICES),
        }
    )
    bodies = draw(st.lists(st.lists(record, min_size=1, max_size=3), min_size=1, max_size=3))
    chosen = draw(st.lists(st.sampled_from(bodies), min_size=2, max_size=5))
    return [[json_payload(records, number)] for number, records in enumerate(chosen)]


@st.composite
def deliveries_of_files(draw: st.DrawFn) -> list[list[Payload]]:
    line = st.builds(
        "{},{},{},{}\n".format,
        st.sampled_from(["a", "b"]),
        st.sampled_from(["X", "Y"]),
        st.sampled_from(TIMES),
        st.sampled_from(PRICES),
    )
    block = st.lists(line, min_size=1, max_size=2).map("".join)
    blocks = draw(st.lists(block, min_size=1, max_size=3))
    file = st.lists(st.sampled_from(blocks), min_size=0, max_size=3)
    chosen = draw(st.lists(st.tuples(st.sampled_from(["drop/a.csv", "drop/b.csv"]), file), min_size=2, max_size=4))
    return [csv_payloads([HEADER, *content], number, partition) for number, (partition, content) in enumerate(chosen)]


@st.composite
def runs_of(draw: st.DrawFn, deliveries: Sequence[list[Payload]]) -> list[list[Payload]]:
    """The deliveries in any order, some twice, cut into runs anywhere."""
    order = draw(st.permutations([*deliveries, *draw(st.lists(st.sampled_from(deliveries), max_size=2))]))
    runs: list[list[Payload]] = [[]]
    for one in order:
        runs[-1].extend(one)
        if draw(st.booleans()):
            runs.append([])
    return [run for run in runs if run]


def check(world: World, data: st.DataObject, deliveries: list[list[Payload]]) -> None:
    world.clear()
    for one in deliveries:
        world.load(one)
    in_order = world.tables()
    world.assert_accounts_add_up()
    world.clear()
    for run in data.draw(runs_of(deliveries)):
        world.load(run)
    world.assert_accounts_add_up()
    assert world.tables() == in_order


@QUICK
@given(deliveries=deliveries_of_api(), data=st.data())
def test_of_an_api(world: World, deliveries: list[list[Payload]], data: st.DataObject) -> None:
    check(world, data, deliveries)


@QUICK
@given(deliveries=deliveries_of_files(), data=st.data())
def test_of_files(world: World, deliveries: list[list[Payload]], data: st.DataObject) -> None:
    check(world, data, deliveries)


def test_the_latest_word_counts_when_it_is_parsed_first(world: World) -> None:
    said = [{"id": "a", "at": TIMES[0], "symbol": "X", "price": price} for price in ("1", "2", "3")]
    for number in (2, 0, 1):
        world.load([json_payload([said[number]], number)])
    (row,) = world.tables()["observation"]
    assert "3" in row
    assert str(minute(2)) in row
