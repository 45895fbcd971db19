"""Incidents, and what each channel is told of them.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

KEY = sa.Text(collation="C")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "incident",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "kind",
            KEY,
            nullable=False,
            comment="run_failed, late, check_failed, drift, budget_spent or quarantine_grown",
        ),
        sa.Column("subject", KEY, nullable=False, comment="what it is about: a job, a source, a check"),
        sa.Column("summary", sa.Text(), nullable=False, comment="one line for people, as it was when it opened"),
        sa.Column("run_id", sa.Text(), nullable=True, comment="the Dagster run that shows it, where there is one"),
        sa.Column("opened_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("resolved_at", TIME, nullable=True, comment="null: it is open"),
        sa.PrimaryKeyConstraint("id"),
        schema="kasparro",
        comment="what went wrong and somebody was, or is to be, told of",
    )
    op.create_index(
        "incident_open",
        "incident",
        ["kind", "subject"],
        unique=True,
        schema="kasparro",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "incident_notice",
        sa.Column("incident_id", sa.BigInteger(), nullable=False),
        sa.Column("news", KEY, nullable=False, comment="opened or recovered"),
        sa.Column("channel", KEY, nullable=False, comment="webhook or email"),
        sa.Column("sent_at", TIME, nullable=True, comment="null until it was delivered"),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="that failed"),
        sa.Column("next_try_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(["incident_id"], ["kasparro.incident.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("incident_id", "news", "channel"),
        schema="kasparro",
        comment="what each channel is to be told, written with the incident, and whether it was",
    )
    op.create_index(
        "incident_notice_unsent",
        "incident_notice",
        ["channel", "next_try_at"],
        schema="kasparro",
        postgresql_where=sa.text("sent_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("incident_notice", schema="kasparro")
    op.drop_table("incident", schema="kasparro")
