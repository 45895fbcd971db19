"""`make bench`: every measurement in one run."""

from kasparro_tests.bench import loads, reads

loads.main()
reads.main()
