"""Kasparro's pipeline: payloads in, one unified asset table out."""
