"""The role that the API works as: it may read every table of ours, and write what it was asked to run."""

from __future__ import annotations

from kasparro_pipeline.warehouse.tables import SCHEMA

READER = "kasparro_reader"

MAKE_READER = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN
        CREATE ROLE {READER} NOLOGIN;
    END IF;
    IF NOT pg_has_role(current_user, '{READER}', 'SET') THEN
        EXECUTE format('GRANT {READER} TO %I', current_user);
    END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
    NULL; -- not ours to make, or another database of this server is making it; without it sessions are read-only still
END $$
"""

GRANT_READER = f"""
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN
        GRANT USAGE ON SCHEMA {SCHEMA} TO {READER};
        GRANT SELECT ON ALL TABLES IN SCHEMA {SCHEMA} TO {READER};
        ALTER DEFAULT PRIVILEGES IN SCHEMA {SCHEMA} GRANT SELECT ON TABLES TO {READER};
    END IF;
END $$
"""

GRANT_ASKING = f"""
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN
        GRANT INSERT, UPDATE, DELETE ON {SCHEMA}.run_request TO {READER};
    END IF;
END $$
"""

BECOME_READER = f"""
SELECT set_config('role', r.rolname, false) FROM pg_roles r, pg_namespace n
WHERE r.rolname = '{READER}' AND pg_has_role(current_user, r.oid, 'SET')
  AND n.nspname = '{SCHEMA}' AND has_schema_privilege(r.oid, n.oid, 'USAGE')
"""  # noqa: S608
"""Gives no row where there is no such role for this user."""
