from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest
import sqlalchemy as sa

from kasparro_pipeline.io_managers.raw_payload import BYTES_AT_ONCE, RawPayloadIOManager, stored_body
from kasparro_pipeline.sources.records import Checkpoint, Payload
from kasparro_pipeline.warehouse.tables import delivery, raw_payload

END = Checkpoint({"sha256": "of the file"}, complete=True)


def block(position: int, body: bytes, checkpoint: Checkpoint | None = None) -> Payload:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    return Payload("csv_desk", "desk/a.csv", position, at, body, "desk/a.csv", checkpoint=checkpoint)


def keep(engine: sa.Engine, payloads: Iterator[Payload] | list[Payload]) -> dict[str, object]:
    with dg.build_output_context(run_id="run", instance=dg.DagsterInstance.ephemeral()) as context:
        RawPayloadIOManager(lambda: engine).handle_output(context, payloads)
        return {name: value.value for name, value in context.get_logged_metadata().items()}


def test_a_payload_that_comes_twice_at_once_is_stored_once_and_delivered_twice(engine: sa.Engine) -> None:
    told = keep(engine, [block(0, b"a"), block(1, b"b"), block(2, b"a"), block(3, b"c", END)])
    assert (told["payloads_new"], told["payloads_known"], told["bytes"]) == (3, 1, 4)
    again = keep(engine, [block(4, b"c"), block(5, b"d", END)])
    assert (again["payloads_new"], again["payloads_known"]) == (1, 1)
    with engine.connect() as connection:
        digests = connection.execute(sa.select(delivery.c.sha256, delivery.c.is_last).order_by("position")).all()
        assert connection.scalar(sa.select(sa.func.count()).select_from(raw_payload)) == 4
    assert [row.is_last for row in digests] == [False, False, False, True, False, True]
    assert [stored_body(engine, "csv_desk", row.sha256) for row in digests] == [b"a", b"b", b"a", b"c", b"c", b"d"]


def test_what_has_a_checkpoint_is_kept_before_the_next_is_asked_for(engine: sa.Engine) -> None:
    def pages() -> Iterator[Payload]:
        yield block(0, b"first", Checkpoint({"page": 2}, complete=False))
        assert kept(engine) == 1
        yield block(1, b"without one")
        assert kept(engine) == 1
        yield block(2, b"x" * BYTES_AT_ONCE)
        assert kept(engine) == 3
        yield block(3, b"lost with what fails")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        keep(engine, pages())
    assert kept(engine) == 3


def kept(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(delivery)) or 0
