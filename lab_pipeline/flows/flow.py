"""Load and check a flow: `flow.yaml` and the prompt files beside it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab_pipeline.core.rows import GENERATED_SCHEMA
from lab_pipeline.core.storage import digest
from lab_pipeline.core.validation import validation_problems
from lab_pipeline.flows.prompts import FlowError, Prompt, load_prompt, load_yaml, render_prompt, unknown_variables
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.teacher.protocol import Message

SHIPPED = Path(__file__).parent
KNOWN_ROWS = "known_rows.yaml"
_OF_LEAF = ("task", "domain", "outline", "heading")
STOPS_BELOW = 0.5
"""A judge before a stage stops rows with a lower score: they are more probably bad than good."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Start(_Section):
    """What each row starts from, before the teacher is asked."""

    each: Literal["sentence", "passage", "seed"]
    """One row for each sentence or passage of the documents (knowledge), or each training seed (skills)."""
    repeats: int = Field(1, ge=1, le=100)
    """Rows from each start, each time with other examples."""
    examples: int = Field(3, ge=1, le=20)
    """Seed examples in the prompt, drawn from the same leaf (local sampling: LAB paper, section 3)."""
    answers: bool = False
    """Use the sentence or passage itself as the answer, so that a small model need not rephrase it."""

    @model_validator(mode="after")
    def _can_answer(self) -> Self:
        if self.answers and self.each == "seed":
            raise ValueError("answers: a seed cannot be the answer; expected each: sentence or passage")
        return self


class Augmentation(_Section):
    """Another form of a passage, such as a summary: pairs are written from it too (`text` in prompts), and it makes a document
    instruction, which is a row of the passage, one of `instructions`, and this form as the answer."""

    name: str
    prompt: str
    max_tokens: int = Field(ge=1, le=32_768)
    instructions: tuple[str, ...] = Field(min_length=1)


class Stage(_Section):
    """One request to the teacher. Its reply becomes a column, or question and answer where `output` is pairs."""

    output: Literal["context", "question", "answer", "pairs"]
    prompt: str
    max_tokens: int = Field(ge=1, le=32_768)
    temperatures: tuple[float, ...] = (0.0,)
    """One sample for each entry."""
    first_line: bool = False
    """Keep only the reply's first line, because small models tend to go on."""
    several: int = Field(1, ge=1, le=50)
    """Number of items that the prompt asks for in one reply, as `{{ several }}`. With more than one, and for pairs, each item
    has a label, such as `Question:`, and makes its own row."""

    @property
    def columns(self) -> tuple[str, ...]:
        return ("question", "answer") if self.output == "pairs" else (self.output,)

    @property
    def labelled(self) -> bool:
        return self.output == "pairs" or self.several > 1


class Judge(_Section):
    """One verdict on a row. Its score is the expected value of the choices if the judge gives their probabilities, else the
    value of its choice."""

    name: str
    prompt: str
    choices: dict[str, Annotated[float, Field(ge=0, le=1)]] = {"Yes": 1.0, "No": 0.0}
    """Value of each verdict that the judge may give. First letters must differ: probabilities are those of first tokens."""
    minimum: float = Field(0.5, ge=0, le=1)
    gates: bool = False
    """Reject rows below `minimum`, provided that the judge separates the flow's known rows. Otherwise the score is advisory:
    shown and stored."""
    before: Literal["question", "answer"] | None = None
    """Judge before the stage with this output. A gating judge stops rows below `STOPS_BELOW` there, not below its `minimum`,
    so that a changed threshold never costs a call."""
    document_instructions: bool = False
    """Judge document instructions as well."""

    @model_validator(mode="after")
    def _can_decide(self) -> Self:
        if len({choice[:1].casefold() for choice in self.choices}) < max(2, len(self.choices)):
            raise ValueError(f"choices: expected two or more with different first letters, found {list(self.choices)}")
        if self.before and self.minimum < STOPS_BELOW:
            raise ValueError(f"minimum: a judge before a stage stops rows below {STOPS_BELOW}; expected at least that")
        return self


