"""Alembic's entry point; the connection is handed over by `kasparro_pipeline.warehouse.migrate`."""

from alembic import context

from kasparro_pipeline.warehouse.tables import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=lambda name, type_, _: type_ != "schema" or name == SCHEMA,
)
with context.begin_transaction():
    context.run_migrations()
