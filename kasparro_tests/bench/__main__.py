"""`make bench`: every measurement in one run."""

from kasparro_tests.bench import loads, pages, reads

loads.main()
pages.main()
reads.main()