class Rules(_Section):
    """Thresholds of the rules in `lab_pipeline.curation.rules`, which need no judge. None switches a rule off."""

    question_words: tuple[int, int] = (3, 60)
    answer_words: tuple[int, int] = (1, 250)
    """Least and most words, as for questions; shorter and longer seeds of a leaf widen both ranges for it."""
    answer_support: float | None = None
    """Least share of the answer's content words found in its source; in knowledge, words of the question are not counted."""
    question_support: float | None = None
    """Least share of the question's content words found in its source."""
    question_names: float | None = None
    """If the source is the answer: least share of its content words, the leaf's subject aside, that the question names.
    'What is the loom?' fits any sentence on looms."""
    sentence_answers: bool = False
    """If the source is the answer, it must have the kind of thing that is asked for, such as a number."""
    on_topic: float | None = 0.65
    """Least share of a knowledge row's content words found in the leaf's seeds, passages or descriptions. Seeds left out in
    turn have at least 0.78, other leaves' rows at most 0.6. Skill rows are compared with the leaf's seeds."""
    grounding: float | None = None
    """Least grounding score, in nats per answer token; needs a pass of the base model. The packaged one finds little that the
    other rules miss (benchmarks/grounding.py), so the shipped flows leave it off."""
    facts: bool = True
    """Numbers, names and negations of the answer must agree with its source."""
    question_mark: bool = False
    informative: bool = True
    language: bool = True


class FlowFile(_Section):
    version: int = Field(ge=1)
    kind: Literal["knowledge", "grounded_skill", "freeform_skill"]
    description: str
    start: Start
    augmentations: tuple[Augmentation, ...] = ()
    stages: tuple[Stage, ...] = Field(min_length=1)
    judges: tuple[Judge, ...] = ()
    rules: Rules = Rules()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        columns = [column for stage in self.stages for column in stage.columns]
        last = "question" if self.start.answers else "answer"
        if columns[-1] != last or "question" not in columns or (self.start.answers and "answer" in columns):
            raise ValueError(
                "stages: one must give the question, and the last one the answer (with start.answers, none gives an answer)"
            )
        if self.augmentations and self.start.each != "passage":
            raise ValueError("augmentations: expected none unless start.each is passage")
        early = {judge.before for judge in self.judges} - {None, *(stage.output for stage in self.stages)}
        if early:
            raise ValueError(f"judges: before: no stage gives the {early.pop()}")
        if len({judge.name for judge in self.judges}) < len(self.judges):
            raise ValueError("judges: two have the same name")
        return self


class KnownRows(_Section):
    """Rows whose verdict is known, with the columns that the judges' prompts use. A judge may gate if it separates them."""

    good: tuple[dict[str, str], ...] = Field(min_length=8)
    """Good to every judge."""
    bad: dict[str, Annotated[tuple[dict[str, str], ...], Field(min_length=8)]]
    """Bad to one judge, by the judge's name."""


@dataclass(frozen=True)
class Flow:
    """A flow that is ready to run. Its digests tell what a change invalidates: generation, judging or only curation."""

    name: str
    file: FlowFile
    prompts: dict[str, Prompt]
    known: KnownRows | None = None

    @property
    def kind(self) -> Kind:
        return self.file.kind

    @property
    def generation_digest(self) -> str:
        """Hash what decides which rows are generated, including the judges before stages, but not their thresholds."""
        parts: list[Augmentation | Stage] = [*self.file.augmentations, *self.file.stages]
        prompts = [[part.model_dump(mode="json"), self.prompts[part.prompt]] for part in parts]
        early = [[self._prompt(judge), judge.gates, self._gating_rows(judge)] for judge in self.judges(early=True)]
        return digest([self.file.start.model_dump(mode="json"), prompts, early])

    @property
    def judging_digest(self) -> str:
        return digest([self._prompt(judge) for judge in self.judges(early=False)])

    @property
    def curation_digest(self) -> str:
        gates = [[judge.name, judge.minimum, judge.gates, self._gating_rows(judge)] for judge in self.file.judges]
        return digest([self.file.rules.model_dump(mode="json"), gates])

    def separation_digest(self, judge: Judge) -> str:
        """Hash what decides whether a model, as this judge, separates the known rows."""
        return digest([self._prompt(judge), self.known_rows(judge)])

    def _prompt(self, judge: Judge) -> list[Any]:
        return [judge.model_dump(mode="json", exclude={"minimum", "gates"}), self.prompts[judge.prompt]]

    def _gating_rows(self, judge: Judge) -> Any:
        return self.known_rows(judge) if judge.gates else None

    def known_rows(self, judge: Judge) -> tuple[tuple[dict[str, str], ...], tuple[dict[str, str], ...]]:
        """Return the (good, bad) rows that a judge must separate in order to gate; none if no judge of the flow gates."""
        return (self.known.good, self.known.bad.get(judge.name, ())) if self.known else ((), ())

    def judges(self, early: bool) -> list[Judge]:
        """Return the judges that are asked before a stage, or those of whole rows."""
        return [judge for judge in self.file.judges if bool(judge.before) == early]

    def trusting(self, names: Collection[str]) -> Self:
        """Return the flow in which only these judges gate; the scores of the others are advisory."""
        judges = tuple(judge.model_copy(update={"gates": judge.gates and judge.name in names}) for judge in self.file.judges)
        return replace(self, file=self.file.model_copy(update={"judges": judges}))

    def render(self, prompt: str, variables: Mapping[str, object]) -> tuple[Message, ...]:
        """Fill in a prompt.

        Raises:
            FlowError: the prompt uses an undefined variable.
        """
        return render_prompt(f"flow {self.name}, {prompt}", self.prompts[prompt], variables)


