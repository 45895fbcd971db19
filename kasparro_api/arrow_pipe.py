"""What the service and the process that writes Arrow for it have to agree on; imports nothing."""

LENGTH_BYTES = 8
"""Before each batch stands how many bytes it has, big-endian; none is the end."""
LIST_SEPARATOR = "\x1f"
"""Before each member of a list."""
DECIMAL_DIGITS = 38
"""Of a decimal128."""
