"""Measure a candidate on held-out questions, and decide on its promotion."""
