"""Payloads are partitioned by month; which there are is told by a table of its own.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op

from kasparro_pipeline.warehouse.months import partition_like_old
from kasparro_pipeline.warehouse.reader import GRANT_READER

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLE = sa.Table("raw_payload", sa.MetaData(schema="kasparro"))
KEY = sa.Text(collation="C")
HASH = "hex digest of the bytes as they came"
COLUMNS = "source, sha256, body, size_bytes, first_fetched_at"
NEW = "CREATE TABLE kasparro.raw_payload (LIKE kasparro.raw_payload_old INCLUDING DEFAULTS INCLUDING COMMENTS)"


def upgrade() -> None:
    _begin()
    op.create_table(
        "payload",
        sa.Column("source", KEY, nullable=False),
        sa.Column("sha256", KEY, nullable=False, comment=HASH),
        sa.Column(
            "first_fetched_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="tells the month of raw_payload in which the bytes are",
        ),
        sa.PrimaryKeyConstraint("source", "sha256"),
        sa.UniqueConstraint("source", "sha256", "first_fetched_at"),
        schema="kasparro",
        comment="which payloads are kept: each once, by its hash",
    )
    op.create_index("payload_sha256", "payload", ["sha256"], schema="kasparro")
    op.execute(
        "INSERT INTO kasparro.payload (source, sha256, first_fetched_at) "
        "SELECT source, sha256, first_fetched_at FROM kasparro.raw_payload_old"
    )
    op.execute(f"{NEW} PARTITION BY RANGE (first_fetched_at)")
    partition_like_old(op.get_bind(), TABLE, "first_fetched_at")
    _move()
    op.execute("COMMENT ON COLUMN kasparro.raw_payload.sha256 IS NULL")
    key = ["source", "sha256", "first_fetched_at"]
    op.create_primary_key("raw_payload_pkey", "raw_payload", key, schema="kasparro")
    for name, table, other in (
        ("payload_raw_payload_fkey", "payload", "raw_payload"),
        ("raw_payload_payload_fkey", "raw_payload", "payload"),
    ):
        schemas = {"source_schema": "kasparro", "referent_schema": "kasparro"}
        op.create_foreign_key(name, table, other, key, key, deferrable=True, initially="DEFERRED", **schemas)
    _refer_to("payload")


def downgrade() -> None:
    op.execute("ALTER TABLE kasparro.payload DROP CONSTRAINT payload_raw_payload_fkey")
    _begin()
    op.execute(NEW)
    _move()
    op.execute(f"COMMENT ON COLUMN kasparro.raw_payload.sha256 IS '{HASH}'")
    op.execute("ALTER TABLE kasparro.raw_payload ADD CONSTRAINT raw_payload_pkey PRIMARY KEY (source, sha256)")
    op.create_index("raw_payload_sha256", "raw_payload", ["sha256"], schema="kasparro")
    op.drop_table("payload", schema="kasparro")
    _refer_to("raw_payload")


def _begin() -> None:
    op.execute("ALTER TABLE kasparro.delivery DROP CONSTRAINT delivery_source_sha256_fkey")
    op.execute("ALTER TABLE kasparro.raw_payload RENAME TO raw_payload_old")


def _move() -> None:
    op.execute(f"INSERT INTO kasparro.raw_payload ({COLUMNS}) SELECT {COLUMNS} FROM kasparro.raw_payload_old")  # noqa: S608
    op.execute("DROP TABLE kasparro.raw_payload_old")


def _refer_to(table: str) -> None:
    op.create_foreign_key(
        "delivery_source_sha256_fkey",
        "delivery",
        table,
        ["source", "sha256"],
        ["source", "sha256"],
        source_schema="kasparro",
        referent_schema="kasparro",
    )
    op.execute(GRANT_READER)
    op.execute("ANALYZE kasparro.raw_payload")
