"""The command line: a module for each group of commands; ``main`` is where they come together."""

from kasparro_pipeline.cli.main import main

__all__ = ["main"]
