"""Who is who across sources: pure functions over tables. No Dagster and no database in here."""
