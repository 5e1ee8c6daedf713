from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from typing import Any

from lab_pipeline.config.recipe import Strategy, ValidationRecipe
from lab_pipeline.core.rows import as_prompt
from lab_pipeline.core.storage import read_json
from lab_pipeline.datasets.catalog import curated_rows
from lab_pipeline.datasets.heldout_questions import heldout_prompts, load_heldout
from lab_pipeline.datasets.mix import mix_knowledge, mix_skills
from lab_pipeline.reports.status import leaf_summary
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline_tests.builders import FOUNDATIONAL, FREEFORM, GROUNDED, KNOWLEDGE
from lab_pipeline_tests.datasets.filled import GENERAL
from lab_pipeline_tests.datasets.mixing import RECIPE, REPLAY, conversation, excluded, mixed, split_rows, with_custom
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying


def test_each_phase_holds_its_kinds_of_leaf(lab):
    knowledge, skills = mixed(lab)
    kinds = {entry["leaf"]: entry["rows"] for entry in lab.catalog().in_use}
    curated = [row for row in knowledge.read() if row["source"] == "curated"]
    assert {row["leaf"] for row in curated} == {KNOWLEDGE}
    assert len(curated) == kinds[KNOWLEDGE]
    assert {row["leaf"] for row in split_rows(skills) if row["source"] == "curated"} == {GROUNDED, FREEFORM, FOUNDATIONAL}
    assert knowledge.rows == len(split_rows(knowledge)) == sum(knowledge.by_source.values())
    seeds = read_json(lab.home.leaf_source(lab.entry(FREEFORM)["source"]))["seeds"]
    assert skills.by_leaf[FREEFORM] + skills.validation[FREEFORM] == kinds[FREEFORM] + len(seeds)


def test_rows_are_kept_for_validation_apart_from_those_to_train_on(lab):
    def two_ways(request: Any) -> Any:
        last = request.messages[-1].content
        about_the_end = request.temperature and last.startswith("Sentence: ")
        return f"Who or what {' '.join(last.rstrip('.').split()[-5:])}?" if about_the_end else copying(request)

    shutil.rmtree(lab.home.leaf(KNOWLEDGE))
    lab.refresh(KNOWLEDGE, teacher=ScriptedTeacher(two_ways))
    knowledge, skills = mixed(lab)
    for dataset in (knowledge, skills):
        kept = split_rows(dataset, "validation")
        assert dataset.rows + len(kept) == len(dataset.read())
        assert dataset.validation == Counter(row["leaf"] or "general" for row in kept)
        assert {row["source"] for row in kept} == {"curated", "general"}
        assert not {row["messages"][0]["content"] for row in kept} & {
            row["messages"][0]["content"] for row in split_rows(dataset)
        }
    assert knowledge.validation == {KNOWLEDGE: 2, "general": 1}  # of 25 rows
    assert skills.validation.keys() == {KNOWLEDGE, GROUNDED, FREEFORM, FOUNDATIONAL, "general"}
    of_phase_1 = [row["id"] for row in split_rows(knowledge, "validation")]
    assert set(of_phase_1) <= {row["id"] for row in split_rows(skills, "validation")}
    assert not set(of_phase_1) & {row["source_row"] for row in split_rows(skills)}


def test_no_share_for_validation_keeps_no_row(lab):
    whole = RECIPE.model_copy(update={"validation": ValidationRecipe(share=0, general=0)})
    dataset = mix_knowledge(lab.home, lab.catalog(), lab.heldout(), REPLAY, whole, lab.settings)
    assert dataset.validation == {} and dataset.rows == len(dataset.read())
    assert dataset.digest != mixed(lab)[0].digest


def test_the_phases_and_validation_draw_different_general_questions_while_there_are_enough(lab):
    drawn = [
        {row["source_row"] for row in rows if row["source"] == "general"}
        for dataset in mixed(lab)
        for rows in (split_rows(dataset), split_rows(dataset, "validation"))
    ]
    first, kept, second, kept_again = drawn
    assert (len(first), len(second), len(kept)) == (3, 2, 1) and kept == kept_again
    assert first | second | kept == {question["id"] for question in REPLAY}


