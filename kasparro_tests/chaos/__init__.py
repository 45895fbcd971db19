"""Exactly once, shown: loads that are killed again and again end with the tables of loads that nobody disturbed."""
