"""`make bench`: every measurement in one run."""

from kasparro_tests.bench import loads, reads, unifies

loads.main()
reads.main()
unifies.main()
