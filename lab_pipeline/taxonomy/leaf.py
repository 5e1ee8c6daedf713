"""Read and check one leaf of a taxonomy, a folder with a `qna.yaml` of seed examples, without ever raising.

A leaf gets two verdicts. The *schema verdict* is that of InstructLab's own parser (package `instructlab-schema`, strict, which
includes lint). *Usable* means that the pipeline can work with the leaf: stricter in most, but lint alone only gives warnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lab_pipeline.core.errors import Severity
from lab_pipeline.core.storage import digest
from lab_pipeline.taxonomy.attribution import non_commercial_lines
from lab_pipeline.taxonomy.find import QNA
from lab_pipeline.taxonomy.problem import Problem
from lab_pipeline.taxonomy.upstream import (
    VERSIONS,
    Finding,
    SchemaName,
    lint_findings,
    schema_findings,
    schema_version,
    upstream_schema,
)
from lab_pipeline.taxonomy.yaml_lines import LocatedYaml, YamlProblem, decoded, read_located
from lab_pipeline.text.words import normalised

ATTRIBUTION = "attribution.txt"

MAX_CONTEXT_WORDS = 500
MAX_ANSWER_WORDS = 250
"""Limits in the README of InstructLab's taxonomy, this one for answers and questions; longer texts are only warned of."""

Kind = Literal["knowledge", "grounded_skill", "freeform_skill"]


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
    column: int = 1

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

    def report(
        self, line: int, message: str, severity: Severity = "error", file: str = QNA, column: int = 1, rule: str = "documents"
    ) -> None:
        self.problems.append(Problem(f"{self.key}/{file}", line, severity, message, column, rule))

    def add(self, findings: list[Finding], severity: Severity = "error") -> None:
        """Report findings in the `qna.yaml`."""
        for (line, column), rule, message in findings:
            self.report(line, message, severity, column=column, rule=rule)


def read_leaf(taxonomy: Path, key: str, misnamed: Sequence[Problem] = ()) -> LeafReading:
    """Read and check the leaf in the folder `taxonomy / key`; whatever is wrong with it becomes a problem of the result.

    Its documents are not read.

    Args:
        misnamed: What `find_misnamed` found in the folder. An error among it means that there is no leaf to read.
    """
    if any(problem.severity == "error" for problem in misnamed):
        return LeafReading(key, problems=[*misnamed])
    reading = _read(taxonomy, key)
    reading.problems += misnamed
    return reading


def _read(taxonomy: Path, key: str) -> LeafReading:
    try:
        raw = (taxonomy / key / QNA).read_bytes()
    except OSError as error:
        reading = LeafReading(key)
        reading.report(1, f"cannot be read ({error.strerror})", rule="unreadable")
        return reading
    return check_leaf(key, raw, _read_attribution(taxonomy / key / ATTRIBUTION))


def check_leaf(key: str, raw: bytes, attribution: str) -> LeafReading:
    """Check a leaf as `read_leaf` does, by the bytes of its `qna.yaml` and the text of its `attribution.txt` alone."""
    reading = LeafReading(key)
    try:
        text = decoded(raw)
        located = read_located(text)
    except YamlProblem as error:
        reading.add([_finding(error)])
        return reading
    reading.add([_finding(error) for error in located.refused])
    value = located.value
    if not value:
        reading.schema_verdict = "valid"  # so says InstructLab's parser, with a warning
    if not isinstance(value, dict):
        found = "an empty file" if value is None else type(value).__name__
        reading.report(1, f"expected a mapping with 'seed_examples', found {found}", rule="no-mapping")
        return reading
    reading.version = version = schema_version(value)
    if version is None:
        message = f"schema version {value['version']!r} is not known; use {VERSIONS[-1]}"
        reading.add([Finding(located.place(("version",)), "version", message)])
        return reading
    refused = schema_findings(located, _schema_name(key), version)
    reading.add(refused)
    if value:
        reading.schema_verdict = _schema_verdict(reading, text, located, version, refused)
    if refused or located.refused:
        return reading

    if not attribution and version > 1:
        message = "missing or empty; name title, link, licence and creators"
        reading.report(1, message, "warning", ATTRIBUTION, rule="attribution-missing")
    for line, licence in non_commercial_lines(attribution):
        message = f"licence {licence} does not allow commercial use; data sets and models made from this leaf say so"
        reading.report(line, message, "warning", ATTRIBUTION, rule="licence-non-commercial")
    reading.add(_length_warnings(located), "warning")
    reading.leaf = _leaf_of(reading, version, located, attribution)
    return reading


