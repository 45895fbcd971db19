"""`make bench`: every measurement in one run."""

from kasparro_tests.bench import identity, loads, reads

loads.main()
reads.main()
identity.main()