def shipped_flows() -> list[str]:
    return sorted(path.parent.name for path in SHIPPED.glob("*/flow.yaml"))


def load_flow(name: str, kind: Kind | None = None) -> Flow:
    """Load the shipped flow of that name, or the flow in the folder at that path, and check all of it.

    Raises:
        FlowError: there is none, it serves another kind of leaf than `kind`, or one of its files is wrong.
    """
    folder = SHIPPED / name if name in shipped_flows() else Path(name)
    if not (folder / "flow.yaml").is_file():
        raise FlowError(f"no flow {name!r}: neither one of {', '.join(shipped_flows())} nor a folder with flow.yaml")
    file = _load(folder / "flow.yaml", FlowFile)
    if kind not in (None, file.kind):
        raise FlowError(f"flow {name} serves {file.kind} leaves, not {kind}; see flows in settings.yaml")
    parts: list[Augmentation | Stage | Judge] = [*file.augmentations, *file.stages, *file.judges]
    prompts = {name: load_prompt(folder / name) for name in sorted({part.prompt for part in parts})}
    for prompt, known in variables_by_prompt(file):
        if unknown := unknown_variables(prompts[prompt], known, GENERATED_SCHEMA.names):
            raise FlowError(f"{folder / prompt}: {unknown[0]!r} is undefined; a row has {', '.join(sorted(known))} there")
    gating = [judge for judge in file.judges if judge.gates]
    if not gating:
        return Flow(folder.name, file, prompts)
    flow = Flow(folder.name, file, prompts, _load(folder / KNOWN_ROWS, KnownRows))
    for judge in gating:
        good, bad = flow.known_rows(judge)
        if not bad:
            raise FlowError(f"{folder / KNOWN_ROWS}: bad: no rows for {judge.name}, which gates by {folder / 'flow.yaml'}")
        for row in (*good, *bad):
            flow.render(judge.prompt, row)
    return flow


def variables_by_prompt(file: FlowFile) -> Iterator[tuple[str, set[str]]]:
    """Yield each prompt of a flow with the variables that it may use: see `Draft.variables` in `instructions/generate.py`."""
    known = {*_OF_LEAF, "examples", "support", "text"} | ({"answer"} if file.start.answers else set())
    for augmentation in file.augmentations:
        yield augmentation.prompt, known
    asked = set()
    for stage in file.stages:
        for judge in file.judges:
            if judge.before == stage.output and judge.name not in asked:
                asked.add(judge.name)
                yield judge.prompt, known
        yield stage.prompt, known | {"several"}
        known = known | {*stage.columns}
    for judge in file.judges:
        if not judge.before:
            yield judge.prompt, {*_OF_LEAF, *GENERATED_SCHEMA.names}


_Model = TypeVar("_Model", bound=_Section)


def _load(path: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate(load_yaml(path))
    except ValidationError as error:
        raise FlowError(f"{path}: {validation_problems(error)[0]}") from None
