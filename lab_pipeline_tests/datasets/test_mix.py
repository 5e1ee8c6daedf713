from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.config.recipe import Strategy, ValidationRecipe
from lab_pipeline.config.settings import DatasetSettings, MixingSettings
from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import as_prompt
from lab_pipeline.core.storage import read_json, read_rows, write_json
from lab_pipeline.datasets import mix
from lab_pipeline.datasets.catalog import curated_rows
from lab_pipeline.datasets.dataset import Dataset, load_dataset, origin, require_mixing
from lab_pipeline.datasets.heldout_questions import asked_questions, load_heldout
from lab_pipeline.datasets.mix import mix_knowledge, mix_skills
from lab_pipeline.reports.status import leaf_summary
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline_tests.builders import FOUNDATIONAL, FREEFORM, GROUNDED, KNOWLEDGE
from lab_pipeline_tests.datasets.filled import GENERAL, FilledHome
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying
from lab_pipeline_tests.training.runs import recipe

REPLAY = [
    {"id": f"r{n}", "category": "words", "question": f"What is the opposite of {word}?", "answer": f"Not {word}."}
    for n, word in enumerate("hot tall early heavy quiet bright".split())
]
RECIPE = recipe(
    knowledge={"epochs": 1, "learning_rate": 1e-3, "general_replay": 3},
    skills={"epochs": 1, "learning_rate": 1e-3, "general_replay": 2, "phase_1_replay": 0.5},
)


def mixed(lab: FilledHome, heldout: dict[str, Any] | None = None, order: int | None = None) -> tuple[Dataset, Dataset]:
    """Both phases' data; `order` shuffles the catalog's leaves."""
    catalog = lab.catalog()
    if order is not None:
        catalog = replace(catalog, leaves=random.Random(order).sample(catalog.leaves, len(catalog.leaves)))
    heldout = heldout or lab.heldout()
    knowledge = mix_knowledge(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings)
    return knowledge, mix_skills(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings, knowledge)


def part(dataset: Dataset, wanted: str = "train") -> list[dict[str, Any]]:
    return [row for row in dataset.read() if row["part"] == wanted]


def excluded(lab: FilledHome, dataset: Dataset) -> list[dict[str, Any]]:
    return read_rows(lab.home.datasets / f"{dataset.phase}-{dataset.digest}-excluded.parquet")


def test_the_same_leaves_give_the_same_bytes_in_whatever_order(lab):
    first = [(dataset.path, dataset.path.read_bytes()) for dataset in mixed(lab)]
    for order in range(4):
        for path, _ in first:
            path.unlink()
        assert [(dataset.path, dataset.path.read_bytes()) for dataset in mixed(lab, order=order)] == first


def test_another_seed_gives_another_order_and_another_choice(lab):
    other = replace(lab, settings=lab.settings.model_copy(update={"seed": 18}))
    assert {dataset.digest for dataset in mixed(lab)} & {dataset.digest for dataset in mixed(other)} == set()


def test_each_phase_holds_its_kinds_of_leaf(lab):
    knowledge, skills = mixed(lab)
    kinds = {entry["leaf"]: entry["rows"] for entry in lab.catalog().in_use}
    curated = [row for row in knowledge.read() if row["source"] == "curated"]
    assert {row["leaf"] for row in curated} == {KNOWLEDGE}
    assert len(curated) == kinds[KNOWLEDGE]
    assert {row["leaf"] for row in part(skills) if row["source"] == "curated"} == {GROUNDED, FREEFORM, FOUNDATIONAL}
    assert knowledge.rows == len(part(knowledge)) == sum(knowledge.by_source.values())
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
        kept = part(dataset, "validation")
        assert dataset.rows + len(kept) == len(dataset.read())
        assert dataset.validation == Counter(row["leaf"] or "general" for row in kept)
        assert {row["source"] for row in kept} == {"curated", "general"}
        assert not {row["messages"][0]["content"] for row in kept} & {row["messages"][0]["content"] for row in part(dataset)}
    assert knowledge.validation == {KNOWLEDGE: 2, "general": 1}  # of 25 rows
    assert skills.validation.keys() == {KNOWLEDGE, GROUNDED, FREEFORM, FOUNDATIONAL, "general"}
    of_phase_1 = [row["id"] for row in part(knowledge, "validation")]
    assert set(of_phase_1) <= {row["id"] for row in part(skills, "validation")}
    assert not set(of_phase_1) & {row["source_row"] for row in part(skills)}


def test_no_share_for_validation_keeps_no_row(lab):
    whole = RECIPE.model_copy(update={"validation": ValidationRecipe(share=0, general=0)})
    dataset = mix_knowledge(lab.home, lab.catalog(), lab.heldout(), REPLAY, whole, lab.settings)
    assert dataset.validation == {} and dataset.rows == len(dataset.read())
    assert dataset.digest != mixed(lab)[0].digest


