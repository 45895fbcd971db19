"""Data versions: a word for what a table holds that changes with every committed write to it.

Every writing statement leaves a row with a fresh id in ``data_version`` and takes away the older ones that it can have
without waiting. So the set of ids that is visible for a table is never one that was visible before a commit: whoever
finds the set unchanged may serve what was made of it. No writer waits for another, none has to know of this.
"""

from __future__ import annotations

from kasparro_pipeline.warehouse.tables import SCHEMA

FUNCTION = f"""
CREATE FUNCTION {SCHEMA}.bump_data_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- a stricter isolation would fail where another transaction has taken the rows away; they may as well stay
    IF current_setting('transaction_isolation') = 'read committed' THEN
        DELETE FROM {SCHEMA}.data_version WHERE id IN (
            SELECT id FROM {SCHEMA}.data_version WHERE part = TG_TABLE_NAME FOR UPDATE SKIP LOCKED);
    END IF;
    INSERT INTO {SCHEMA}.data_version (part) VALUES (TG_TABLE_NAME);
    RETURN NULL;
END $$
"""  # noqa: S608

VERSIONS = f"SELECT part, string_agg(id::text, '.' ORDER BY id) FROM {SCHEMA}.data_version GROUP BY part"  # noqa: S608
"""The version of every table that was ever written to, as pairs."""

RENEW = f"""
SELECT setval(pg_get_serial_sequence('{SCHEMA}.data_version', 'id'),
    greatest(max(id), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)) FROM {SCHEMA}.data_version;
UPDATE {SCHEMA}.data_version SET id = DEFAULT
"""  # noqa: S608
"""Makes every version one that never was: a restored table of numbers would give some of them a second time.

No statement takes less than a microsecond, so the clock is ahead of all ids that the database before had given out.
"""


def trigger(table: str) -> str:
    """The statement that makes every write to `table`, named without its schema, a new version."""
    return (
        f"CREATE TRIGGER data_version AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {SCHEMA}.{table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.bump_data_version()"
    )
