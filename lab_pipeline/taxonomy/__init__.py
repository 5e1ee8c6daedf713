"""Reading a taxonomy: leaves, their seed examples, their problems, and the snapshot that freezes them."""
