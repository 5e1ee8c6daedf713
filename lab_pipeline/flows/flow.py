"""Load and check a flow: `flow.yaml`, the prompt files that it names and, if a judge gates, `known_rows.yaml`."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from lab_pipeline.core.rows import GENERATED_SCHEMA
from lab_pipeline.core.storage import digest
from lab_pipeline.core.validation import Section, validation_problems
from lab_pipeline.flows.prompts import FlowError, Prompt, load_prompt, load_yaml, render_prompt, unknown_variables
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.teacher.protocol import Message

SHIPPED = Path(__file__).parent
KNOWN_ROWS = "known_rows.yaml"
_OF_LEAF = ("task", "domain", "outline", "heading")
STOPS_BELOW = 0.5
"""A gating judge before a stage stops rows with a lower score: they are more probably bad than good."""


class Start(Section):
    """The starting points of a leaf's rows, and the seed examples that their prompts show."""

    each: Literal["sentence", "passage", "seed"]
    """Start a row from each sentence or passage of the leaf's documents (knowledge), or start as many rows as the leaf has
    seeds in use (skills). A prompt shows only the seeds that are drawn as examples."""
    passage_tokens: int = Field(180, ge=30, le=100_000)
    """Maximum length of a passage in tokens of the teacher's tokenizer; behind an endpoint, the number is estimated."""
    repeats: int = Field(1, ge=1, le=100)
    """Number of rows from each starting point. Examples are drawn anew for each repeat."""
    examples: int = Field(3, ge=1, le=20)
    """Maximum number of seed examples in a prompt, drawn from its leaf (local sampling: LAB paper, section 3)."""
    answers: bool = False
    """Take the sentence or passage itself as the answer, so that a small model need not rephrase it, only ask for it."""

    @model_validator(mode="after")
    def _can_answer(self) -> Self:
        if self.answers and self.each == "seed":
            raise ValueError("answers: a seed cannot be the answer; expected each: sentence or passage")
        return self


class Augmentation(Section):
    """Another form of a passage, such as a summary, which the teacher writes.

    The stages write rows from this form (`text` in prompts) as well as from the passage. The form also makes a document
    instruction: a row with the passage as context, one of `instructions` as question, and the form as answer.
    """

    name: str
    prompt: str
    max_tokens: int = Field(ge=1, le=32_768)
    instructions: tuple[str, ...] = Field(min_length=1)


class Stage(Section):
    """A request to the teacher for each row. The reply becomes the column `output`; with `pairs`, both question and answer."""

    output: Literal["context", "question", "answer", "pairs"]
    prompt: str
    max_tokens: int = Field(ge=1, le=32_768)
    """Maximum number of tokens of a reply. A leaf with longer seeds raises it, up to four times and to 1,024."""
    temperatures: tuple[float, ...] = (0.0,)
    """Temperatures at which the prompt is sampled, once for each entry. Each sample continues the row as a row of its own."""
    first_line: bool = False
    """Keep only the first line of a reply without labels, because small models tend to go on."""
    several: int = Field(1, ge=1, le=50)
    """Number of items that the prompt asks for in one reply, as `{{ several }}`. If there is more than one, or `output` is
    pairs, the reply must label its texts, such as `Question:`, and each item makes its own row."""

    @property
    def columns(self) -> tuple[Literal["context", "question", "answer"], ...]:
        return ("question", "answer") if self.output == "pairs" else (self.output,)

    @property
    def labelled(self) -> bool:
        return self.output == "pairs" or self.several > 1


