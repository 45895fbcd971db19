"""`make bench`: every measurement in one run."""

from kasparro_tests.bench import drops, identity, loads, reads

loads.main()
drops.main()
reads.main()
identity.main()
