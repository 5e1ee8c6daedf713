"""Ten states of a taxonomy, each refreshed and mixed: what was ever taught is never asked, and what was asked never taught."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import yaml

from lab_pipeline.datasets.heldout_questions import heldout_prompts
from lab_pipeline.datasets.mix import mix_knowledge, mix_skills
from lab_pipeline.teacher.protocol import Reply, Request
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, as_yaml, word
from lab_pipeline_tests.datasets.filled import GENERAL, FilledHome, filled_home
from lab_pipeline_tests.datasets.mixing import RECIPE, REPLAY
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying


@pytest.mark.parametrize("chance", [3, *(pytest.param(chance, marks=pytest.mark.long) for chance in (1, 2))])
def test_over_ten_snapshots_nothing_is_ever_both_taught_and_asked(tmp_path: Path, chance: int) -> None:
    lab = filled_home(tmp_path)
    choice = random.Random(chance)
    taught: dict[str, int] = {}
    asked: dict[str, int] = {}
    gone: list[dict[str, str]] = []

    def asking_what_is_gone(request: Request) -> str | Reply:
        new = gone and request.messages[-1].content.startswith("Write a new exercise") and request.seed % 3 == 0
        return gone[request.seed % len(gone)]["question"] if new else copying(request)

    for number in range(10):
        if number:
            _contribute(lab, choice, number, list(taught), gone, set(asked))
        teacher = ScriptedTeacher(asking_what_is_gone)
        lab.refresh(teacher=teacher)
        heldout = lab.heldout(GENERAL)
        knowledge = mix_knowledge(lab.home, lab.catalog(), heldout, REPLAY, RECIPE, lab.settings)
        skills = mix_skills(lab.home, lab.catalog(), heldout, REPLAY, RECIPE, lab.settings, knowledge)
        for row in [*knowledge.read(), *skills.read()]:
            if row["source"] != "document":
                taught.setdefault(row["messages"][0]["content"], number)
        for question in heldout_prompts({"leaves": heldout["leaves"], "general": [], "withheld": []}):
            asked.setdefault(question, number)
    assert len(set(asked.values())) > 1, "newcomers were held out, too"
    assert {seed["question"] for seed in gone} & set(asked), "questions of the test were gone for a while"
    test = LeakDetector(asked)
    both = {question: (at, asked[leak]) for question, at in taught.items() if (leak := test.leak(question))}
    assert not both, "taught and asked, with the snapshots when it was so first"


def _contribute(
    lab: FilledHome, choice: random.Random, number: int, taught: list[str], gone: list[dict[str, str]], asked: set[str]
) -> None:
    """Delete, add, edit and move seeds; one newcomer is a question that the model was taught before.

    What goes is a question of the test where there is one, and comes back later; meanwhile the teacher asks it.
    """
    one, other = (
        lab.taxonomy / leaf / "qna.yaml" for leaf in choice.sample([FREEFORM, "foundational_skills/reasoning/order"], 2)
    )
    values = {path: yaml.safe_load(path.read_text()) for path in (one, other)}
    seeds, others = (values[path]["seed_examples"] for path in (one, other))
    if len(seeds) > 4:
        gone.append(seeds.pop(next((at for at, seed in enumerate(seeds) if seed["question"] in asked), 0)))
        if len(gone) > 2:
            others.append(gone[-3])
        others.append(seeds.pop(choice.randrange(len(seeds))))
    edited = choice.choice(seeds)
    edited["question"] = f"Please, {edited['question'].strip()}"
    new = [f"Write a line about {word(number, part)} and {word(part, number)}." for part in range(3)]
    for question in [*new, choice.choice(taught)]:
        if "\n" not in question:
            seeds.append({"question": question, "answer": f"A line, {word(question)}."})
    for path, value in values.items():
        path.write_text(as_yaml(value))
    knowledge = lab.taxonomy / KNOWLEDGE / "qna.yaml"
    value = yaml.safe_load(knowledge.read_text())
    pairs = value["seed_examples"][choice.randrange(5)]["questions_and_answers"]
    pairs[choice.randrange(3)]["question"] = f"What is {word(number)} to {word('of', number)}, in short?"
    knowledge.write_text(as_yaml(value))
    if number == 5:
        shutil.move(lab.taxonomy / GROUNDED, lab.taxonomy / f"{GROUNDED}_moved")
