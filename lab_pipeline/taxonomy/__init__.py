"""Read a taxonomy: leaves, seed examples, problems, and the snapshot that freezes them."""
