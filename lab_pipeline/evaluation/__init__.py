"""Measuring a candidate on held-out questions, and the gate that decides on its promotion."""