def test_a_skill_is_taught_by_its_own_seeds_too_but_never_by_one_held_out(lab):
    _, skills = mixed(lab)
    held_out = {question["question"] for several in load_heldout(lab.home)["leaves"].values() for question in several}
    taught = [row["messages"][0]["content"] for row in skills.read() if row["source"] == "seed"]
    seeds = read_json(lab.home.leaf_source(lab.entry(GROUNDED)["source"]))["seeds"]
    assert {seed["asked"] for seed in seeds} <= set(taught)
    assert held_out and not held_out & set(taught)


def test_documents_are_learned_whole_and_answers_alone_otherwise(lab):
    knowledge, skills = mixed(lab)
    source = read_json(lab.home.leaf_source(lab.entry(KNOWLEDGE)["source"]))
    documents = [row for row in knowledge.read() if row["source"] == "document"]
    assert sorted(row["messages"][-1]["content"] for row in documents) == sorted(
        passage["text"] for passage in source["passages"]
    )
    for row in knowledge.read():
        assert row["unmask"] == (row["source"] == "document")
    for row in skills.read():
        if row["source"] != "replay":
            assert not row["unmask"]


def test_phase_2_replays_its_share_of_phase_1s_leaves_but_not_of_its_general_questions(lab):
    knowledge, skills = mixed(lab)
    earlier = {row["id"]: row for row in split_rows(knowledge) if row["source"] != "general"}
    replayed = [row for row in skills.read() if row["source"] == "replay"]
    assert len(replayed) == round(0.5 * len(earlier)) > 3
    for row in replayed:
        before = earlier[row["source_row"]]
        assert (row["messages"], row["unmask"], row["leaf"]) == (before["messages"], before["unmask"], before["leaf"])
    assert len({row["id"] for row in skills.read()}) == len(skills.read())


def test_a_stacked_recipe_learns_all_of_phase_1_with_the_skills(lab):
    stacked = RECIPE.model_copy(update={"strategy": Strategy.stacked})
    catalog, heldout = lab.catalog(), lab.heldout()
    knowledge = mix_knowledge(lab.home, catalog, heldout, REPLAY, stacked, lab.settings)
    skills = mix_skills(lab.home, catalog, heldout, REPLAY, stacked, lab.settings, knowledge)
    of_phase_1 = {row["id"] for row in knowledge.read() if row["source"] != "general"}
    assert of_phase_1 and of_phase_1 <= {row["id"] for row in skills.read()}
    assert "replay" not in skills.by_source
    assert skills.by_source["general"] == stacked.knowledge.general_replay


def test_general_questions_are_replayed_in_number_and_never_one_that_the_test_asks(lab):
    knowledge, skills = mixed(lab)
    assert (knowledge.by_source["general"], skills.by_source["general"]) == (3, 2)
    asked = [{**question, "question": question["question"].upper()} for question in REPLAY[:5]]
    heldout = lab.heldout([*GENERAL, *asked])
    test = LeakDetector(heldout_prompts(heldout))
    for dataset in mixed(lab, heldout):
        (replayed,) = (row["messages"][0]["content"] for row in split_rows(dataset) if row["source"] == "general")
        assert replayed == REPLAY[5]["question"]
        assert "general" not in dataset.validation
        assert test.leak(replayed) is None


