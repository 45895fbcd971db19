"""`make bench`: every measurement in one run."""

from kasparro_tests.bench import drops, identity, loads, pages, reads, unifies

loads.main()
drops.main()
pages.main()
unifies.main()
reads.main()
identity.main()
