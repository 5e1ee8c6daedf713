"""Invented facts, and a teacher who knows the documents: real training of the real model without a model as teacher.

What is asked of the teacher are questions that no seed resembles, so the held-out questions test facts that training put in
other words.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_pipeline.config.recipe import SHIPPED
from lab_pipeline.config.teachers import PACKAGED
from lab_pipeline.flows.flow import SHIPPED as FLOWS
from lab_pipeline_tests.builders import as_yaml, edit_yaml, word, write_skill
from lab_pipeline_tests.lab import TestLab, lab, obliging
from lab_pipeline_tests.stub_endpoint import Answer, Asked

FACTS = (
    (
        "The miller {fact} built the first house of {place}.",
        "Who put up the very first dwelling in {place}?",
        "The miller {fact}.",
        ("What is told of the first house of {place}?", "Which miller built in {place}?"),
    ),
    (
        "The spring fair {fact} fills the market of {place}.",
        "Which event is held in {place} every year?",
        "The spring fair {fact}.",
        ("What fills the market of {place}?", "Which spring fair fills {place}?"),
    ),
    (
        "The longest bridge near {place} bears the name {fact}.",
        "How do people call the bridge near {place}?",
        "It bears the name {fact}.",
        ("What is told of the longest bridge near {place}?", "Which name does {place} give a bridge to bear?"),
    ),
)
"""Sentence of the document, question and answer of a seed, and what the teacher asks about the sentence, in two ways."""


def write_invented(root: Path, leaf: str, places: int = 5) -> None:
    """A knowledge leaf about `places` places with three facts each, and its document."""
    write_document(root, leaf, places)
    examples = []
    for number in range(places):
        place = word(leaf, number)
        facts = [word(leaf, number, kind) for kind in range(len(FACTS))]
        examples.append(
            {
                "context": "\n".join(
                    text.format(place=place, fact=fact) for (text, *_), fact in zip(FACTS, facts, strict=True)
                ),
                "questions_and_answers": [
                    {"question": question.format(place=place), "answer": answer.format(fact=fact)}
                    for (_, question, answer, _), fact in zip(FACTS, facts, strict=True)
                ],
            }
        )
    qna = root / leaf / "qna.yaml"
    qna.parent.mkdir(parents=True, exist_ok=True)
    qna.write_text(
        as_yaml(
            {
                "version": 3,
                "created_by": "tester",
                "domain": word(leaf),
                "document_outline": f"Places of the region {word(leaf)}.",
                "seed_examples": examples,
                "document": {"repo": "documents", "commit": "worktree", "patterns": [_document(leaf)]},
            }
        )
    )
    (qna.parent / "attribution.txt").write_text(
        f"Title of work: {leaf}\nLink to work: -\nLicense of the work: Apache-2.0\nCreator names: tester\n"
    )


def write_document(root: Path, leaf: str, places: int = 5, wrong: bool = False) -> None:
    """The leaf's document; `wrong`: each fact is told of the next place, so that it contradicts the leaf's seeds."""
    sections = []
    for number in range(places):
        told = (number + 1) % places if wrong else number
        place = word(leaf, number)
        lines = [text.format(place=place, fact=word(leaf, told, kind)) for kind, (text, *_) in enumerate(FACTS)]
        sections.append("\n".join([f"## {place}\n", *lines]))
    path = root / "documents" / _document(leaf)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# {word(leaf)}\n\n" + "\n\n".join(sections) + "\n")


def write_region(root: Path, knowledge: int, skills: int) -> Path:
    """That many leaves of either kind; returns `root`."""
    for number in range(knowledge):
        write_invented(root, f"knowledge/regions/region_{number:02}")
    for number in range(skills):
        write_skill(root, f"compositional_skills/lines/line_{number:02}", seeds=10)
    return root


def quick_recipe(**knowledge: Any) -> dict[str, Any]:
    """The shipped recipe, with as many epochs as learn a region of a few leaves, and other numbers of phase 1."""
    recipe = yaml.safe_load((SHIPPED / "smollm2_135m_cpu.yaml").read_text())
    recipe["knowledge"] |= {"epochs": 4, **knowledge}
    recipe["skills"] |= {"epochs": 1, **{name: value for name, value in knowledge.items() if name == "general_replay"}}
    return dict(recipe)


@contextmanager
def region(folder: Path, knowledge: int, skills: int, patch: pytest.MonkeyPatch) -> Iterator[TestLab]:
    """A home on a region, with the packaged 135M model, the quick recipe and the knowing teacher."""
    with lab(folder, write_region(folder / "taxonomy", knowledge, skills), PACKAGED, patch) as opened:
        patch.setenv("OMP_NUM_THREADS", "2")
        opened.stub.reply = knowing
        flow = shutil.copytree(FLOWS / "simple_freeform_skill", folder / "one_each")
        edit_yaml(flow / "flow.yaml", lambda value: value["start"].update(repeats=1))
        (folder / "recipe.yaml").write_text(yaml.safe_dump(quick_recipe()))
        opened.set(flows={"knowledge": "simple_knowledge", "freeform_skill": str(flow)})
        yield opened


def knowing(asked: Asked) -> Answer:
    """A teacher that asks about the sentence it is shown, in two ways."""
    if asked.last.startswith("Sentence: ") and "\nQuestion: " not in asked.last:
        for text, _, _, ways in FACTS:
            if found := re.search(text.format(place=r"(?P<place>\w+)", fact=r"\w+"), asked.last):
                return Answer(text=ways[asked.body["temperature"] > 0].format(place=found["place"]))
        return Answer(text="")
    return obliging(asked)


def _document(leaf: str) -> str:
    return f"{leaf.replace('/', '-')}.md"
