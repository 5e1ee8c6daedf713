"""Loading and checking a flow: `flow.yaml` and the prompt files beside it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab_pipeline.core.storage import digest
from lab_pipeline.core.validation import validation_problems
from lab_pipeline.flows.prompts import FlowError, Prompt, load_prompt, render_prompt
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.teacher.protocol import Message

SHIPPED = Path(__file__).parent
KNOWN_ROWS = "known_rows.yaml"
STOPS_BELOW = 0.5
"""More probably bad than good."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Start(_Section):
    """What a row starts from, before the teacher is asked anything."""

    each: Literal["sentence", "passage", "seed"]
    """One row for each sentence or passage of the documents (knowledge), or each training seed (skills)."""
    repeats: int = Field(1, ge=1, le=100)
    """Rows from each start, with other examples each time."""
    examples: int = Field(3, ge=1, le=20)
    """Seed examples shown in the prompt, drawn from the same leaf (local sampling: LAB paper, section 3)."""
    answers: bool = False
    """The sentence or passage is the answer to what is asked about it, so that no small model has to put it in other words."""

    @model_validator(mode="after")
    def _can_answer(self) -> Start:
        if self.answers and self.each == "seed":
            raise ValueError("answers: a seed is no answer; expected each: sentence or passage")
        return self


class Augmentation(_Section):
    """Another form of a passage, such as a summary. Pairs are written from it too (`text` in prompts), and it makes a row of
    its own, a document instruction: the passage, one of `instructions`, and this form as the answer."""

    name: str
    prompt: str
    max_tokens: int = Field(ge=1, le=32_768)
    instructions: tuple[str, ...] = Field(min_length=1)


class Stage(_Section):
    """One question to the teacher, whose reply becomes a column, or question and answer where `output` is pairs."""

    output: Literal["context", "question", "answer", "pairs"]
    prompt: str
    max_tokens: int = Field(ge=1, le=32_768)
    temperatures: tuple[float, ...] = (0.0,)
    """One sample for each entry."""
    first_line: bool = False
    """Keep the reply's first line only: small models like to go on."""
    several: int = Field(1, ge=1, le=50)
    """How many the prompt asks for in one reply, as `{{ several }}`. With more than one, and for pairs, each stands behind its
    label, such as `Question:`, and makes a row of its own."""

    @property
    def columns(self) -> tuple[str, ...]:
        return ("question", "answer") if self.output == "pairs" else (self.output,)

    @property
    def labelled(self) -> bool:
        return self.output == "pairs" or self.several > 1


class Judge(_Section):
    """One verdict on a row. Its score is the expected worth of the choices where the judge gives their probabilities, else the
    worth of the one it chose."""

    name: str
    prompt: str
    choices: dict[str, Annotated[float, Field(ge=0, le=1)]] = {"Yes": 1.0, "No": 0.0}
    """What the judge may say, and what each is worth. Their first letters must differ: probabilities are those of first
    tokens."""
    minimum: float = Field(0.5, ge=0, le=1)
    gates: bool = False
    """Rejects rows below `minimum`, provided that the judge tells the flow's known rows apart; otherwise the score is advice,
    shown and stored."""
    before: Literal["question", "answer"] | None = None
    """Judges before the stage with this output. A judge that gates stops a row that scores below `STOPS_BELOW` there, whatever
    its `minimum`, so that a changed threshold never costs a call."""
    document_instructions: bool = False
    """Judges document instructions as well."""

    @model_validator(mode="after")
    def _can_decide(self) -> Judge:
        if len({choice[:1].casefold() for choice in self.choices}) < max(2, len(self.choices)):
            raise ValueError(f"choices: expected two or more with different first letters, found {list(self.choices)}")
        if self.before and self.minimum < STOPS_BELOW:
            raise ValueError(f"minimum: a judge before a stage stops what scores below {STOPS_BELOW}; expected no less")
        return self


class Rules(_Section):
    """Thresholds of the rules that need no judge; see `lab_pipeline.curation.rules`. None switches a rule off."""

    question_words: tuple[int, int] = (3, 60)
    answer_words: tuple[int, int] = (1, 250)
    """Least and most words, as of questions; a leaf's shorter and longer seeds widen both."""
    answer_support: float | None = None
    """Least share of the answer's content words that stand in its source; of knowledge, of those that the question lacks."""
    question_support: float | None = None
    """Least share of the question's content words that stand in its source."""
    question_names: float | None = None
    """Where the source is the answer: least share of its content words, the leaf's subject aside, that the question names.
    'What is the loom?' asks for any sentence on looms."""
    sentence_answers: bool = False
    """Where the source is the answer: it must tell the kind of thing that is asked for, such as a number."""
    on_topic: float | None = 0.65
    """Least share of a knowledge row's content words that stand in the leaf's seeds, passages or descriptions; seeds left out
    in turn have 0.78 and more, other leaves' rows at most 0.6. Skill rows are compared with the leaf's seeds."""
    grounding: float | None = None
    """Least gain in nats per answer token that the source brings under the base model. Needs a pass of that model. The packaged
    one tells little that the other rules do not (benchmarks/grounding.py), so the shipped flows leave it off."""
    facts: bool = True
    """Numbers, names and negations of the answer must be those of its source."""
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
    def _parts_fit(self) -> FlowFile:
        columns = [column for stage in self.stages for column in stage.columns]
        last = "question" if self.start.answers else "answer"
        if columns[-1] != last or "question" not in columns or (self.start.answers and "answer" in columns):
            raise ValueError(
                "stages: one must give the question, and the last one the answer, which no stage gives where start answers"
            )
        if self.augmentations and self.start.each != "passage":
            raise ValueError("augmentations: only a flow that starts from each passage has them")
        early = {judge.before for judge in self.judges} - {None, *(stage.output for stage in self.stages)}
        if early:
            raise ValueError(f"judges: before: no stage gives the {early.pop()}")
        if len({judge.name for judge in self.judges}) < len(self.judges):
            raise ValueError("judges: two have the same name")
        return self


