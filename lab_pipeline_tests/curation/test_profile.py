from __future__ import annotations

from lab_pipeline.curation.profile import profile
from lab_pipeline_tests.curation.rows import LOOM, STRICT, check, row


def test_a_leaf_whose_seeds_are_all_held_out_has_a_profile_that_bounds_no_length() -> None:
    leaf = profile({**LOOM, "seeds": []})
    assert [rule for rule in STRICT if check(rule, row(), leaf)] == []
