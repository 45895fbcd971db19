"""What Dagster finds by itself: one folder a source, and what all sources share."""