def _schema_verdict(
    reading: LeafReading, text: str, located: LocatedYaml, version: int, refused: list[Finding]
) -> Literal["valid", "invalid"]:
    """Return the verdict of InstructLab's parser, and warn of what only it refuses; `refused` is what our schema does."""
    name = upstream_schema(reading.key, located.value)
    theirs = refused if name == _schema_name(reading.key) else schema_findings(located, name, version)
    if theirs and not refused:
        message = f"ilab takes this leaf for {name}, by a folder of this name in its path, and refuses it; rename the folder"
        reading.report(1, message, "warning", rule="upstream-branch")
    lint = lint_findings(text) if version > 1 else []
    twice = any(error.rule == "duplicate-key" for error in located.refused)  # said already, by an error
    reading.add([each for each in lint if not (twice and each.rule == "lint-key-duplicates")], "warning")
    return "invalid" if theirs or lint else "valid"


def _finding(error: YamlProblem) -> Finding:
    return Finding((error.line, error.column), error.rule, error.message)


def _leaf_of(reading: LeafReading, version: int, located: LocatedYaml, attribution: str) -> Leaf | None:
    value = located.value
    if _schema_name(reading.key) == "knowledge":
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
            reading.report(seed.line, message, "warning", column=seed.column, rule="mixed-contexts")
        document = None
    usable: list[Seed] = []
    seen: dict[tuple[str, str | None], int] = {}
    for seed in seeds:
        # A skill may answer one request in several ways. A knowledge question is asked without its context, so once only.
        content = (seed.identity, None if kind == "knowledge" else normalised(seed.answer))
        if not seed.question.strip() or not seed.answer.strip():
            message = "set aside: question or answer is blank; write it"
            reading.report(seed.line, message, "warning", column=seed.column, rule="blank-answer")
        elif content in seen:
            message = f"set aside: the same question stands at line {seen[content]}"
            reading.report(seed.line, message, "warning", column=seed.column, rule="duplicate-question")
        else:
            seen[content] = seed.line
            usable.append(seed)
    if not usable:
        reading.add([Finding(located.place(("seed_examples",)), "no-seeds", "no seed example is left to work with")])
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
            line, column = located.place(("seed_examples", group, "questions_and_answers", index))
            seeds.append(Seed(question, answer, context, group, line, question, column))
    return seeds


def _skill_seeds(located: LocatedYaml) -> list[Seed]:
    seeds = []
    for group, example in enumerate(located.value["seed_examples"]):
        question, context = example["question"].strip(), (example.get("context") or "").strip() or None
        line, column = located.place(("seed_examples", group))
        asked = f"{context}\n\n{question}" if context else question
        seeds.append(Seed(question, example["answer"].strip(), context, group, line, asked, column))
    return seeds


def _length_warnings(located: LocatedYaml) -> list[Finding]:
    limits = {"context": MAX_CONTEXT_WORDS, "question": MAX_ANSWER_WORDS, "answer": MAX_ANSWER_WORDS}
    warnings = []
    for path, place in located.places.items():
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
                warnings.append(Finding(place, "too-long", message))
    return warnings


def _read_attribution(path: Path) -> str:
    with suppress(OSError):
        if path.is_file() and not path.is_symlink():
            return path.read_text(encoding="utf-8", errors="replace")[:20_000].rstrip()
    return ""


def _schema_name(key: str) -> SchemaName:
    """Return the name of the schema for this leaf; both branches of skills share one."""
    return "knowledge" if key.partition("/")[0] == "knowledge" else "compositional_skills"
