"""Read a taxonomy: its leaves with seed examples, documents and problems, and the snapshot that freezes them."""
