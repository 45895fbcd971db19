"""Kill loads and the database, then compare: ``python -m kasparro_tests.chaos --kills 500 --seed 1``."""

from __future__ import annotations

from kasparro_tests.chaos.run import main

if __name__ == "__main__":
    main()
