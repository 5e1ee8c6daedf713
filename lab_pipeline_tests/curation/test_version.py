"""A change of the rules that gives rows other verdicts must raise the curation version, else homes keep their old rows."""

from __future__ import annotations

from lab_pipeline.curation.version import CURATION_VERSION
from lab_pipeline_tests.curation.verdicts import changes, recorded

MEND = "then record the verdicts: python -m lab_pipeline_tests.curation.verdicts"


def test_other_verdicts_need_another_curation_version() -> None:
    version, _, rows = recorded()
    assert len(rows) >= 400
    assert version == CURATION_VERSION, f"CURATION_VERSION was raised to {CURATION_VERSION}; {MEND}"
    changed = changes()
    assert not changed, "\n".join([f"raise CURATION_VERSION in lab_pipeline/curation/version.py, {MEND}", *changed])