class KnownRows(_Section):
    """Rows whose verdict is known, with the columns that the judges' prompts use; by these a judge shows that it can judge."""

    good: tuple[dict[str, str], ...] = Field(min_length=8)
    """Good to every judge."""
    bad: dict[str, Annotated[tuple[dict[str, str], ...], Field(min_length=8)]]
    """Bad to one judge, by its name."""


@dataclass(frozen=True)
class Flow:
    """A flow ready to run. The three digests say what a change invalidates: generation, judging or curation alone."""

    name: str
    file: FlowFile
    prompts: dict[str, Prompt]
    known: KnownRows | None = None

    @property
    def kind(self) -> Kind:
        return self.file.kind

    @property
    def generation_digest(self) -> str:
        """Of all that decides on the rows; judges that stop rows on the way belong to it, but for their thresholds."""
        file = self.file
        parts: list[Augmentation | Stage] = [*file.augmentations, *file.stages]
        made = [[part.model_dump(mode="json"), self.prompts[part.prompt]] for part in parts]
        early = [[self._asked(judge), judge.gates, self._known(judge)] for judge in self.judges(early=True)]
        return digest([file.start.model_dump(mode="json"), made, early])

    @property
    def judging_digest(self) -> str:
        return digest([self._asked(judge) for judge in self.judges(early=False)])

    @property
    def curation_digest(self) -> str:
        gates = [[judge.name, judge.minimum, judge.gates, self._known(judge)] for judge in self.file.judges]
        return digest([self.file.rules.model_dump(mode="json"), gates])

    def separation_digest(self, judge: Judge) -> str:
        """Of what decides whether a model, as this judge, tells the known rows apart."""
        return digest([self._asked(judge), self.known_rows(judge)])

    def _asked(self, judge: Judge) -> list[Any]:
        return [judge.model_dump(mode="json", exclude={"minimum", "gates"}), self.prompts[judge.prompt]]

    def _known(self, judge: Judge) -> Any:
        return self.known_rows(judge) if judge.gates else None

    def known_rows(self, judge: Judge) -> tuple[tuple[dict[str, str], ...], tuple[dict[str, str], ...]]:
        """(good, bad) rows by which the judge shows that it can judge; none where no judge of the flow gates."""
        return (self.known.good, self.known.bad.get(judge.name, ())) if self.known else ((), ())

    def judges(self, early: bool) -> list[Judge]:
        """The judges that are asked before a stage, or those of whole rows."""
        return [judge for judge in self.file.judges if bool(judge.before) == early]

    def trusting(self, names: Collection[str]) -> Flow:
        """The flow in which only these judges gate; the scores of the others are advice."""
        judges = tuple(judge.model_copy(update={"gates": judge.gates and judge.name in names}) for judge in self.file.judges)
        return replace(self, file=self.file.model_copy(update={"judges": judges}))

    def render(self, prompt: str, variables: dict[str, Any]) -> tuple[Message, ...]:
        """Fill a prompt in.

        Raises:
            FlowError: the prompt uses a variable that the row does not have.
        """
        return render_prompt(f"flow {self.name}, {prompt}", self.prompts[prompt], variables)


def shipped_flows() -> list[str]:
    return sorted(path.parent.name for path in SHIPPED.glob("*/flow.yaml"))


def load_flow(name: str, kind: Kind | None = None) -> Flow:
    """The shipped flow of that name, or the flow in the folder of that path, checked whole.

    Raises:
        FlowError: there is none, it serves another kind of leaf than `kind`, or a file of it is wrong.
    """
    folder = SHIPPED / name if name in shipped_flows() else Path(name)
    if not (folder / "flow.yaml").is_file():
        raise FlowError(f"no flow {name!r}: neither one of {', '.join(shipped_flows())} nor a folder with flow.yaml")
    file = _load(folder / "flow.yaml", FlowFile)
    if kind not in (None, file.kind):
        raise FlowError(f"flow {name} serves {file.kind} leaves, not {kind}; see flows in settings.yaml")
    parts: list[Augmentation | Stage | Judge] = [*file.augmentations, *file.stages, *file.judges]
    names = {part.prompt for part in parts}
    prompts = {prompt: load_prompt(folder / prompt) for prompt in sorted(names)}
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


_Model = TypeVar("_Model", bound=_Section)


def _load(path: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise FlowError(f"{path}: {validation_problems(error)[0]}") from None
    except OSError as error:
        raise FlowError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FlowError(f"{path}: not valid YAML: {error}") from None
