"""The REST service over Kasparro's tables."""
