"""The version of the rules' verdicts."""

CURATION_VERSION = 1
"""Raise this whenever a rule, or what it compares texts by, gives any row another verdict: homes then curate their leaves
again, which costs no teacher call. `lab_pipeline_tests/curation/test_version.py` fails if verdicts change and this does not."""