def test_a_row_that_repeats_a_question_of_the_test_is_left_out_and_listed(lab):
    row = curated_rows(lab.home, lab.entry(FREEFORM))[0]
    leak = as_prompt(row["question"], row["context"])[0]["content"]
    _, skills = mixed(lab, lab.heldout([{"id": "g", "category": "c", "question": f"{leak.upper()}!", "answer": "A."}]))
    left_out = excluded(lab, skills)
    assert row["id"] in [each["id"] for each in left_out]
    assert {each["rule"] for each in left_out} == {"held_out"}
    assert skills.excluded == {"held_out": len(left_out)}
    assert row["id"] not in [each["source_row"] for each in skills.read()]
    test = LeakDetector(heldout_prompts(load_heldout(lab.home)))
    assert not any(test.leak(each["messages"][0]["content"]) for each in skills.read())


def test_a_question_that_two_leaves_ask_is_learned_once(lab):
    def same(request: Any) -> Any:
        new = request.messages[-1].content.startswith("Write a new exercise")
        return "Reword this sentence about seven rivers politely." if new else copying(request)

    for leaf in (FREEFORM, FOUNDATIONAL):
        shutil.rmtree(lab.home.leaf(leaf))
    lab.refresh(FREEFORM, FOUNDATIONAL, teacher=ScriptedTeacher(same))
    _, skills = mixed(lab)
    (left_out,) = excluded(lab, skills)
    assert (left_out["leaf"], left_out["rule"]) == (FOUNDATIONAL, "duplicate")
    assert FREEFORM in left_out["reason"]
    assert [row["leaf"] for row in split_rows(skills) if row["source"] == "curated" and row["leaf"] != GROUNDED] == [FREEFORM]


def test_a_phase_without_leaves_is_empty_and_has_no_general_questions_either(lab):
    shutil.rmtree(lab.taxonomy / "knowledge")
    knowledge, skills = mixed(lab)
    assert (knowledge.rows, knowledge.by_source, knowledge.validation) == (0, {}, {})
    assert "replay" not in skills.by_source and skills.rows > 0


def test_without_skills_phase_2_replays_phase_1_and_general_questions(lab):
    for branch in ("compositional_skills", "foundational_skills"):
        shutil.rmtree(lab.taxonomy / branch)
    knowledge, skills = mixed(lab)
    replayed = round(0.5 * sum(knowledge.by_leaf.values()))
    assert replayed and skills.by_source == {"replay": replayed, "general": 2}
    assert skills.validation == knowledge.validation
    nothing = RECIPE.model_copy(update={"skills": RECIPE.skills.model_copy(update={"phase_1_replay": 0.0})})
    empty = mix_skills(lab.home, lab.catalog(), lab.heldout(), REPLAY, nothing, lab.settings, knowledge)
    assert (empty.rows, empty.read()) == (0, [])


def test_custom_data_sets_are_mixed_in_and_filtered_like_the_rows_of_leaves(lab, tmp_path):
    heldout = lab.heldout()
    asked = heldout_prompts(heldout)[0]
    taken = curated_rows(lab.home, lab.entry(FREEFORM))[0]["question"]
    rows = [conversation(f"Is {n} a number of my own?") for n in range(20)]
    knowledge, skills = mixed(with_custom(lab, tmp_path, [*rows, conversation(asked), conversation(taken), "no row"]), heldout)
    assert 9 <= knowledge.by_source["own"] <= 11
    assert skills.by_source["own"] == 20
    left_out = {each["id"].removeprefix("mine.jsonl:"): each["rule"] for each in excluded(lab, skills)}
    assert {
        "21": "held_out",
        "22": "duplicate",
        "23": "unreadable",
    }.items() <= left_out.items()
    assert "replay" in skills.by_source


def test_custom_data_sets_give_the_same_bytes_from_another_folder(lab, tmp_path):
    rows = [conversation(f"Is {n} a number of my own?") for n in range(20)]
    (tmp_path / "other").mkdir()
    one = [dataset.path.read_bytes() for dataset in mixed(with_custom(lab, tmp_path, rows))]
    assert [dataset.path.read_bytes() for dataset in mixed(with_custom(lab, tmp_path / "other", rows), order=3)] == one


