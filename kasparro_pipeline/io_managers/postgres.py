"""An IO manager that merges what an asset returns into a PostgreSQL table by key.

It knows nothing of coins; any Dagster project can use it. Dagster has none for PostgreSQL, and its database IO
managers delete and insert in two steps without a look at what is stored. ``docs/postgres_io_manager.md`` has an
example.

Metadata of the asset's definition that counts:

``dagster/table_name``
    the table, ``schema.name``; one of the `MetaData` given, with a primary key.
``partition_expr``
    the column that a time partition is about: rows outside the run's partitions are refused and counted as rejected.
``kasparro/replace``
    True: rows of the run's partitions that the data no longer has are deleted; needs ``partition_expr``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from kasparro_pipeline.io_managers.retries import retried
from kasparro_pipeline.warehouse.merge import Frame, Merge, Merged, UtcDay, Window

TABLE = "dagster/table_name"
PARTITION_COLUMN = "partition_expr"
REPLACE = "kasparro/replace"

PREVIEW_ROWS = 5
MAX_PREVIEWED_PARTITIONS = 31
"""In a run over more partitions the preview is left out: Dagster stores it once for every partition."""


@dataclass(frozen=True, slots=True)
class Load:
    """Frames with something that has to commit with them.

    `frames` may be a function of the merge's connection, for frames that depend on what is stored. The next two
    functions are called inside the merge's transaction: `after_frame` before the next frame is taken, with what became
    of this one; `before_commit` once, with the sum.
    """

    frames: Iterable[Frame] | Callable[[sa.Connection], Iterable[Frame]]
    after_frame: Callable[[sa.Connection, Merged], None] | None = None
    before_commit: Callable[[sa.Connection, Merged], None] | None = None
    on_error: Callable[[BaseException], None] | None = None
    """Called when nothing of it is kept, outside the transaction."""
    after_commit: Callable[[], None] | None = None
    """Called when all of it is kept; what it raises fails the run all the same."""
    group_by: Sequence[str | UtcDay] = ()
    """See `Merge`."""
    list_by: str | None = None
    """See `Merge`."""
    parts: Callable[[], Sequence[Window]] | None = None
    """Asked after the last frame, with ``kasparro/replace``: which parts of the partitions the frames were about."""
    comes_again: bool = True
    """False: the same frame hardly ever comes twice, and no receipt is worth its cost."""


class PostgresIOManager(dg.IOManager):
    """Merges by primary key what an asset returns: only rows that differ are written, all in one transaction.

    An asset may return a pandas DataFrame, an Arrow table or record batch, an iterator of these, a SQLAlchemy
    ``Select`` (whose rows never leave the database), or a `Load`. NUMERIC columns take Decimal or the digits as text;
    a float is refused, because its digits are gone already. A downstream asset gets the rows of its partitions as a
    DataFrame (numbers as Decimal), or as a ``Select`` where its argument is annotated with one.

    Two runs of one asset take turns (advisory lock on table and asset key).

    Reports inserted, updated, unchanged, rejected and deleted rows, and a preview.

    Args:
        engine: called once for each output or input.
        tables: where the tables are declared.
        receipts: a table like `kasparro_pipeline.warehouse.tables.merge_receipt`, by which a frame that was merged
            before and whose rows nobody has touched since is known without being sent; None: always compare.

    Raises:
        MergeError: the data does not fit the table; nothing of it is written.
    """

    def __init__(self, engine: Callable[[], sa.Engine], tables: sa.MetaData, receipts: sa.Table | None = None) -> None:
        self._engine = engine
        self._tables = tables
        self._receipts = receipts

    def handle_output(self, context: dg.OutputContext, obj: Frame | Iterable[Frame] | Load) -> None:
        """Merge the value into the asset's table."""
        load = _as_load(obj)
        table = self._table(context.definition_metadata, context.asset_key)
        window = _window(context, table)
        with retried(context):
            try:
                with self._turn(table, context.asset_key) as connection:
                    merge = Merge(
                        connection,
                        table,
                        window=window,
                        replace=bool(context.definition_metadata.get(REPLACE)),
                        group_by=load.group_by,
                        list_by=load.list_by,
                        receipts=self._receipts if load.comes_again else None,
                    )
                    total = _merge_all(connection, merge, load)
                    preview = self._preview(context, connection, table, window)
            except BaseException as error:
                if load.on_error is not None:
                    load.on_error(error)
                raise
        if load.after_commit is not None:
            load.after_commit()
        counts = ("inserted", "updated", "unchanged", "rejected", "deleted")
        context.add_output_metadata({name: getattr(total, name) for name in counts} | preview)

    def load_input(self, context: dg.InputContext) -> pd.DataFrame | sa.Select[Any]:
        """The rows of the partitions that the downstream asset wants."""
        upstream = context.upstream_output
        if upstream is None:
            raise dg.DagsterInvariantViolationError("PostgresIOManager loads assets only")
        table = self._table(upstream.definition_metadata, context.asset_key)
        query = sa.select(table)
        window = _window(context, table, upstream.definition_metadata.get(PARTITION_COLUMN))
        if window is not None:
            query = query.where(table.c[window.column] >= window.start, table.c[window.column] < window.end)
        if context.dagster_type.typing_type in (sa.Select, sa.Select[Any]):
            return query
        with self._engine().connect() as connection:
            result = connection.execute(query)
            return pd.DataFrame(result.fetchall(), columns=list(result.keys()))

    def _table(self, metadata: Any, asset_key: dg.AssetKey) -> sa.Table:  # noqa: ANN401 - Dagster's mapping
        name = metadata.get(TABLE)
        table = self._tables.tables.get(str(name))
        if table is None:
            raise dg.DagsterInvariantViolationError(
                f"asset {asset_key.to_user_string()}: metadata {TABLE!r} is {name!r}; "
                f"it must name one of {', '.join(sorted(self._tables.tables))}"
            )
        return table

    @contextmanager
    def _turn(self, table: sa.Table, asset_key: dg.AssetKey) -> Iterator[sa.Connection]:
        name = f"{table.fullname} {asset_key.to_user_string()}"
        lock = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), signed=True)
        with self._engine().begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
            yield connection

    def _preview(
        self, context: dg.OutputContext, connection: sa.Connection, table: sa.Table, window: Window | None
    ) -> dict[str, dg.MetadataValue]:
        if context.has_asset_partitions and len(context.asset_partition_keys) > MAX_PREVIEWED_PARTITIONS:
            return {}
        query = sa.select(table).limit(PREVIEW_ROWS)
        if window is not None:
            query = query.where(table.c[window.column] >= window.start, table.c[window.column] < window.end)
        result = connection.execute(query)
        rows = pd.DataFrame(result.fetchall(), columns=list(result.keys())).astype(str)
        return {"preview": dg.MetadataValue.md(str(rows.to_markdown(index=False)))} if len(rows) else {}