class Judge(Section):
    """A question about a row that a judge model answers with one of `choices`.

    The score is the expected value of the choices if the model gives their probabilities, else the value of the one it names.
    """

    name: str
    prompt: str
    choices: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field({"Yes": 1.0, "No": 0.0})
    """Value of each verdict, from 0 (bad) to 1 (good). First letters must differ: probabilities are those of first tokens."""
    minimum: float = Field(0.5, ge=0, le=1)
    gates: bool = False
    """Reject rows that score below `minimum` or unreadably, provided that the judge separates its known rows. Otherwise the
    score is only advice: it is stored and shown, and rejects nothing."""
    before: Literal["question", "answer"] | None = None
    """Judge before the stage with this output; None: judge the whole row. Before a stage, a gating judge stops rows that score
    below `STOPS_BELOW`. Its `minimum` is applied only in curation, so that a changed `minimum` never costs a call."""
    document_instructions: bool = False
    """Judge document instructions (see `Augmentation`) as well; only judges of whole rows can."""

    @model_validator(mode="after")
    def _can_decide(self) -> Self:
        if len({choice[:1].casefold() for choice in self.choices}) < max(2, len(self.choices)):
            raise ValueError(f"choices: expected two or more with different first letters, found {list(self.choices)}")
        if self.before and self.minimum < STOPS_BELOW:
            raise ValueError(f"minimum: a judge before a stage stops rows below {STOPS_BELOW}; expected at least that")
        return self


RuleName = Literal[
    "no_reply",
    "incomplete",
    "length",
    "leaked_tag",
    "refusal",
    "points_at_source",
    "no_question",
    "unfinished",
    "no_end_mark",
    "repetitive",
    "other_language",
    "unsupported_number",
    "unsupported_answer",
    "asked_elsewhere",
    "off_topic",
    "duplicate",
]
"""The rules of `lab_pipeline.curation`; `docs/flows-and-curation.md` says what each finds."""


class Rule(Section):
    """A rule that each row must keep. It needs no model. The rules of a flow are applied in their order."""

    rule: RuleName
    question: tuple[int, int] | None = None
    answer: tuple[int, int] | None = None
    """For `length`: minimum and maximum number of words; without spaces, two characters count as a word. A leaf whose seeds
    are shorter or longer widens the ranges for that leaf."""
    minimum: float | None = Field(None, ge=0, le=1)
    """For the rules in `_WITH_MINIMUM`: the least share of words that pass."""
    advises: bool = False
    """Only note the rule's reason with the row, and keep the row."""

    @model_validator(mode="after")
    def _has_its_thresholds(self) -> Self:
        if (self.minimum is not None) != (self.rule in _WITH_MINIMUM):
            raise ValueError(f"minimum: {'expected' if self.rule in _WITH_MINIMUM else 'not expected'} for {self.rule}")
        if bool(self.question and self.answer) != (self.rule == "length") or bool(self.question) != bool(self.answer):
            raise ValueError("question, answer: both are expected for length, and for no other rule")
        if self.advises and self.rule in ("no_reply", "incomplete", "duplicate"):
            raise ValueError(f"advises: {self.rule} cannot be advice only")
        return self


_WITH_MINIMUM = ("unsupported_answer", "off_topic")


class FlowFile(Section):
    """The content of a `flow.yaml`."""

    version: int = Field(ge=1)
    kind: Literal["knowledge", "grounded_skill", "freeform_skill"]
    description: str
    start: Start
    augmentations: tuple[Augmentation, ...] = ()
    stages: tuple[Stage, ...] = Field(min_length=1)
    judges: tuple[Judge, ...] = ()
    rules: tuple[Rule, ...] = Field(min_length=1)

    @field_validator("rules", mode="before")
    @classmethod
    def _are_listed(cls, rules: object) -> object:
        if isinstance(rules, dict):
            raise ValueError("expected a list of rules in order, such as `- {rule: no_reply}`; see docs/flows-and-curation.md")
        return rules

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
        names = [rule.rule for rule in self.rules]
        if len(set(names)) < len(names) or names[:2] != ["no_reply", "incomplete"]:
            raise ValueError("rules: expected no_reply and incomplete first, and each rule once")
        return self


