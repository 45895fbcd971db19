"""`make bench`: every measurement in one run."""

from kasparro_tests.bench import drops, identity, loads, pages, reads

loads.main()
drops.main()
pages.main()
reads.main()
identity.main()
