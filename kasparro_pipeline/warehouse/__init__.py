"""The ground: tables, migrations, the connection, embedded PostgreSQL. No Dagster in here."""
