from __future__ import annotations

from dataclasses import replace

import pytest

from lab_pipeline.config.recipe import Strategy
from lab_pipeline.config.settings import MixingSettings
from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.datasets.mix import mix_knowledge, mix_skills
from lab_pipeline.datasets.staleness import require_current_mixing, source_fingerprint
from lab_pipeline_tests.builders import FREEFORM
from lab_pipeline_tests.datasets.mixing import RECIPE, REPLAY, conversation, mixed, with_custom


def test_phase_2_is_not_mixed_from_a_phase_1_of_another_catalog(lab):
    catalog, heldout = lab.catalog(), lab.heldout()
    knowledge = mix_knowledge(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings)
    fewer = replace(catalog, leaves=[entry for entry in catalog.leaves if entry["leaf"] != FREEFORM])
    with pytest.raises(NotMaterialized, match="materialize knowledge_dataset again"):
        mix_skills(lab.home, fewer, heldout, REPLAY, RECIPE, lab.settings, knowledge)


def test_the_source_fingerprint_changes_with_custom_rows(lab, tmp_path):
    catalog, heldout = lab.catalog(), lab.heldout()
    found = {source_fingerprint(catalog, heldout, lab.settings.mixing)}
    for question in ("One?", "Two?"):
        custom = with_custom(lab, tmp_path, [conversation(question)])
        found.add(source_fingerprint(catalog, heldout, custom.settings.mixing))
    assert len(found) == 3


def test_the_source_fingerprint_changes_if_a_custom_data_set_moves_to_the_other_phase(lab, tmp_path):
    catalog, heldout = lab.catalog(), lab.heldout()
    custom = with_custom(lab, tmp_path, [conversation("One?")]).settings.mixing.skills
    mixings = [MixingSettings(knowledge=custom), MixingSettings(skills=custom)]
    assert len({source_fingerprint(catalog, heldout, mixing) for mixing in mixings}) == 2


def test_data_mixed_by_other_numbers_or_another_seed_are_not_those_of_a_recipe(lab):
    knowledge, skills = mixed(lab)
    require_current_mixing([knowledge, skills], REPLAY, RECIPE, lab.settings.seed)
    raft = RECIPE.model_copy(update={"skills": RECIPE.skills.model_copy(update={"raft": 0.5})})
    require_current_mixing([knowledge], REPLAY, raft, lab.settings.seed)
    with pytest.raises(NotMaterialized, match=r"^skills_dataset: mixed by another recipe's shares"):
        require_current_mixing([knowledge, skills], REPLAY, raft, lab.settings.seed)
    slower = RECIPE.model_copy(update={"knowledge": RECIPE.knowledge.model_copy(update={"learning_rate": 1e-5})})
    require_current_mixing([knowledge, skills], REPLAY, slower, lab.settings.seed)
    stacked = RECIPE.model_copy(update={"strategy": Strategy.stacked})
    for replay, other, seed in (
        (REPLAY[1:], RECIPE, lab.settings.seed),
        (REPLAY, stacked, lab.settings.seed),
        (REPLAY, RECIPE, 18),
    ):
        with pytest.raises(NotMaterialized, match=r"^knowledge_dataset and skills_dataset: mixed by"):
            require_current_mixing([knowledge, skills], replay, other, seed)