class KnownRows(Section):
    """The content of a `known_rows.yaml`: rows whose verdict is known, each with the variables that the judges' prompts use.

    A judge may gate only if its scores separate the good rows from its bad ones.
    """

    good: tuple[dict[str, str], ...] = Field(min_length=8)
    """Rows that every judge should find good."""
    bad: dict[str, Annotated[tuple[dict[str, str], ...], Field(min_length=8)]]
    """By the judge's name, rows that this judge should find bad."""


@dataclass(frozen=True)
class Flow:
    """A loaded flow: the content of its `flow.yaml`, its prompts by file name and, if a judge gates, the known rows.

    It has a digest each for generation, judging and curation. An edit of the flow repeats only the steps whose digest it
    changes and the steps after them.
    """

    name: str
    file: FlowFile
    prompts: dict[str, Prompt]
    known: KnownRows | None = None

    @property
    def kind(self) -> Kind:
        return self.file.kind

    @property
    def generation_digest(self) -> str:
        """Hash what decides which rows are generated: start, augmentations, stages, and the judges before stages, with their
        prompts. The judges' `minimum` is left out."""
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
        return digest([[rule.model_dump(mode="json") for rule in self.file.rules], gates])

    def separation_digest(self, judge: Judge) -> str:
        """Hash what decides whether a model, asked as this judge, separates the known rows: prompt, choices, and these rows."""
        return digest([self._prompt(judge), self.known_rows(judge)])

    def _prompt(self, judge: Judge) -> list[Any]:
        return [judge.model_dump(mode="json", exclude={"minimum", "gates"}), self.prompts[judge.prompt]]

    def _gating_rows(self, judge: Judge) -> Any:
        return self.known_rows(judge) if judge.gates else None

    def known_rows(self, judge: Judge) -> tuple[tuple[dict[str, str], ...], tuple[dict[str, str], ...]]:
        """Return the (good, bad) rows that a judge must separate in order to gate; both empty if no judge of the flow gates.

        The good rows are the same for every judge, the bad ones are the judge's own.
        """
        return (self.known.good, self.known.bad.get(judge.name, ())) if self.known else ((), ())

    def judges(self, early: bool) -> list[Judge]:
        """Return the judges that are asked before a stage if `early`, else the judges of whole rows."""
        return [judge for judge in self.file.judges if bool(judge.before) == early]

    def trusting(self, names: Collection[str]) -> Self:
        """Return a copy of the flow in which no judges but those with these names gate; the scores of all others are advice."""
        judges = tuple(judge.model_copy(update={"gates": judge.gates and judge.name in names}) for judge in self.file.judges)
        return replace(self, file=self.file.model_copy(update={"judges": judges}))

    def render(self, prompt: str, variables: Mapping[str, object]) -> tuple[Message, ...]:
        """Return the messages of the prompt in the file `prompt`, filled in with `variables`.

        Raises:
            FlowError: the prompt uses an undefined variable.
        """
        return render_prompt(f"flow {self.name}, {prompt}", self.prompts[prompt], variables)


def shipped_flows() -> list[str]:
    return sorted(path.parent.name for path in SHIPPED.glob("*/flow.yaml"))


def load_flow(name: str, kind: Kind | None = None) -> Flow:
    """Load a flow, and check all its files. `name` is the name of a shipped flow, or the path of a flow's folder.

    Raises:
        FlowError: there is no such flow; it serves another kind of leaf than `kind`; one of its files is missing or wrong; a
            prompt uses a variable that rows lack; or a gating judge has no bad known rows.
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
    """Yield the file name of each prompt of a flow, with the names of the variables that the prompt may use.

    For judges of whole rows these are the row's columns and the leaf's description, for other prompts the keys that
    `Draft.variables` in `instructions/generate.py` has by then. A file that several parts of the flow use comes once for each.
    """
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


_Model = TypeVar("_Model", bound=Section)


def _load(path: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate(load_yaml(path))
    except ValidationError as error:
        raise FlowError(f"{path}: {validation_problems(error)[0]}") from None
