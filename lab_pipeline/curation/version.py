"""Version the verdicts of the rules."""

CURATION_VERSION = 5
"""Raise this whenever a change of a rule, or of the text functions it uses, gives any row another verdict. Homes then curate
their leaves again, without a teacher call. `lab_pipeline_tests/curation/test_version.py` fails if you forget."""
