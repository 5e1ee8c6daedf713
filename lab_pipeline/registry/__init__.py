"""Merge candidates, promote champions and keep their history, model cards and lineage."""
