"""`make bench`: every measurement in one run."""

from kasparro_tests.bench import drops, loads, reads

loads.main()
drops.main()
reads.main()
