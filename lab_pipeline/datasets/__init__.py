"""Data sets: held-out questions, the catalog of curated leaves, and the mixed data of both training phases."""