def test_the_phases_and_validation_draw_different_general_questions_while_there_are_enough(lab):
    drawn = [
        {row["source_row"] for row in rows if row["source"] == "general"}
        for dataset in mixed(lab)
        for rows in (part(dataset), part(dataset, "validation"))
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
    earlier = {row["id"]: row for row in part(knowledge) if row["source"] != "general"}
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
    test = LeakDetector(asked_questions(heldout))
    for dataset in mixed(lab, heldout):
        (replayed,) = (row["messages"][0]["content"] for row in part(dataset) if row["source"] == "general")
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
    test = LeakDetector(asked_questions(load_heldout(lab.home)))
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
    assert [row["leaf"] for row in part(skills) if row["source"] == "curated" and row["leaf"] != GROUNDED] == [FREEFORM]


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


def test_the_test_asks_the_held_out_questions_of_the_leaves_in_use(lab):
    heldout = lab.heldout()
    rows = {row["leaf"]: row for row in lab.snapshot().rows}
    assert {leaf: len(questions) for leaf, questions in heldout["leaves"].items()} == {
        leaf: row["held_out"] for leaf, row in rows.items()
    }
    assert heldout["leaves"][GROUNDED][0]["context"] and not heldout["leaves"][KNOWLEDGE][0]["context"]
    assert load_heldout(lab.home) == heldout
    assert lab.heldout([])["digest"] != heldout["digest"]


def with_own(lab: FilledHome, folder: Path, rows: list[Any]) -> FilledHome:
    """The lab with a data set of its own in both phases."""
    path = folder / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    own = [DatasetSettings(path=str(path), sampling_size=0.5)]
    mixing = MixingSettings(knowledge=own, skills=[DatasetSettings(path=str(path))])
    return replace(lab, settings=lab.settings.model_copy(update={"mixing": mixing}))


def conversation(question: str, answer: str = "Yes.") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_data_sets_of_ones_own_are_mixed_in_and_screened_like_the_leaves_rows(lab, tmp_path):
    heldout = lab.heldout()
    asked = asked_questions(heldout)[0]
    taken = curated_rows(lab.home, lab.entry(FREEFORM))[0]["question"]
    rows = [conversation(f"Is {n} a number of my own?") for n in range(20)]
    knowledge, skills = mixed(with_own(lab, tmp_path, [*rows, conversation(asked), conversation(taken), "no row"]), heldout)
    assert 9 <= knowledge.by_source["own"] <= 11
    assert skills.by_source["own"] == 20
    left_out = {each["id"].removeprefix("mine.jsonl:"): each["rule"] for each in excluded(lab, skills)}
    assert {
        "21": "held_out",
        "22": "duplicate",
        "23": "unreadable",
    }.items() <= left_out.items()
    assert "replay" in skills.by_source


def test_data_sets_of_ones_own_give_the_same_bytes_from_another_folder(lab, tmp_path):
    rows = [conversation(f"Is {n} a number of my own?") for n in range(20)]
    (tmp_path / "other").mkdir()
    one = [dataset.path.read_bytes() for dataset in mixed(with_own(lab, tmp_path, rows))]
    assert [dataset.path.read_bytes() for dataset in mixed(with_own(lab, tmp_path / "other", rows), order=3)] == one


def test_phase_2_is_not_mixed_from_a_phase_1_of_another_catalog(lab):
    catalog, heldout = lab.catalog(), lab.heldout()
    knowledge = mix_knowledge(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings)
    fewer = replace(catalog, leaves=[entry for entry in catalog.leaves if entry["leaf"] != FREEFORM])
    with pytest.raises(NotMaterialized, match="materialize knowledge_dataset again"):
        mix_skills(lab.home, fewer, heldout, REPLAY, RECIPE, lab.settings, knowledge)


def test_what_a_data_set_was_mixed_from_changes_with_ones_own_rows(lab, tmp_path):
    catalog, heldout = lab.catalog(), lab.heldout()
    origins = {origin(catalog, heldout, each.settings) for each in (lab, with_own(lab, tmp_path, [conversation("One?")]))}
    assert len(origins | {origin(catalog, heldout, with_own(lab, tmp_path, [conversation("Two?")]).settings)}) == 3


def test_a_data_set_moved_to_the_other_phase_is_another_origin(lab, tmp_path):
    catalog, heldout = lab.catalog(), lab.heldout()
    own = with_own(lab, tmp_path, [conversation("One?")]).settings.mixing
    both = {phase: MixingSettings(**{phase: own.skills}) for phase in ("knowledge", "skills")}
    moved = {origin(catalog, heldout, lab.settings.model_copy(update={"mixing": mixing})) for mixing in both.values()}
    assert len(moved) == 2


def test_data_mixed_by_other_numbers_or_another_seed_are_not_those_of_a_recipe(lab):
    knowledge, skills = mixed(lab)
    require_mixing([knowledge, skills], REPLAY, RECIPE, lab.settings)
    raft = RECIPE.model_copy(update={"skills": RECIPE.skills.model_copy(update={"raft": 0.5})})
    require_mixing([knowledge], REPLAY, raft, lab.settings)
    with pytest.raises(NotMaterialized, match=r"^skills_dataset: mixed by another recipe's shares"):
        require_mixing([knowledge, skills], REPLAY, raft, lab.settings)
    slower = RECIPE.model_copy(update={"knowledge": RECIPE.knowledge.model_copy(update={"learning_rate": 1e-5})})
    require_mixing([knowledge, skills], REPLAY, slower, lab.settings)
    stacked = RECIPE.model_copy(update={"strategy": Strategy.stacked})
    for replay, mixed_by, settings in (
        (REPLAY[1:], RECIPE, lab.settings),
        (REPLAY, stacked, lab.settings),
        (REPLAY, RECIPE, lab.settings.model_copy(update={"seed": 18})),
    ):
        with pytest.raises(NotMaterialized, match=r"^knowledge_dataset and skills_dataset: mixed by"):
            require_mixing([knowledge, skills], replay, mixed_by, settings)


def test_a_data_set_of_ones_own_in_both_phases_is_trained_once_where_these_are_stacked(lab, tmp_path):
    own = with_own(lab, tmp_path, [conversation(f"Is {n} a number of my own?") for n in range(20)])
    catalog, heldout, stacked = own.catalog(), own.heldout(), RECIPE.model_copy(update={"strategy": Strategy.stacked})
    knowledge = mix_knowledge(own.home, catalog, heldout, REPLAY, stacked, own.settings)
    skills = mix_skills(own.home, catalog, heldout, REPLAY, stacked, own.settings, knowledge)
    ids = [row["id"] for row in skills.read()]
    assert (knowledge.by_source["own"], skills.by_source["own"]) == (10, 20) and len(ids) == len(set(ids))


def test_without_generation_the_leaves_give_seeds_documents_and_the_test(lab, tmp_path):
    own = with_own(lab, tmp_path, [conversation(f"Is {n} a number of my own?") for n in range(20)])
    settings = own.settings.model_copy(update={"mixing": own.settings.mixing.model_copy(update={"generated": False})})
    own = replace(own, settings=settings)
    shutil.rmtree(lab.home.root / "leaves")
    catalog = own.catalog()
    assert catalog.behind == [] and len(catalog.in_use) == 4
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
    trained = {row["id"]: row for row in part(knowledge) if row["source"] == "curated"}
    assert {row["source_row"] for row in rows} == set(trained)
    texts = [passage["text"] for passage in read_json(lab.home.leaf_source(lab.entry(KNOWLEDGE)["source"]))["passages"]]
    for row in rows:
        prompt, before = row["messages"][0]["content"], trained[row["source_row"]]["messages"]
        assert prompt.endswith(before[0]["content"]) and row["messages"][1] == before[1]
        assert sum(text in prompt for text in texts) == json.loads(row["metadata"])["documents"] >= 1
    half = RECIPE.model_copy(update={"skills": RECIPE.skills.model_copy(update={"raft": 0.5})})
    fewer = mix_skills(lab.home, catalog, heldout, REPLAY, half, lab.settings, knowledge)
    assert fewer.by_source["raft"] == round(len(rows) / 2)


def test_large_data_are_written_in_parts_in_the_same_order(lab, monkeypatch):
    whole = [(dataset.digest, dataset.read()) for dataset in mixed(lab)]
    monkeypatch.setattr(mix, "_PART", 5)
    assert [(dataset.digest, dataset.read()) for dataset in mixed(lab)] == whole
    assert mixed(lab)[0].head(2) == whole[0][1][:2]


def test_the_data_mixed_last_are_the_current_ones(lab, tmp_path):
    knowledge, skills = mixed(lab)
    assert load_dataset(lab.home, "knowledge") == knowledge
    assert load_dataset(lab.home, "skills") == skills
    empty = Home.open(tmp_path / "empty")
    of_an_earlier_release = {key: value for key, value in vars(skills).items() if key != "mixed_by"}
    write_json(empty.datasets / "skills.json", {**of_an_earlier_release, "path": skills.path.name})
    for load in (lambda: load_dataset(empty, "skills"), lambda: load_heldout(empty)):
        with pytest.raises(NotMaterialized):
            load()


def test_an_edited_attribution_reaches_the_rows_without_changing_the_data_set(lab):
    before, _ = mixed(lab)
    (lab.taxonomy / KNOWLEDGE / "attribution.txt").write_text("License of the work: CC BY-NC 4.0\n")
    after, skills = mixed(lab)
    assert after.digest == before.digest
    stated = {row["leaf"]: json.loads(row["metadata"]).get("licences") for row in [*after.read(), *skills.read()]}
    assert stated.pop(KNOWLEDGE) == ["CC-BY-NC-4.0"] and stated.pop(None) is None
    assert stated.keys() == {GROUNDED, FREEFORM, FOUNDATIONAL} and all(found == ["Apache-2.0"] for found in stated.values())
