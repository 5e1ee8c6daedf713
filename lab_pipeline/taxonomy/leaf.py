"""Read and check one leaf of a taxonomy, a folder with a `qna.yaml` of seed examples, without ever raising.

A leaf gets two verdicts. The *schema verdict* is that of the public InstructLab schemas (package `instructlab-schema`).
*Usable* is stricter: it also means that the pipeline can work with the leaf.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from lab_pipeline.core.rows import Severity
from lab_pipeline.core.storage import digest
from lab_pipeline.taxonomy.attribution import non_commercial_lines
from lab_pipeline.taxonomy.yaml_lines import LocatedYaml, YamlProblem, load_located
from lab_pipeline.text.words import normalised

BRANCHES = ("knowledge", "compositional_skills", "foundational_skills")
QNA = "qna.yaml"
ATTRIBUTION = "attribution.txt"
VERSIONS = (1, 2, 3)
"""Schema versions of `qna.yaml` that this module can read."""

MAX_CONTEXT_WORDS = 500
MAX_ANSWER_WORDS = 250
"""Limits in the README of InstructLab's taxonomy, this one for answers and questions; longer texts are only warned of."""

Kind = Literal["knowledge", "grounded_skill", "freeform_skill"]


@dataclass(frozen=True)
class Problem:
    """Something wrong with a leaf, at a 1-based line of a file: an error makes the leaf unusable, a warning does not."""

    file: str
    line: int
    severity: Severity
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Seed:
    """A seed example: a question with its answer, and its context (None in freeform skills)."""

    question: str
    answer: str
    context: str | None
    group: int
    """Index of the seed's entry in `seed_examples`; a knowledge entry holds several questions on one context."""
    line: int
    asked: str
    """The prompt: in grounded skills the context, a blank line and the question, otherwise the question alone."""

    @property
    def identity(self) -> str:
        """Return a hash of the prompt alone, by which the held-out ledger recognises it in any leaf, line and order."""
        return digest(normalised(self.asked))


@dataclass(frozen=True)
class DocumentReference:
    """The reference of a knowledge leaf to its documents: repository, commit and file patterns, and its line in `qna.yaml`."""

    repo: str
    commit: str
    patterns: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Leaf:
    """The content of a leaf: its usable seeds and the texts of its `qna.yaml`, which are '' where the file lacks them."""

    key: str
    kind: Kind
    version: int
    created_by: str
    task_description: str
    domain: str
    document_outline: str
    seeds: tuple[Seed, ...]
    document: DocumentReference | None
    """None in skills."""
    attribution: str
    """Text of `attribution.txt`, at most 20,000 characters; '' if it cannot be read."""


@dataclass
class LeafReading:
    """What `read_leaf` found in a leaf: verdicts, content (None if refused, or without a usable seed) and problems. When a
    snapshot is taken, it adds problems of the leaf's documents and split, which can make the leaf unusable."""

    key: str
    schema_verdict: Literal["valid", "invalid"] = "invalid"
    version: int | None = None
    leaf: Leaf | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return self.leaf is not None and not any(problem.severity == "error" for problem in self.problems)

    def report(self, line: int, message: str, severity: Severity = "error", file: str = QNA) -> None:
        self.problems.append(Problem(f"{self.key}/{file}", line, severity, message))


def find_leaves(taxonomy: Path) -> list[str]:
    """List the keys of all leaves, sorted: the paths, relative to `taxonomy`, of folders with a `qna.yaml`.

    Symbolic links are not followed. A folder name that is not UTF-8 gets replacement characters, so its leaf is listed but
    cannot be read.
    """
    found = set()
    for branch in BRANCHES:
        for qna in (taxonomy / branch).rglob(QNA):
            inside = [parent for parent in qna.parents if parent.is_relative_to(taxonomy) and parent != taxonomy]
            if not any(path.is_symlink() for path in [qna, *inside]):
                found.add(os.fsencode(qna.parent.relative_to(taxonomy)).decode("utf-8", errors="replace"))
    return sorted(found)


def read_leaf(taxonomy: Path, key: str) -> LeafReading:
    """Read and check the leaf in the folder `taxonomy / key`; whatever is wrong with it becomes a problem of the result.

    Its documents are not read.
    """
    reading = LeafReading(key)
    try:
        located = load_located((taxonomy / key / QNA).read_bytes())
    except OSError as error:
        reading.report(1, f"cannot be read ({error.strerror})")
        return reading
    except YamlProblem as error:
        reading.report(error.line, error.message)
        return reading

    value = located.value
    if not isinstance(value, dict):
        reading.report(1, f"expected a mapping with 'seed_examples', found {type(value).__name__}")
        return reading
    version = value.get("version", 1)
    if isinstance(version, bool) or version not in VERSIONS:
        reading.report(located.line(("version",)), f"schema version {version!r} is not known; use {VERSIONS[-1]}")
        return reading
    reading.version = version = int(version)
    schema = _schema(_branch(key), version)
    definition: Any = schema.schema
    if definition.get("deprecated"):
        reading.report(located.line(("version",)), definition["description"])
        return reading
    refused = [(located.line(tuple(each.absolute_path)), each) for each in schema.iter_errors(value)]
    for line, each in sorted(refused, key=lambda found: (found[0], found[1].message)):
        reading.report(line, _described(each))
    if refused:
        return reading
    reading.schema_verdict = "valid"

    attribution = _read_attribution(taxonomy / key / ATTRIBUTION)
    if not attribution and version > 1:
        reading.report(1, "missing or empty; name title, link, licence and creators", "warning", ATTRIBUTION)
    for line, licence in non_commercial_lines(attribution):
        message = f"licence {licence} does not allow commercial use; data sets and models made from this leaf say so"
        reading.report(line, message, "warning", ATTRIBUTION)
    for line, message in _length_warnings(located):
        reading.report(line, message, "warning")
    reading.leaf = _leaf_of(reading, version, located, attribution)
    return reading


