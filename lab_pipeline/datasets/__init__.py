"""Hold the data sets: held-out questions, the catalog of leaves, and the training data of both phases."""
