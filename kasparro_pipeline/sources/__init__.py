"""Fetching and parsing: HTTP client, paging, CSV, field mapping. No Dagster and no database in here."""
