"""CSV drops: from a file to blocks, from blocks to a dialect, from both to observations."""