def _leaf_of(reading: LeafReading, version: int, located: LocatedYaml, attribution: str) -> Leaf | None:
    value = located.value
    if _branch(reading.key) == "knowledge":
        kind: Kind = "knowledge"
        seeds = _knowledge_seeds(located)
        repo, commit, patterns = (value["document"][name] for name in ("repo", "commit", "patterns"))
        document = DocumentReference(repo.strip(), commit.strip(), tuple(patterns), located.line(("document",)))
    else:
        seeds = _skill_seeds(located)
        grounded = [seed for seed in seeds if seed.context]
        freeform = [seed for seed in seeds if not seed.context]
        kind = "grounded_skill" if len(grounded) > len(freeform) else "freeform_skill"
        seeds, others, have = (grounded, freeform, "have") if kind == "grounded_skill" else (freeform, grounded, "lack")
        message = f"set aside: a {kind.replace('_', ' ')} leaf's seeds all {have} a context; move this one to a leaf of its own"
        for seed in others:
            reading.report(seed.line, message, "warning")
        document = None
    usable: list[Seed] = []
    seen: dict[tuple[str, str | None], int] = {}
    for seed in seeds:
        # A skill may answer one request in several ways. A knowledge question is asked without its context, so once only.
        content = (seed.identity, None if kind == "knowledge" else normalised(seed.answer))
        if not seed.question.strip() or not seed.answer.strip():
            reading.report(seed.line, "set aside: question or answer is blank", "warning")
        elif content in seen:
            reading.report(seed.line, f"set aside: the same question stands at line {seen[content]}", "warning")
        else:
            seen[content] = seed.line
            usable.append(seed)
    if not usable:
        reading.report(located.line(("seed_examples",)), "no seed example is left to work with")
        return None
    return Leaf(
        key=reading.key,
        kind=kind,
        version=version,
        created_by=str(value.get("created_by", "")),
        task_description=str(value.get("task_description", "")).strip(),
        domain=str(value.get("domain", "")).strip(),
        document_outline=str(value.get("document_outline", "")).strip(),
        seeds=tuple(usable),
        document=document,
        attribution=attribution,
    )


def _knowledge_seeds(located: LocatedYaml) -> list[Seed]:
    seeds = []
    for group, example in enumerate(located.value["seed_examples"]):
        for index, pair in enumerate(example["questions_and_answers"]):
            question, answer, context = pair["question"].strip(), pair["answer"].strip(), example["context"].strip()
            line = located.line(("seed_examples", group, "questions_and_answers", index))
            seeds.append(Seed(question, answer, context, group, line, asked=question))
    return seeds


def _skill_seeds(located: LocatedYaml) -> list[Seed]:
    seeds = []
    for group, example in enumerate(located.value["seed_examples"]):
        question, context = example["question"].strip(), (example.get("context") or "").strip() or None
        line = located.line(("seed_examples", group))
        asked = f"{context}\n\n{question}" if context else question
        seeds.append(Seed(question, example["answer"].strip(), context, group, line, asked))
    return seeds


def _length_warnings(located: LocatedYaml) -> list[tuple[int, str]]:
    limits = {"context": MAX_CONTEXT_WORDS, "question": MAX_ANSWER_WORDS, "answer": MAX_ANSWER_WORDS}
    warnings = []
    for path in located.lines:
        name = path[-1] if path else None
        if path[:1] == ("seed_examples",) and name in limits:
            text: Any = located.value
            try:
                for step in path:
                    text = text[step]
            except (LookupError, TypeError):  # the value is below a merge key (<<), or below a key that is not text
                continue
            if isinstance(text, str) and len(text.split()) > limits[name]:
                message = f"{name} has {len(text.split())} words; the documented limit is {limits[name]}"
                warnings.append((located.lines[path], message))
    return warnings


def _read_attribution(path: Path) -> str:
    with suppress(OSError):
        if path.is_file() and not path.is_symlink():
            return path.read_text(encoding="utf-8", errors="replace")[:20_000].rstrip()
    return ""


def _branch(key: str) -> str:
    """Return the name of the schema for this leaf; both branches of skills share one."""
    return "knowledge" if key.partition("/")[0] == "knowledge" else "compositional_skills"


def _described(error: jsonschema.ValidationError) -> str:
    where = ".".join(str(step) for step in error.absolute_path)
    message = error.message if len(error.message) < 300 else f"{error.message[:300]}…"
    return f"{where}: {message}" if where else message


@cache
def _schema(branch: str, version: int) -> jsonschema.Draft202012Validator:
    folder = files("instructlab.schema") / f"v{version}"
    version_schema = Resource.from_contents(json.loads((folder / "version.json").read_text()), DRAFT202012)
    registry = Registry().with_resources([(name, version_schema) for name in ("./version.json", "version.json")])
    return jsonschema.Draft202012Validator(json.loads((folder / f"{branch}.json").read_text()), registry=registry)
