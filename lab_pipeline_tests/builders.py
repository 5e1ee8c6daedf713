"""Small valid taxonomies for tests. Names are invented by hash, so leaves and seeds never resemble each other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lab_pipeline.config.settings import Settings, TaxonomySettings
from lab_pipeline.core.storage import digest
from lab_pipeline.flows.flow import SHIPPED

KNOWLEDGE = "knowledge/places/islands"
GROUNDED = "compositional_skills/extraction/notes"
FREEFORM = "compositional_skills/writing/lines"
FOUNDATIONAL = "foundational_skills/reasoning/order"


def write_taxonomy(root: Path) -> Path:
    """A taxonomy with one leaf of each kind and a foundational skill in the layout of version 1; returns `root`."""
    write_knowledge(root, KNOWLEDGE, "documents")
    write_skill(root, GROUNDED, grounded=True)
    write_skill(root, FREEFORM)
    write_skill(root, FOUNDATIONAL, seeds=4, version=1)
    return root


def write_skill(root: Path, key: str, seeds: int = 6, grounded: bool = False, version: int = 3) -> Path:
    """A skill leaf with `attribution.txt`; returns its `qna.yaml`."""
    examples = []
    for index in range(seeds):
        one, two, thing = (word(key, index, part) for part in ("one", "two", "thing"))
        if grounded:
            examples.append(
                {
                    "context": f"{one} met {two} on Monday.\n{two} will bring the {thing} by Friday.\n",
                    "question": f"What will {two} bring, and by when?",
                    "answer": f"{two} will bring the {thing} by Friday.",
                }
            )
        else:
            examples.append(
                {
                    "question": f"Write a line about {one} and the {thing} for {two}.",
                    "answer": f"Dear {two}, the {thing} of {one} is ready for you.",
                }
            )
    value = {
        "version": version,
        "created_by": "tester",
        "task_description": f"Do what {word(key)} would do.",
        "seed_examples": examples,
    }
    return _write_leaf(root, key, value)


def write_knowledge(root: Path, key: str, document_folder: str | Path, contexts: int = 5) -> Path:
    """A knowledge leaf with `attribution.txt`, and its document in `document_folder` (relative to `root`, or absolute).

    The document, named by the key, is referred to as a plain folder (`commit: worktree`). Returns the `qna.yaml`.
    """
    name = f"{key.replace('/', '-')}.md"
    sections, examples = [], []
    for index in range(contexts):
        place, founder, bridge, feast = (word(key, index, part) for part in ("place", "founder", "bridge", "feast"))
        context = (
            f"{place} was founded by {founder}.\n"
            f"{place} is known for the bridge of {bridge}.\n"
            f"People of {place} celebrate {feast} each spring.\n"
        )
        sections.append(f"## {place}\n\n{context}")
        examples.append(
            {
                "context": context,
                "questions_and_answers": [
                    {"question": f"Who founded {place}?", "answer": f"{founder} founded {place}."},
                    {"question": f"For which bridge is {place} known?", "answer": f"The bridge of {bridge}."},
                    {"question": f"What do people of {place} celebrate each spring?", "answer": f"{feast}."},
                ],
            }
        )
    document = root / document_folder / name
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(f"# {word(key)}\n\n" + "\n".join(sections), encoding="utf-8")
    value = {
        "version": 3,
        "created_by": "tester",
        "domain": word(key),
        "document_outline": f"A description of {word(key)}.",
        "seed_examples": examples,
        "document": {"repo": str(document_folder), "commit": "worktree", "patterns": [name]},
    }
    return _write_leaf(root, key, value)


def edit_yaml(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Load a YAML file, let `change` work on its value in place, and write it back."""
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(as_yaml(value), encoding="utf-8")


def as_yaml(value: Any) -> str:
    """YAML text with the keys in their order and each short value on one line."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)


def settings_for(taxonomy: Path, **sections: Any) -> Settings:
    return Settings(taxonomy=TaxonomySettings(path=str(taxonomy)), **sections)


def word(*origin: Any) -> str:
    """An invented name such as 'Velomira', always the same for the same origin."""
    number = int(digest(list(origin)), 16)
    syllables = []
    for _ in range(5):
        number, consonant = divmod(number, 16)
        number, vowel = divmod(number, 5)
        syllables.append("bdfghklmnprstvwz"[consonant] + "aeiou"[vowel])
    return "".join(syllables).capitalize()


def _write_leaf(root: Path, key: str, value: dict[str, Any]) -> Path:
    qna = root / key / "qna.yaml"
    qna.parent.mkdir(parents=True, exist_ok=True)
    qna.write_text(as_yaml(value), encoding="utf-8")
    attribution = f"Title of work: {key}\nLink to work: -\nLicense of the work: Apache-2.0\nCreator names: tester\n"
    (qna.parent / "attribution.txt").write_text(attribution, encoding="utf-8")
    return qna


JUDGED = Path(__file__).parent / "flows" / "judged"
"""For each kind of leaf, a judge's prompt and its known rows."""
JUDGES = {"knowledge": "faithful", "grounded_skill": "follows_context", "freeform_skill": "fits_instruction"}


def judged_copy(kind: str, folder: Path) -> Path:
    """A copy of the simple flow for a kind of leaf, with a judge of whole rows that does not gate; returns `folder`."""
    judge = {"name": JUDGES[kind], "prompt": f"{JUDGES[kind]}.yaml", "gates": False}
    shutil.copytree(SHIPPED / f"simple_{kind}", folder)
    shutil.copytree(JUDGED / kind, folder, dirs_exist_ok=True)
    edit_yaml(folder / "flow.yaml", lambda file: file.update(judges=[judge]))
    return folder


def rule(file: dict[str, Any], name: str) -> dict[str, Any]:
    """The entry of a rule in the content of a `flow.yaml`, to be changed."""
    return next(entry for entry in file["rules"] if entry["rule"] == name)
