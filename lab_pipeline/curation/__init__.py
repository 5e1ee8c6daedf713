"""Curation: the rules by which a leaf's rows are kept or rejected."""