def test_a_custom_data_set_in_both_phases_is_trained_once_if_the_recipe_stacks_these(lab, tmp_path):
    own = with_custom(lab, tmp_path, [conversation(f"Is {n} a number of my own?") for n in range(20)])
    catalog, heldout, stacked = own.catalog(), own.heldout(), RECIPE.model_copy(update={"strategy": Strategy.stacked})
    knowledge = mix_knowledge(own.home, catalog, heldout, REPLAY, stacked, own.settings)
    skills = mix_skills(own.home, catalog, heldout, REPLAY, stacked, own.settings, knowledge)
    ids = [row["id"] for row in skills.read()]
    assert (knowledge.by_source["own"], skills.by_source["own"]) == (10, 20) and len(ids) == len(set(ids))


def test_without_generation_the_leaves_give_seeds_documents_and_the_test(lab, tmp_path):
    own = with_custom(lab, tmp_path, [conversation(f"Is {n} a number of my own?") for n in range(20)])
    settings = own.settings.model_copy(update={"mixing": own.settings.mixing.model_copy(update={"generated": False})})
    own = replace(own, settings=settings)
    shutil.rmtree(lab.home.root / "leaves")
    catalog = own.catalog()
    assert catalog.stale == [] and len(catalog.in_use) == 4
    assert {entry["state"] for entry in catalog.leaves} == {"not generated"}
    heldout = own.heldout()
    assert all(heldout["leaves"].values())
    knowledge, skills = mixed(own, heldout)
    assert knowledge.by_source.keys() == {"document", "general", "own"}
    assert skills.by_source.keys() == {"seed", "general", "own", "replay"}
    assert leaf_summary(own.home, own.snapshot(), own.plans(own.snapshot()), set())[FREEFORM]["status"] == "not generated"


def test_knowledge_questions_are_asked_over_documents_in_phase_2_where_the_recipe_says_so(lab):
    skills_phase = RECIPE.skills.model_copy(update={"raft": 1.0})
    asking = RECIPE.model_copy(update={"skills": skills_phase})
    catalog, heldout = lab.catalog(), lab.heldout()
    knowledge = mix_knowledge(lab.home, catalog, heldout, REPLAY, asking, lab.settings)
    skills = mix_skills(lab.home, catalog, heldout, REPLAY, asking, lab.settings, knowledge)
    rows = [row for row in skills.read() if row["source"] == "raft"]
    trained = {row["id"]: row for row in split_rows(knowledge) if row["source"] == "curated"}
    assert {row["source_row"] for row in rows} == set(trained)
    texts = [passage["text"] for passage in read_json(lab.home.leaf_source(lab.entry(KNOWLEDGE)["source"]))["passages"]]
    for row in rows:
        prompt, before = row["messages"][0]["content"], trained[row["source_row"]]["messages"]
        assert prompt.endswith(before[0]["content"]) and row["messages"][1] == before[1]
        assert sum(text in prompt for text in texts) == json.loads(row["metadata"])["documents"] >= 1
    half = RECIPE.model_copy(update={"skills": RECIPE.skills.model_copy(update={"raft": 0.5})})
    fewer = mix_skills(lab.home, catalog, heldout, REPLAY, half, lab.settings, knowledge)
    assert fewer.by_source["raft"] == round(len(rows) / 2)


def test_an_edited_attribution_reaches_the_rows_without_changing_the_data_set(lab):
    before, _ = mixed(lab)
    (lab.taxonomy / KNOWLEDGE / "attribution.txt").write_text("License of the work: CC BY-NC 4.0\n")
    after, skills = mixed(lab)
    assert after.digest == before.digest
    stated = {row["leaf"]: json.loads(row["metadata"]).get("licences") for row in [*after.read(), *skills.read()]}
    assert stated.pop(KNOWLEDGE) == ["CC-BY-NC-4.0"] and stated.pop(None) is None
    assert stated.keys() == {GROUNDED, FREEFORM, FOUNDATIONAL} and all(found == ["Apache-2.0"] for found in stated.values())