def column_schema(table: sa.Table, origins: Mapping[str, str] | None = None) -> dg.TableSchema:
    """The table's columns as Dagster's UI shows them; for ``dagster/column_schema`` of an asset's definition.

    `origins` says by column where it comes from, in words: the UI shows it beside the column's comment.
    """
    told = {name: f"From {origin}." for name, origin in (origins or {}).items()}
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                str(column.type),
                description=". ".join(filter(None, (column.comment, told.get(column.name)))) or None,
                constraints=dg.TableColumnConstraints(nullable=bool(column.nullable), unique=False),
            )
            for column in table.columns
        ]
    )


def _merge_all(connection: sa.Connection, merge: Merge, load: Load) -> Merged:
    for frame in load.frames(connection) if callable(load.frames) else load.frames:
        merged = merge.frame(frame)
        if load.after_frame is not None:
            load.after_frame(connection, merged)
    total = merge.finish(load.parts() if load.parts else None)
    if load.before_commit is not None:
        load.before_commit(connection, total)
    return total


def _as_load(value: Frame | Iterable[Frame] | Load) -> Load:
    if isinstance(value, Load):
        return value
    if isinstance(value, pd.DataFrame | pa.Table | pa.RecordBatch | sa.Select | sa.TextualSelect):
        return Load([value])
    return Load(value)


def _window(
    context: dg.OutputContext | dg.InputContext, table: sa.Table, column: object | None = None
) -> Window | None:
    """The rows that the run's partitions are about; None: all."""
    if isinstance(context, dg.OutputContext):
        column = context.definition_metadata.get(PARTITION_COLUMN)
    if column is None or not context.has_asset_partitions:
        return None
    start, end = context.asset_partitions_time_window
    if isinstance(table.c[str(column)].type, sa.Date):
        return Window(str(column), start.date(), end.date())
    return Window(str(column), start, end)
